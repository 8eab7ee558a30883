"""What the arms of a study share with the held-out rows, and with each other, by what rows say."""

import functools
import itertools

from sf_ray.commands.study.record import Overlap, Study
from sf_ray.corpus.columns import as_in_json
from sf_ray.corpus.formats import Format, resolve_format
from sf_ray.corpus.plan_cache import sample_of
from sf_ray.corpus.planning import plan_corpus
from sf_ray.corpus.readers.file_types import FileType
from sf_ray.errors import SfRayError
from sf_ray.runtime.tasks import parallel_map
from sf_ray.selection.excluded import DigestSet, ExcludedFiles
from sf_ray.selection.excluded_tasks import equal_rows_of_shard, read_examples

# Arms that share more than this train models that hardly differ.
NEARLY_EQUAL = 0.9
# Rows that an error names.
_SHOWN = 5


def files_of(study: Study, data: str) -> ExcludedFiles:
    """The shards of an arm or of the held-out rows, and how their rows hold examples."""
    corpus = plan_corpus(study.location.join(data))
    row_format = format_of_study(study)
    if corpus.file_type is FileType.JSON:
        row_format = as_in_json(row_format, sample_of(None, corpus).rows)
    return ExcludedFiles(corpus, row_format)


def format_of_study(study: Study) -> Format:
    """The format of the rows."""
    rendering = study.record.rendering
    columns = dict(rendering.columns)
    return resolve_format(list(columns.values()), rendering.format, columns)


def refuse_held_out(study: Study, stall_s: float) -> None:
    """Refuses arms that have a held-out row, or a copy of one.

    Raises:
        SfRayError: Names the arm and rows.
    """
    held_out = read_examples(files_of(study, study.held_out), stall_s)
    for run in {run.data: run for run in study.record.runs}.values():
        files = files_of(study, study.data(run))
        find = functools.partial(equal_rows_of_shard, files, held_out)
        rows = [
            f"{shard} row {row}"
            for shard, found in sorted(parallel_map(find, files.corpus.shards, stall_s))
            for row in found
        ]
        if rows:
            shown = ", ".join(rows[:_SHOWN]) + ", ..." * (len(rows) > _SHOWN)
            where = files.corpus.name
            raise SfRayError(
                f"{where}: {len(rows):,} rows are held out, or copies of held-out rows: {shown}. "
                "A model that has seen them cannot be judged by them: plan the study again"
            )


def overlaps_of(study: Study, stall_s: float) -> tuple[Overlap, ...]:
    """What every two arms have in common; `all`, which has every row, is left out.

    The driver holds 16 bytes of each example of every arm.
    """
    runs = {run.arm: run for run in reversed(study.record.runs)}
    first = {arm: runs[arm] for arm in study.record.arms if arm != "all"}
    examples = {
        arm: read_examples(files_of(study, study.data(run)), stall_s) for arm, run in first.items()
    }
    return tuple(
        Overlap(a=first[a].name, b=first[b].name, share=_share(examples[a], examples[b]))
        for a, b in itertools.combinations(first, 2)
    )


def _share(a: DigestSet, b: DigestSet) -> float:
    smaller, larger = sorted((a, b), key=len)
    return len(smaller & larger) / max(1, len(smaller))
