"""Estimates with 95 % intervals, and the ratio of two sums from a sample of clusters.

Plain numbers: knows neither rows nor models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot, inf, isfinite, sqrt

import numpy as np

# The 97.5 % points of Student's t for 1, 2, ... degrees of freedom, where the series is too rough.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True)
class Estimate:
    """A number, and how far off it may be.

    Attributes:
        value: The estimate.
        error: Half the width of its 95 % interval; infinite where there is no interval.
    """

    value: float
    error: float = 0.0

    @property
    def low(self) -> float:
        """Lower end of the interval; nothing that is estimated here can be negative."""
        return max(0.0, self.value - self.error)

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.value + self.error

    def __add__(self, known: float) -> "Estimate":
        return Estimate(self.value + known, self.error)

    def __mul__(self, known: float) -> "Estimate":
        return Estimate(self.value * known, self.error * known)

    def times(self, other: "Estimate") -> "Estimate":
        """The product with an independent estimate: relative errors add as squares."""
        value = self.value * other.value
        return Estimate(value, value * hypot(self._relative, other._relative))

    def over(self, other: "Estimate") -> "Estimate":
        """The quotient by an independent estimate: relative errors add as squares."""
        value = self.value / other.value
        return Estimate(value, value * hypot(self._relative, other._relative))

    @property
    def _relative(self) -> float:
        return self.error / self.value if self.value else 0.0

    def as_json(self) -> dict[str, float | None]:
        """Value and ends of the interval; null for both ends where there is no interval."""
        if not isfinite(self.error):
            return {"estimate": self.value, "low": None, "high": None}
        return {"estimate": self.value, "low": self.low, "high": self.high}


def ratio(values: Sequence[float], sizes: Sequence[float], seen: float = 0.0) -> Estimate:
    """The ratio of two sums over a population of clusters, of which some were drawn.

        r = sum(y) / sum(x)      var(r) = (1 - f) / (n mean(x)^2) * sum((y - r x)^2) / (n - 1)

    (Cochran, Sampling Techniques, chapter 6). The formula takes clusters to be drawn at random.
    Clusters that are spread evenly over the population represent it better, so that the interval
    is too wide rather than too narrow.

    Args:
        values: [n] y of each cluster that was drawn.
        sizes: [n] x of each cluster; their sum is not 0.
        seen: f, the share of the population that was drawn; 1 makes the ratio exact.

    Returns:
        The ratio; without an interval where n is 1, as one cluster has no spread.
    """
    y, x = np.asarray(values, float), np.asarray(sizes, float)
    n, r = len(y), float(y.sum() / x.sum())
    if seen >= 1:
        return Estimate(r)
    if n < 2:
        return Estimate(r, inf)
    variance = (1 - seen) / (n * x.mean() ** 2) * ((y - r * x) ** 2).sum() / (n - 1)
    return Estimate(r, t_quantile(n - 1) * sqrt(variance))


def t_quantile(df: int) -> float:
    """The 97.5 % point of Student's t with `df` degrees of freedom, within 0.002."""
    return _T[df - 1] if df <= len(_T) else 1.96 + 2.42 / df + 2.6 / df**2
