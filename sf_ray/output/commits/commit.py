"""A whole output, committed to a table or to a repository of the hub, in one step and once.

OUTPUT stays the place of files: a table has no room for manifest, report, lease and scores. What is
committed are the kept rows, once the manifest says that they are whole. The manifest's request id
stands in the commit, so a commit is known again, whoever made it and whatever was lost on the way.
This module does not know the formats: each is a `Target` in a module of its own, with its library.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import pyarrow as pa

import sf_ray
from sf_ray.corpus.readers.shard import open_shard
from sf_ray.errors import SfRayError, UsageError
from sf_ray.output.commits.columns import cast_batch
from sf_ray.output.layout import Output
from sf_ray.output.manifest import Manifest
from sf_ray.storage.listing import File, list_files
from sf_ray.storage.table_names import parse_table
from sf_ray.text.redaction import public_uri, remember_secrets

Mode = Literal["append", "overwrite"]
# Names of the properties of a commit, in whichever way a format keeps such.
REQUEST_ID, MODE, ROWS = "sf-ray.request-id", "sf-ray.mode", "sf-ray.rows"
# How often rows are put on top of what others have committed in the meantime.
ATTEMPTS = 5
_BATCH_ROWS = 65536
_HUB = "hf://"


@dataclass(frozen=True)
class Committed:
    """A commit that is there.

    Attributes:
        name: The table or repository, without secrets.
        version: What its format calls this state of it, e.g. "snapshot 123".
        rows: How many rows were committed.
        is_new: Whether this command made it.
    """

    name: str
    version: str
    rows: int
    is_new: bool = True


@dataclass(frozen=True)
class KeptRows:
    """A whole output.

    Attributes:
        output: Where it lies.
        manifest: What it holds.
    """

    output: Output
    manifest: Manifest

    @property
    def request_id(self) -> str:
        """The request that it answers."""
        return self.manifest.request_id

    @property
    def rows(self) -> int:
        """How many rows were kept."""
        return self.manifest.selection.kept_rows

    def properties(self, mode: Mode) -> dict[str, str]:
        """What a commit says of itself."""
        return {
            REQUEST_ID: self.request_id,
            MODE: mode,
            ROWS: str(self.rows),
            "sf-ray.run-id": self.manifest.run_id,
            "sf-ray.version": sf_ray.__version__,
        }

    def files(self) -> list[File]:
        """The filtered shards, in the manifest's order.

        Raises:
            SfRayError: One is not there as the manifest says.
        """
        listed = {file.relative: file for file in list_files(self.output.data)}
        found = []
        for shard in self.manifest.output.shards:
            file = listed.get(shard.path)
            if file is None or file.size != shard.bytes:
                raise SfRayError(
                    f"{self.output.data.join(shard.path).public_uri}: not there as the manifest "
                    "says, so nothing was committed; the same command writes it again"
                )
            found.append(file)
        return found

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The kept rows, in the columns of a table; a part at a time, and each file once."""
        for file in self.files():
            with open_shard(self.output.data, file) as reader:
                for batch in reader.batches(_BATCH_ROWS):
                    yield cast_batch(batch, schema)


class Target(Protocol):
    """A table or repository that rows are committed to.

    Attributes:
        name: As it was asked for, without secrets.
        is_table: Whether rows go there by their columns, which a JSON corpus has not.
    """

    name: str
    is_table: bool

    def check(self, columns: pa.Schema | None) -> None:
        """Finds, before any row is scored, what would keep the commit from being made.

        Notes what is there now: an overwrite removes nothing that is newer.

        Args:
            columns: Of the rows, from `columns.common_schema`; None where it is no table.

        Raises:
            SfRayError: Says what, and what to do.
        """

    def find(self, request_id: str) -> Committed | None:
        """The commit of a request whose rows are there still; None where there is none."""

    def commit(self, kept: KeptRows) -> Committed:
        """Commits the rows in one step; where the commit is there already, finds it.

        Raises:
            SfRayError: Nothing of it is visible, and the same command goes on.
        """


def target_of(place: str, mode: Mode, storage_options: Mapping[str, Any], retry_s: float) -> Target:
    """What `--commit-to` names. Loads the library of its format.

    Args:
        place: The option.
        mode: `--commit-mode`.
        storage_options: For a Delta table. Iceberg catalogues and the hub have their own.
        retry_s: For how long a failing request is repeated.

    Raises:
        UsageError: It names no table or repository that rows can be committed to.
        SfRayError: The library is not installed.
    """
    remember_secrets(place, storage_options)
    if place.startswith(_HUB):
        from sf_ray.output.commits.hub import HubTarget

        return HubTarget.of(place, mode, retry_s)
    table = parse_table(place)
    if table is None or table.kind == "lance":
        raise UsageError(
            f"--commit-to {public_uri(place)}: rows can be committed to "
            "iceberg://CATALOG/namespace.table, delta://URI and hf://datasets/ORG/NAME"
        )
    if table.kind == "iceberg":
        from sf_ray.output.commits.iceberg import IcebergTarget

        return IcebergTarget(table, mode)
    from sf_ray.output.commits.delta import DeltaTarget

    return DeltaTarget(table, mode, storage_options, retry_s)


def is_answer(properties: Mapping[str, Any], request_id: str, mode: Mode) -> bool | None:
    """Whether a commit is that of a request; None to ask the one before it.

    Histories are walked from the newest commit back. A commit of ours that replaced all rows ends
    the walk: whatever lies before it is not in the table any more. So does an append of this very
    request, where its rows are to be all that is there.

    Args:
        properties: Of the commit.
        request_id: The request.
        mode: How its rows are to be committed.
    """
    if properties.get(REQUEST_ID) == request_id:
        return mode == "append" or properties.get(MODE) == "overwrite"
    return False if properties.get(MODE) == "overwrite" else None


def overtaken(name: str, by: str) -> SfRayError:
    """The error of an overwrite that would remove what came after this command began."""
    return SfRayError(
        f"{name}: {by} was not there when this command began, and an overwrite would remove its "
        "rows unseen, so nothing was committed; look at it, then start the same command again: it "
        "commits without scoring or writing anew"
    )


def worn_out(name: str) -> SfRayError:
    """The error of an append that others overtook again and again."""
    return SfRayError(
        f"{name}: other writers were faster {ATTEMPTS} times in a row, so nothing was committed; "
        "start the same command again when there is less going on: it commits without scoring or "
        "writing anew"
    )
