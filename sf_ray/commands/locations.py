"""A place that a command's options name -> a location.

A module of its own, so that commands which need no Ray (compare, show, report) do not load it with
the rest of `setup`.
"""

from typing import Any

from sf_ray.config.options import CorpusOptions, StorageOptions
from sf_ray.storage.location import Location


def location_of(options: StorageOptions, uri: str) -> Location:
    """A path or URI, with the storage options and the retry time that the command was given."""
    return Location(uri, options.storage_options, options.storage_retry_s)


def input_of(options: CorpusOptions) -> Location:
    """INPUT, which may need other storage options than the places that are written to."""
    own = options.input_storage_options
    asked = options.storage_options if own is None else own
    return Location(options.input, asked, options.storage_retry_s)


def model_storage_options(options: CorpusOptions) -> dict[str, Any]:
    """The storage options of the model, the encoder and the template."""
    own = options.model_storage_options
    return options.storage_options if own is None else own
