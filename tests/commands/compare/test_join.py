import itertools
import json
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from sf_ray.commands.compare.consistency import sampled
from sf_ray.commands.compare.join import Comparison, compare_sets
from sf_ray.config.quotas import rows_to_keep
from sf_ray.corpus.plan_cache import keep_footers
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.units import Shard, Unit, shard_id, units_of
from sf_ray.errors import SfRayError
from sf_ray.scoring.score_set import ScoreSet, describe, find_score_set, mark_bad, score_set_of
from sf_ray.scoring.score_table import SCORE_ENCODING
from sf_ray.storage.files import File, put_bytes, put_table
from sf_ray.storage.location import Location
from tests.support.cli import Cli

# (status, direct perplexity, conditioned perplexity) of a row.
Row = tuple[str, float, float]
Rows = Mapping[str, Sequence[Row]]

OTHERS = ("empty_answer", "bad_row")
values = st.sampled_from([0.5, 1.0, 2.0, 3.0, 3.5, 4.0, 7.0])
a_row = st.tuples(st.sampled_from(["ok", "ok", "ok", *OTHERS]), values, values)
NAMES = ("a/b.parquet", "a.parquet", "a-b.parquet", "c.jsonl")


def identity(**changes: Any) -> dict[str, Any]:
    told = {"model": "m", "alignment": "reference", "max_length": 128, "dtype": "float32"}
    return told | {"unit_rows": 4} | changes


def shard_of(name: str, rows: int, version: str = "1") -> Shard:
    return Shard(File(f"/{name}", name, rows, version), (rows,), 0)


def table_of(rows: Sequence[Row], unit: Unit, shard: str = "") -> pa.Table:
    of_unit = rows[unit.start : unit.stop]
    ok = [status == "ok" for status, _, _ in of_unit]
    columns = {
        "ppl_direct": [direct for _, direct, _ in of_unit],
        "ppl_conditioned": [conditioned for _, _, conditioned in of_unit],
        "ifd": [conditioned / direct for _, direct, conditioned in of_unit],
    }
    return pa.table(
        {
            "shard": [shard] * len(of_unit),
            "row": np.arange(unit.start, unit.stop),
            "status": [status for status, _, _ in of_unit],
        }
        | {
            name: pa.array([v if is_ok else None for v, is_ok in zip(column, ok, strict=True)],
                           pa.float64())
            for name, column in columns.items()
        }
    )  # fmt: skip


ENCODING = {"compression": SCORE_ENCODING["compression"]}


def write_set(
    place: Location, rows: Rows, units: Mapping[str, Sequence[Unit]], **changes: Any
) -> ScoreSet:
    score_set = score_set_of(place, identity(**changes))
    describe(score_set, f"model {changes.get('model', 'm')}")
    for name, of_shard in units.items():
        shard = shard_of(name, len(rows[name]))
        for unit in of_shard:
            where = score_set.pieces.join(shard.piece(unit))
            put_table(where, table_of(rows[name], unit), ENCODING)
    return score_set


def whole(rows: Rows) -> dict[str, list[Unit]]:
    return {name: units_of((len(of_it),), 4) for name, of_it in rows.items()}


def somewhere() -> Location:
    return Location(f"memory://{uuid.uuid4().hex}")


def random_rows(count: int, seed: int) -> list[Row]:
    rng = np.random.default_rng(seed)
    return [("ok", *rng.uniform(1, 5, 2).tolist()) for _ in range(count)]


@st.composite
def cuts(draw: st.DrawFn, rows: int) -> list[Unit]:
    """Units of a shard, cut anywhere, of which some have no scores."""
    inner = draw(st.sets(st.integers(1, rows - 1))) if rows > 1 else set()
    edges = [0, *sorted(inner), rows]
    units = [Unit(start, stop) for start, stop in itertools.pairwise(edges)]
    return [unit for unit in units if draw(st.integers(0, 4))]


@settings(max_examples=60)
@given(st.data(), st.sampled_from([0.1, 0.5]), st.sampled_from([1.0, 0.7]))
def test_a_comparison_is_that_of_joining_by_hand(
    data: st.DataObject, fraction: float, max_ifd: float
) -> None:
    sides = []
    names = data.draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    counts = {name: data.draw(st.integers(1, 12)) for name in names}
    place = somewhere()
    for model in "ab":
        rows = {
            name: data.draw(st.lists(a_row, min_size=count, max_size=count))
            for name, count in counts.items()
        }
        units = {name: data.draw(cuts(count)) for name, count in counts.items()}
        score_set = write_set(place, rows, units, model=model)
        sides.append((score_set, {
            (name, row): rows[name][row]
            for name, of_shard in units.items()
            for unit in of_shard
            for row in range(unit.start, unit.stop)
        }))  # fmt: skip
    (set_a, rows_a), (set_b, rows_b) = sides
    common = sorted(rows_a.keys() & rows_b.keys())
    if not common:
        with pytest.raises(SfRayError, match=r"no common rows|no score pieces"):
            compare_sets(set_a, set_b, [fraction], max_ifd)
        return
    found = compare_sets(set_a, set_b, [fraction], max_ifd)

    assert found.rows == found.ranked == len(common)
    assert (found.a.rows, found.b.rows) == (len(rows_a), len(rows_b))
    differing = Counter(
        (rows_a[p][0], rows_b[p][0]) for p in common if rows_a[p][0] != rows_b[p][0]
    )
    assert found.statuses == differing
    ok = [p for p in common if rows_a[p][0] == rows_b[p][0] == "ok"]
    assert found.consistency.rows == found.agreement.rows == len(ok)
    for column in ("ppl_direct", "ppl_conditioned", "ifd"):
        a, b = ([_value(of[p], column) for p in ok] for of in (rows_a, rows_b))
        rho = getattr(found.consistency, column)
        if len(set(a)) < 2 or len(set(b)) < 2:
            assert np.isnan(rho)
        else:
            assert rho == pytest.approx(spearmanr(a, b).statistic, abs=1e-9)
    (overlap,) = found.consistency.overlaps
    assert overlap.wanted == rows_to_keep(len(common), fraction)
    kept = [_best(of, common, overlap.wanted, max_ifd) for of in (rows_a, rows_b)]
    assert (overlap.kept_a, overlap.kept_b) == (len(kept[0]), len(kept[1]))
    assert overlap.both == len(kept[0] & kept[1])
    assert found.agreement.only_a == sum(
        _value(rows_a[p], "ifd") >= 1 > _value(rows_b[p], "ifd") for p in ok
    )


def _value(row: Row, column: str) -> float:
    _, direct, conditioned = row
    every = {"ppl_direct": direct, "ppl_conditioned": conditioned, "ifd": conditioned / direct}
    return every[column]


def _best(
    rows: Mapping[tuple[str, int], Row],
    common: Sequence[tuple[str, int]],
    wanted: int,
    max_ifd: float,
) -> set[tuple[str, int]]:
    good = [p for p in common if rows[p][0] == "ok" and _value(rows[p], "ifd") < max_ifd]
    return set(sorted(good, key=lambda p: (-_value(rows[p], "ifd"), p))[:wanted])


def two_sets(count: int = 40, **changes: Any) -> tuple[ScoreSet, ScoreSet]:
    rows = [{"x.parquet": random_rows(count, seed)} for seed in (1, 2)]
    a, b = somewhere(), somewhere()
    return (
        write_set(a, rows[0], whole(rows[0]), model="a"),
        write_set(b, rows[1], whole(rows[1]), model="b", **changes),
    )


def test_of_more_rows_than_are_ranked_a_sample_is_and_counts_stay_whole() -> None:
    a, b = two_sets(400)
    full = compare_sets(a, b, [0.1], 1.0)
    found = compare_sets(a, b, [0.1], 1.0, most_rows=100)
    chosen = sampled("x.parquet", np.arange(400), 0.25)
    assert found.is_sample
    assert not full.is_sample
    assert found.ranked == chosen.sum() == len(found.ifd_a)
    assert np.array_equal(found.ifd_a, full.ifd_a[chosen])
    assert found.agreement == full.agreement
    assert found.rows == 400


def compared(a: ScoreSet, b: ScoreSet, **more: Any) -> Comparison:
    return compare_sets(a, b, [0.1], 1.0, **more)


def keep_footers_of(score_set: ScoreSet, *shards: Shard) -> None:
    corpus = Corpus(somewhere(), shards, pa.schema([]))
    keep_footers(score_set.location, corpus, {})


def test_a_side_that_is_not_complete_is_refused_and_compared_when_asked() -> None:
    a, b = two_sets()
    keep_footers_of(b, shard_of("x.parquet", 40), shard_of("y.parquet", 9))
    with pytest.raises(
        SfRayError, match="SCORES_B .*model b.*without scores: 3;.*sf-ray score.*--partial"
    ):
        compared(a, b)
    found = compared(a, b, is_partial=True)
    assert found.rows == 40
    assert "units of B without scores, which are left out: 3" in found.notes
    assert "nothing beside the scores of A tells whether they are complete" in found.notes


def test_a_shard_that_was_skipped_is_not_missed() -> None:
    a, b = two_sets()
    bad = shard_of("y.parquet", 9)
    keep_footers_of(b, shard_of("x.parquet", 40), bad)
    mark_bad(b.pieces, bad.stem, "cut off")
    assert compared(a, b).b.missing == 0


def test_of_a_shard_in_two_versions_the_last_one_counts() -> None:
    a, b = two_sets()
    rows = random_rows(12, 3)
    new = shard_of("x.parquet", 12, "2")
    for score_set in (a, b):
        for unit in units_of((12,), 4):
            put_table(score_set.pieces.join(new.piece(unit)), table_of(rows, unit), ENCODING)
        keep_footers_of(score_set, new)
    found = compared(a, b)
    assert (found.a.rows, found.b.rows, found.rows) == (12, 12, 12)
    assert found.consistency.ifd == 1


def test_scores_of_different_corpora_are_told() -> None:
    a, _ = two_sets()
    rows = {"y.parquet": random_rows(8, 0)}
    b = write_set(somewhere(), rows, whole(rows))
    with pytest.raises(SfRayError, match=r"different corpora.*x\.parquet and y\.parquet"):
        compared(a, b)
    other = shard_of("x.parquet", 41)
    assert other.shard_id != shard_id(shard_of("x.parquet", 40).file)
    put_table(
        b.pieces.join(other.piece(Unit(0, 4))), table_of(random_rows(4, 0), Unit(0, 4)), ENCODING
    )
    with pytest.raises(SfRayError, match=r"x\.parquet was scored in other versions"):
        compared(a, b)


def test_what_decided_the_scores_differently_is_told() -> None:
    a, b = two_sets(alignment="aligned", max_length=64)
    notes = compared(a, b).notes
    assert "alignment differs: reference and aligned" in notes
    assert "max_length differs: 128 and 64" in notes
    assert not [note for note in notes if note.startswith("model")]
    assert "both sides are the same scores" in compared(a, a).notes


def test_broken_pieces_are_named() -> None:
    a, b = two_sets()
    shard = shard_of("x.parquet", 40)
    extra = b.pieces.join(shard.piece(Unit(2, 6)))
    put_table(extra, table_of(random_rows(40, 0), Unit(2, 6)), ENCODING)
    with pytest.raises(SfRayError, match="hold the same rows; delete both"):
        compared(a, b)
    extra.call("rm_file", extra.path)
    piece = b.pieces.join(shard.piece(Unit(4, 8)))
    put_table(piece, table_of(random_rows(40, 0), Unit(0, 4)), ENCODING)
    with pytest.raises(SfRayError, match="does not hold the rows that its name says"):
        compared(a, b)
    put_bytes(piece, b"PAR1 no more")
    with pytest.raises(SfRayError, match="cannot be read"):
        compared(a, b)


def test_a_score_set_is_found_from_scores_and_from_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"x.parquet": random_rows(4, 0)}
    for place in (Location(str(tmp_path / "scores")), Location(f"memory://{tmp_path.name}/scores")):
        one = write_set(place, rows, whole(rows), model="a")
        assert find_score_set(place, None) == one
        two = write_set(place, rows, whole(rows), model="b")
        with pytest.raises(SfRayError, match="several score sets; choose one with --scoring-id-a"):
            find_score_set(place, None, "--scoring-id-a")
        assert find_score_set(place, two.scoring_id) == two
        # What a probe leaves stands in nobody's way.
        three = write_set(place.join("c"), rows, whole(rows), model="a")
        sample = write_set(place.join("c"), rows, whole(rows), model="b", sample={"rows": 4})
        assert find_score_set(three.location, None) == three
        assert find_score_set(three.location, sample.scoring_id) == sample
        assert find_score_set(sample.pieces, None).scoring_id == sample.scoring_id
        assert find_score_set(two.pieces, None).pieces == two.pieces
        assert find_score_set(two.pieces, None).location == two.location
    monkeypatch.chdir(tmp_path / "scores" / one.scoring_id)
    assert find_score_set(Location("."), None).pieces.path == str(Path.cwd())
    with pytest.raises(SfRayError, match=f"has no scores {one.scoring_id[:4]!r}"):
        find_score_set(two.pieces, one.scoring_id[:4])


def test_a_score_set_in_a_folder_of_another_name_is_told() -> None:
    place = somewhere()
    told = {"scoring_id": "abc", "identity": identity(), "model_name": "m"}
    put_bytes(place.join("mine/identity.json"), json.dumps(told).encode())
    with pytest.raises(SfRayError, match="rename the folder to abc"):
        find_score_set(place.join("mine"), None)


def test_the_command_prints_the_table(tmp_path: Path, sf_ray_cli: Cli) -> None:
    rows_a = {"x.parquet": random_rows(200, 1)}
    # Of B the first row has no score, and all the others have what A says.
    rows_b = {"x.parquet": [("bad_row", 1.0, 1.0), *rows_a["x.parquet"][1:]]}
    for model, rows in (("a", rows_a), ("b", rows_b)):
        score_set = write_set(Location(str(tmp_path / model)), rows, whole(rows), model=model)
        keep_footers_of(score_set, shard_of("x.parquet", 200))
    code, out, err = sf_ray_cli(
        "compare", tmp_path / "a", tmp_path / "b", "--at", "0.1,0.125,0.1", "--max-ifd", "0.8"
    )
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "model model a model b" in lines
    assert "rows with scores 200 200" in lines
    assert "ok on both 199 99.5%" in lines
    assert "A ok, B bad_row 1 0.5%" in lines
    assert "Spearman's rank correlation, 199 rows that are ok on both sides" in lines
    assert "IFD 1.000" in lines
    assert "The best rows with IFD below 0.8" in lines
    assert [line for line in lines if line.startswith(("10% 20 20 20", "12.5% 25 25 25"))]
    assert sum(line.startswith("10%") for line in lines) == 1
    assert "both say the same 1.000" in lines


def test_the_page_holds_all_that_it_needs_and_runs_nothing(tmp_path: Path, sf_ray_cli: Cli) -> None:
    rows = {"x.parquet": [*random_rows(30, 1), ("ok", 1.0, 3.0)]}
    where = Location(str(tmp_path / "scores"))
    name = "</title><script>alert(1)</script>"
    sets = [write_set(where, rows, whole(rows), model=model) for model in (name, "b")]
    page = tmp_path / "page.html"
    code, out, err = sf_ray_cli(
        "compare", where.uri, where.uri, "--page", page,
        "--scoring-id-a", sets[0].scoring_id, "--scoring-id-b", sets[1].scoring_id,
    )  # fmt: skip
    assert code == 0, err
    assert f"page {page}" in " ".join(out.split())
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "default-src 'none'" in text
    assert "<svg" in text
    assert "var(--ink)" in text
    assert not [link for link in ("src=", "url(http", "<link", "@import") if link in text]
    assert "rows that are ok on both sides" in text
    above = sum(conditioned / direct > 2 for _, direct, conditioned in rows["x.parquet"])
    assert f"Rows with an IFD above 2 stand at the edge: {above}." in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "SCORES_A is missing"),
        (("{empty}", "{scores}"), "empty: no scores there; make some with `sf-ray score`"),
        (("{scores}", "{scores}"), "several score sets; choose one with --scoring-id-a"),
        (("{one}", "{scores}"), "several score sets; choose one with --scoring-id-b"),
        (("{one}", "{one}", "--at", "2"), "--at: input should be less than or equal to 1"),
    ],
)
def test_what_cannot_be_compared_is_told(
    arguments: tuple[str, ...], words: str, tmp_path: Path, sf_ray_cli: Cli
) -> None:
    rows = {"x.parquet": random_rows(4, 0)}
    where = Location(str(tmp_path / "scores"))
    one, _ = (write_set(where, rows, whole(rows), model=model) for model in "ab")
    places = {"empty": tmp_path / "empty", "scores": where.uri, "one": one.pieces.uri}
    code, _, err = sf_ray_cli("compare", *(each.format(**places) for each in arguments))
    assert code in (1, 2)
    assert words in err
    assert "Traceback" not in err


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_what_two_runs_leave_is_compared_and_a_lost_piece_is_missed(
    corpus: Path,
    tiny_model: Path,
    tmp_path: Path,
    sf_ray_cli: Cli,
    free_scorer: Callable[..., None],
) -> None:
    free_scorer()
    for name, unit_rows in (("a", "16"), ("b", "100")):
        code, _, err = sf_ray_cli(
            "score", corpus, tmp_path / name, "--model", tiny_model,
            "--max-length", "128", "--unit-rows", unit_rows,
        )  # fmt: skip
        assert code == 0, err
    code, out, err = sf_ray_cli("compare", tmp_path / "a", tmp_path / "b")
    assert (code, err) == (0, "note: unit_rows differs: 16 and 100\n")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "rows with scores 120 120" in lines
    assert "10% 12 12 12 12 1.000" in lines
    next((tmp_path / "b").rglob("00001.*.parquet")).unlink()
    code, out, err = sf_ray_cli("compare", tmp_path / "a", tmp_path / "b")
    assert (code, out) == (1, "")
    assert "units of its corpus without scores: 1" in err
    assert sf_ray_cli("compare", tmp_path / "a", tmp_path / "b", "--partial")[0] == 0
