"""How often a study sees what is there, and what is not: studies of losses whose truth is known.

    python bench/study_rates.py [--studies 300]

Prints, for some numbers of models and spreads, how often two equal arms are told apart (stated:
5 %), the smallest difference that a study names, in the median, and how often it sees that
difference (stated: 80 %). Times nothing.
"""

import argparse

import numpy as np

from sf_ray.commands.study.contrasts import Contrast, Floats, contrasts_of

# Models of the two arms; spread of models in nats; held-out rows.
_SETTINGS = [
    ((3, 6), 0.01, 200),
    ((3, 6), 0.03, 200),
    ((3, 3), 0.01, 200),
    ((3, 3), 0.03, 200),
    ((2, 2), 0.01, 200),
    ((2, 6), 0.03, 200),
    ((3, 6), 0.01, 40),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=300)
    studies = parser.parse_args().studies
    print("models   spread   rows   told apart   smallest difference   seen")
    for models, spread, rows in _SETTINGS:
        equal = run(studies, models, spread, rows, 0.0)
        apart = np.mean([contrast.verdict != "cannot tell" for contrast in equal])
        named = float(np.median([contrast.detectable for contrast in equal]))
        better = run(studies, models, spread, rows, named)
        seen = np.mean([contrast.verdict == "better" for contrast in better])
        a, b = models
        print(
            f"{a}, {b}     {spread:6.2f}   {rows:4d}   {apart:10.1%}   {named:19.4f}   {seen:4.0%}"
        )


def run(
    studies: int, models: tuple[int, int], spread: float, rows: int, better_by: float
) -> list[Contrast]:
    """Simulates studies of two arms, of which the first is better by some nats."""
    rng = np.random.default_rng(0)
    return [
        contrasts_of(losses(rng, models, spread, rows, better_by), [("a", "b")], seed)[0]
        for seed in range(studies)
    ]


def losses(
    rng: np.random.Generator,
    models: tuple[int, int],
    spread: float,
    rows: int,
    better_by: float,
) -> dict[str, Floats]:
    """Arm -> [models, rows] losses: rows differ, arms suit rows differently, models differ."""
    of_rows = rng.normal(2, 0.8, rows)
    arms = {}
    for name, count, effect in zip("ab", models, (better_by, 0), strict=True):
        of_arm = rng.normal(0, 0.05, rows)
        of_models = rng.normal(0, spread, (count, 1)) + rng.normal(0, 0.02, (count, rows))
        arms[name] = of_rows + of_arm + of_models - effect
    return arms


if __name__ == "__main__":
    main()
