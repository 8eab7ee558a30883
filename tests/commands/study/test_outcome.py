"""What a study compares, and how it is shown."""

import numpy as np

from sf_ray.commands.study.outcome import Outcome, outcome_of
from sf_ray.commands.study.page import render_page
from sf_ray.commands.study.record import Overlap, Rendering, Run, Study, StudyRecord, Training
from sf_ray.commands.study.report import notes_of
from sf_ray.commands.study.tables import outcome_tables, plan_tables
from sf_ray.commands.study.trainer_files import batch_rows, llama_factory
from sf_ray.storage.location import Location

RUNS = [("ifd-0", "ifd"), ("random-0", "random"), ("ifd-1", "ifd"), ("random-1", "random")]
RUNS += [("all-0", "all")]


def record() -> StudyRecord:
    runs = [
        Run(
            name=name,
            arm=arm,
            seed=int(name[-1]),
            data=f"arms/{name}",
            rows=1000 * (arm == "all") + 50,
        )
        for name, arm in RUNS
    ]
    return StudyRecord(
        study_version=1,
        sf_ray_version="0",
        study_id="id",
        command="sf-ray study plan",
        input="s3://b/corpus",
        scoring_id="s",
        token_budget=5000,
        held_out_rows=30,
        training=Training(
            student="<model>", epochs=1, learning_rate=1e-4, batch_tokens=500, lora_rank=8,
            freeze_embeddings=False,
        ),
        rendering=Rendering(
            format="alpaca", columns={}, template="plain", turns="all", alignment="reference",
            max_length=128,
        ),
        runs=tuple(runs),
        overlaps=(Overlap(a="ifd-0", b="random-0", share=0.25),),
    )  # fmt: skip


def outcome(better_by: float = 0.0) -> Outcome:
    rng = np.random.default_rng(0)
    rows = rng.normal(2, 0.5, 30)
    losses = {
        name: rows + rng.normal(0, 0.01, 30) - better_by * (arm == "ifd") for name, arm in RUNS
    }
    losses["untrained"] = rows + 1
    return outcome_of(losses, dict(RUNS), "token", 2, ["ifd-2"])


def test_the_top_arm_is_held_against_every_other_and_the_untrained_model_is_shown() -> None:
    found = outcome(0.5)
    assert list(found.means) == ["ifd", "random", "all", "untrained"]
    assert [(c.arm, c.other, c.verdict) for c in found.contrasts] == [
        ("ifd", "random", "better"),
        ("ifd", "all", "no verdict"),
    ]
    assert outcome(-0.5).contrasts[0].verdict == "worse"
    assert outcome().contrasts[0].verdict == "cannot tell"
    notes = " ".join(notes_of(found))
    assert "2 held-out rows have no loss by some model" in notes
    assert "without a model yet: ifd-2" in notes
    assert "one model of all" in notes


def test_tables_and_page_say_the_same_and_escape_what_others_wrote() -> None:
    found = outcome(0.5)
    means, contrasts = outcome_tables(found)
    assert means.rows[0][:2] == ("ifd", "2")
    assert contrasts.rows[1][-1] == "no verdict"
    assert plan_tables(record())[2].rows == [("ifd-0, random-0", "25%")]
    page = render_page(record(), found, notes_of(found))
    assert "<model>" not in page
    assert "&lt;model&gt;" in page
    assert "<code>ifd</code> against <code>random</code>: <b>better</b>" in page
    for cell in (*means.rows[0], *contrasts.rows[0]):
        assert f"<td>{cell}</td>" in page


def test_the_configuration_of_each_run_trains_with_about_equal_steps() -> None:
    study = Study(Location("/study"), record())
    ifd, whole = study.record.runs[0], study.record.runs[-1]
    assert batch_rows(study, ifd) == batch_rows(study, whole) == 5
    config = llama_factory(study, ifd)
    assert config["output_dir"] == "/study/models/id/ifd-0"
    assert config["dataset_dir"] == "/study/arms/ifd-0/export/llama-factory"
    assert (config["finetuning_type"], config["lora_rank"], config["seed"]) == ("lora", 8, 0)
