"""Secrets that a user gives, in runs that fail in each stage: no output, log or file has one."""

import json
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bench.support.corpora import make_rows, write_shards
from tests.support.storage import S3, contents

pytestmark = [pytest.mark.ray, pytest.mark.s3]

ROOT = Path(__file__).parents[2]
NOWHERE = "127.0.0.1:9"  # the port of `discard`: nobody answers


def canary(where: str) -> str:
    """A secret that stands nowhere else, and that says where it came from."""
    return f"canary-{where}-{secrets.token_hex(4)}"


def test_no_secret_is_left_anywhere(s3: S3, tiny_model: Path, tmp_path: Path) -> None:
    import s3fs

    corpus = write_shards(tmp_path / "corpus", make_rows(60))
    s3fs.S3FileSystem(**s3.options).put(str(corpus), f"{s3.bucket}/a", recursive=True)
    s3fs.S3FileSystem(**s3.options).put(str(corpus), f"{s3.bucket}/b", recursive=True)
    options = dict(s3.options, secret=canary("option"), token=canary("token"))
    always = ["--storage-retry-s", "0", "--debug"]
    given = ["--storage-options", json.dumps(options), *always]
    headers = {"headers": {"Authorization": f"Bearer {canary('header')}"}}
    of_link = ["--storage-options", json.dumps(headers), *always]
    link = f"http://{canary('user')}:{canary('password')}@{NOWHERE}/c?sig={canary('query')}"
    slip = tmp_path / "slip.yaml"
    slip.write_text(
        f"storage-options: {{secret: {canary('yaml')}}}\n password: {canary('line')}: x"
    )
    out = str(tmp_path / "out")
    scoring = ["--model", str(tiny_model), "--max-length", "128", "--keep-fraction", "0.5"]
    commands = [
        ("plan", ["run", f"{s3.bucket}-absent/c", out, *scoring, *given]),
        ("plan of a link", ["run", link, out, *scoring, *of_link]),
        ("plan of a chain", ["run", f"zip://a.jsonl::{link}", out, *scoring, *of_link]),
        ("option", ["run", "in", out, "--columns", f'{{"secret": "{canary("wrong")}"}}', *given]),
        ("yaml", ["run", "in", out, "--config", str(slip), *given]),
        ("model", ["run", str(corpus), out, "--model", link, "--keep-count", "1", *of_link]),
        ("template", ["run", str(corpus), out, *scoring, "--template", link, *of_link]),
        ("worker", ["run", f"{s3.bucket}/a", f"{out}-w", *scoring, *given]),
        (
            "scores",
            ["run", f"{s3.bucket}/a", out, "--scores", f"{s3.bucket}-no/s", *scoring, *given],
        ),
        ("done", ["run", f"{s3.bucket}/a", f"{out}-done", *scoring, *given]),
        ("select", ["run", f"{s3.bucket}/b", f"{out}-select", *scoring, *given]),
        ("write", ["run", f"{s3.bucket}/a", f"{s3.bucket}-no/out", *scoring, *given]),
        ("report", ["report", link, *of_link]),
        ("show", ["show", link, *of_link]),
    ]
    (tmp_path / "commands").mkdir()
    file = tmp_path / "commands" / "commands.json"
    file.write_text(json.dumps(commands))
    environment = {
        "AWS_SESSION_TOKEN": canary("session"),
        "AZURE_STORAGE_KEY": canary("azure"),
        "HF_TOKEN": canary("hub"),
    }
    # Short, because the names of sockets have at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as ray_folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.failing_commands", file, *given],
            cwd=ROOT,
            env={**os.environ, **environment, "RAY_TMPDIR": ray_folder, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        print(done.stdout[-20_000:], done.stderr[-20_000:])
        ends = [
            line.rpartition(" ")[2] for line in done.stdout.splitlines() if " ends with " in line
        ]
        assert len(ends) == len(commands), "a command did not end with an exit code"
        assert ends[9] == "0"
        assert set(ends[:9] + ends[10:]) <= {"1", "2"}
        kept = contents(Path(ray_folder))
    assert any("raylet.out" in path for path in kept)
    for folder in tmp_path.iterdir():
        if folder.name.startswith("out"):
            kept |= {f"{folder.name}/{path}": data for path, data in contents(folder).items()}
    assert "out-done/manifest.json" in kept
    kept |= {"stdout": done.stdout.encode(), "stderr": done.stderr.encode()}
    found = {path: data.count(b"canary-") for path, data in kept.items() if b"canary-" in data}
    assert not found
