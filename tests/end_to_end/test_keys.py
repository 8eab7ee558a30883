"""The whole job on names that no tool would choose, with a scorer that costs nothing."""

import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.support.corpora import make_rows
from sf_ray.storage.files import read_bytes
from sf_ray.storage.listing import list_files
from sf_ray.storage.location import Location
from tests.support.cli import Cli
from tests.support.storage import S3

pytestmark = [pytest.mark.ray, pytest.mark.s3, pytest.mark.usefixtures("ray_session")]

# Of a bucket and, where a disk can have them, of a disk.
NAMES = [
    "c/p.jsonl", "c//p.jsonl", "/lead.jsonl", "lead.jsonl", "zip::a/b.jsonl", "file://x.jsonl",
    "s3://bucket/y.jsonl", "~h#?%2F%25 *[v]{w}.jsonl", "A.jsonl", "a.jsonl", "\u00e9.jsonl",
    "e\u0301.jsonl", "esc\x1b\\n.jsonl", "n" * 240 + ".jsonl",
]  # fmt: skip


@pytest.mark.release
def test_strange_names_go_from_a_bucket_to_a_disk_and_back(
    tmp_path: Path, s3: S3, tiny_model: Path, sf_ray_cli: Cli, free_scorer: Callable[..., None]
) -> None:
    free_scorer()
    fs = Location(s3.bucket, s3.options).fs
    bucket = s3.bucket.removeprefix("s3://")
    for name, text in _shards().items():
        fs.pipe_file(f"{bucket}/corpus/{name}", text)
    fs.call_s3("put_object", Bucket=bucket, Key="corpus/marker.jsonl/", Body=b"")
    places = [f"{s3.bucket}/corpus", tmp_path / "o::ut", f"{s3.bucket}/o::ut"]
    for source, target in itertools.pairwise(places):
        folder = source if source == places[0] else f"{source}/data"
        code, _, stderr = sf_ray_cli(
            "run", folder, target, "--model", tiny_model, "--keep-fraction", "1",
            "--storage-options", s3.options_json, "--unit-rows", "16", "--max-length", "128",
            "--ifd-column", f"ifd{places.index(target)}", "--storage-retry-s", "1",
        )  # fmt: skip
        assert code == 0, stderr
        assert f"{len(NAMES)} shards, {4 * len(NAMES)} rows" in stderr
        data = Location(f"{target}/data", s3.options)
        rows: Counter[str] = Counter()
        for file in list_files(data):
            lines = read_bytes(data.join(file.relative)).splitlines()
            rows[json.loads(lines[0])["output"].partition(" ")[0]] += len(lines)
        assert rows == {str(number): 4 for number in range(len(NAMES))}


def _shards() -> dict[str, bytes]:
    """Four rows a name; the first word of an answer is the number of the name."""
    made = {}
    for number, name in enumerate(NAMES):
        rows = [{**row, "output": f"{number} {row['output']}"} for row in make_rows(4)]
        made[name] = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    return made
