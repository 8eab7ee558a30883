"""A study as tables of text, for the terminal and for the page. Knows neither of them."""

import math
from collections.abc import Sequence

from sf_ray.commands.study.contrasts import POWER
from sf_ray.commands.study.outcome import Outcome
from sf_ray.commands.study.record import StudyRecord
from sf_ray.output.report.text_table import TextTable


def plan_tables(record: StudyRecord) -> list[TextTable]:
    """The tables of a planned study: what is trained on, and what arms have in common."""
    runs = [(run.name, run.arm, str(run.seed), f"{run.rows:,}", run.data) for run in record.runs]
    tables = [
        TextTable(
            "The plan",
            ("", ""),
            [
                ("held-out rows", f"{record.held_out_rows:,}"),
                ("tokens of an arm", f"{record.token_budget:,}"),
            ],
        ),
        TextTable("Runs", ("run", "arm", "seed", "rows", "data"), runs, is_text=True),
    ]
    if record.overlaps:
        pairs = [(f"{pair.a}, {pair.b}", f"{pair.share:.0%}") for pair in record.overlaps]
        tables.append(TextTable("Examples that two arms share", ("arms", "share"), pairs))
    return tables


def outcome_tables(outcome: Outcome) -> list[TextTable]:
    """The tables of what came out: the loss of each arm, and what may be said."""
    unit = outcome.unit
    arms = [
        (arm, str(len(means)), f"{sum(means) / len(means):.4f}", _listed(means))
        for arm, means in outcome.means.items()
    ]
    contrasts = [
        (
            f"{contrast.arm} - {contrast.other}",
            f"{contrast.difference:+.4f}",
            _figure(contrast.error),
            _figure(contrast.p),
            _figure(contrast.detectable),
            contrast.verdict,
        )
        for contrast in outcome.contrasts
    ]
    return [
        TextTable(
            f"Held-out loss, nats per {unit} of the answer", ("arm", "models", "mean", "each"), arms
        ),
        TextTable(
            "Difference of two arms: below 0 the first one is better",
            ("contrast", "difference", "error", "p", f"seen with {POWER:.0%}", "verdict"),
            contrasts,
        ),
    ]


def _listed(means: Sequence[float]) -> str:
    return " ".join(f"{mean:.4f}" for mean in means)


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
