"""A place that a command's options name -> a location, and whether results may go there.

A module of its own, so that commands which need no Ray (compare, show, report) do not load it with
the rest of `setup`.
"""

import os
from typing import Any

from sf_ray.config.options import CorpusOptions, StorageOptions
from sf_ray.errors import UsageError
from sf_ray.storage.location import Location, whole_path
from sf_ray.storage.table_names import parse_table

_TABLES = ("iceberg://", "delta://", "lance://")
# Where `--commit-to` puts rows.
_COMMITTED_TO = ("iceberg://", "delta://", "hf://datasets/")
# Where Ray unpacks the working directory of a job, below the folder of its session.
_UPLOADED = "/runtime_resources/"


def location_of(options: StorageOptions, uri: str) -> Location:
    """A path or URI, with the storage options and the retry time that the command was given.

    A path becomes absolute, so that what a command prints says where things are.
    """
    return Location(whole_path(uri), options.storage_options, options.storage_retry_s)


def input_of(options: CorpusOptions) -> Location:
    """INPUT, where it is no table."""
    return Location(
        whole_path(options.input), input_storage_options(options), options.storage_retry_s
    )


def input_storage_options(options: CorpusOptions) -> dict[str, Any]:
    """The storage options of INPUT, which may need other ones than the places written to."""
    own = options.input_storage_options
    return options.storage_options if own is None else own


def whole_input(text: str) -> str:
    """INPUT in words that are right in any directory, as `whole_path` makes those of a place."""
    table = parse_table(text)
    return whole_path(text) if table is None else table.absolute().text


def model_storage_options(options: CorpusOptions) -> dict[str, Any]:
    """The storage options of the model, the encoder and the template."""
    own = options.model_storage_options
    return options.storage_options if own is None else own


def refuse_unwritable(flag: str, uri: str) -> None:
    """Refuses a place for results where nothing can be written, or nothing stays.

    Args:
        flag: What errors call the place.
        uri: A path or URI.

    Raises:
        UsageError: Says why.
    """
    if uri.startswith(_TABLES):
        table = uri if (named := parse_table(uri)) is None else named.public_name
        raise UsageError(
            f"{flag} {table}: a table holds rows, and no other file of a run: choose a directory "
            "or a bucket" + _commit_to(flag, table)
        )
    place = Location(whole_path(uri))
    if place.is_read_only:
        raise UsageError(
            f"{flag} {place.public_uri}: sf-ray reads from there, but cannot write: choose a "
            "directory or a bucket"
            + (_commit_to(flag, place.public_uri) or ", and upload the result when it is whole")
        )
    if place.uri.startswith("memory://"):
        raise UsageError(
            f"{flag} {place.public_uri}: this is the memory of one process, which ends with the "
            "command; choose a directory or a bucket"
        )
    if not place.is_remote and _UPLOADED in f"{os.path.realpath(place.path)}/":
        raise UsageError(
            f"{flag} {place.path}: this lies in the folder into which Ray unpacked the job's "
            "working directory, on this node only, and Ray removes it after the job; give a bucket "
            "or the absolute path of a file system that all nodes share"
        )


def _commit_to(flag: str, place: str) -> str:
    """How the kept rows get to a place where files cannot; "" where they do not."""
    if flag != "OUTPUT" or not place.startswith(_COMMITTED_TO):
        return ""
    return f" as OUTPUT, and commit its rows with --commit-to {place}"
