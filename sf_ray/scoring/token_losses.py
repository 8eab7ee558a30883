"""Token losses: a sidecar beside each score piece, with the differences of single tokens.

    SCORES/<scoring id>/<shard>.<shard id>.<rows>.parquet                  the piece of a unit
    SCORES/<scoring id>/_token-losses/<shard>.<shard id>.<rows>.parquet    its token losses

Readers of scores skip a folder whose name begins with `_`, as they skip the marks of bad shards.
It lies below the scoring identity, because what decides a score decides its tokens' losses; and it
is a file of its own, because a reader of scores would have to fetch it with each piece.

Knows what is in a sidecar, not how the differences were found. No Ray, no model.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sf_ray.corpus.units import Place
from sf_ray.errors import SfRayError, first_line
from sf_ray.scoring.pieces import read_rows
from sf_ray.scoring.score_set import token_losses_of
from sf_ray.storage.files import map_requests
from sf_ray.storage.location import Location

# The column of the sidecar; a score table on its way to storage has it beside its own columns.
DIFFERENCES = "loss_differences"

SIDECAR_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        # In nats, of each token that both passes score; null for a row without such tokens, or
        # without a score.
        pa.field(DIFFERENCES, pa.list_(pa.float32())),
    ]
)

# The engine's losses are float32, and so is their difference, but for one token in 30,000 whose
# last bit is lost. Of the 4 bytes of a token zstd leaves 3.1, once bytes of equal rank stand
# together: the mantissa is noise. A grid of 2^-20 nats would leave 2.7, and round.
SIDECAR_ENCODING = {
    "compression": "zstd",
    "use_dictionary": False,
    "write_statistics": False,
    "column_encoding": {
        "row": "DELTA_BINARY_PACKED",
        f"{DIFFERENCES}.list.element": "BYTE_STREAM_SPLIT",
    },
}


class TokenDifferences(NamedTuple):
    """loss_direct - loss_conditioned of the tokens of n rows.

    Attributes:
        counts: [n] tokens of each row.
        nats: [tokens of all rows, row after row]
    """

    counts: NDArray[np.int64]
    nats: NDArray[np.float32]


def sidecar_of(scores: pa.Table) -> pa.Table:
    """[rows of `SIDECAR_SCHEMA`] of a score table with the column `DIFFERENCES` beside."""
    return scores.select(SIDECAR_SCHEMA.names).cast(SIDECAR_SCHEMA)


def read_token_losses(scores: Location, places: Sequence[Place]) -> Iterator[TokenDifferences]:
    """Reads the sidecars of units, several at a time, in the units' order.

    Args:
        scores: The folder of the pieces.
        places: The units, each with its shard.

    Raises:
        SfRayError: A sidecar is missing, cannot be read, or has other rows than its name says.
    """

    def read(place: Place) -> TokenDifferences:
        shard, unit = place
        where = token_losses_of(scores).join(shard.piece(unit))
        try:
            table = read_rows(where, SIDECAR_SCHEMA.names)
            _check(table)
            if not np.array_equal(table["row"].to_numpy(), np.arange(unit.start, unit.stop)):
                raise pa.ArrowInvalid("it does not hold the rows that its name says")
        except (pa.ArrowException, OSError) as error:
            raise SfRayError(
                f"token losses {where.public_uri} cannot be read ({first_line(error)}); delete the "
                "file and score again with --token-losses"
            ) from error
        lists = table[DIFFERENCES].combine_chunks()
        counts = lists.value_lengths().fill_null(0).to_numpy().astype(np.int64)
        return TokenDifferences(counts, lists.flatten().to_numpy())

    return map_requests(scores, read, places)


def _check(table: pa.Table) -> None:
    """Checks that a table holds what `sidecar_of` makes.

    Raises:
        pa.ArrowInvalid: A column is missing, has another type, or has values that are no losses.
    """
    table.validate(full=True)
    if table.schema.names != SIDECAR_SCHEMA.names or table.schema.types != SIDECAR_SCHEMA.types:
        raise pa.ArrowInvalid("its columns are not those of token losses")
    values = table[DIFFERENCES].combine_chunks().flatten()
    if table["row"].null_count or values.null_count:
        raise pa.ArrowInvalid("it has nulls where there must be none")
    if not pc.all(pc.is_finite(values), min_count=0).as_py():
        raise pa.ArrowInvalid("it has differences that are not finite")
