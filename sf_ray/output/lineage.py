"""A run -> OpenLineage events: which dataset was read, which was written, by which job.

    START (no manifest yet) -> COMPLETE (the manifest), FAIL or ABORT (an error)

Built with the classes of `openlineage-python`, which are imported when an event is made: the
library is an extra. It does not know where events go, and reads no files.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

import sf_ray
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.readers.file_types import FileType
from sf_ray.output.dataset_names import DatasetName, dataset_of
from sf_ray.output.manifest import Manifest, WrittenFile
from sf_ray.storage.location import Location
from sf_ray.storage.table_names import parse_table
from sf_ray.text.printable import printable_json

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, OutputDataset, RunEvent

# The namespace of jobs where OPENLINEAGE_NAMESPACE gives none: the default of OpenLineage's tools.
DEFAULT_NAMESPACE = "default"
_PRODUCER = f"urn:sf-ray:{sf_ray.__version__}"  # the spec wants a URI
_LISTS = (
    pa.types.is_list,
    pa.types.is_large_list,
    pa.types.is_fixed_size_list,
    pa.types.is_list_view,
    pa.types.is_large_list_view,
)


@dataclass(frozen=True)
class LineageFacts:
    """What is known of a run before it has kept any rows.

    Attributes:
        command: "run" or "select".
        namespace: Of the job.
        corpus: What is read.
        fields: Names of the corpus's columns, or of its rows' fields where it is JSON.
        beside: The corpora of `--exclude` and `--drop-overlap-with`, which are read too.
        output: OUTPUT.
        ifd_column: The column that the output has beside those of the corpus.
        account: Azure's storage account, where the options name it; else "".
        parent, root: The run that started this one, and the outermost one, each as
            "namespace/job/run"; None for none. OPENLINEAGE_PARENT_ID, as Airflow gives it.
    """

    command: Literal["run", "select"]
    namespace: str
    corpus: Corpus
    fields: Sequence[str]
    beside: Sequence[Corpus]
    output: Location
    ifd_column: str
    account: str = ""
    parent: str | None = None
    root: str | None = None

    @property
    def job_name(self) -> str:
        """The same in each run of one schedule: the command and OUTPUT."""
        return f"sf-ray {self.command} {self.output.public_uri}"


def run_uuid(run_id: str, job_name: str) -> str:
    """The UUID that OpenLineage wants of a run, which the manifest's `run_id` and the job decide.

    One `run_id` may have several jobs: `sf-ray study plan` selects once for each arm.
    """
    from openlineage.client.uuid import generate_static_uuid

    began = datetime.strptime(run_id.partition("-")[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC)
    return str(generate_static_uuid(began, f"{run_id} {job_name}".encode()))


def started(facts: LineageFacts, run_id: str) -> "RunEvent":
    """The event of a run that begins now."""
    return _event(facts, run_id, "START", _now(), {}, _outputs(facts, None))


def completed(facts: LineageFacts, manifest: Manifest) -> "RunEvent":
    """The event of a run whose manifest is this."""
    run, parameters = _facets().tags_run, _facets().execution_parameters_run
    tags = {"sf_ray_run_id": manifest.run_id, "sf_ray_request_id": manifest.request_id}
    command = parameters.ExecutionParameter("command", value=manifest.command)
    facets = {
        "tags": run.TagsRunFacet(
            [run.TagsRunFacetFields(*tag, source="INTEGRATION") for tag in tags.items()]
        ),
        "executionParameters": parameters.ExecutionParametersRunFacet([command]),
    }
    outputs = _outputs(facts, manifest)
    return _event(facts, manifest.run_id, "COMPLETE", manifest.finished, facets, outputs)


def ended(
    facts: LineageFacts, run_id: str, state: Literal["FAIL", "ABORT"], message: str
) -> "RunEvent":
    """The event of a run that an error or a signal ends now.

    Args:
        facts: What is known of the run.
        run_id: Its name in log lines and metrics.
        state: ABORT where somebody stopped it.
        message: Why, without secrets.
    """
    error = _facets().error_message_run.ErrorMessageRunFacet(message, "PYTHON")
    outputs = _outputs(facts, None)
    return _event(facts, run_id, state, _now(), {"errorMessage": error}, outputs)


def to_json(event: "RunEvent") -> bytes:
    """The event as the library sends it, on several lines."""
    from openlineage.client.serde import Serde

    return printable_json(Serde.to_json(event, indent=2, ensure_ascii=False)).encode()


def parent_of(text: str) -> tuple[str, str, str]:
    """Namespace, job and run (a UUID) of a "namespace/job/run".

    Raises:
        ValueError: It is not of this form.
    """
    namespace, _, rest = text.partition("/")
    job, _, run = rest.rpartition("/")
    if not namespace or not job:
        raise ValueError(f"{text!r} is no NAMESPACE/JOB/RUN")
    return namespace, job, str(uuid.UUID(run))


def _facets() -> Any:
    """The modules of the library's facets, which from now on name this package as their source."""
    from openlineage.client import facet_v2

    facet_v2.set_producer(_PRODUCER)
    return facet_v2


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _event(
    facts: LineageFacts,
    run_id: str,
    state: str,
    time: str,
    facets: Mapping[str, Any],
    outputs: "list[OutputDataset]",
) -> "RunEvent":
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState

    job_type = _facets().job_type_job.JobTypeJobFacet("BATCH", "SF_RAY", "JOB")
    engine = _facets().processing_engine_run.ProcessingEngineRunFacet(
        version("ray"), "Ray", sf_ray.__version__
    )
    return RunEvent(
        eventType=RunState(state),
        eventTime=time,
        run=Run(
            run_uuid(run_id, facts.job_name),
            {"processing_engine": engine, **_parent(facts), **facets},
        ),
        job=Job(facts.namespace, facts.job_name, {"jobType": job_type}),
        inputs=_inputs(facts),
        outputs=outputs,
        producer=_PRODUCER,
    )


def _parent(facts: LineageFacts) -> Mapping[str, Any]:
    if facts.parent is None:
        return {}
    facet, root = _facets().parent_run, None
    if facts.root is not None:
        namespace, job, run = parent_of(facts.root)
        root = facet.Root(facet.RootRun(run), facet.RootJob(namespace, job))
    namespace, job, run = parent_of(facts.parent)
    return {"parent": facet.ParentRunFacet(facet.Run(run), facet.Job(namespace, job), root)}


def _inputs(facts: LineageFacts) -> "list[InputDataset]":
    from openlineage.client.event_v2 import InputDataset

    inputs = []
    for corpus in (facts.corpus, *facts.beside):
        facets = {"version": _version(corpus.fingerprint), **_table(corpus)}
        if corpus is facts.corpus:
            facets["schema"] = _schema(_columns(corpus, facts.fields))
        read = _facets().input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
            corpus.rows, corpus.bytes, len(corpus.shards)
        )
        name = _name(corpus.location, facts)
        inputs.append(InputDataset(*name, facets=facets, inputFacets={"inputStatistics": read}))
    return inputs


def _table(corpus: Corpus) -> dict[str, Any]:
    """The state of a table, and beside its place the name that it has in a catalogue."""
    if corpus.table is None:
        return {}
    facets: dict[str, Any] = {"version": _version(corpus.table.snapshot)}
    table = parse_table(corpus.table.name)
    if table is not None and table.kind == "iceberg":
        symlinks = _facets().symlinks_dataset
        name = symlinks.Identifier(f"iceberg://{table.catalog}", table.name, "TABLE")
        facets["symlinks"] = symlinks.SymlinksDatasetFacet([name])
    return facets


def _outputs(facts: LineageFacts, manifest: Manifest | None) -> "list[OutputDataset]":
    """The filtered shards, and the exported files; how many are known with the manifest alone."""
    from openlineage.client.event_v2 import OutputDataset

    # The type that `shard_writer` adds.
    columns = [*_columns(facts.corpus, facts.fields), (facts.ifd_column, pa.float64())]
    name, schema = _name(facts.output.join("data"), facts), {"schema": _schema(columns)}
    if manifest is None:
        return [OutputDataset(*name, facets=schema)]
    version_facet = {"version": _version(manifest.request_id)}
    shards, exported = manifest.output.shards, manifest.output.export
    outputs = [OutputDataset(*name, facets=schema | version_facet, outputFacets=_written(shards))]
    if exported is not None:
        name = _name(facts.output.join("export"), facts)
        files = _written(exported.files)
        outputs.append(OutputDataset(*name, facets=version_facet, outputFacets=files))
    return outputs


def _written(files: Sequence[WrittenFile]) -> dict[str, Any]:
    statistics = _facets().output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet
    rows, size = sum(file.rows for file in files), sum(file.bytes for file in files)
    return {"outputStatistics": statistics(rows, size, len(files))}


def _version(text: str) -> Any:
    return _facets().dataset_version_dataset.DatasetVersionDatasetFacet(text)


def _name(location: Location, facts: LineageFacts) -> DatasetName:
    uri = f"{location.uri.rstrip('/')}/{location.below}" if location.below else location.uri
    return dataset_of(uri, facts.account)


def _columns(corpus: Corpus, fields: Sequence[str]) -> list[tuple[str, pa.DataType | None]]:
    """The columns of all schemas: name, and type in the most common schema; JSON has no types."""
    if corpus.file_type is FileType.JSON:
        return [(name, None) for name in fields]
    types: dict[str, pa.DataType] = {}
    for schema, _ in corpus.by_schema():
        for column in schema:
            types.setdefault(column.name, column.type)
    return [*types.items()]


def _schema(columns: Sequence[tuple[str, pa.DataType | None]]) -> Any:
    fields = [_field(*column, position) for position, column in enumerate(columns, 1)]
    return _facets().schema_dataset.SchemaDatasetFacet(fields)


def _field(name: str, column_type: pa.DataType | None, position: int | None = None) -> Any:
    """A column, with what is nested in it."""
    words, nested = None, list[Any]()
    if column_type is not None:
        words, inner = _type_in_words(column_type)
        nested = [_field(*column) for column in inner]
    return _facets().schema_dataset.SchemaDatasetFacetFields(
        name, words, ordinal_position=position, fields=nested
    )


def _type_in_words(column_type: pa.DataType) -> tuple[str, list[tuple[str, pa.DataType]]]:
    """The name of a type, and what is nested in it, named as OpenLineage's own Spark part does."""
    if pa.types.is_struct(column_type):
        return "struct", [(field.name, field.type) for field in column_type]
    if pa.types.is_map(column_type):
        return "map", [("key", column_type.key_type), ("value", column_type.item_type)]
    if any(is_list(column_type) for is_list in _LISTS):
        return "array", [("_element", column_type.value_type)]
    return str(column_type), []
