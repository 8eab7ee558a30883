import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata, spearmanr

from sf_ray.scoring.rank_correlation import average_ranks, rank_correlation

# Few distinct values, so that ties are the rule.
some = st.one_of(st.sampled_from([0.25, 0.5, 0.999999, 1.0, 1.5]), st.floats(0.001, 3))
pairs = st.lists(st.tuples(some, some), min_size=2, max_size=150)


@given(pairs)
def test_rank_correlation_is_that_of_scipy(values: list[tuple[float, float]]) -> None:
    a, b = np.array(values).T
    assert average_ranks(a).tolist() == rankdata(a).tolist()
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert np.isnan(rank_correlation(a, b))  # scipy warns, and says so too
    else:
        assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


def test_nothing_has_no_rank() -> None:
    assert average_ranks(np.empty(0)).tolist() == []
    assert np.isnan(rank_correlation(np.empty(0), np.empty(0)))
    assert np.isnan(rank_correlation(np.ones(1), np.ones(1)))
