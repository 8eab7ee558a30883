"""What `--token-losses` costs: scoring a unit and putting its files, with it against without.

python bench/token_losses.py [--corpus DIR] [--rows 64] [--model demo] [--device cpu] [--repeat 7]

Both ways have the same engine and the same token ids, and take turns: without, with, without, ...
The ratio is that of the medians of their times. `beside` are the steps that only the second way
has, timed alone, as a share of the first way's time: it is steady where a busy machine makes
the ratio jump. Also prints what a sidecar weighs; bytes a row need some hundred rows to settle.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from common import encode, load_examples, median_s, record

from sf_ray.encoding.encoded_table import sequences_of
from sf_ray.encoding.encoder import Encoder
from sf_ray.engine.engine import Engine
from sf_ray.engine.memory import keep_freed_memory
from sf_ray.engine.model_files import context_window, load_tokenizer, resolve_dtype, resolve_model
from sf_ray.scoring.loss_differences import loss_differences
from sf_ray.scoring.score_table import SCORE_ENCODING
from sf_ray.scoring.token_losses import DIFFERENCES, SIDECAR_ENCODING, sidecar_of
from sf_ray.scoring.unit_scorer import UnitScorer
from sf_ray.storage.files import put_table
from sf_ray.storage.location import Location


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", help="directory of Parquet shards; default: the demo's")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--figures", help="file to which figures are appended")
    options = parser.parse_args()
    keep_freed_memory()
    model = resolve_model(options.model)
    encoder = Encoder(load_tokenizer(model), min(1024, context_window(model) or 1024))
    encoded = encode(encoder, load_examples(options.corpus, options.rows))
    dtype = resolve_dtype("auto", options.device)
    engine = Engine(model.path, device=options.device, dtype=dtype)
    scorers = {keeps: UnitScorer(engine, token_losses=keeps) for keeps in (False, True)}
    with tempfile.TemporaryDirectory() as folder:
        piece, beside = (Location(f"{folder}/{name}.parquet") for name in ("piece", "beside"))

        def without() -> None:
            scores = scorers[False].begin("a", 0, encoded).result()
            put_table(piece, scores, SCORE_ENCODING)

        def with_it() -> None:
            scores = scorers[True].begin("a", 0, encoded).result()
            put_table(beside, sidecar_of(scores), SIDECAR_ENCODING)
            put_table(piece, scores.drop_columns(DIFFERENCES), SCORE_ENCODING)

        with_it()  # first touch of the weights
        times = median_s(options.repeat, {"without": without, "with": with_it})
        sequences, scores = sequences_of(encoded), scorers[True].begin("a", 0, encoded).result()
        losses = engine.begin_tokens(sequences).result().tokens
        assert losses is not None
        has_score = np.asarray(scores["ifd"].is_valid())
        alone = []
        for _ in range(10):
            start = perf_counter()
            loss_differences(encoded, sequences, losses, has_score)
            put_table(beside, sidecar_of(scores), SIDECAR_ENCODING)
            alone.append(perf_counter() - start)
        sizes = {name: Path(it.path).stat().st_size for name, it in (("p", piece), ("s", beside))}
    tokens = len(scores[DIFFERENCES].combine_chunks().flatten())
    figures: dict[str, float | str] = {
        "rows": encoded.num_rows,
        "tokens_a_row": tokens / encoded.num_rows,
        "without_s": times["without"],
        "with_s": times["with"],
        "ratio": times["with"] / times["without"],
        "beside": median(alone) / times["without"],
        "sidecar_bytes_a_row": sizes["s"] / encoded.num_rows,
        "sidecar_bytes_a_token": sizes["s"] / max(1, tokens),
        "piece_bytes_a_row": sizes["p"] / encoded.num_rows,
    }
    for name, value in figures.items():
        print(f"{name:22} {value:.4f}")
    record(options.figures, figures)


if __name__ == "__main__":
    main()
