import pytest

from sf_ray.errors import SfRayError
from sf_ray.runtime.metrics import METRICS
from sf_ray.scoring.stages.progress import ScoringProgress, increments
from sf_ray.scoring.stages.tally import RunCounts


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_progress_shows_rows_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    from sf_ray.scoring.stages import progress

    clock = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr(progress, "monotonic", lambda: next(clock))
    shown = ScoringProgress(rows=1000, units=4)
    assert shown._line(RunCounts())[0] == "scoring: waiting for the first batch"
    first = shown._line(RunCounts(sequences=200, tokens=1000))[0]
    assert first == "scoring: 100 of 1,000 rows, 0 of 4 units"
    later, fields = shown._line(RunCounts(sequences=400, tokens=6000, units=1))
    assert fields == {
        "stage": "score",
        "rows": 200,
        "units": 1,
        "tokens_per_s": 500,
        "seconds_left": 80,
    }
    assert later == "scoring: 200 of 1,000 rows, 1 of 4 units, 500 tokens/s, about 1 min 20 s left"
    # A unit that was scored twice does not show more than there is.
    assert "1,000 of 1,000 rows, 4 of 4 units" in shown._line(RunCounts(sequences=2500, units=5))[0]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_progress_without_a_terminal_is_plain_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import time

    import ray

    from sf_ray.scoring.stages import progress

    monkeypatch.setattr(progress, "_PLAIN_S", 0.05)
    monkeypatch.setattr(progress, "_LOOK_S", 0.05)
    with ScoringProgress(rows=10, units=1) as shown:
        ray.get(shown.tally.batch_scored.remote(4, 30))
        while not shown.counts.tokens:  # on a busy machine an answer takes its time
            time.sleep(0.05)
        time.sleep(0.5)
    # Ray passes on what other processes say, of earlier tests too: "(name pid=12) text".
    told = capsys.readouterr().err.splitlines()
    lines = [line for line in told if "pid=" not in line.partition(")")[0]]
    assert "scoring: 2 of 10 rows, 0 of 1 units" in lines
    assert all(line.startswith("scoring: ") for line in lines)
    assert shown.counts.tokens == 30


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_run_that_is_being_stopped_is_not_interrupted_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import time

    import ray

    from sf_ray.scoring.stages import progress

    def check(counts: RunCounts) -> None:
        raise SfRayError("too bad")

    interrupted: list[SfRayError] = []
    monkeypatch.setattr(progress, "_LOOK_S", 0.05)
    monkeypatch.setattr(progress, "interrupt", interrupted.append)
    with ScoringProgress(rows=10, units=1, check=check) as shown:
        ray.get(shown.tally.counts.remote())  # it has started
        time.sleep(1)
    assert [str(error) for error in interrupted] == ["too bad"]


def test_counters_grow_by_what_is_new() -> None:
    before = RunCounts(units=2, tokens=5, by_status={"ok": 9}, units_again=1)
    now = RunCounts(
        units=3,
        tokens=7,
        unit_tokens=40,
        tokens_saved=4,
        oom_splits=1,
        by_status={"ok": 11, "bad_row": 1},
        units_again=4,
    )
    grown = {(name, *tags.values()): value for name, tags, value in increments(before, now)}
    assert grown == {
        ("sf_ray_rows", "ok"): 2,
        ("sf_ray_rows", "bad_row"): 1,
        ("sf_ray_units",): 1,
        ("sf_ray_tokens_computed",): 2,
        ("sf_ray_tokens",): 40,
        ("sf_ray_tokens_saved",): 4,
        ("sf_ray_oom_splits",): 1,
        ("sf_ray_retries", "units"): 3,
    }
    assert {name for name, *_ in grown} <= METRICS.keys()
    assert not any(value for _, _, value in increments(now, now))
