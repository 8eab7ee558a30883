"""`--diversify-to` on a real Ray, against greedy by hand."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest
import s3fs

from bench.support import free_scorer
from bench.support.corpora import make_rows, write_shards
from bench.support.free_scorer import FreeEmbedder
from sf_ray.cli import main
from sf_ray.selection import corpus_pass
from sf_ray.selection.diversity import partition_tasks
from sf_ray.selection.diversity.embedder import Embedder
from sf_ray.selection.diversity.facility_location import greedy, objective
from tests.support.cli import Cli
from tests.support.storage import S3, copy_of

with_ray = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


def kept_ids(output: Path) -> list[str]:
    return ds.dataset(output / "data", format="parquet").to_table()["id"].to_pylist()


def diversity_of(output: Path) -> dict[str, Any]:
    return json.loads((output / "manifest.json").read_text())["selection"]["diversity"]


def text_of(row: dict[str, Any]) -> str:
    return f"{row['instruction']}\n{row['input'] + chr(10) if row['input'] else ''}{row['output']}"


@pytest.fixture(scope="module")
def made(ray_session: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 120 rows in 3 shards, all of which can be scored, and their scores."""
    folder = tmp_path_factory.mktemp("made")
    rows = [row for row in make_rows(140) if row["instruction"] and row["output"]]
    write_shards(folder / "corpus", rows[:120])
    command = ["score", f"{folder}/corpus", f"{folder}/scores", "--model", str(tiny_model)]
    command += ["--unit-rows", "10", "--max-length", "64", "--device", "cpu"]
    assert main(command, free_scorer.specs(free_scorer.Settings(digests=True))) == 0
    return folder


@pytest.fixture
def corpus(made: Path, tmp_path: Path) -> Path:
    return copy_of(made, tmp_path) / "corpus"


@pytest.fixture
def select(
    corpus: Path,
    tiny_encoder: Path,
    tmp_path: Path,
    sf_ray_cli: Cli,
    free_scorer: Callable[..., None],
) -> Callable[..., tuple[str, str]]:
    """Selects from scores of 120 rows in 12 units: (stdout, stderr).

    Scores and embeddings cost nothing: a real encoder would import for seconds in every actor.
    """
    free_scorer(embeds=True, digests=True)
    scores = tmp_path / "scores"

    def run(output: Path, *options: object, code: int = 0) -> tuple[str, str]:
        given = ("--encoder", tiny_encoder, "--device", "cpu", *options)
        found, out, err = sf_ray_cli("select", corpus, scores, output, *given)
        assert found == code, err
        return out, err

    return run


class TestOnRay:
    pytestmark = with_ray

    @pytest.mark.release
    def test_few_rows_are_chosen_by_exact_greedy_and_embedded_once(
        self,
        select: Callable[..., tuple[str, str]],
        tiny_encoder: Path,
        corpus: Path,
        tmp_path: Path,
        free_scorer: Callable[..., None],
    ) -> None:
        free_scorer(digests=True)  # with the real encoder
        select(tmp_path / "by-ifd", "--keep-fraction", 0.5)
        by_ifd = kept_ids(tmp_path / "by-ifd")
        rows = {
            row["id"]: row for row in ds.dataset(corpus, format="parquet").to_table().to_pylist()
        }
        embedder = Embedder(tiny_encoder)
        # One by one: no padding, no other rows beside it.
        embeddings = np.concatenate([embedder.embed([text_of(rows[i])]) for i in by_ifd])
        best = greedy(embeddings.astype(np.float32), 12)

        out, err = select(tmp_path / "out", "--keep-fraction", 0.5, "--diversify-to", 0.1)
        assert "60 rows to embed" in err
        assert sorted(kept_ids(tmp_path / "out")) == sorted(by_ifd[row] for row in best.rows)
        found = diversity_of(tmp_path / "out")
        assert found["objective"] == pytest.approx(best.gains.sum(), rel=1e-3)
        assert found["mean_similarity"] == pytest.approx(best.gains.sum() / 60, rel=1e-3)
        assert (found["wanted_rows"], found["of_rows"]) == (12, 60)
        assert found["is_exact"]
        assert found["ratio_to_exact"] == 1
        assert "of the best IFD" in out
        assert "exact greedy" in out

        # Another number of rows needs no encoder any more; more rows need it for those only.
        _, err = select(tmp_path / "out", "--keep-fraction", 0.5, "--diversify-to", "5")
        assert "to embed" not in err
        assert sorted(kept_ids(tmp_path / "out")) == sorted(by_ifd[row] for row in best.rows[:5])
        _, err = select(tmp_path / "out", "--keep-fraction", 0.75, "--diversify-to", "5")
        assert "30 rows to embed" in err
        _, err = select(tmp_path / "out", "--keep-fraction", 0.75, "--diversify-to", "5")
        assert "nothing to do" in err

    def test_many_rows_are_chosen_part_by_part(
        self,
        select: Callable[..., tuple[str, str]],
        tiny_encoder: Path,
        corpus: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(partition_tasks, "EXACT_ROWS", 50)
        monkeypatch.setattr(partition_tasks, "PART_ROWS", 32)
        monkeypatch.setattr(partition_tasks, "_BIN_ROWS", 20)
        monkeypatch.setattr(partition_tasks, "_CHUNK_UNITS", 2)
        monkeypatch.setattr(corpus_pass, "UNITS_A_TASK", 3)
        asked = ("--keep-fraction", 0.8, "--diversify-to", 0.2, "--order", "ifd")
        out, _ = select(tmp_path / "one", *asked)
        found = diversity_of(tmp_path / "one")
        assert not found["is_exact"]
        assert found["of_rows"] == 96
        assert 0.8 < found["ratio_to_exact"] <= 1.05
        assert "by parts" in out
        chosen = kept_ids(tmp_path / "one")
        assert len(set(chosen)) == len(chosen) == 24

        select(tmp_path / "by-ifd", "--keep-fraction", 0.8, "--order", "ifd")
        by_ifd = kept_ids(tmp_path / "by-ifd")
        assert [i for i in by_ifd if i in set(chosen)] == chosen  # best first, and no others
        rows = {
            row["id"]: row for row in ds.dataset(corpus, format="parquet").to_table().to_pylist()
        }
        embeddings = FreeEmbedder().embed([text_of(rows[i]) for i in by_ifd])
        embeddings = embeddings.astype(np.float32)
        best = objective(embeddings, greedy(embeddings, 24).rows)
        reached = objective(embeddings, np.array([by_ifd.index(i) for i in chosen]))
        assert 0.9 < reached / best <= 1 + 1e-6
        assert found["objective"] <= reached * (1 + 1e-5)  # a lower bound

        # However the work is cut, the same rows.
        monkeypatch.setattr(partition_tasks, "_CHUNK_UNITS", 256)
        select(tmp_path / "two", *asked)
        assert kept_ids(tmp_path / "two") == chosen

    def test_a_quota_and_copies_come_first_and_all_is_kept_where_no_less_is_asked(
        self, select: Callable[..., tuple[str, str]], tmp_path: Path
    ) -> None:
        out, err = select(tmp_path / "out", "--keep-count", 20, "--diversify-to", "20")
        assert "to embed" not in err
        assert "no more than 20 rows are left" in out
        assert len(kept_ids(tmp_path / "out")) == 20
        out, _ = select(
            tmp_path / "out", "--quota", "input=1.0", "--drop-duplicates", "--diversify-to", "4"
        )
        assert len(kept_ids(tmp_path / "out")) == 4

    def test_nothing_is_kept_where_the_fraction_comes_to_no_row(
        self, select: Callable[..., tuple[str, str]], tmp_path: Path
    ) -> None:
        _, err = select(tmp_path / "out", "--keep-count", 20, "--diversify-to", "0.001")
        assert "to embed" not in err
        assert not list((tmp_path / "out").rglob("*.parquet"))  # no row, no file

    def test_a_broken_piece_of_embeddings_is_named(
        self, select: Callable[..., tuple[str, str]], tmp_path: Path
    ) -> None:
        select(tmp_path / "out", "--keep-count", 20, "--diversify-to", "5")
        piece = min((tmp_path / "scores" / "_embeddings").rglob("*.parquet"))
        piece.write_bytes(piece.read_bytes()[:-30])
        _, err = select(tmp_path / "out", "--keep-count", 20, "--diversify-to", "4", code=1)
        assert str(piece) in err
        assert "delete the file" in err
        piece.unlink()
        _, err = select(tmp_path / "out", "--keep-count", 20, "--diversify-to", "4")
        assert "rows to embed" in err

    def test_a_shard_that_cannot_be_read_is_skipped_when_it_is_embedded(
        self, select: Callable[..., tuple[str, str]], corpus: Path, tmp_path: Path
    ) -> None:
        bad = corpus / "train/00001.parquet"
        data, modified = bytearray(bad.read_bytes()), bad.stat()
        data[4:2000] = b"\xff" * 1996  # the footer is whole
        bad.write_bytes(data)
        os.utime(bad, ns=(modified.st_atime_ns, modified.st_mtime_ns))
        asked = ("--keep-count", 60, "--diversify-to", "5", "--order", "ifd")
        _, err = select(tmp_path / "out", *asked, code=1)
        assert "shard train/00001.parquet: cannot be read" in err
        _, err = select(tmp_path / "out", *asked, "--on-bad-shard", "skip", code=3)
        assert "note: skipping shard train/00001.parquet" in err
        assert len(kept_ids(tmp_path / "out")) == 5
        assert diversity_of(tmp_path / "out")["of_rows"] == 60

    @pytest.mark.release
    @pytest.mark.s3
    def test_every_pass_over_a_bucket_gives_what_a_disk_gives(
        self,
        select: Callable[..., tuple[str, str]],
        corpus: Path,
        tiny_model: Path,
        tiny_encoder: Path,
        tmp_path: Path,
        s3: S3,
        sf_ray_cli: Cli,
    ) -> None:
        asked = ("--quota", "input=0.6", "--drop-duplicates", "--diversify-to", 0.1)
        asked += ("--order", "ifd", "--export", "trl")
        select(tmp_path / "out", *asked)
        fs = s3fs.S3FileSystem(**s3.options)
        fs.put(f"{corpus}/", f"{s3.bucket}/corpus/", recursive=True)
        fs.put(f"{tiny_encoder}/", f"{s3.bucket}/encoder/", recursive=True)
        command = ("run", f"{s3.bucket}/corpus", f"{s3.bucket}/out", "--model", tiny_model)
        command += ("--unit-rows", 10, "--max-length", 64, "--device", "cpu")
        command += ("--storage-options", s3.options_json, "--encoder", f"{s3.bucket}/encoder")
        code, _, err = sf_ray_cli(*command, *asked)
        assert code == 0, err
        fs.invalidate_cache()
        fs.get(f"{s3.bucket}/out/", f"{tmp_path}/fetched/", recursive=True)
        for name in ("data/part-00000.parquet", "export/trl/data/00000.jsonl"):
            here, there = tmp_path / "out" / name, tmp_path / "fetched" / name
            assert there.read_bytes() == here.read_bytes(), name
