"""`sf-ray run --exact` on a real Ray: what float32 would keep, mostly without float32."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.support.corpora import make_rows
from sf_ray.commands.setup import Specs
from tests.support.cli import Cli
from tests.support.hash_scorer import HashEngineSpec
from tests.support.storage import contents
from tests.support.waiting import wait_until

pytestmark = pytest.mark.ray

ROWS = 600
OPTIONS = ("--max-length", "128", "--unit-rows", "32")
# A sample far smaller than the corpus, so that most rows are left to the fast type.
EXACT = ("--dtype", "bfloat16", "--exact", "--exact-sample", "40")
# A command line whose losses are hashes, in a process of its own; the first argument is `UNIT_S`.
SLOW = """
import sys
import ray.cloudpickle
from sf_ray.cli import main
from sf_ray.commands.setup import Specs
from tests.support import hash_scorer
hash_scorer.UNIT_S = float(sys.argv[1])
ray.cloudpickle.register_pickle_by_value(hash_scorer)
sys.exit(main(sys.argv[2:], specs=Specs(engine=hash_scorer.HashEngineSpec)))
"""


def write_corpus(folder: Path, rows: int) -> Path:
    """Writes Alpaca rows of two sources in three shards; some have no score, some are copies."""
    table = pa.Table.from_pylist(make_rows(rows))
    table = pa.concat_tables([table.slice(0, rows - 30), table.slice(60, 30)])
    table = table.append_column("source", pa.array(["ab"[n % 7 == 0] for n in range(rows)]))
    folder.mkdir()
    for shard in range(3):
        part = table.slice(shard * rows // 3, rows // 3)
        pq.write_table(part, folder / f"{shard}.parquet", row_group_size=100)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, and the scores that all runs of this file share."""
    folder = tmp_path_factory.mktemp("exact")
    write_corpus(folder / "corpus", ROWS)
    return folder


@pytest.fixture
def hashes(ray_session: None, sf_ray_cli: Cli) -> Cli:
    """A command line whose losses are hashes, with an error in fast types."""
    sf_ray_cli.specs = Specs(engine=HashEngineSpec)
    return sf_ray_cli


def arguments(folder: Path, out: Path, model: Path, *options: object) -> list[object]:
    places = [folder / "corpus", out, "--scores", folder / "scores"]
    return ["run", *places, "--model", model, *OPTIONS, *options]


def manifest_of(out: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return manifest


def kept(out: Path) -> list[str]:
    """The instructions and answers of the kept rows, sorted; of copies, any may be kept."""
    paths = sorted((out / "data").rglob("*.parquet"))
    rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    return sorted(f"{row['instruction']}: {row['output']}" for row in rows)


@pytest.mark.parametrize(
    "what",
    [
        ["--keep-fraction", "0.05"],
        pytest.param(
            ["--quota", "source:{a: 0.3, b: 0.1}", "--min-answer-tokens", "9", "--order", "ifd"],
            marks=pytest.mark.release,
        ),
        pytest.param(
            ["--keep-fraction", "1", "--min-ifd", "0.6", "--drop-duplicates"],
            marks=pytest.mark.release,
        ),
    ],
    ids=["fraction", "quota", "bounds and copies"],
)
def test_the_kept_rows_are_those_of_float32(
    folder: Path, tmp_path: Path, tiny_model: Path, hashes: Cli, what: Sequence[str]
) -> None:
    for out, extra in (("float32", ()), ("exact", EXACT)):
        code, _, stderr = hashes(*arguments(folder, tmp_path / out, tiny_model, *what, *extra))
        assert code == 0, stderr
    assert kept(tmp_path / "exact") == kept(tmp_path / "float32")
    truth, exact = (manifest_of(tmp_path / out) for out in ("float32", "exact"))
    for key in ("kept_rows", "eligible_rows", "dropped_duplicates"):
        assert exact["selection"][key] == truth["selection"][key], key
    again = exact["scores"]["exact"]
    assert 25 <= again["sampled_rows"] < again["rescored_rows"] < ROWS / 2
    assert "exact" not in truth["scores"]


@pytest.mark.release
def test_an_exact_run_says_what_it_did_and_the_same_again_does_nothing(
    tmp_path: Path, tiny_model: Path, hashes: Cli
) -> None:
    write_corpus(tmp_path / "corpus", 240)
    out = tmp_path / "out"
    command = arguments(tmp_path, out, tiny_model, "--keep-fraction", "0.1")
    code, stdout, stderr = hashes(*command, *EXACT)
    assert code == 0, stderr
    manifest = manifest_of(out)
    scores, exact = manifest["scores"], manifest["scores"]["exact"]
    assert f"exact    {exact['rescored_rows']} rows" in stdout
    assert "bfloat16 is off by" in stdout
    assert f"{tmp_path}/scores/{exact['scoring_id']}" in stdout
    assert "were scored again in float32" in (out / "report.html").read_text(encoding="utf-8")
    assert "--exact" in manifest["command"]
    for errors in exact["errors"]:
        assert errors["band"] == exact["safety_factor"] * errors["largest_error"]
    # What is written is what was selected by: the scores of the mixed set.
    pieces = (tmp_path / "scores" / exact["scoring_id"]).rglob("*.parquet")
    ifd = pa.concat_tables([pq.read_table(path) for path in sorted(pieces)])["ifd"].to_pylist()
    written = [pq.read_table(path) for path in sorted((out / "data").rglob("*.parquet"))]
    assert {*pa.concat_tables(written)["ifd"].to_pylist()} < {*ifd}

    before = contents(tmp_path)
    code, _, stderr = hashes(*command, *EXACT)
    assert (code, "nothing to do" in stderr) == (0, True)
    assert contents(tmp_path) == before
    # Without --exact it is another request. The fast scores are there, and `select` finds them too,
    # though partial sets lie beside them.
    assert hashes(*command, "--dtype", "bfloat16")[0] == 0
    assert "exact" not in manifest_of(out)["scores"]
    select = ("select", tmp_path / "corpus", tmp_path / "scores", tmp_path / "selected")
    assert hashes(*select, "--keep-fraction", "0.1")[0] == 0
    assert manifest_of(tmp_path / "selected")["scores"]["scoring_id"] == scores["scoring_id"]
    code, stdout, _ = hashes("show", tmp_path / "scores", "--scoring-id", exact["scoring_id"])
    assert (code, "240 rows" in stdout) == (0, True)


def test_with_float32_scores_exact_does_nothing_and_says_so(
    folder: Path, tmp_path: Path, tiny_model: Path, hashes: Cli
) -> None:
    command = arguments(folder, tmp_path / "out", tiny_model, "--keep-fraction", "0.05")
    code, _, stderr = hashes(*command, "--exact")
    assert code == 0
    assert "note: --exact has nothing to do: all scores are float32" in stderr
    assert "exact" not in manifest_of(tmp_path / "out")["scores"]
    code, _, stderr = hashes(*command)
    assert (code, "nothing to do: the output is there" in stderr) == (0, True)


def test_select_takes_no_exact(folder: Path, tmp_path: Path, hashes: Cli) -> None:
    select = ("select", folder / "corpus", folder / "scores", tmp_path, "--keep-count", "5")
    code, _, stderr = hashes(*select, "--exact")
    assert code == 2
    assert "--exact" in stderr


@pytest.mark.release
def test_an_exact_run_that_is_killed_goes_on_with_the_rows_that_lack_a_score(
    tmp_path: Path, tiny_model: Path, hashes: Cli
) -> None:
    import ray

    write_corpus(tmp_path / "corpus", ROWS)
    options = ("--keep-fraction", "0.2", *EXACT)
    command = [str(part) for part in arguments(tmp_path, tmp_path / "out", tiny_model, *options)]
    log = tmp_path / "log"

    def start(unit_s: float) -> subprocess.Popen[bytes]:
        here = ["--ray-address", ray.get_runtime_context().gcs_address]
        with log.open("w") as file:
            return subprocess.Popen(
                [sys.executable, "-c", SLOW, str(unit_s), *command, *here],
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
                stdout=file,
                stderr=file,
            )

    def float32_pieces() -> dict[Path, int]:
        """The pieces of the rows near the cut, and when each was committed."""
        return {
            path: path.stat().st_mtime_ns
            for described in (tmp_path / "scores").glob("*/identity.json")
            if json.loads(described.read_text())["identity"].get("sample", {}).get("rows", 0) > 40
            for path in described.parent.glob("*.parquet")
        }

    process = start(unit_s=0.5)

    def has_begun() -> bool:
        assert process.poll() is None, log.read_text()
        return bool(float32_pieces())

    wait_until(has_begun, log.read_text)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(2)  # the cluster ends what the driver began
    left = float32_pieces()
    assert not (tmp_path / "out" / "manifest.json").exists()

    code, _, stderr = hashes(*command)
    assert code == 0, stderr
    assert manifest_of(tmp_path / "out")["scores"]["exact"]["rescored_rows"] > 40
    after = float32_pieces()
    assert {path: after[path] for path in left} == left
    assert len(after) > len(left)
