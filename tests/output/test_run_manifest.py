"""A run's records become its manifest, key by key."""

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pytest

import sf_ray
from sf_ray.config.selection_options import SelectOptions
from sf_ray.corpus.formats import Format
from sf_ray.corpus.planning import Corpus, SkippedShard
from sf_ray.corpus.status import Status
from sf_ray.corpus.units import Shard
from sf_ray.output.export_formats import Export
from sf_ray.output.manifest import LastKept, Manifest
from sf_ray.output.run_manifest import RunRequest, RunResult, manifest_of
from sf_ray.output.shard_writer import WrittenShard
from sf_ray.scoring.score_set import ScoreSet, describe, score_set_of
from sf_ray.scoring.stages.tally import Scored
from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.cutoffs import Cutoff
from sf_ray.selection.diversity.partition import Diversified
from sf_ray.selection.exact.bands import Bands, LengthErrors
from sf_ray.selection.exact.rescoring import Rescoring
from sf_ray.selection.excluded import ExcludedFiles
from sf_ray.selection.near.near_copies import NearCopies, Sampled
from sf_ray.selection.near.overlaps import Overlap, Overlaps
from sf_ray.selection.ranking import GroupCutoff, Ranking
from sf_ray.selection.selective_ifd import SelectedTokens
from sf_ray.storage.listing import File
from sf_ray.storage.location import Location
from tests.support.manifests import OLD

SKIPPED = SkippedShard("c.parquet", "truncated")


@pytest.fixture
def corpus() -> Corpus:
    """Two shards of 10 and 20 rows, in units of 10; a third one cannot be used."""
    shards = (
        Shard(File("/a", "a.parquet", 100, "1"), (10,), 0),
        Shard(File("/b", "b.parquet", 200, "1"), (10, 10), 10),
    )
    return Corpus(Location("/in"), shards, (pa.schema([]),), (SKIPPED,))


@pytest.fixture
def score_set(tmp_path: Path) -> ScoreSet:
    """An identity as it is today, of units of 10 rows."""
    identity = json.loads((OLD / "out" / "manifest.json").read_bytes())["scores"]["identity"]
    del identity["scoring_version"]
    scores = score_set_of(Location(str(tmp_path)), identity | {"unit_rows": 10})
    describe(scores, "m")
    return scores


def request(**options: object) -> RunRequest:
    places = {"input": "/in", "scores": "/scores", "output": "/out"}
    return RunRequest("r", "sf-ray ...", SelectOptions(**places, **options), "e", "f")


def result(*groups: GroupCutoff, diversity: Diversified | None = None) -> RunResult:
    return RunResult(
        scored=Scored(units=2, tokens=900, tokens_saved=90),
        rescoring=None,
        ranking=Ranking({"ok": 27, "bad_row": 3}, (), groups),
        dropped_duplicates=None,
        excluded=(),
        excluded_rows=0,
        diversity=diversity,
        shards=[WrittenShard("b.parquet", 4, 44), WrittenShard("a.parquet", 2, 22)],
        export=None,
    )


KEPT_6 = GroupCutoff("", 30, 6, 20, 6, Cutoff(0.75, 12))


def test_the_tokens_that_count_are_written_where_s_ifd_ranks_rows(
    corpus: Corpus, score_set: ScoreSet
) -> None:
    ranking = Ranking({"ok": 27, "bad_row": 3}, (), (KEPT_6,), valueless=4)
    tokens = SelectedTokens(0.5, 900, 0.03125)
    outcome = RunResult(**vars(result(KEPT_6)) | {"ranking": ranking, "tokens": tokens})
    asked = request(keep_count=6, rank_by="s-ifd", token_share=0.5)
    manifest = manifest_of(asked, corpus, score_set, outcome, {})
    written = json.loads(manifest.to_json())["selection"]
    assert written["s_ifd"] == {
        "token_share": 0.5,
        "tokens": 900,
        "threshold_nats": 0.03125,
        "rows_without": 4,
    }
    assert written["cutoff"] == {"ifd": None, "value": 0.75, "shard": "b.parquet", "row": 2}
    assert (written["rank_by"], manifest.selection.ranked_by) == ("s-ifd", "S-IFD")
    plain = manifest_of(request(keep_count=6), corpus, score_set, result(KEPT_6), {})
    assert "s_ifd" not in json.loads(plain.to_json())["selection"]


def test_near_copies_and_overlaps_are_written_where_they_were_looked_for(
    corpus: Corpus, score_set: ScoreSet
) -> None:
    dropped, overlapping = Bitmap.empty(30), Bitmap.empty(30)
    dropped.add(np.array([3, 4, 29]))
    overlapping.add(np.array([12, 13]))
    near = NearCopies(dropped, compared=25, rounds=2, sampled=Sampled(9, 3, 2))
    shown = Overlap(12, "a b c", files=0, shard="e.jsonl", row=7)
    overlaps = Overlaps(overlapping, (shown,), (ExcludedFiles(corpus, cast(Format, None)),))
    outcome = RunResult(**vars(result(KEPT_6)) | {"near": near, "overlaps": overlaps})
    asked = {"keep_count": 6, "drop_near_duplicates": 0.9}
    manifest = manifest_of(request(**asked), corpus, score_set, outcome, {})
    written = json.loads(manifest.to_json())["selection"]
    assert written["near_duplicates"] == {
        "threshold": 0.9,
        "by": "embedding",
        "compared_rows": 25,
        "dropped_rows": 3,
        "encoder": "e",
        "encoder_fingerprint": "f",
        "sampled_rows": 9,
        "sampled_near_rows": 3,
        "sampled_found_rows": 2,
    }
    assert written["overlapping_rows"] == 2
    assert [files["rows"] for files in written["overlap_with"]] == [30]
    place = {"shard": "b.parquet", "row": 2, "uri": "/in", "in_shard": "e.jsonl", "in_row": 7}
    assert written["overlaps"] == [place | {"words": "a b c"}]
    assert Manifest.from_json(manifest.to_json(), "m") == manifest

    by_text = RunResult(**vars(result(KEPT_6)) | {"near": replace(near, sampled=None)})
    asked |= {"near_duplicates_by": "text"}
    manifest = manifest_of(request(**asked), corpus, score_set, by_text, {})
    written = json.loads(manifest.to_json())["selection"]
    assert set(written["near_duplicates"]) == {"threshold", "by", "compared_rows", "dropped_rows"}
    plain = manifest_of(request(keep_count=6), corpus, score_set, result(KEPT_6), {})
    keys = set(json.loads(plain.to_json())["selection"])
    assert not keys & {"near_duplicates", "overlap_with", "overlapping_rows", "overlaps"}


def test_what_was_scored_again_is_written_with_what_was_seen(
    corpus: Corpus, score_set: ScoreSet
) -> None:
    bands = Bands(
        (None, LengthErrors(32, 64, 0.004, 0.03), None, LengthErrors(None, 9, 0.001, 0.01))
    )
    mixed = ScoreSet(score_set.location, "mixed", {})
    again = Rescoring(mixed, bands, asked=256, sampled=73, rows=100, rounds=1)
    outcome = RunResult(**vars(result(KEPT_6)) | {"rescoring": again})
    manifest = manifest_of(request(keep_count=6), corpus, score_set, outcome, {})
    assert manifest.scores.scoring_id == score_set.scoring_id
    assert json.loads(manifest.to_json())["scores"]["exact"] == {
        "scoring_id": "mixed",
        "dtype": "float32",
        "sampled_rows": 73,
        "rescored_rows": 100,
        "rounds": 1,
        "safety_factor": 2.0,
        "errors": [
            {
                "most_answer_tokens": 32,
                "rows": 64,
                "median_error": 0.004,
                "largest_error": 0.03,
                "band": 0.06,
            },
            {
                "most_answer_tokens": None,
                "rows": 9,
                "median_error": 0.001,
                "largest_error": 0.01,
                "band": 0.02,
            },
        ],
    }


def test_every_key_is_written_in_the_order_of_version_0_1_0(
    corpus: Corpus, score_set: ScoreSet
) -> None:
    manifest = manifest_of(
        request(keep_count=6), corpus, score_set, result(KEPT_6), {"select": 0.12345}
    )
    written = json.loads(manifest.to_json())

    def shape(value: object) -> object:
        if isinstance(value, dict):
            return [(key, shape(inner)) for key, inner in value.items()]
        return None

    old = json.loads((OLD / "out" / "manifest.json").read_bytes())
    old["wall_s"], old["output"]["export"] = {"select": 1.0}, None
    assert shape(written) == shape(old)
    assert Manifest.from_json(manifest.to_json(), "") == manifest


def test_what_went_in_and_what_came_out_is_counted(corpus: Corpus, score_set: ScoreSet) -> None:
    manifest = manifest_of(
        request(keep_count=6), corpus, score_set, result(KEPT_6), {"select": 0.12345}
    )
    assert manifest.sf_ray_version == sf_ray.__version__
    assert manifest.wall_s == {"select": 0.123}
    assert (manifest.input.uri, manifest.input.fingerprint) == ("/in", corpus.fingerprint)
    assert (manifest.input.shards, manifest.input.rows, manifest.input.bytes) == (2, 30, 300)
    assert [vars(shard) for shard in manifest.input.skipped_shards] == [
        {"path": "c.parquet", "reason": "truncated"}
    ]
    assert manifest.scores.model_name == "m"
    assert dict(manifest.scores.identity.items()) == score_set.identity
    units, tokens = manifest.scores.units, manifest.scores.tokens
    assert (units.total, units.scored, units.reused) == (3, 2, 1)
    assert (tokens.scored, tokens.saved) == (900, 90)
    assert list(manifest.status_counts) == [status.value for status in Status]
    assert manifest.status_counts["bad_row"] == 3
    assert manifest.selection.keep_count == manifest.selection.wanted_rows == 6
    # Position 12 of the corpus is row 2 of the second shard.
    assert manifest.selection.cutoff == LastKept(ifd=0.75, shard="b.parquet", row=2)
    assert manifest.selection.diversity is manifest.output.export is None
    assert [shard.path for shard in manifest.output.shards] == ["a.parquet", "b.parquet"]


def test_each_group_of_a_quota_has_its_cut_off(corpus: Corpus, score_set: ScoreSet) -> None:
    groups = (
        GroupCutoff("code", 10, 2, 8, 2, Cutoff(0.9, 9)),
        GroupCutoff("chat", 5, 5, 0, 0, None),
        GroupCutoff("other", 15, 0, 9, 0, None),
    )
    quota = request(quota={"source": {"code": 0.2, "chat": 5}})
    manifest = manifest_of(quota, corpus, score_set, result(*groups), {})
    selection = manifest.selection
    assert selection.quota == {"source": {"code": 0.2, "chat": 5}}
    assert selection.cutoff is None
    assert selection.groups is not None
    assert [group.asked for group in selection.groups.values()] == [0.2, 5, None]
    assert selection.groups["code"].cutoff == LastKept(ifd=0.9, shard="a.parquet", row=9)
    assert selection.groups["chat"].cutoff is None
    assert (selection.wanted_rows, selection.eligible_rows, selection.kept_rows) == (7, 17, 2)


def test_diversity_is_counted_among_what_the_cut_off_keeps(
    corpus: Corpus, score_set: ScoreSet
) -> None:
    rows = Bitmap.empty(30)
    rows.add(np.array([1, 2, 12]))
    chosen = Diversified(3, rows, 4.5, False, 0.99)
    asked = request(keep_count=6, diversify_to=3)
    manifest = manifest_of(asked, corpus, score_set, result(KEPT_6, diversity=chosen), {})
    selection, diversity = manifest.selection, manifest.selection.diversity
    assert diversity is not None
    assert (selection.kept_rows, selection.rows_within_cutoff) == (3, 6)
    assert (diversity.diversify_to, diversity.encoder, diversity.wanted_rows) == (3, "e", 3)
    assert (diversity.objective, diversity.mean_similarity) == (4.5, 0.75)
    assert (diversity.is_exact, diversity.ratio_to_exact) == (False, 0.99)

    all_kept = manifest_of(asked, corpus, score_set, result(KEPT_6), {})
    assert json.loads(all_kept.to_json())["selection"]["diversity"] == {
        "diversify_to": 3,
        "encoder": "e",
        "encoder_fingerprint": "f",
        "of_rows": 6,
    }
    assert all_kept.selection.kept_rows == 6


def test_exported_files_are_listed(corpus: Corpus, score_set: ScoreSet) -> None:
    exported = Export("trl", (WrittenShard("trl/data/00000.jsonl", 5, 50),), 1)
    with_export = RunResult(**vars(result(KEPT_6)) | {"export": exported})
    output = manifest_of(request(keep_count=6), corpus, score_set, with_export, {}).output
    assert output.export is not None
    assert (output.export.name, output.export.left_out_rows) == ("trl", 1)
    assert [vars(file) for file in output.export.files] == [
        {"path": "trl/data/00000.jsonl", "rows": 5, "bytes": 50}
    ]
