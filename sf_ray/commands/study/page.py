"""What came out of a study as one HTML page. Knows neither how models are trained nor compared."""

from collections.abc import Sequence

from markupsafe import Markup

import sf_ray
from sf_ray.commands.study.contrasts import ALPHA, POWER
from sf_ray.commands.study.outcome import Outcome
from sf_ray.commands.study.record import UNTRAINED, StudyRecord
from sf_ray.commands.study.tables import outcome_tables, plan_tables
from sf_ray.output.report.html import render
from sf_ray.output.report.plots import dots


def render_page(record: StudyRecord, outcome: Outcome, notes: Sequence[str]) -> str:
    """Renders the page."""
    # The untrained model is so far off that the arms would be one point.
    trained = {arm: means for arm, means in outcome.means.items() if arm != UNTRAINED}
    label = f"held-out loss, nats per {outcome.unit}"
    return render(
        "study",
        title="Does the selection train a better model?",
        version=sf_ray.__version__,
        record=record,
        outcome=outcome,
        notes=notes,
        verdicts=[
            (contrast.arm, contrast.other, contrast.verdict) for contrast in outcome.contrasts
        ],
        plot=Markup(dots("losses", label, trained)),
        tables=[*outcome_tables(outcome), *plan_tables(record)],
        alpha=ALPHA,
        power=POWER,
    )
