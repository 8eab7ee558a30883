"""The options of `sf-ray study`: how selections become an experiment. As in `options`."""

from pydantic import Field, model_validator

from sf_ray.config.options import ClusterOptions, CorpusOptions
from sf_ray.config.selection_options import LeftOutOptions
from sf_ray.config.value_types import ArmDraws, Fraction, Places, Share, TrainedModels


class TrainedModelOptions(ClusterOptions):
    """What becomes of the models that a study trains."""

    keep_models: bool = Field(
        default=False,
        description="Keep the trained models in STUDY/models. Default: a model goes once the "
        "held-out rows have its losses.",
    )


class StudyPlanOptions(CorpusOptions, TrainedModelOptions, LeftOutOptions):
    """Options of `sf-ray study plan`."""

    scores: str = Field(description="Where score pieces lie.")
    study: str = Field(description="Where the study goes: arms, held-out rows, models, report.")
    scoring_id: str | None = Field(
        default=None,
        description="Which scores to use, where SCORES holds the scores of several models.",
    )
    keep_fraction: Fraction = Field(
        description="The arm ifd keeps this fraction of the rows that are not held out. All other "
        "arms but `all` keep rows with as many tokens."
    )
    arms: ArmDraws = Field(
        default="ifd,random,length-matched,longest,ifd-low,all",
        validate_default=True,
        description="What is trained on: values of --by, and `all` for every row with a score. "
        "With a number behind a colon (random:6) so many models are trained of an arm, else as "
        "many as --seeds says.",
    )
    seeds: int = Field(
        default=3,
        ge=1,
        description="Models of an arm. random and length-matched draw new rows for each; the "
        "others train on the same rows in another order. A verdict needs two.",
    )
    held_out: Share = Field(
        default=0.05,
        description="Rows that no arm may have, on which models are compared: a fraction of all "
        "rows (with a point), or so many.",
    )
    report_by: str | None = Field(
        default=None, description="Column; the held-out rows have its values in proportion."
    )
    exclude: Places = Field(
        default=[], description="Files whose rows no arm may have either, as in `sf-ray select`."
    )
    drop_duplicates: bool = Field(
        default=False, description="Of equal rows, an arm has one, as in `sf-ray select`."
    )
    student: str | None = Field(
        default=None,
        description="The model to train, named as --model takes it. Needed for --train; else it "
        "only stands in the trainers' files.",
    )
    template: str = Field(
        default="plain",
        description="How messages become one text for the student, as in `sf-ray score`.",
    )
    max_length: int | None = Field(
        default=None, ge=2, description="The student's window. Default: that of the scores."
    )
    epochs: int = Field(default=2, ge=1, description="How often the student sees each row.")
    learning_rate: float = Field(default=2e-5, gt=0, description="The highest one.")
    batch_tokens: int = Field(default=4096, ge=1, description="Tokens of one training step, about.")
    lora_rank: int = Field(
        default=0,
        ge=0,
        description="Train adapters of this rank (LoRA) on all linear layers; 0: all weights.",
    )
    freeze_embeddings: bool = Field(
        default=False, description="Leave the student's embeddings and LM head as they are."
    )
    train: bool = Field(
        default=False,
        description="Train all models on this cluster, a GPU each or one after the other on CPU, "
        "and write the report. Needs sf_ray[study].",
    )

    @model_validator(mode="after")
    def _arms_can_be_compared(self) -> "StudyPlanOptions":
        if "ifd" not in self.arms or len(self.arms) < 2:
            raise ValueError("--arms needs ifd, and an arm that it is held against")
        if self.train and self.student is None:
            raise ValueError("--train needs --student: the model to train")
        return self


class StudyTrainOptions(TrainedModelOptions):
    """Options of `sf-ray study train`."""

    study: str = Field(description="A planned study.")


class StudyReportOptions(ClusterOptions):
    """Options of `sf-ray study report`."""

    study: str = Field(description="A planned study.")
    models: TrainedModels = Field(
        default=[],
        description="Models that were trained elsewhere, as ARM=MODEL,ARM=MODEL: the name of an "
        "arm or of one of its runs, and a model as --model takes it. An arm may come several "
        "times, once for each of its runs.",
    )
