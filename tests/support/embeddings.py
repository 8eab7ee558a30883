"""Embeddings to choose among, and the choice that the definition of greedy makes."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

# Small whole numbers: sums are exact, and ties, duplicates and zero vectors are the rule.
whole = st.integers(0, 24).flatmap(
    lambda n: arrays(np.float32, (n, 3), elements=st.sampled_from([-1.0, 0.0, 1.0, 2.0]))
)
seeds = st.integers(0, 1 << 30)


def on_the_sphere(rows: int, dimensions: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((rows, dimensions)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def brute_force(embeddings: np.ndarray, budget: int) -> tuple[list[int], list[float]]:
    """Every gain at every step, as the definition has it."""
    similarity = np.maximum(embeddings.astype(float) @ embeddings.astype(float).T, 0)
    best, rows, gains = np.zeros(len(embeddings)), [], []
    for _ in range(min(budget, len(embeddings))):
        gain = np.maximum(similarity - best, 0).sum(axis=1)
        gain[rows] = -1
        row = int(gain.argmax())
        rows.append(row)
        gains.append(float(gain[row]))
        best = np.maximum(best, similarity[row])
    return rows, gains
