import numpy as np

from sf_ray.ifd import Status, scores_of


def test_ifd_is_the_ratio_of_perplexities() -> None:
    scores = scores_of([Status.OK], np.array([2.0]), np.array([1.5]))
    assert scores.ppl_direct[0] == np.exp(2.0)
    assert scores.ppl_conditioned[0] == np.exp(1.5)
    assert np.isclose(scores.ifd[0], scores.ppl_conditioned[0] / scores.ppl_direct[0])


def test_only_ok_rows_have_an_ifd_but_known_losses_stay() -> None:
    scores = scores_of([Status.ANSWER_TOO_SHORT], np.array([np.nan]), np.array([1.5]))
    assert scores.loss_conditioned[0] == 1.5
    assert np.isnan([scores.ifd[0], scores.ppl_conditioned[0], scores.loss_direct[0]]).all()
    assert scores.status == [Status.ANSWER_TOO_SHORT]


def test_what_is_not_finite_has_a_status_and_no_number() -> None:
    direct = np.array([np.inf, np.nan, 1.0, 800.0])
    conditioned = np.array([1.0, 1.0, np.inf, 800.0])
    scores = scores_of([Status.OK] * 4, direct, conditioned)
    assert scores.status == [Status.NON_FINITE] * 4  # exp(800) overflows, though 800 - 800 is 0
    assert np.isnan(scores.ifd).all()
    assert not np.isinf(scores.loss_direct).any()
    assert not np.isinf(scores.loss_conditioned).any()


def test_no_rows_have_no_scores() -> None:
    scores = scores_of([], np.empty(0), np.empty(0))
    assert (scores.status, len(scores.ifd)) == ([], 0)
