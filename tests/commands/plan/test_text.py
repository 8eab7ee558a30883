from sf_ray.commands.plan.estimate import (
    DrawnRows,
    MeasuredSpeed,
    PlannedActors,
    ReadRows,
    SegmentCounts,
    TimedPart,
    WorkSaved,
    estimate_scoring,
)
from sf_ray.commands.plan.text import (
    CorpusProgress,
    Feeding,
    Plan,
    PlannedScoring,
    ScoringSetting,
    lines_of,
)
from sf_ray.engine.flops import ModelCost, Work

COST = ModelCost({(10, 10): 1.0}, (10, 5), attention_width=0)


def segment(rows: int, conditioned: int, direct: int) -> SegmentCounts:
    return SegmentCounts(rows, {"ok": rows}, Work(conditioned), Work(direct), cpu_s=0.5)


def progress(**changes: int) -> CorpusProgress:
    values = {"shards": 1, "skipped_shards": 0, "rows": 60, "bytes": 1000}
    units = {"units": 3, "units_done": 1, "rows_to_do": 40}
    return CorpusProgress("corpus", **{**values, **units, **changes})


def planned(
    drawn: DrawnRows, actors: PlannedActors, speed: MeasuredSpeed | float = 100.0
) -> PlannedScoring:
    setting = ScoringSetting("demo", "float16", actors, cpus_beside=4)
    estimate = estimate_scoring(drawn, COST, speed, actors, price_per_hour=300)
    return PlannedScoring(setting, drawn, speed, estimate)


def test_gpus_that_would_wait_for_reading_are_noticed() -> None:
    drawn = DrawnRows([segment(10, 700, 300)] * 2, rows_to_do=100)
    actors = PlannedActors("cuda", 2, 2.0, units=2)
    # 100 rows of 100 tokens: 5 s of scoring on two GPUs, 5 s of reading on one core
    estimate = estimate_scoring(drawn, COST, 1000.0, actors, None)

    def feeding(cpus_beside: float) -> Feeding | None:
        return Feeding.of(ScoringSetting("m", "float16", actors, cpus_beside), estimate, 100)

    enough, too_few = feeding(1), feeding(0.5)
    assert enough is not None
    assert too_few is not None
    assert not enough.gpus_wait
    assert str(enough) == (
        "one core reads and encodes 20 rows/s; 2 actors at 10 rows/s need 1.0 cores for that, and "
        "the cluster has 1 beside them"
    )
    assert too_few.gpus_wait
    assert str(too_few).endswith("has 0.5 beside them: GPUs would wait")


def test_actors_on_cpus_are_not_fed_by_other_cores() -> None:
    drawn = DrawnRows([segment(10, 700, 300)] * 2, rows_to_do=100)
    plan = Plan(progress(), planned(drawn, PlannedActors("cpu", 1, 1.0, units=1)))
    assert "reading" not in dict(lines_of(plan))
    assert plan.as_json()["feeding"] is None


def test_the_feeding_of_gpus_is_printed_and_told_to_programs() -> None:
    drawn = DrawnRows([segment(10, 700, 300)] * 2, rows_to_do=100)
    plan = Plan(progress(), planned(drawn, PlannedActors("cuda", 2, 2.0, units=2)))
    assert dict(lines_of(plan))["reading"].startswith("one core reads and encodes 20 rows/s; ")
    assert plan.as_json()["feeding"] == {
        "rows_per_s_a_core": 20,
        "rows_per_s_an_actor": 1,
        "actors": 2,
        "cores_needed": 0.1,
        "cores_beside": 4,
        "gpus_wait": False,
    }


def test_what_is_printed_has_intervals_where_something_was_left_out() -> None:
    drawn = DrawnRows([segment(10, 700, 300), segment(10, 500, 300)], rows_to_do=40)
    scoring = planned(drawn, PlannedActors("cuda", 2, 2.0, units=2))
    lines = dict(lines_of(Plan(progress(skipped_shards=2), scoring)))
    assert lines["shards"] == "1, 2 more are skipped"
    assert lines["units"] == "3: 1 have scores, 2 to score"
    assert lines["sample"] == "20 of 40 rows to score, in 2 places"
    tokens = scoring.estimate.tokens
    low, high = (f"{value:,.0f}" for value in (tokens.low, tokens.high))
    assert lines["tokens"] == f"3,600 ({low} to {high})"
    assert lines["speed"] == "100 tokens/s an actor, as given"
    assert lines["actors"] == "2 on 2 GPUs"
    assert lines["time"].endswith("without the start of the actors")
    assert lines["price"].startswith("3.00 (")


def test_rows_of_one_place_have_no_interval() -> None:
    drawn = DrawnRows([segment(10, 700, 300)], rows_to_do=40)
    lines = dict(lines_of(Plan(progress(), planned(drawn, PlannedActors("cpu", 1, 1, units=2)))))
    assert lines["tokens"] == "4,000 (no interval: all of it was sampled in one place)"


def test_a_measured_speed_says_what_it_was_measured_on() -> None:
    drawn = DrawnRows([segment(20, 700, 300)], rows_to_do=20)
    parts = [TimedPart(4, 4.0, WorkSaved(Work(400), Work(360)))] * 2
    whole_units = [WorkSaved(Work(1000), Work(500))]
    speed = MeasuredSpeed(7.0, parts, whole_units, 1, [ReadRows(20, 0.1)])
    plan = Plan(progress(), planned(drawn, PlannedActors("cpu", 1, 1, units=1), speed))
    lines = dict(lines_of(plan))
    assert lines["sample"] == "all 20 rows to score: tokens and FLOPs are exact"
    assert lines["speed"].endswith("tokens/s an actor, measured on 8 rows in 8 s")
    assert lines["repeats"].startswith("50% of the tokens of a unit are not computed again (10%")
    assert lines["time"].endswith(", with 7 s until an actor has loaded the model")
    assert plan.as_json()["speed"] == {
        "is_measured": True,
        "measured_s": 8.0,
        "measured_rows": 8,
        "saved_in_measured_parts": speed.saved_in_parts,
        "saved_in_units": 0.5,
    }


def test_names_in_json_are_the_same_where_nothing_is_left_to_do() -> None:
    done = Plan(progress(units_done=3, rows_to_do=0))
    drawn = DrawnRows([segment(10, 700, 300)], rows_to_do=10)
    full = Plan(progress(), planned(drawn, PlannedActors("cpu", 1, 1, units=2)))
    assert done.as_json().keys() == full.as_json().keys()
    assert lines_of(done)[-1] == ("", "nothing to do: all units have scores")
