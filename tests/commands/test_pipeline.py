"""When a command takes which lease and tries which right; the rest is in tests/end_to_end."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.support.corpora import make_rows, write_shards
from bench.support.proxy import Proxy
from sf_ray.commands.pipeline import _lease_to_score
from sf_ray.corpus.planning import Corpus, plan_corpus
from sf_ray.errors import LeaseError
from sf_ray.scoring.score_set import ScoreSet, score_set_of
from sf_ray.storage.files import put_bytes
from sf_ray.storage.lease.lease import lease
from sf_ray.storage.location import Location
from tests.support.cli import Cli
from tests.support.storage import S3


@pytest.mark.s3
@pytest.mark.parametrize("part", ["out/_lease/", "out/data/", "out/export/"])
def test_a_run_that_may_not_delete_is_refused_before_it_scores(
    part: str, tmp_path: Path, s3: S3, tiny_model: Path, sf_ray_cli: Cli,
    free_scorer: Callable[..., None], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    free_scorer()
    # The run ends before it needs a cluster.
    monkeypatch.setattr("sf_ray.commands.setup.start_ray", lambda _: None)
    monkeypatch.setattr("sf_ray.commands.setup.resolve_device", lambda device: device)
    write_shards(tmp_path / "corpus", make_rows(4))
    proxy = Proxy(str(s3.options["endpoint_url"]))
    proxy.denies = lambda method, path, *_: method == "DELETE" and part in path
    code, _, stderr = sf_ray_cli(
        "run", tmp_path / "corpus", f"{s3.bucket}/out", "--model", tiny_model, "--keep-count", "1",
        "--storage-options", json.dumps(s3.options | {"endpoint_url": proxy.endpoint}),
        "--storage-retry-s", "1", "--max-length", "128", "--device", "cpu", "--export", "trl",
    )  # fmt: skip
    proxy.close()
    assert code == 1
    assert f"s3:DeleteObject on {s3.bucket.removeprefix('s3://')}/{part}" in stderr.splitlines()[-1]
    assert "to score" not in stderr
    fs = Location(s3.bucket, s3.options).fs
    assert [path for path in fs.find(s3.bucket) if "/_lease/" not in path] == []


@pytest.fixture
def planned(corpus: Path) -> Corpus:
    return plan_corpus(Location(str(corpus)))


@pytest.fixture
def whole(planned: Corpus, tmp_path: Path) -> ScoreSet:
    """A set with a piece for every unit."""
    score_set = score_set_of(Location(str(tmp_path / "scores")), {"unit_rows": 50})
    for shard, units in score_set.units(planned):
        for unit in units:
            put_bytes(score_set.pieces.join(shard.piece(unit)), b"a piece")
    return score_set


def test_runs_that_only_select_share_whole_scores(planned: Corpus, whole: ScoreSet) -> None:
    with ExitStack() as runs:
        for _ in range(3):
            runs.enter_context(_lease_to_score(whole, planned))
        # One that scores may begin beside them, and they beside it.
        runs.enter_context(lease(whole.pieces))
        runs.enter_context(_lease_to_score(whole, planned))


@pytest.mark.parametrize("reason", ["a unit is missing", "exact", "no token losses"])
def test_whoever_has_something_to_score_is_alone(
    planned: Corpus, whole: ScoreSet, reason: str
) -> None:
    if reason == "a unit is missing":
        next(Path(whole.pieces.path).rglob("*.parquet")).unlink()
    rules = {"exact": reason == "exact", "token_losses": reason == "no token losses"}
    with (
        lease(whole.pieces),
        pytest.raises(LeaseError, match="another run writes there"),
        _lease_to_score(whole, planned, **rules),
    ):
        pass
    with _lease_to_score(whole, planned, **rules), pytest.raises(LeaseError):
        lease(whole.pieces).__enter__()
