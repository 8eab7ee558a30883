"""Texts of the rows of a corpus, read by those who compare texts. No Ray, no scores."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sf_ray.corpus.formats import Format
from sf_ray.corpus.rows import read_units
from sf_ray.corpus.units import Place, group_reads
from sf_ray.selection.chunks import Chunk
from sf_ray.selection.excluded import texts_of
from sf_ray.selection.score_range import Positions
from sf_ray.storage.location import Location


class UnitTexts(NamedTuple):
    """The texts of some rows of a unit.

    Attributes:
        positions: [n] in the corpus.
        texts: [n] the whole text of each row's example, prompt and answer.
    """

    positions: Positions
    texts: list[str]


@dataclass(frozen=True)
class CorpusTexts:
    """Reads the texts of a corpus.

    Attributes:
        corpus: The folder of the shards.
        format: How their rows hold examples.
    """

    corpus: Location
    format: Format

    def of_chunk(
        self, chunk: Chunk, is_wanted: NDArray[np.bool_] | None = None
    ) -> Iterator[UnitTexts]:
        """The texts of each unit of a chunk, without the rows that hold no example.

        Args:
            chunk: The chunk.
            is_wanted: [rows of the chunk] the rows to read; None for all.

        Raises:
            BadShardError: A shard cannot be read.
        """
        for shard, places in itertools.groupby(chunk.places, key=lambda place: place.shard):
            units = [place.unit for place in places if self._has_wanted(chunk, place, is_wanted)]
            for plan in group_reads(shard, units):
                tables = read_units(self.corpus, plan, self.format.top_columns)
                for unit, table in zip(plan.units, tables, strict=True):
                    positions = np.arange(shard.position + unit.start, shard.position + unit.stop)
                    if is_wanted is not None:
                        wanted = is_wanted[positions - chunk.start]
                        positions, table = positions[wanted], table.filter(wanted)
                    texts = list(texts_of(self.format, table))
                    there = np.array([text is not None for text in texts], bool)
                    yield UnitTexts(positions[there], [text for text in texts if text is not None])

    def _has_wanted(self, chunk: Chunk, place: Place, is_wanted: NDArray[np.bool_] | None) -> bool:
        if is_wanted is None:
            return True
        start = place.shard.position + place.unit.start - chunk.start
        return bool(is_wanted[start : start + place.unit.rows].any())
