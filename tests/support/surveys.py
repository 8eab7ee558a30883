"""Random rows for a survey: with every status, and rows without scores."""

import numpy as np

from sf_ray.output.report.surveyed_rows import SurveyedRows


def make_rows(count: int, seed: int, ties: bool = False) -> SurveyedRows:
    rng = np.random.default_rng(seed)
    ifd = rng.lognormal(-0.3, 0.4, count)
    if ties:
        ifd = np.round(ifd, 1) + 0.05
    ok = rng.random(count) < 0.8
    status = np.where(ok, "ok", rng.choice(["bad_row", "empty_answer"], count)).astype(object)
    direct = rng.lognormal(3, 2, count)
    eligible = ok & (ifd < 1)
    kept = eligible & (ifd > 0.7)
    return SurveyedRows(
        np.arange(count),
        status,
        np.where(ok, rng.integers(0, 3000, count), -1),
        np.where(ok, rng.integers(1, 900, count), -1),
        np.where(ok, direct, np.nan),
        np.where(ok, direct * ifd, np.nan),
        np.where(ok, ifd, np.nan),
        eligible,
        kept,
        np.full(count, 0.7),
    )
