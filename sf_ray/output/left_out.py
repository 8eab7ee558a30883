"""Rows that were left out for what they say -> the keys of the manifest that tell about them.

Plain records go in: this module does not know how the rows were found.
"""

import bisect
import functools
from collections.abc import Sequence
from typing import Any

from sf_ray.config.selection_options import SelectionOptions
from sf_ray.corpus.planning import Corpus
from sf_ray.output.manifest_left_out import ExcludedInput, NearDuplicates, SharedWords
from sf_ray.selection.near.near_copies import NearCopies
from sf_ray.selection.near.overlaps import Overlaps


def excluded_keys(files: Sequence[Corpus], rows: int) -> dict[str, Any]:
    """The keys of excluded files; none where there are no such files."""
    if not files:
        return {}
    return {"excluded": tuple(map(_left_out, files)), "excluded_rows": rows}


def overlap_keys(corpus: Corpus, overlaps: Overlaps | None) -> dict[str, Any]:
    """The keys of evaluation sets; none where there are no such sets."""
    if overlaps is None:
        return {}
    sets = [files.corpus for files in overlaps.files]
    shown = []
    for overlap in overlaps.shown:
        shard, row = place_of(corpus, overlap.position)
        shown.append(
            SharedWords(
                shard=shard,
                row=row,
                uri=sets[overlap.files].name,
                in_shard=overlap.shard,
                in_row=overlap.row,
                words=overlap.text,
            )
        )
    return {
        "overlap_with": tuple(map(_left_out, sets)),
        "overlapping_rows": len(overlaps.rows),
        "overlaps": tuple(shown),
    }


def near_keys(
    options: SelectionOptions, near: NearCopies | None, encoder: str, encoder_fingerprint: str
) -> dict[str, Any]:
    """The key of near copies; none where they are not looked for."""
    if near is None or options.drop_near_duplicates is None:
        return {}
    found = functools.partial(
        NearDuplicates,
        threshold=options.drop_near_duplicates,
        by=options.near_duplicates_by,
        compared_rows=near.compared,
        dropped_rows=len(near.rows),
    )
    # A key that is not given is not written.
    if options.compares_embeddings:
        found = functools.partial(found, encoder=encoder, encoder_fingerprint=encoder_fingerprint)
    if (sampled := near.sampled) is not None:
        found = functools.partial(
            found,
            sampled_rows=sampled.rows,
            sampled_near_rows=sampled.near,
            sampled_found_rows=sampled.found,
        )
    return {"near_duplicates": found()}


def place_of(corpus: Corpus, position: int) -> tuple[str, int]:
    """Position in the corpus -> path of the shard, and row in it."""
    at = bisect.bisect_right(corpus.shards, position, key=lambda shard: shard.position) - 1
    shard = corpus.shards[at]
    return shard.file.relative, position - shard.position


def _left_out(files: Corpus) -> ExcludedInput:
    return ExcludedInput(uri=files.name, fingerprint=files.fingerprint, rows=files.rows)
