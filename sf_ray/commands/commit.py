"""`--commit-to`: checked before anything is scored, done when the output is whole, found if done.

What is committed lies in OUTPUT, whole. So the same command finishes a run that was killed before
its commit: it finds the output there, and neither scores nor writes again.
"""

import re
from dataclasses import replace
from urllib.parse import unquote

import pyarrow as pa

from sf_ray.commands.locations import input_of, location_of
from sf_ray.commands.select import Done
from sf_ray.config.selection_options import CommitOptions
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.readers.file_types import FileType
from sf_ray.errors import UsageError
from sf_ray.output.commits.columns import common_schema
from sf_ray.output.commits.commit import KeptRows, Target, target_of
from sf_ray.output.layout import Output
from sf_ray.runtime.log import say, timed
from sf_ray.storage.lease.lease import HeldLease, lease
from sf_ray.storage.listing import overlap
from sf_ray.storage.table_names import TableName, parse_table


def commit_target(options: CommitOptions, corpus: Corpus) -> Target | None:
    """Finds what `--commit-to` names, and whether the rows of a corpus can be committed there.

    Args:
        options: Of the command.
        corpus: The corpus, whose columns the kept rows have.

    Returns:
        What to commit to; None without `--commit-to`.

    Raises:
        SfRayError: It cannot be, and why.
    """
    if options.commit_to is None:
        return None
    target = target_of(
        options.commit_to, options.commit_mode, options.storage_options, options.storage_retry_s
    )
    _refuse_own_places(options, target)
    if not target.is_table:
        target.check(None)
        return target
    if corpus.file_type is FileType.JSON:
        raise UsageError(
            f"--commit-to {target.name}: a table has columns with types, and the rows of JSON "
            "shards have not; write the corpus as Parquet, or commit to hf://datasets/ORG/NAME"
        )
    table = parse_table(options.commit_to)
    assert table is not None
    ifd = pa.field(options.ifd_column, pa.float64())
    columns = common_schema(
        table.kind,
        [(shards[0].file.relative, schema.append(ifd)) for schema, shards in corpus.by_schema()],
    )
    target.check(columns)
    return target


def _refuse_own_places(options: CommitOptions, target: Target) -> None:
    """Refuses to commit to the corpus itself, or into a folder that this run reads or owns.

    The next run would take its own output for a part of the corpus.
    """
    assert options.commit_to is not None
    table, read = parse_table(options.commit_to), parse_table(options.input)
    if table is None:
        is_input = target.name == _branch_of_hub(options.input)
    elif read is not None:
        # A snapshot or version of the past does not change.
        is_input = _without_main(table) == _without_main(read)
    else:
        is_input = False
    if is_input:
        raise UsageError(
            f"--commit-to {target.name}: this is INPUT, which is never written to: name another "
            "table, or a branch"
        )
    if table is None or table.kind != "delta":
        return
    folder = location_of(options, table.uri)
    own = Output(location_of(options, options.output))
    for flag, place in (("INPUT", None if read else input_of(options)), ("OUTPUT", own.data)):
        if place is not None and overlap(place, folder, one_is_input=flag == "INPUT"):
            raise UsageError(
                f"--commit-to {target.name} and {flag} {place.public_uri} lie inside each other: "
                "choose another place for the table"
            )


def _without_main(table: TableName) -> TableName:
    table = table.absolute()
    return replace(table, ref=None) if table.ref == "main" else table


def _branch_of_hub(place: str) -> str | None:
    """The repository and branch of a place on the hub, as `--commit-to` names them."""
    found = re.match(r"(hf://datasets/[^/@]+/[^/@]+)(@[^/]+)?", place)
    if found is None:
        return None
    branch = unquote(found[2] or "")
    return found[1] + (branch if branch != "@main" else "")


def committed(target: Target | None, done: Done, held: HeldLease) -> Done:
    """Commits an output that this run has just written.

    Args:
        target: What to commit to; None where nothing is to be.
        done: The output.
        held: The lease on OUTPUT: whoever lost it does not commit.
    """
    if target is None:
        return done
    held.check()
    return _commit(target, done)


def committed_before(options: CommitOptions, target: Target | None, done: Done) -> Done:
    """Makes sure of the commit of an output that an earlier run has written.

    Args:
        options: Of the command.
        target: What to commit to; None where nothing is to be.
        done: The output.
    """
    if target is None:
        return done
    found = target.find(done.manifest.request_id)
    if found is not None:
        return replace(done, committed=found)
    with lease(location_of(options, options.output)):
        return _commit(target, done)


def _commit(target: Target, done: Done) -> Done:
    kept = KeptRows(Output(done.output), done.manifest)
    if not kept.rows:
        say(f"note: no row is kept, so nothing is committed to {target.name}")
        return done
    with timed("commit", {}):
        return replace(done, committed=target.commit(kept))
