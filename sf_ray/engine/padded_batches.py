"""Sequences in padded batches, each sequence on its own, by the model's own attention.

Knows torch and the loaded model; nothing of shared prefixes.
"""

from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
import torch

from sf_ray.engine.batch_threads import BatchLosses
from sf_ray.engine.batching import TokenBudgetBatches
from sf_ray.engine.loaded_model import LoadedModel, too_long
from sf_ray.engine.pool import Pool
from sf_ray.engine.sequences import Ints, TokenSequence, span_of_each, span_starts


def begin_padded(
    model: LoadedModel, pool: Pool, chosen: Ints
) -> Sequence[Future[list[BatchLosses]]]:
    """Begins to compute some sequences of a pool in padded batches.

    Args:
        model: The model.
        pool: The pool.
        chosen: Indices into the pool.

    Returns:
        Futures of the losses. They raise EngineFailedError where a single sequence does not fit
        into memory.
    """
    model.attend_by()
    starts = span_starts(pool.sequences)
    lengths = np.array([len(s.ids) for s in pool.sequences], dtype=np.int64)
    batches = TokenBudgetBatches(lengths[chosen], model.token_budget)

    def score(batch: Ints) -> list[BatchLosses]:
        try:
            nll = _losses(model, [pool.sequences[i] for i in batch])
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise too_long(lengths[batch[0]]) from None
            nll = None
        # Outside of `except`, as the error's traceback holds the tensors of the failed batch.
        if nll is None:
            padded = len(batch) * int(lengths[batch].max())
            model.shrink_budget(min(padded // 2, model.token_budget), pool.usage)
            batches.token_budget = model.token_budget
            return [losses for half in np.array_split(batch, 2) for losses in score(half)]
        if pool.on_batch:
            pool.on_batch(int(pool.copies[batch].sum()), int((lengths[batch] - 1).sum()))
        return [BatchLosses.of(span_of_each(pool.sequences, batch, starts), nll)]

    return model.batch_threads.submit(score, (chosen[batch] for batch in batches))


@torch.no_grad()
def _losses(model: LoadedModel, sequences: list[TokenSequence]) -> torch.Tensor:
    """[scored tokens] losses in nats, sequence after sequence."""
    # Token t is predicted from the hidden state at t - 1, so the last token is never fed. With
    # spans ((2, 3), (4, 5)) of a sequence a, and b that is padded on the right, where causal
    # attention hides the padding from every token:
    #
    #     column        0  1  2  3
    #     row 0  fed    a0 a1 a2 a3
    #            states    s1    s3        predicting = row * width + place - 1
    #            targets   a2    a4        ids[place]
    #     row 1  fed    b0 b1 0  0
    fed = np.array([len(s.ids) - 1 for s in sequences])
    width = int(fed.max())
    columns = np.arange(width)
    ids = np.zeros((len(sequences), width), dtype=np.int64)
    ids[columns < fed[:, None]] = np.concatenate([s.ids[:-1] for s in sequences])
    predicting = np.concatenate([row * width + s.places - 1 for row, s in enumerate(sequences)])
    targets = np.concatenate([s.ids[s.places] for s in sequences]).astype(np.int64)
    hidden = model.decoder(input_ids=model.put(ids), use_cache=False).last_hidden_state
    return model.head.nll(hidden.flatten(0, 1)[model.put(predicting)], model.put(targets))
