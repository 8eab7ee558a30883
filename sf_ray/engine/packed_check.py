"""Whether packed batches give what padded batches give, tried with each model when it is loaded.

Knows torch and the loaded model. Nothing is concluded from the name of a model or of a card: the
model is held against padded batches, and in each of its layers the device's kernel against the
definition of packed attention.
"""

import numpy as np

from sf_ray.engine.attention.needs import Needs
from sf_ray.engine.attention.packed import Trial
from sf_ray.engine.batch_threads import sum_spans
from sf_ray.engine.layers.equivalence import TOLERANCE, first_line
from sf_ray.engine.loaded_model import LoadedModel
from sf_ray.engine.packed_batches import begin_packed
from sf_ray.engine.pool import Pool
from sf_ray.engine.prefix_batches import BeginPadded
from sf_ray.engine.prefix_tree import PrefixTree
from sf_ray.engine.sequences import TokenSequence, TokenSequences

# Sliding windows of more tokens are not tried: no sequence of that length is usual, and the model's
# own attention takes memory with its square.
_LONGEST_WINDOW = 8192
# Tokens behind a window in the check, and slots of a batch: few, so that there are several batches.
_BEHIND_WINDOW, _TOKEN_BUDGET = 17, 60


def packed_types(model: LoadedModel, dtype: str, begin_padded: BeginPadded) -> frozenset[str]:
    """The types in which packed batches are right for a model on its device.

    Computes a few sequences both ways. Appends to the model's notes where packing does not work in
    the type that is asked for.

    Args:
        model: The model, not compiled.
        dtype: Type in which matrix products are to be computed. float32 is tried as well: for
            sequences that overflow, and because it shows differences that are small.
        begin_padded: Begins padded batches, which define what is right.
    """
    of_model: str | None = None
    of_type: dict[str, str | None] = {}
    for name in dict.fromkeys(("float32", dtype)):
        trial = Trial()
        of_model = of_model or _difference(model, name, begin_padded, trial)
        of_type[name] = of_model or next(iter(trial.problems), None)
    if of_type[dtype]:
        model.notes.append(
            "batches are padded (on usual corpora 15 to 28 % more tokens) and share no prefixes: "
            f"{of_type[dtype]}"
        )
    return frozenset(name for name, why_not in of_type.items() if not why_not)


def check_pool(longest: int = 0, share: bool = True) -> Pool:
    """A few sequences, some of which begin alike; one has more than `longest` tokens."""
    ids = np.arange(1, 33, dtype=np.int32)
    parts = (
        [ids],
        [ids[:20], ids[:9]],
        [ids[:20], ids[3:9]],
        [ids[:20]],  # begins others, so that it adds nothing
        [ids[9:]],  # the same tokens at other positions
        [ids[::-1]],
        [ids[::-1], np.resize(ids[::3], longest)],
    )
    sequences = [TokenSequence.scored_from(np.concatenate(part), 1) for part in parts]
    return Pool.of(TokenSequences.of(sequences), share)[0]


def check_tree() -> PrefixTree:
    """One batch of the sequences of `check_pool`, whose sizes differ from each other."""
    pool = check_pool()
    assert pool.order is not None
    return PrefixTree.of(pool.sequences, pool.order)


def _difference(
    model: LoadedModel, dtype: str, begin_padded: BeginPadded, trial: Trial
) -> str | None:
    """Why packed batches do not give the losses of padded batches; None where they do.

    Args:
        model: The model.
        dtype: Type in which matrix products are computed.
        begin_padded: Begins padded batches.
        trial: Takes what comes to light on the way.
    """
    budget, model.token_budget = model.token_budget, _TOKEN_BUDGET
    try:
        if not _is_same(model, dtype, begin_padded, trial, 0):
            return "the model's layers do not look at each token alone"
        why_not, longest = _unsupported(model, trial.needs), _tried_window(model, trial.needs)
        if not why_not and longest and not _is_same(model, dtype, begin_padded, trial, longest):
            why_not = "the model's sliding windows are not those that its layers name"
        return why_not
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        return first_line(error)
    finally:
        model.token_budget = budget


def _is_same(
    model: LoadedModel, dtype: str, begin_padded: BeginPadded, trial: Trial, longest: int
) -> bool:
    """Whether a few sequences, one with more than `longest` tokens, have equal losses both ways."""
    for share in (True, False):
        pool = check_pool(longest, share)
        spans = len(pool.sequences.spans)
        with model.autocast(dtype):
            padded = begin_padded(model, pool, pool.chosen)
            expected = sum_spans(model.batch_threads.results(padded), spans)
            packed = begin_packed(model, pool, trial)
            actual = sum_spans(model.batch_threads.results(packed), spans)
        if not np.allclose(expected, actual, rtol=TOLERANCE[dtype], equal_nan=True):
            return False
    return True


def _tried_window(model: LoadedModel, needs: Needs) -> int:
    """Tokens of the longest sequence to try, so that it reaches behind sliding windows; or 0."""
    positions = getattr(model.config, "max_position_embeddings", None) or _LONGEST_WINDOW
    tried = [
        window + _BEHIND_WINDOW
        for window in needs.windows
        if window <= _LONGEST_WINDOW and window + 2 * _TOKEN_BUDGET <= positions
    ]
    return max(tried, default=0)


def _unsupported(model: LoadedModel, needs: Needs) -> str | None:
    """What the model asks of attention that packed attention does not know."""
    if needs.unsupported:
        return f"the model's attention uses {', '.join(sorted(needs.unsupported))}"
    # Chunks are done by masks, which packed tokens do without, so `needs` cannot show them.
    if getattr(model.config, "attention_chunk_size", None):
        return "the model's attention is in chunks"
    return None
