"""A study: which models are trained on which rows, as a typed and versioned record.

    STUDY/study.json                 what was planned; written last
    STUDY/held-out/                  the rows that no arm may have, an output of `sf-ray select`
    STUDY/arms/<arm or run>/         what a run is trained on, likewise
    STUDY/trainers/                  files for the trainers of others
    STUDY/models/<run>/              trained models, as long as they are needed
    STUDY/scores/                    the held-out rows, scored by each model
    STUDY/results/<study id>/<run>.json   which of those scores are the run's
    STUDY/report.html, report.json   what came out

Does not know how rows are selected or models trained.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import Field, ValidationError

from sf_ray.errors import SfRayError, UsageError
from sf_ray.output.manifest_scores import Count, Record
from sf_ray.storage.files import put_bytes
from sf_ray.storage.json_files import read_json_or_none
from sf_ray.storage.location import Location
from sf_ray.text.printable import printable_json

_Kind = TypeVar("_Kind", bound=Record)

STUDY_VERSION: Final = 1
# The run of the student as it is, before any training.
UNTRAINED: Final = "untrained"
_MOST_BYTES = 1 << 24
_ADVICE = "plan the study again with `sf-ray study plan`"


class Run(Record):
    """One model to train."""

    name: str = Field(description="Name of the run: the arm, and its number.")
    arm: str = Field(description="The arm that it is a draw of.")
    seed: Count = Field(description="Seed of the training, and of rows that are drawn.")
    data: str = Field(description="Where its rows lie, below STUDY.")
    rows: Count = Field(description="How many they are.")


class Overlap(Record):
    """What two arms have in common."""

    a: str = Field(description="A run of one arm.")
    b: str = Field(description="A run of another arm.")
    share: float = Field(description="Examples of both / examples of the smaller one.")


class Training(Record):
    """How the student is trained."""

    student: str | None = Field(description="The model, without user name and password.")
    epochs: Count = Field(description="How often each row is seen.")
    learning_rate: float = Field(description="The highest one.")
    batch_tokens: Count = Field(description="Tokens of one step, about.")
    lora_rank: Count = Field(description="Rank of adapters; 0 trains all weights.")
    freeze_embeddings: bool = Field(description="Whether embeddings and LM head stay as they are.")


class Rendering(Record):
    """How rows become tokens, for training and for the held-out losses."""

    format: str = Field(description="Format of the rows.")
    columns: Mapping[str, str] = Field(description="Field of the format -> column.")
    template: str = Field(description="How messages become one text.")
    turns: str = Field(description="Assistant turns that are trained on.")
    alignment: str = Field(description="Value of `--alignment`.")
    max_length: Count = Field(description="Window in tokens.")


class StudyRecord(Record):
    """A planned study."""

    study_version: int = Field(description="Raised when a key gets another meaning.")
    sf_ray_version: str = Field(description="The version that planned it.")
    study_id: str = Field(description="Hash of all that decides what comes out.")
    command: str = Field(description="A command line that plans it again.")
    input: str = Field(description="The corpus.")
    scoring_id: str = Field(description="The scores that rows are ranked by.")
    token_budget: Count = Field(description="Tokens of each arm but `all`, by the scores.")
    held_out_rows: Count = Field(description="Rows that no arm has.")
    training: Training
    rendering: Rendering
    runs: tuple[Run, ...]
    overlaps: tuple[Overlap, ...] = Field(description="Of every two arms, the largest.")

    @property
    def arms(self) -> list[str]:
        """The arms, in the order of the plan."""
        return list(dict.fromkeys(run.arm for run in self.runs))

    def run(self, name: str) -> Run:
        """The run of a name.

        Raises:
            UsageError: There is none.
        """
        for run in self.runs:
            if run.name == name:
                return run
        names = ", ".join(run.name for run in self.runs)
        raise UsageError(f"--models: the study has no run {name!r}; its runs are {names}")


class Result(Record):
    """The scores of the held-out rows by the model of a run."""

    run: str = Field(description="Name of the run.")
    model: str = Field(description="The model, without user name and password.")
    scoring_id: str = Field(description="Which scores in STUDY/scores are its.")


@dataclass(frozen=True)
class Study:
    """A study and where it lies."""

    location: Location
    record: StudyRecord

    def uri(self, name: str) -> str:
        """The path or URI of something below STUDY, as options take it."""
        return f"{self.location.uri.rstrip('/')}/{name}"

    @property
    def held_out(self) -> str:
        """The shards of held-out rows, below STUDY."""
        return "held-out/data"

    @property
    def scores(self) -> str:
        """The scores of held-out rows by all models, below STUDY."""
        return "scores"

    def data(self, run: Run) -> str:
        """The shards that a run is trained on, below STUDY."""
        return f"{run.data}/data"

    def model(self, run: Run) -> str:
        """Where the trained model of a run goes, below STUDY."""
        return f"models/{self.record.study_id}/{run.name}"

    def result(self, name: str) -> Result | None:
        """What is known of a run; None where its model has not scored the held-out rows."""
        found = read_json_or_none(self._result(name), _MOST_BYTES, "remove it")
        return None if found is None else _parsed(Result, found, self._result(name))

    def put_result(self, result: Result) -> None:
        """Keeps what is known of a run."""
        _put(self._result(result.run), result)

    def _result(self, name: str) -> Location:
        return self.location.join(f"results/{self.record.study_id}/{name}.json")


def read_study(location: Location) -> Study:
    """Reads a planned study.

    Raises:
        SfRayError: There is none, or it is of another version.
    """
    place = location.join("study.json")
    found = read_json_or_none(place, _MOST_BYTES, _ADVICE)
    if found is None:
        raise SfRayError(f"{location.public_uri}: no study.json there; {_ADVICE}")
    if isinstance(found, dict) and found.get("study_version") != STUDY_VERSION:
        raise SfRayError(f"{place.public_uri}: of another version of sf_ray; {_ADVICE}")
    return Study(location, _parsed(StudyRecord, found, place))


def put_study(study: Study) -> None:
    """Writes what was planned."""
    _put(study.location.join("study.json"), study.record)


def _parsed(kind: type[_Kind], found: Any, place: Location) -> _Kind:
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise SfRayError(f"{place.public_uri}: no record of ours at {where!r}; {_ADVICE}") from None


def _put(place: Location, record: Record) -> None:
    text = json.dumps(record.model_dump(), indent=2, ensure_ascii=False)
    put_bytes(place, printable_json(text).encode())
