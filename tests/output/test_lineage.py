import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sf_ray.corpus.planning import plan_corpus
from sf_ray.corpus.tables.snapshot import TableState
from sf_ray.output.lineage import (
    LineageFacts,
    completed,
    ended,
    parent_of,
    run_uuid,
    started,
    to_json,
)
from sf_ray.output.manifest import Manifest
from sf_ray.storage.location import Location
from tests.support.lineage import problems
from tests.support.manifests import manifest_keys

RUN = "20261128T063000-0a1b2c"
PARENT = "airflow/nightly.sf_ray/01934f6e-0000-7000-8000-000000000001"
ROOT = "airflow/nightly/01934f6e-0000-7000-8000-000000000002"
ROWS = {
    "instruction": pa.array(["a", "b", "c"]),
    "turns": pa.array([[{"role": "user", "n": 1}]] * 3),
    "tags": pa.array([[("k", 1.5)]] * 3, pa.map_(pa.string(), pa.float64())),
}


@pytest.fixture
def facts(tmp_path: Path) -> LineageFacts:
    (tmp_path / "corpus").mkdir()
    pq.write_table(pa.table(ROWS), tmp_path / "corpus/a.parquet")
    corpus = plan_corpus(Location(str(tmp_path / "corpus")))
    output = Location("s3://bucket/out")
    return LineageFacts("run", "team", corpus, corpus.column_names, (), output, "ifd")


def finished(**output: Any) -> Manifest:
    keys = manifest_keys(3, 3, 2) | {"run_id": RUN, "request_id": "r3quest"}
    keys["output"]["shards"].append({"path": "b.parquet", "rows": 1, "bytes": 11})
    keys["output"] |= output
    return Manifest.model_validate(keys)


def as_read(event: Any) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(to_json(event))
    return read


def fields(dataset: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["name"], each.get("type")) for each in dataset["facets"]["schema"]["fields"]]


def test_a_run_names_what_it_read_and_wrote_and_how_much(facts: LineageFacts) -> None:
    event = as_read(completed(facts, finished()))
    (read,), (written,) = event["inputs"], event["outputs"]
    assert event["eventType"] == "COMPLETE"
    assert event["eventTime"] == "2026-01-01T00:00:00Z"
    assert (event["job"]["namespace"], event["job"]["name"]) == (
        "team",
        "sf-ray run s3://bucket/out",
    )
    assert (read["namespace"], read["name"]) == ("file", facts.corpus.location.uri)
    assert read["facets"]["version"]["datasetVersion"] == facts.corpus.fingerprint
    counted = read["inputFacets"]["inputStatistics"]
    size = facts.corpus.bytes
    assert (counted["rowCount"], counted["size"], counted["fileCount"]) == (3, size, 1)
    assert (written["namespace"], written["name"]) == ("s3://bucket", "out/data")
    assert written["facets"]["version"]["datasetVersion"] == "r3quest"
    counted = written["outputFacets"]["outputStatistics"]
    assert (counted["rowCount"], counted["size"], counted["fileCount"]) == (2, 20, 2)
    columns = [("instruction", "string"), ("turns", "array"), ("tags", "map")]
    assert fields(read) == columns
    assert fields(written) == [*columns, ("ifd", "double")]


def test_what_is_nested_in_a_column_is_named_too(facts: LineageFacts) -> None:
    read = as_read(started(facts, RUN))["inputs"][0]
    _, turns, tags = read["facets"]["schema"]["fields"]
    (element,) = turns["fields"]
    assert (element["name"], element["type"]) == ("_element", "struct")
    assert [(each["name"], each["type"]) for each in element["fields"]] == [
        ("role", "string"),
        ("n", "int64"),
    ]
    assert [(each["name"], each["type"]) for each in tags["fields"]] == [
        ("key", "string"),
        ("value", "double"),
    ]


def test_a_table_is_its_place_in_a_state_and_its_name_in_the_catalogue(
    facts: LineageFacts,
) -> None:
    state = TableState("iceberg://lake/chat.answers@77", "iceberg", "77")
    table = replace(facts, corpus=replace(facts.corpus, table=state))
    (read,) = as_read(started(table, RUN))["inputs"]
    assert (read["namespace"], read["name"]) == ("file", facts.corpus.location.uri)
    assert read["facets"]["version"]["datasetVersion"] == "77"
    (name,) = read["facets"]["symlinks"]["identifiers"]
    assert name == {"namespace": "iceberg://lake", "name": "chat.answers", "type": "TABLE"}


def test_fields_of_json_have_names_without_types(facts: LineageFacts, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"q": "a", "a": "b"}\n')
    corpus = plan_corpus(Location(str(tmp_path / "rows.jsonl")))
    event = as_read(started(replace(facts, corpus=corpus, fields=["q", "a"]), RUN))
    assert fields(event["inputs"][0]) == [("q", None), ("a", None)]
    assert fields(event["outputs"][0]) == [("q", None), ("a", None), ("ifd", "double")]
    assert problems(event) == []


def test_exported_and_excluded_files_are_datasets_of_their_own(
    facts: LineageFacts, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"instruction": ["x"]}), tmp_path / "held-out.parquet")
    excluded = plan_corpus(Location(str(tmp_path / "held-out.parquet")))
    exported = {"name": "trl", "left_out_rows": 0, "files": [{"path": "a", "rows": 2, "bytes": 5}]}
    event = as_read(completed(replace(facts, beside=[excluded]), finished(export=exported)))
    assert [each["name"] for each in event["outputs"]] == ["out/data", "out/export"]
    assert event["outputs"][1]["outputFacets"]["outputStatistics"]["rowCount"] == 2
    assert event["inputs"][1]["name"] == str(tmp_path / "held-out.parquet")
    assert event["inputs"][1]["inputFacets"]["inputStatistics"]["rowCount"] == 1
    assert problems(event) == []


def test_all_events_of_a_run_have_one_id_and_each_job_its_own(facts: LineageFacts) -> None:
    events = [
        as_read(started(facts, RUN)),
        as_read(completed(facts, finished())),
        as_read(ended(facts, RUN, "FAIL", "no room")),
    ]
    ids = {event["run"]["runId"] for event in events}
    assert ids == {run_uuid(RUN, facts.job_name)}
    assert run_uuid(RUN, "another job") not in ids
    assert run_uuid("20261128T063000-0a1b2d", facts.job_name) not in ids
    # Of version 7, whose order is that of time.
    assert UUID(ids.pop()).version == 7
    assert run_uuid(RUN, "b") < run_uuid("20261128T063001-000000", "a")


def test_the_manifest_s_ids_and_command_stand_in_the_event(facts: LineageFacts) -> None:
    run = as_read(completed(facts, finished()))["run"]["facets"]
    tags = {tag["key"]: tag["value"] for tag in run["tags"]["tags"]}
    assert tags == {"sf_ray_run_id": RUN, "sf_ray_request_id": "r3quest"}
    (command,) = run["executionParameters"]["parameters"]
    assert command["value"] == finished().command
    assert run["processing_engine"]["name"] == "Ray"


def test_an_event_has_what_the_library_s_classes_have(facts: LineageFacts) -> None:
    """They are generated from the spec's schemas, which the package does not ship."""
    whole = replace(facts, parent=PARENT, root=ROOT)
    events = [
        started(whole, RUN),
        completed(whole, finished()),
        ended(whole, RUN, "ABORT", "stopped"),
    ]
    for event in events:
        assert problems(as_read(event)) == []
    spoilt = as_read(events[1])
    spoilt["outputs"][0]["outputFacets"]["outputStatistics"]["rows"] = 1
    del spoilt["run"]["facets"]["parent"]["job"]
    spoilt["job"]["facets"]["jobType"]["_schemaURL"] = "https://openlineage.io/none"
    assert sorted(problems(spoilt)) == [
        "job.jobType: https://openlineage.io/none is unknown",
        "out/data.outputStatistics: rows is unknown",
        "run.parent: job is missing",
    ]


def test_the_run_above_is_named_where_there_is_one(facts: LineageFacts) -> None:
    assert "parent" not in as_read(started(facts, RUN))["run"]["facets"]
    parent = as_read(started(replace(facts, parent=PARENT, root=ROOT), RUN))["run"]["facets"][
        "parent"
    ]
    assert parent["job"] == {"namespace": "airflow", "name": "nightly.sf_ray", "facets": {}}
    assert parent["run"]["runId"] == PARENT[-36:]
    assert parent["root"]["job"]["name"] == "nightly"
    assert parent["root"]["run"]["runId"] == ROOT[-36:]


@pytest.mark.parametrize("text", ["", "a/b", "a/b/c", f"/job/{PARENT[-36:]}", "a/b/c/d"])
def test_a_parent_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no NAMESPACE/JOB/RUN|badly formed"):
        parent_of(text)


def test_a_failed_run_says_why(facts: LineageFacts) -> None:
    event = as_read(ended(facts, RUN, "FAIL", "storage of s3://bucket/out: no room"))
    assert event["eventType"] == "FAIL"
    assert event["run"]["facets"]["errorMessage"]["message"] == (
        "storage of s3://bucket/out: no room"
    )
    assert "outputFacets" not in event["outputs"][0] or not event["outputs"][0]["outputFacets"]
