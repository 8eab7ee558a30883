"""What a study says, on losses whose truth is known."""

import numpy as np
import pytest

from bench.study_rates import losses, run
from sf_ray.commands.study import contrasts
from sf_ray.commands.study.contrasts import ALPHA, _holm, contrasts_of

_STUDIES = 120


@pytest.fixture(autouse=True)
def _few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrasts, "_SAMPLES", 200)


@pytest.mark.parametrize("draws", [(3, 3), (3, 6), (2, 2)])
def test_a_planted_effect_is_seen_at_the_stated_rate_and_none_is_seen_where_there_is_none(
    draws: tuple[int, int],
) -> None:
    without = run(_STUDIES, draws, 0.01, 100, 0.0)
    told = sum(contrast.verdict != "cannot tell" for contrast in without)
    # At the stated rate: of 120 studies 6 may err, and in 1 of 1,000 tries 14 or more would.
    assert ALPHA == 0.05
    assert told < 14
    planted = float(np.median([contrast.detectable for contrast in without]))
    found = [contrast.verdict for contrast in run(_STUDIES, draws, 0.01, 100, planted)]
    assert found.count("better") >= 0.7 * _STUDIES
    assert found.count("worse") == 0
    few = [contrast.verdict for contrast in run(_STUDIES, draws, 0.01, 100, planted / 5)]
    assert few.count("better") < 0.5 * _STUDIES


def test_the_error_is_that_of_the_difference() -> None:
    found = run(_STUDIES, (3, 6), 0.01, 100, 0.0)
    stated = np.sqrt(np.mean([contrast.error**2 for contrast in found]))
    assert stated == pytest.approx(np.std([contrast.difference for contrast in found]), rel=0.25)


def test_one_model_of_an_arm_gives_a_difference_and_no_verdict() -> None:
    rng = np.random.default_rng(0)
    arms = losses(rng, (1, 3), 0.01, 100, 1.0) | {"c": losses(rng, (3, 3), 0.01, 100, 0.0)["b"]}
    single, several = contrasts_of(arms, [("a", "b"), ("b", "c")])
    assert single.verdict == "no verdict"
    assert single.difference < -0.8
    assert np.isnan([single.error, single.p, single.detectable]).all()
    assert several.verdict in ("better", "worse", "cannot tell")


def test_p_values_are_corrected_as_holm_does_and_what_was_not_tested_does_not_count() -> None:
    corrected = _holm(np.array([0.01, 0.04, np.nan, 0.03, 0.9]))
    np.testing.assert_allclose(corrected, [0.04, 0.09, np.nan, 0.09, 0.9])


def test_equal_arms_do_not_differ() -> None:
    arm = np.random.default_rng(2).normal(2, 1, (3, 50))
    (contrast,) = contrasts_of({"a": arm, "b": arm}, [("a", "b")])
    assert contrast.difference == 0
    assert contrast.verdict == "cannot tell"
