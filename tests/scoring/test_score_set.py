import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from bench.support.corpora import make_rows, write_shards
from sf_ray.corpus.planning import plan_corpus
from sf_ray.errors import BadShardError, SfRayError
from sf_ray.scoring.score_set import (
    ScoreSet,
    count_units,
    describe,
    digest,
    find_score_set,
    format_of,
    model_name,
    or_mark,
    score_set_of,
)
from sf_ray.storage.files import put_bytes
from sf_ray.storage.location import Location
from tests.support.json_mutants import mutants_of


def identity(**changes: Any) -> dict[str, Any]:
    decided = {"model": "m", "alignment": "reference", "max_length": 128, "dtype": "float32"}
    return decided | {"unit_rows": 4} | changes


def somewhere() -> Location:
    return Location(f"memory://{uuid.uuid4().hex}/scores")


def described(place: Location, **changes: Any) -> ScoreSet:
    """A score set without pieces."""
    score_set = score_set_of(place, identity(**changes))
    describe(score_set, f"model {changes.get('model', 'm')}")
    return score_set


def test_an_identity_is_named_by_its_values_alone() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert score_set_of(somewhere(), identity()).identity["scoring_version"] == 2


def test_units_are_missing_until_they_have_a_piece_with_bytes(tmp_path: Path) -> None:
    corpus = plan_corpus(Location(str(write_shards(tmp_path / "corpus", make_rows(24)))))
    score_set = score_set_of(somewhere(), identity())
    units = score_set.units(corpus)
    assert count_units(units) == 6
    assert score_set.missing(units) == units
    first, second, third = corpus.shards
    for unit in units[0][1]:
        put_bytes(score_set.pieces.join(first.piece(unit)), b"a piece")
    put_bytes(score_set.pieces.join(second.piece(units[1][1][0])), b"")
    put_bytes(score_set.pieces.join(third.piece(units[2][1][0])), b"a piece")
    assert score_set.missing(units) == [units[1], (third, units[2][1][1:])]


def test_a_shard_that_turns_out_to_be_bad_is_marked_or_raised(tmp_path: Path) -> None:
    corpus = plan_corpus(Location(str(write_shards(tmp_path / "corpus", make_rows(24)))))
    bad = corpus.shards[1]
    score_set = score_set_of(somewhere(), identity())
    with (
        pytest.raises(BadShardError, match="cut off"),
        or_mark(score_set.pieces, False, corpus.shards),
    ):
        raise BadShardError(bad.file.relative, "cut off")
    assert score_set.bad_shards() == {}
    with or_mark(score_set.pieces, True, corpus.shards):
        raise BadShardError(bad.file.relative, "cut off")
    assert score_set.bad_shards() == {bad.shard_id: "cut off"}
    assert bad not in corpus.without(score_set.bad_shards()).shards


def test_other_errors_of_a_shard_are_not_marked() -> None:
    pieces = somewhere()
    with pytest.raises(SfRayError, match="storage"), or_mark(pieces, True, []):
        raise SfRayError("storage failed")


def test_the_first_run_of_a_set_names_its_model() -> None:
    score_set = described(somewhere())
    describe(score_set, "the same model by another name")
    assert model_name(score_set) == "model m"


def test_the_format_of_the_scored_rows_is_known() -> None:
    columns = {"prompt": "question", "completion": "answer"}
    decided = identity(format="prompt-completion", columns=columns)
    row_format = format_of(score_set_of(somewhere(), decided))
    assert row_format.name == "prompt-completion"
    assert dict(row_format.columns) == columns


def test_a_score_set_is_found_from_scores_and_from_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (Location(str(tmp_path / "scores")), Location(f"memory://{tmp_path.name}/scores")):
        one = described(place, model="a")
        assert find_score_set(place, None) == one
        two = described(place, model="b")
        with pytest.raises(SfRayError, match="several score sets; choose one with --scoring-id-a"):
            find_score_set(place, None, "--scoring-id-a")
        assert find_score_set(place, two.scoring_id) == two
        # What a probe leaves stands in nobody's way.
        three = described(place.join("c"), model="a")
        sample = described(place.join("c"), model="b", sample={"rows": 4})
        assert find_score_set(three.location, None) == three
        assert find_score_set(three.location, sample.scoring_id) == sample
        assert find_score_set(sample.pieces, None).scoring_id == sample.scoring_id
        assert find_score_set(two.pieces, None).pieces == two.pieces
        assert find_score_set(two.pieces, None).location == two.location
    monkeypatch.chdir(tmp_path / "scores" / one.scoring_id)
    assert find_score_set(Location("."), None).pieces.path == str(Path.cwd())
    with pytest.raises(SfRayError, match=f"has no scores {one.scoring_id[:4]!r}"):
        find_score_set(two.pieces, one.scoring_id[:4])


def test_sets_to_choose_from_are_told_apart() -> None:
    place = somewhere()
    one = described(place, model="a", max_length=64)
    two = described(place, model="b", sample={"rows": 4000})
    with pytest.raises(SfRayError) as error:
        find_score_set(place, "nonesuch")
    lines = str(error.value).splitlines()
    assert sorted(lines[1:]) == sorted(
        [
            f"  {one.scoring_id}  model a, float32, reference, max_length 64",
            f"  {two.scoring_id}  model b, float32, reference, max_length 128, 4,000 rows",
        ]
    )
    with pytest.raises(SfRayError, match="no scores there; make some with `sf-ray score`"):
        find_score_set(somewhere(), None)


def test_a_score_set_in_a_folder_of_another_name_is_told() -> None:
    place = somewhere()
    described = {"scoring_id": "abc", "identity": identity(), "model_name": "m"}
    put_bytes(place.join("mine/identity.json"), json.dumps(described).encode())
    with pytest.raises(SfRayError, match="rename the folder to abc"):
        find_score_set(place.join("mine"), None)


WHOLE = {
    "scoring_id": "0123456789ab",
    "identity": {
        "scoring_version": 2,
        "model": "m",
        "format": "alpaca",
        "columns": {"instruction": "instruction", "output": "output"},
        "alignment": "reference",
        "max_length": 128,
        "dtype": "float32",
        "unit_rows": 4,
        "exact": {"of": "ba9876543210", "dtype": "float32", "rows": 3, "digest": "d"},
    },
    "model_name": "m",
}


def test_a_description_of_a_set_is_understood_or_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "0123456789ab" / "identity.json"
    file.parent.mkdir()
    understood, refused = 0, []
    for data in mutants_of(WHOLE, 4, 400):
        file.write_bytes(data)
        try:
            found = find_score_set(Location(str(tmp_path)), None)
            assert "/.." not in found.marks.path, "marks lead out of SCORES"
            understood += bool(model_name(found))
            format_of(found)
        except SfRayError as error:
            refused.append(str(error))
    assert understood > 20
    assert not {"\x1b", "\u202e"} & {*"".join(refused)}


def test_the_description_of_a_set_among_others_is_told_apart(tmp_path: Path) -> None:
    for scoring_id, data in (("a", b"{"), ("b", json.dumps(WHOLE).encode())):
        (tmp_path / scoring_id).mkdir()
        (tmp_path / scoring_id / "identity.json").write_bytes(data)
    with pytest.raises(SfRayError, match="a/identity.json: no JSON of ours .*; the scores beside"):
        find_score_set(Location(str(tmp_path)), None)


def test_a_mark_of_a_bad_shard_is_understood_or_refused_by_name(tmp_path: Path) -> None:
    score_set = score_set_of(Location(str(tmp_path)), identity())
    mark = Path(score_set.marks.path) / "_bad" / "a.jsonl.0123.json"
    mark.parent.mkdir(parents=True)
    (mark.parent / "x.json").write_bytes(b"of no shard")
    refused = []
    for data in mutants_of({"reason": "cut off"}, 5, 100):
        mark.write_bytes(data)
        try:
            assert {*score_set.bad_shards()} == {"0123"}
        except SfRayError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert all("a.jsonl.0123.json: " in error for error in refused)
    assert all("remove it: the next run tries the shard again" in error for error in refused)
