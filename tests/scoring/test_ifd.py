import numpy as np

from sf_ray.scoring.ifd import Scores, TurnLosses, scores_of


def scores(is_ok: list[bool], direct: list[float], conditioned: list[float]) -> Scores:
    """Of rows with one turn each."""
    rows = np.arange(len(is_ok))
    losses = np.array(conditioned, float), np.array(direct, float)
    return scores_of(
        np.array(is_ok, bool),
        TurnLosses(rows, *losses, rows + 3, np.where(np.isnan(losses[1]), 0, rows + 2)),
    )


def test_ifd_is_the_ratio_of_perplexities() -> None:
    found = scores([True], [2.0], [1.5])
    assert found.ppl_direct[0] == np.exp(2.0)
    assert found.ppl_conditioned[0] == np.exp(1.5)
    assert np.isclose(found.ifd[0], found.ppl_conditioned[0] / found.ppl_direct[0])


def test_only_ok_rows_have_an_ifd_but_known_losses_stay() -> None:
    found = scores([False], [np.nan], [1.5])
    assert found.loss_conditioned[0] == 1.5
    assert np.isnan([found.ifd[0], found.ppl_conditioned[0], found.loss_direct[0]]).all()
    assert not found.non_finite.any()


def test_what_is_not_finite_has_a_status_and_no_number() -> None:
    found = scores([True] * 4, [np.inf, np.nan, 1.0, 800.0], [1.0, 1.0, np.inf, 800.0])
    assert found.non_finite.all()  # exp(800) overflows, though 800 - 800 is 0
    assert np.isnan(found.ifd).all()
    assert not np.isinf(found.loss_direct).any()
    assert not np.isinf(found.loss_conditioned).any()


def test_no_rows_have_no_scores() -> None:
    found = scores([], [], [])
    assert len(found.non_finite) == len(found.ifd) == 0


def test_a_chat_has_the_means_over_the_tokens_of_its_turns() -> None:
    turns = TurnLosses(
        row=np.array([0, 0, 0, 2]),
        conditioned=np.array([1.0, 2.0, 9.0, 0.5]),
        direct=np.array([2.0, 4.0, np.nan, 1.0]),
        conditioned_tokens=np.array([10, 30, 1, 5]),
        direct_tokens=np.array([9, 29, 0, 5]),  # the third turn is too short for a score
    )
    found = scores_of(np.array([True, False, True]), turns)
    assert np.isclose(found.loss_conditioned[0], (10 * 1 + 30 * 2) / 40)
    assert np.isclose(found.loss_direct[0], (9 * 2 + 29 * 4) / 38)
    assert np.isclose(found.ifd[0], np.exp(found.loss_conditioned[0] - found.loss_direct[0]))
    assert np.isnan(found.ifd[1])
    assert found.ifd[2] == np.exp(-0.5)
