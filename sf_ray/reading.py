"""What runs left behind, for notebooks and scripts: scores as tables, and the output of a run.

Reads, and writes nothing. No Ray, no model.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sf_ray.corpus.units import Unit
from sf_ray.errors import SfRayError
from sf_ray.output.layout import Output
from sf_ray.output.manifest import Manifest
from sf_ray.output.report.files import read_run
from sf_ray.output.report.notebook import facts_as_html, run_as_html
from sf_ray.output.report.summary import Summary
from sf_ray.runtime.libraries import require
from sf_ray.scoring.pieces import read_piece, read_unit_piece
from sf_ray.scoring.score_set import SAMPLE, find_score_set
from sf_ray.scoring.score_table import SCORE_SCHEMA
from sf_ray.scoring.stored_set import StoredSet, stored_set_of
from sf_ray.storage.files import map_requests
from sf_ray.storage.location import Location, whole_path
from sf_ray.text.printable import printable

if TYPE_CHECKING:
    import duckdb
    import pandas
    import polars

# The extra of this package that brings what a table can become.
_EXTRA = "notebook"


class ScoreTable:
    """The scores of a corpus, a row for each of its rows. Pieces are read when rows are asked for.

    Arrow's PyCapsule interface hands the rows to whatever takes it, piece by piece:
    `polars.DataFrame(table)`, `duckdb.from_arrow(table)`, `pyarrow.table(table)`.

    Attributes:
        scoring_id: Name of the score set.
        identity: Everything that decided the scores.
        model: Name of the model, as it was given.
        rows: Number of rows.
        missing_units: Units of the corpus that have no scores; None where nothing beside the scores
            says what the corpus was.
        schema: The columns, as docs/concepts.md explains them.
    """

    def __init__(self, stored: StoredSet, schema: pa.Schema) -> None:
        self._stored = stored
        self.schema = schema
        self.scoring_id = stored.score_set.scoring_id
        self.identity = stored.score_set.identity
        self.model = stored.model
        self.missing_units = stored.missing_units
        # Pieces of a sample may have less rows than their names say.
        sample = self.identity.get(SAMPLE)
        self.rows: int = sample["rows"] if sample else stored.rows

    def __len__(self) -> int:
        return self.rows

    def __repr__(self) -> str:
        where = printable(self._stored.score_set.pieces.public_uri)
        return f"<scores of {self.rows:,} rows by {printable(self.model)}: {where}>"

    def _repr_html_(self) -> str:
        identity = self.identity
        window = f"{identity['dtype']}, {identity['alignment']}, window {identity['max_length']}"
        facts = [
            ("model", self.model),
            ("scored in", window),
            ("shards", f"{len(self._stored.units):,}"),
            ("columns", ", ".join(self.schema.names)),
            ("place", self._stored.score_set.pieces.public_uri),
        ]
        if self.missing_units:
            facts.append(("units without scores", f"{self.missing_units:,}"))
        note = "rows: .arrow(), .polars(), .pandas(), .duckdb(), or .batches() for one piece a time"
        return facts_as_html(f"Scores of {self.rows:,} rows", facts, note)

    def batches(self) -> pa.RecordBatchReader:
        """The rows, in the order of the corpus; a batch is a piece, and few are held at a time.

        Raises:
            SfRayError: While rows are read: a piece cannot be read, or holds other rows.
        """
        return pa.RecordBatchReader.from_batches(self.schema, self._batches())

    def arrow(self) -> pa.Table:
        """All rows in memory, as an Arrow table."""
        return pa.Table.from_batches(self._batches(), self.schema)

    def pandas(self) -> "pandas.DataFrame":
        """All rows in memory, as a data frame of pandas."""
        require(_EXTRA, "pandas")
        return self.arrow().to_pandas()

    def polars(self) -> "polars.DataFrame":
        """All rows in memory, as a data frame of Polars."""
        require(_EXTRA, "polars")
        import polars

        return polars.DataFrame(self)

    def duckdb(
        self, connection: "duckdb.DuckDBPyConnection | None" = None
    ) -> "duckdb.DuckDBPyRelation":
        """The rows as a relation of DuckDB, which every query reads anew, piece by piece.

        Args:
            connection: Where the relation lives; by default DuckDB's own connection.
        """
        require(_EXTRA, "duckdb")
        import duckdb

        return (connection or duckdb.default_connection()).from_arrow(self)

    def __arrow_c_schema__(self) -> object:
        """The columns, by Arrow's PyCapsule interface."""
        return self.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The rows, by Arrow's PyCapsule interface."""
        return self.batches().__arrow_c_stream__(requested_schema)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        stored, names = self._stored, self.schema.names
        pieces = stored.score_set.pieces
        # The numbers of the rows are what a piece is checked by.
        columns = names if "row" in names else [*names, "row"]

        def read(place: tuple[str, Unit]) -> pa.Table:
            name, unit = place
            if SAMPLE in self.identity:
                return read_piece(pieces.join(name), columns)
            return read_unit_piece(pieces.join(name), unit, columns)

        for table in map_requests(pieces, read, stored.places()):
            for batch in table.select(names).to_batches():
                # Under the one schema: files differ in whether a column may be null.
                yield pa.RecordBatch.from_arrays(batch.columns, schema=self.schema)


def read_scores(
    place: str | os.PathLike[str],
    *,
    scoring_id: str | None = None,
    columns: Sequence[str] | None = None,
    partial: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> ScoreTable:
    """Finds the scores that `sf-ray score` or `sf-ray run` left behind.

    Of a shard that was scored in several versions, only the version that the last run saw counts.

    Args:
        place: SCORES or OUTPUT, as a path or URI.
        scoring_id: Which score set, where several lie there.
        columns: Columns of the score table; all by default.
        partial: Take what there is, where rows of the corpus have no scores yet.
        storage_options: Arguments of the file system of fsspec, e.g. credentials.

    Raises:
        SfRayError: No scores are there; several sets are, and none was chosen; or they are not
            complete.
    """
    unknown = [name for name in columns or () if name not in SCORE_SCHEMA.names]
    if unknown:
        raise SfRayError(
            f"columns: scores have no {' and no '.join(map(repr, unknown))}; they have "
            + ", ".join(SCORE_SCHEMA.names)
        )
    location = Location(whole_path(os.fspath(place)), storage_options or {})
    stored = stored_set_of(find_score_set(location, scoring_id, "scoring_id"))
    _refuse_old_versions(stored)
    if stored.missing_units and not partial:
        raise SfRayError(
            f"{stored.score_set.pieces.public_uri} is not complete, units of its corpus without "
            f"scores: {stored.missing_units:,}; finish it with `sf-ray score`, or take what is "
            "there with partial=True"
        )
    fields = [SCORE_SCHEMA.field(name) for name in columns or SCORE_SCHEMA.names]
    return ScoreTable(stored, pa.schema(fields))


def _refuse_old_versions(stored: StoredSet) -> None:
    """Refuses two versions of a shard of which nothing says that one is the current one."""
    seen: set[str] = set()
    for shard in stored.units:
        if shard.relative in seen:
            raise SfRayError(
                f"{stored.score_set.pieces.public_uri}: {printable(shard.relative)} was scored in "
                "several versions, and the last run saw none of them; score the corpus again, or "
                "remove the pieces of the old version"
            )
        seen.add(shard.relative)


@dataclass(frozen=True, repr=False)
class RunOutput:
    """What a finished run left in OUTPUT; a notebook shows what was kept.

    Attributes:
        manifest: What went in, what was asked, and what came out: docs/manifest.schema.json.
        summary: The histograms and rows that report.html shows.
    """

    manifest: Manifest
    summary: Summary
    _location: Location

    @property
    def data_files(self) -> list[str]:
        """Paths or URIs of the filtered shards."""
        data = self._location.join("data")
        return [data.join(shard.path).public_uri for shard in self.manifest.output.shards]

    def scores(self, *, columns: Sequence[str] | None = None) -> ScoreTable:
        """The scores that the rows were selected by.

        Args:
            columns: Columns of the score table; all by default.

        Raises:
            SfRayError: They are not where the run had them.
        """
        scores = self.manifest.scores
        return read_scores(
            scores.uri,
            scoring_id=scores.exact.scoring_id if scores.exact else scores.scoring_id,
            columns=columns,
            partial=True,  # shards may have come since
            storage_options=self._location.storage_options,
        )

    def __repr__(self) -> str:
        selection = self.manifest.selection
        kept = f"{selection.kept_rows:,} of {self.manifest.input.rows:,} rows"
        return f"<output with {kept}: {printable(self._location.public_uri)}>"

    def _repr_html_(self) -> str:
        return run_as_html(self.manifest, self.summary, self._location.public_uri.rstrip("/"))


def read_output(
    place: str | os.PathLike[str], *, storage_options: Mapping[str, Any] | None = None
) -> RunOutput:
    """Reads what a finished run says of itself.

    Args:
        place: OUTPUT, as a path or URI.
        storage_options: Arguments of the file system of fsspec, e.g. credentials.

    Raises:
        SfRayError: There is no finished run, or one that this version cannot read.
    """
    location = Location(whole_path(os.fspath(place)), storage_options or {})
    return RunOutput(*read_run(Output(location)), location)
