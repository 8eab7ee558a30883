"""`sf-ray study plan`: selections become an experiment. Each arm is an output of `sf-ray select`.

    held-out rows -> the best rows, and how many tokens they have -> the arms -> study.json

Repeating the command goes on where it was: every output that is there and whole stays.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sf_ray
from sf_ray.commands.locations import location_of, refuse_unwritable
from sf_ray.commands.pipeline import selected, tokens_of_selection
from sf_ray.commands.select import Done
from sf_ray.commands.setup import Specs
from sf_ray.commands.study.overlaps import NEARLY_EQUAL, overlaps_of, refuse_held_out
from sf_ray.commands.study.record import (
    STUDY_VERSION,
    Rendering,
    Run,
    Study,
    StudyRecord,
    Training,
    put_study,
)
from sf_ray.commands.study.report import report
from sf_ray.commands.study.tables import plan_tables
from sf_ray.commands.study.train import train
from sf_ray.commands.study.trainer_files import put_trainer_files
from sf_ray.config.options import CorpusOptions
from sf_ray.config.quotas import rows_to_keep
from sf_ray.config.registry import command_line
from sf_ray.config.selection_options import LeftOutOptions, SelectOptions
from sf_ray.config.study_options import StudyPlanOptions, StudyReportOptions, StudyTrainOptions
from sf_ray.corpus.planning import SkippedShards
from sf_ray.engine.model_files import resolve_model
from sf_ray.errors import SfRayError, UsageError
from sf_ray.output.report.text_table import print_tables
from sf_ray.runtime.console import emit
from sf_ray.runtime.libraries import require
from sf_ray.runtime.log import say
from sf_ray.scoring.score_set import ScoreSet, digest, find_score_set
from sf_ray.storage.listing import overlap
from sf_ray.storage.location import Location, whole_path
from sf_ray.storage.table_names import parse_table
from sf_ray.text.printable import printable

# Arms whose rows another seed changes, and where the seeds of their draws begin: two arms must not
# draw by the same numbers. Of all other arms one selection serves all runs.
_DRAWN = {"random": 0, "length-matched": 2**32}
# Held-out rows are drawn with a seed that no arm has, so that no arm is drawn like them.
_HELD_OUT_SEED = 2**62


@dataclass(frozen=True)
class _Selections:
    """Selects for a study.

    Attributes:
        options: Of the study.
        specs: See `Specs`.
    """

    options: StudyPlanOptions
    specs: Specs

    def asked(self, folder: str, exclude: list[str], **how: Any) -> SelectOptions:
        """The options of a selection that goes to a folder of the study."""
        options = self.options
        shared = options.model_dump(include=set(CorpusOptions.model_fields))
        return SelectOptions(
            **shared,
            scores=options.scores,
            scoring_id=options.scoring_id,
            output=f"{location_of(options, options.study).uri.rstrip('/')}/{folder}",
            exclude=exclude,
            **how,
        )

    def made(self, asked: SelectOptions, name: str) -> Done:
        """Selects, and says what for."""
        say(f"study: selecting {name}")
        return selected(asked, self.specs)


def plan(
    options: StudyPlanOptions,
    specs: Specs = Specs(),  # noqa: B008 - frozen
) -> SkippedShards:
    """Writes the arms, the held-out rows and what trainers need; with --train does all the rest.

    Returns:
        The shards of the corpus that were left out.
    """
    place = location_of(options, options.study)
    _check_places(options, place)
    if options.student is not None and options.train:
        require("study", "accelerate", "scipy", *(["peft"] if options.lora_rank else []))
        resolve_model(options.student, options.model_storage_options or options.storage_options)
    score_set = find_score_set(location_of(options, options.scores), options.scoring_id)
    selections = _Selections(options, specs)
    held_out, outputs, budget = _select(selections)
    record = _record(options, score_set, held_out, outputs, budget)
    study = Study(place, record)
    refuse_held_out(study, options.stall_s)
    study = Study(
        place, record.model_copy(update={"overlaps": overlaps_of(study, options.stall_s)})
    )
    put_trainer_files(study)
    put_study(study)
    print_tables(plan_tables(study.record))
    for pair in study.record.overlaps:
        if pair.share > NEARLY_EQUAL:
            emit(
                f"note: {pair.a} and {pair.b} share {pair.share:.0%} of their examples: a study "
                "can hardly tell them apart"
            )
    where = printable(place.public_uri)
    emit(f"\nstudy  {where}")
    if not options.train:
        emit(f"next   train what is in {where}/trainers, or with sf-ray study train {where};")
        emit(f"       then sf-ray study report {where}")
    if options.train:
        shared = options.model_dump(include=set(StudyReportOptions.model_fields))
        train(StudyTrainOptions(**shared, keep_models=options.keep_models), specs)
        report(StudyReportOptions(**shared), specs)
    return held_out.skipped


def _check_places(options: StudyPlanOptions, place: Location) -> None:
    refuse_unwritable("STUDY", options.study)
    read = {"INPUT": options.input, "SCORES": options.scores}
    if parse_table(options.input) is not None:
        del read["INPUT"]  # each selection asks the table where its files lie
    for flag, uri in read.items():
        other = location_of(options, uri)
        if overlap(other, place, one_is_input=flag == "INPUT"):
            raise UsageError(
                f"{flag} {other.public_uri} and STUDY {place.public_uri} lie inside each other: "
                "choose another place for the study"
            )


def _select(selections: _Selections) -> tuple[Done, dict[str, Done], int]:
    """Selects held-out rows and arms.

    Returns:
        The held-out rows; folder -> the output there; and the tokens of an arm.
    """
    options = selections.options
    share: dict[str, Any] = {"keep_count": options.held_out}
    if options.report_by is not None:
        if isinstance(options.held_out, int):
            raise UsageError(
                f"--held-out {options.held_out}: with --report-by a fraction is needed, e.g. 0.05"
            )
        share = {
            "quota": f"{options.report_by}={options.held_out}",
            "report_by": options.report_by,
        }
    elif isinstance(options.held_out, float):
        share = {"keep_fraction": options.held_out}
    asked = selections.asked("held-out", [], by="random", seed=_HELD_OUT_SEED, **share)
    held_out = selections.made(asked, "held-out rows")
    if not held_out.manifest.selection.kept_rows:
        raise UsageError(f"--held-out {options.held_out} comes to no row: hold more out")
    excluded = [f"{asked.output}/data", *options.exclude]
    left_out = options.model_dump(include=set(LeftOutOptions.model_fields), exclude_unset=True)

    def arm(folder: str, **how: Any) -> SelectOptions:
        duplicates = options.drop_duplicates
        return selections.asked(folder, excluded, drop_duplicates=duplicates, **left_out, **how)

    rest = held_out.manifest.input.rows - held_out.manifest.selection.kept_rows
    best = rows_to_keep(rest, options.keep_fraction)
    if not best:
        raise UsageError(
            f"--keep-fraction {options.keep_fraction} of {rest:,} rows is less than one row"
        )
    budget = tokens_of_selection(arm("arms/ifd", keep_count=best), selections.specs)
    if not budget:
        raise SfRayError("no row that is not held out has an IFD below 1: the arm ifd is empty")
    outputs = {}
    for name in options.arms:
        for seed in range(_draws(options, name) if name in _DRAWN else 1):
            folder = f"arms/{name}-{seed}" if name in _DRAWN else f"arms/{name}"
            if name == "all":
                how: dict[str, Any] = {"by": "random", "keep_fraction": 1.0}
            else:
                how = {"by": name, "keep_tokens": budget}
                if name in _DRAWN:
                    how["seed"] = _DRAWN[name] + seed
            export = "llama-factory"
            outputs[folder] = selections.made(arm(folder, export=export, **how), folder)
    return held_out, outputs, budget


def _anywhere(options: StudyPlanOptions) -> StudyPlanOptions:
    """The options with absolute paths: right in any directory."""
    places = {name: getattr(options, name) for name in ("input", "scores", "study")}
    if options.student is not None and Path(options.student).exists():
        places["student"] = options.student
    whole: dict[str, Any] = {name: whole_path(place) for name, place in places.items()}
    files = {
        name: list(map(whole_path, getattr(options, name)))
        for name in ("exclude", "drop_overlap_with")
    }
    return options.model_copy(update=whole | files)


def _draws(options: StudyPlanOptions, arm: Any) -> int:
    return options.arms[arm] or options.seeds


def _record(
    options: StudyPlanOptions,
    score_set: ScoreSet,
    held_out: Done,
    outputs: dict[str, Done],
    budget: int,
) -> StudyRecord:
    runs = []
    # Draw after draw, so that half a study compares all arms; what takes ten times as long last.
    draws = [
        (arm == "all", seed, arm) for arm in options.arms for seed in range(_draws(options, arm))
    ]
    for _, seed, arm in sorted(draws, key=lambda draw: draw[:2]):
        name = f"{arm}-{seed}"
        data = f"arms/{name}" if arm in _DRAWN else f"arms/{arm}"
        rows = outputs[data].manifest.selection.kept_rows
        runs.append(Run(name=name, arm=arm, seed=seed, data=data, rows=rows))
    names = Training.model_fields.keys() - {"student"}
    options = _anywhere(options)
    student = None if options.student is None else Location(options.student).public_uri
    training = Training(student=student, **options.model_dump(include=set(names)))
    rendering = Rendering(
        **{
            name: score_set.decided(name)
            for name in ("format", "columns", "turns", "alignment", "max_length")
        }
        | {"template": options.template}
        | ({"max_length": options.max_length} if options.max_length else {})
    )
    decided = [done.manifest.request_id for done in (held_out, *outputs.values())]
    return StudyRecord(
        study_version=STUDY_VERSION,
        sf_ray_version=sf_ray.__version__,
        study_id=digest([decided, training.model_dump(), rendering.model_dump()]),
        command=command_line(options, lambda uri: Location(uri).public_uri),
        input=held_out.manifest.input.uri,
        scoring_id=score_set.scoring_id,
        token_budget=budget,
        held_out_rows=held_out.manifest.selection.kept_rows,
        training=training,
        rendering=rendering,
        runs=tuple(runs),
        overlaps=(),
    )
