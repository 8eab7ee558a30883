"""`sf-ray study report`: held-out losses of all models -> better, worse or cannot tell."""

import json
from dataclasses import asdict

from sf_ray.commands.locations import location_of
from sf_ray.commands.setup import Specs
from sf_ray.commands.study.held_out import losses_of, score_held_out
from sf_ray.commands.study.outcome import Outcome, outcome_of
from sf_ray.commands.study.overlaps import refuse_held_out
from sf_ray.commands.study.page import render_page
from sf_ray.commands.study.record import UNTRAINED, Study, read_study
from sf_ray.commands.study.tables import outcome_tables
from sf_ray.config.study_options import StudyReportOptions
from sf_ray.errors import SfRayError, UsageError
from sf_ray.output.report.text_table import print_tables
from sf_ray.runtime.cluster import start_ray
from sf_ray.runtime.console import emit
from sf_ray.runtime.libraries import require
from sf_ray.runtime.log import say
from sf_ray.runtime.signals import stoppable
from sf_ray.storage.files import put_bytes
from sf_ray.text.printable import printable


def report(options: StudyReportOptions, specs: Specs = Specs()) -> None:  # noqa: B008 - frozen
    """Scores the held-out rows with each model that is given, and compares all that are known."""
    require("study", "scipy")
    study = read_study(location_of(options, options.study))
    models = _runs_of(study, options.models)
    with stoppable():
        if models:
            start_ray(options.ray_address)
            refuse_held_out(study, options.stall_s)
        for run, model in models.items():
            score_held_out(study, run, model, options, specs)
    outcome = _outcome(study)
    for note in notes_of(outcome):
        say(f"note: {note}")
    tables = outcome_tables(outcome)
    print_tables(tables)
    page = study.location.join("report.html")
    put_bytes(page, render_page(study.record, outcome, notes_of(outcome)).encode())
    # JSON has no NaN: what is not known is null there.
    contrasts = [
        {key: None if value != value else value for key, value in asdict(contrast).items()}
        for contrast in outcome.contrasts
    ]
    written = json.dumps(asdict(outcome) | {"contrasts": contrasts}, indent=2, allow_nan=False)
    put_bytes(study.location.join("report.json"), written.encode())
    emit(f"\npage  {printable(page.public_uri)}")


def _runs_of(study: Study, models: list[tuple[str, str]]) -> dict[str, str]:
    """Run -> its model; an arm that is named several times stands for its runs, in their order.

    Raises:
        UsageError: There is no such arm or run, or more models of an arm than it has runs.
    """
    found: dict[str, str] = {}
    for name, model in models:
        runs = [run.name for run in study.record.runs if run.arm == name]
        if not runs:
            runs = [name if name == UNTRAINED else study.record.run(name).name]
        free = [run for run in runs if run not in found]
        if not free:
            raise UsageError(
                f"--models: {name} has {len(runs)} runs in this study, and more models are given"
            )
        found[free[0]] = model
    return found


def _outcome(study: Study) -> Outcome:
    names = [run.name for run in study.record.runs]
    known = [name for name in (*names, UNTRAINED) if study.result(name) is not None]
    if not set(known) & set(names):
        raise SfRayError(
            f"{study.location.public_uri}: no model has scored the held-out rows yet: give "
            "--models, or train with `sf-ray study train`"
        )
    held_out = losses_of(study, known)
    return outcome_of(
        held_out.losses,
        {run.name: run.arm for run in study.record.runs},
        held_out.unit,
        held_out.left_out,
        [name for name in names if name not in known],
    )


def notes_of(outcome: Outcome) -> list[str]:
    """What a reader must know beside the figures."""
    notes = []
    if outcome.unit == "byte":
        notes.append(
            "the models cut answers into different tokens, so losses are per byte of the answer"
        )
    if outcome.left_out:
        notes.append(f"{outcome.left_out:,} held-out rows have no loss by some model")
    if outcome.missing:
        notes.append(f"without a model yet: {', '.join(outcome.missing)}")
    single = sorted(
        {arm for c in outcome.contrasts for arm in (c.arm, c.other) if len(outcome.means[arm]) < 2}
    )
    if single:
        notes.append(
            f"one model of {', '.join(single)}: how much another seed would change is unknown, so "
            "there is no verdict"
        )
    return notes
