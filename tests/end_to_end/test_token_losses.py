"""`--token-losses` and `--rank-by s-ifd`: on a real Ray, and with the demo model's real weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch

from bench.support.corpora import make_rows
from sf_ray.corpus.examples import Example
from sf_ray.corpus.formats import resolve_format
from sf_ray.encoding.encoded_table import encoded_table, sequences_of
from sf_ray.encoding.encoder import Encoder
from sf_ray.engine.engine import Engine
from sf_ray.engine.model_files import load_tokenizer, resolve_model
from sf_ray.scoring.token_losses import DIFFERENCES
from sf_ray.scoring.unit_scorer import UnitScorer
from sf_ray.selection.selective_ifd import count_tokens, find_threshold, selective_ifd, tokens_in
from tests.support.cli import Cli
from tests.support.engines import load

Files = dict[str, bytes]


def files_in(folder: Path) -> Files:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.parquet")}


def pieces_of(files: Files) -> Files:
    return {name: data for name, data in files.items() if "_token-losses" not in name}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_token_losses_are_kept_found_again_and_ranked_by(
    corpus: Path, tiny_model: Path, tmp_path: Path, sf_ray_cli: Cli
) -> None:
    scores, out = tmp_path / "scores", tmp_path / "out"
    score = ("score", corpus, scores, "--model", tiny_model, "--unit-rows", "16")
    score += ("--max-length", "128", "--max-bad-fraction", "1")
    select = ("select", corpus, scores, out, "--rank-by", "s-ifd", "--keep-count", "20")
    select += ("--max-bad-fraction", "1")

    assert sf_ray_cli(*score)[0] == 0
    plain = files_in(scores)
    code, _, stderr = sf_ray_cli(*select)
    assert code == 1
    units = len(plain)
    assert f"{units} of {units} units of {corpus} have no token losses" in stderr
    assert "rows 0 to " in stderr
    assert "--token-losses" in stderr
    assert not out.exists()

    # Pieces and no token losses: all units once more, and not one other byte of a piece.
    code, _, stderr = sf_ray_cli(*score, "--token-losses")
    assert code == 0
    assert f"note: {units} of them have scores and no token losses" in stderr
    both = files_in(scores)
    assert pieces_of(both) == plain
    assert len(both) == 2 * units

    # One unit without token losses, another without a piece: these two alone.
    beside = sorted(name for name in both if "_token-losses" in name)
    (scores / beside[0]).unlink()
    (scores / beside[1].replace("_token-losses/", "")).unlink()
    code, _, stderr = sf_ray_cli(*score, "--token-losses")
    assert code == 0
    assert f"{units - 2} have scores, 2 to score" in stderr
    assert "note: 1 of them have scores and no token losses" in stderr
    assert files_in(scores) == both
    assert "0 to score" in sf_ray_cli(*score, "--token-losses")[2]

    code, stdout, _ = sf_ray_cli(*select)
    assert code == 0
    assert "cut-off  S-IFD" in stdout
    found = json.loads((out / "manifest.json").read_text())["selection"]
    rows = [row for name in beside for row in pq.read_table(scores / name)[DIFFERENCES].to_pylist()]
    amounts = np.sort(np.abs(np.concatenate([row for row in rows if row])))
    assert found["rank_by"] == "s-ifd"
    assert found["s_ifd"]["token_share"] == 0.75
    assert found["s_ifd"]["tokens"] == len(amounts)
    assert found["s_ifd"]["threshold_nats"] == amounts[::-1][int(0.75 * len(amounts)) - 1]
    assert ds.dataset(out / "data").count_rows() == found["kept_rows"] > 0
    assert "nothing to do" in sf_ray_cli(*select)[2]

    # `run` does both at once, and finds what is there.
    run = ("run", corpus, tmp_path / "run", *score[3:], "--scores", scores, *select[4:8])
    code, _, stderr = sf_ray_cli(*run)
    assert code == 2
    assert "--rank-by s-ifd needs the losses of tokens: add --token-losses" in stderr
    code, _, stderr = sf_ray_cli(*run, "--token-losses")
    assert code == 0
    assert "0 to score" in stderr
    kept = [
        ds.dataset(folder / "data").to_table().to_pylist() for folder in (out, tmp_path / "run")
    ]
    assert kept[0] == kept[1]


def by_hand(nats: list[np.ndarray[Any, Any]], share: float) -> list[float]:
    """S-IFD by its definition, over unrounded differences."""
    amounts = np.sort(np.abs(np.concatenate(nats)))[::-1]
    threshold = amounts[int(share * len(amounts)) - 1]
    counted = [row[np.abs(row) >= threshold] for row in nats]
    return [float(np.exp(-row.mean())) if len(row) else np.nan for row in counted]


@pytest.mark.weights
def test_s_ifd_with_real_weights_is_that_of_the_definition() -> None:
    rows = [
        {"instruction": row["instruction"], "input": row["input"], "output": str(row["output"])}
        for row in make_rows(400, seed=8)
        if row["instruction"] and len(str(row["output"] or "").split()) > 1
    ][:200]
    assert len(rows) == 200
    row_format = resolve_format(list(rows[0]))
    examples = [row_format.render(row) for row in rows]
    assert all(isinstance(example, Example) for example in examples)
    model = resolve_model("demo")
    tokenizer = load_tokenizer(model)
    encoded = encoded_table(Encoder(tokenizer, 1024).encode(examples))
    engine = Engine(model.path)
    table = UnitScorer(engine, token_losses=True).begin("a", 0, encoded).result()
    lists = table[DIFFERENCES].combine_chunks()
    counts = lists.value_lengths().fill_null(0).to_numpy().astype(np.int64)
    nats = lists.flatten().to_numpy()
    selected = find_threshold(
        0.75, lambda it: count_tokens(it, nats), lambda it: tokens_in(it, nats)
    )
    assert selected is not None
    found = selective_ifd(counts, nats, selected.threshold_nats)

    # The definition, over the engine's own losses: the answer's tokens but the first one.
    sequences = sequences_of(encoded)
    losses = engine.begin_tokens(sequences).result().tokens
    assert losses is not None
    spans = np.split(losses.astype(np.float64), sequences.token_starts[1:-1])
    unrounded = [
        direct - behind[len(behind) - len(direct) :]
        for behind, direct in zip(spans[::2], spans[1::2], strict=True)
    ]
    assert [len(row) for row in unrounded] == counts.tolist()
    np.testing.assert_allclose(found, by_hand(unrounded, 0.75), atol=1e-6, equal_nan=True)

    # And over the losses of the model itself. A token at the threshold may fall on its other side
    # where a loss differs in its last bits, so the threshold is the same one.
    naive_model, _ = load(model.path)
    for at in range(0, 200, 10):
        passes = []
        for sequence in list(sequences)[2 * at : 2 * at + 2]:
            ids = torch.from_numpy(sequence.ids.astype(np.int64))
            with torch.no_grad():
                logits = naive_model(ids[None]).logits[0].float()
            all_losses = torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none")
            passes.append(all_losses[sequence.first - 1 :].double().numpy())
        behind, direct = passes
        differences = direct - behind[len(behind) - len(direct) :]
        np.testing.assert_allclose(differences, unrounded[at], atol=2e-4)
        edge = np.abs(np.abs(differences) - selected.threshold_nats) < 1e-3
        row = differences[(np.abs(differences) >= selected.threshold_nats) & ~edge]
        if len(row) and not edge.any():
            assert found[at] == pytest.approx(np.exp(-row.mean()), abs=1e-4)
