"""A place that a command's options name -> a location.

A module of its own, so that commands which need no Ray (compare, show, report) do not load it with
the rest of `setup`.
"""

from sf_ray.config.options import StorageOptions
from sf_ray.storage.location import Location


def location_of(options: StorageOptions, uri: str) -> Location:
    """A path or URI, with the storage options and the retry time that the command was given."""
    return Location(uri, options.storage_options, options.storage_retry_s)
