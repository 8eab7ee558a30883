"""When a command takes which lease; what it does then is in tests/end_to_end."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from sf_ray.commands.pipeline import _lease_to_score
from sf_ray.corpus.planning import Corpus, plan_corpus
from sf_ray.errors import LeaseError
from sf_ray.scoring.score_set import ScoreSet, score_set_of
from sf_ray.storage.files import put_bytes
from sf_ray.storage.lease import lease
from sf_ray.storage.location import Location


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


@pytest.mark.parametrize("reason", ["a unit is missing", "exact"])
def test_whoever_has_something_to_score_is_alone(
    planned: Corpus, whole: ScoreSet, reason: str
) -> None:
    if reason == "a unit is missing":
        next(Path(whole.pieces.path).rglob("*.parquet")).unlink()
    exact = reason == "exact"
    with (
        lease(whole.pieces),
        pytest.raises(LeaseError, match="another run writes there"),
        _lease_to_score(whole, planned, exact),
    ):
        pass
    with _lease_to_score(whole, planned, exact), pytest.raises(LeaseError):
        lease(whole.pieces).__enter__()
