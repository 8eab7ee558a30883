"""`sf-ray study train`: trains the student on each arm, and scores the held-out rows with it.

    the runs that are left -> as many at a time as there are devices -> their held-out losses

Repeating the command goes on with the runs that have no losses yet.
"""

import ray

from sf_ray.commands.locations import location_of
from sf_ray.commands.setup import Specs, find_encoding
from sf_ray.commands.shared_places import Places, check_shared
from sf_ray.commands.study.held_out import score_held_out, scoring_options
from sf_ray.commands.study.overlaps import files_of, refuse_held_out
from sf_ray.commands.study.record import UNTRAINED, Run, Study, read_study
from sf_ray.commands.study.training_tasks import TrainingRun, train_runs
from sf_ray.config.study_options import StudyTrainOptions
from sf_ray.corpus.plan_cache import sample_of
from sf_ray.engine.recipe import Recipe
from sf_ray.errors import UsageError
from sf_ray.runtime.cluster import resolve_device, start_ray
from sf_ray.runtime.libraries import require
from sf_ray.runtime.log import say
from sf_ray.runtime.signals import stoppable
from sf_ray.storage.files import remove
from sf_ray.storage.lease.lease import lease
from sf_ray.storage.listing import list_files


def train(options: StudyTrainOptions, specs: Specs = Specs()) -> None:  # noqa: B008 - frozen
    """Trains all runs of a planned study that have no held-out losses yet."""
    study = read_study(location_of(options, options.study))
    student = study.record.training.student
    if student is None:
        raise UsageError(
            "the study names no model to train: plan it again with --student, or train the arms "
            "elsewhere and give `sf-ray study report` --models"
        )
    require("study", "accelerate", *(["peft"] if study.record.training.lora_rank else []))
    left = [run for run in study.record.runs if study.result(run.name) is None]
    if not left and study.result(UNTRAINED) is not None:
        say("nothing to do: every run has its held-out losses")
        return
    with stoppable():
        start_ray(options.ray_address)
        check_shared(Places({}, [("STUDY", study.location)]))
        refuse_held_out(study, options.stall_s)
        with lease(study.location):
            if study.result(UNTRAINED) is None:
                score_held_out(study, UNTRAINED, student, options, specs)
            _train(study, student, left, options, specs)


def _train(
    study: Study, student: str, left: list[Run], options: StudyTrainOptions, specs: Specs
) -> None:
    device = resolve_device(options.device)
    held_out = files_of(study, study.held_out).corpus
    encoding = find_encoding(
        scoring_options(study, student, options), held_out, sample_of(None, held_out), specs
    ).for_workers()
    names = Recipe.__dataclass_fields__.keys()
    recipe = Recipe(**study.record.training.model_dump(include=set(names)))
    at_once = _devices(device)
    for at in range(0, len(left), at_once):
        runs = [
            TrainingRun(
                run.name,
                files_of(study, study.data(run)).corpus,
                encoding,
                recipe,
                run.seed,
                study.location.join(study.model(run)),
            )
            for run in left[at : at + at_once]
        ]
        say(
            f"study: training {', '.join(run.name for run in runs)} on {device} "
            f"({at:,} of {len(left):,} runs are done)"
        )
        for trained in train_runs(runs, device):
            say(f"study: {trained.name}: {trained.steps:,} steps, {trained.tokens:,} tokens")
        # They lie in STUDY, wherever the student was fetched from.
        here = options.model_copy(update={"model_storage_options": None})
        for run in left[at : at + at_once]:
            model = study.model(run)
            score_held_out(study, run.name, study.uri(model), here, specs)
            if not options.keep_models:
                for file in list_files(study.location.join(model)):
                    remove(study.location.join(f"{model}/{file.relative}"))


def _devices(device: str) -> int:
    """How many runs can be trained at once."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if device == "cuda":
        return max(1, int(sum(node.get("GPU", 0) for node in resources)))
    return max(1, sum(1 for node in resources if node.get("CPU")))
