import pyarrow as pa

from sf_ray.engine.pending import Usage
from sf_ray.scoring.bad_rows import BadRow
from sf_ray.scoring.stages.failures import UnitState
from sf_ray.scoring.stages.tally import RunCounts, Tally, UnitCounts

UNIT = UnitCounts(3, 1, 50, 10, {"ok": 2, "bad_row": 1}, (BadRow("s", 7, "bad_row"),))


def test_the_tally_adds_up() -> None:
    tally = Tally()
    tally.batch_scored(4, 100)
    tally.batch_scored(2, 50)
    for piece in ("a", "b", "c", "d"):
        tally.units_scored({piece: UNIT})
    counts = tally.counts()
    assert counts == RunCounts(
        sequences=6,
        tokens=150,
        units=4,
        rows=12,
        oom_splits=4,
        unit_tokens=200,
        tokens_saved=40,
        by_status={"ok": 8, "bad_row": 4},
        signs_of_life=6,
        bad={"bad_row": 4},
        examples=(BadRow("s", 7, "bad_row"),) * 3,
    )


def test_a_unit_that_is_scored_twice_has_its_bad_rows_once() -> None:
    tally = Tally()
    for _ in range(2):
        tally.units_scored({"a": UNIT})
    assert tally.counts().bad == {"bad_row": 1}
    assert tally.counts().by_status == {"ok": 4, "bad_row": 2}  # as the work that it was


def test_bad_rows_are_counted_by_status_with_examples() -> None:
    status = ["ok", "bad_row", "answer_too_short", "empty_answer", "bad_row", "bad_row"]
    table = pa.table({"shard": ["s"] * 6, "row": range(10, 16), "status": status})
    counts = UnitCounts.of(table, Usage(oom_splits=2))
    assert (counts.rows, counts.oom_splits) == (6, 2)
    assert counts.by_status == {
        "ok": 1,
        "bad_row": 3,
        "answer_too_short": 1,
        "empty_answer": 1,
    }
    assert counts.bad == {"bad_row": 3, "empty_answer": 1}
    assert counts.examples == (
        ("s", 11, "bad_row"),
        ("s", 13, "empty_answer"),
        ("s", 14, "bad_row"),
    )


def test_the_unit_that_processes_die_of_becomes_suspect() -> None:
    tally = Tally()
    assert tally.bundle_started(["a", "b", "c"]) == [UnitState.NEW] * 3
    tally.units_scored({"a": UNIT})
    for _ in range(2):  # dies in b
        assert tally.bundle_started(["a", "b", "c"]) == [
            UnitState.NEW,
            UnitState.RETRIED,
            UnitState.RETRIED,
        ]
        tally.units_scored({"a": UNIT})
    assert tally.bundle_started(["b", "c"]) == [UnitState.SUSPECT, UnitState.RETRIED]
    assert tally.next_range("b", 2) == (0, 2)
    assert tally.bundle_started(["b", "c"]) == [UnitState.SUSPECT, UnitState.RETRIED]
    ranges = []
    while bounds := tally.next_range("b", 2):
        ranges.append(bounds)
        if bounds == (1, 2):
            tally.range_passed("b")
    assert ranges == [(0, 1), (0, 1), (1, 2)]
    assert tally.bad_rows("b") == [0]
    # It dies even so: no rows are to blame.
    assert tally.bundle_started(["b", "c"]) == [UnitState.HOPELESS, UnitState.RETRIED]
    tally.units_scored({"b": UNIT})
    assert tally.bundle_started(["b"]) == [UnitState.NEW]


def test_units_that_are_handed_out_again_are_counted() -> None:
    tally = Tally()
    tally.bundle_started(["a", "b"])
    assert tally.counts().units_again == 0
    tally.units_scored({"a": UNIT})
    tally.bundle_started(["a", "b"])
    tally.bundle_started(["c"])
    assert tally.counts().units_again == 1


def test_a_unit_whose_engine_says_that_it_fails_is_suspect_at_once() -> None:
    tally = Tally()
    tally.bundle_started(["a"])
    tally.unit_failed("a")
    assert tally.bundle_started(["a"]) == [UnitState.SUSPECT]


def test_starts_of_an_actor_count_until_it_is_ready() -> None:
    tally = Tally()
    assert [tally.actor_starting("x") for _ in range(3)] == [1, 2, 3]
    assert tally.actor_starting("y") == 1
    tally.actor_ready("x")
    assert tally.actor_starting("x") == 1
