"""Whole outputs, as runs leave them, made of any shards."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sf_ray.output.commits.commit import KeptRows
from sf_ray.output.layout import Output
from sf_ray.output.manifest import Manifest
from sf_ray.storage.files import put_bytes
from sf_ray.storage.location import Location
from tests.support.manifests import manifest_keys


def make_output(
    place: Location, shards: Mapping[str, pa.Table], request_id: str = "request-1"
) -> KeptRows:
    """Writes shards, card, report and manifest.

    Args:
        place: OUTPUT.
        shards: Path below `data` -> rows.
        request_id: The request that the output answers.
    """
    output = Output(place)
    files = []
    for path, table in shards.items():
        sink = pa.BufferOutputStream()
        if path.endswith(".parquet"):
            pq.write_table(table, sink)
        else:
            with pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
        data = sink.getvalue().to_pybytes()
        put_bytes(output.data.join(path), data)
        files.append({"path": path, "rows": table.num_rows, "bytes": len(data)})
    kept = sum(table.num_rows for table in shards.values())
    keys = manifest_keys(rows=max(10 * kept, 1), ok=kept, kept=kept)
    keys["request_id"], keys["run_id"] = request_id, "20260101T000000-abcdef"
    keys["output"] = {"ifd_column": "ifd", "shards": files, "export": None}
    manifest = Manifest.model_validate(keys)
    put_bytes(output.page, b"<html></html>")
    put_bytes(output.card, b"---\n{}\n---\n<!-- written by sf_ray with the data -->\n# Rows\n")
    output.finish(manifest)
    return KeptRows(output, manifest)


def local_output(
    folder: Path, shards: Mapping[str, pa.Table], request_id: str = "request-1"
) -> KeptRows:
    """An output on this machine's disk."""
    return make_output(Location(str(folder)), shards, request_id)


def kept_table(*texts: str, **columns: pa.Array) -> pa.Table:
    """Kept rows with a text, an IFD and any other columns."""
    ifd = pa.array([0.5 + number / 100 for number in range(len(texts))])
    return pa.table({"text": list(texts), **columns, "ifd": ifd})
