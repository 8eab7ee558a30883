"""A path or URI: how to reach its storage, when to retry a request, and which error to show.

All access goes through fsspec, so callers treat local paths, `s3://`, `gs://` and the rest alike. A
request that fails for a passing reason is repeated, with growing pauses, for `retry_s` seconds.
Knows no Ray and no model.
"""

import copy
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import fsspec
import tenacity
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem

from sf_ray.errors import SfRayError
from sf_ray.runtime.log import say
from sf_ray.storage.clients import (
    can_renew,
    client_options,
    forget_credentials,
    without_own_retries,
)
from sf_ray.storage.failure_signs import is_of_own_file
from sf_ray.storage.failure_words import Kind
from sf_ray.storage.failures import Failure, OwnFileError, judge
from sf_ray.storage.rights import denials_explained
from sf_ray.text.redaction import public_uri, remember_secrets

RETRY_S = 300.0
# What one row of a shard there may take, once unpacked.
MAX_ROW_BYTES = 32 << 20
# The time-out of one attempt: a fixed part, and the time that the bytes need at the slowest rate
# (bytes/s) that is still worth waiting for.
_TRY_S, _SLOWEST_BYTES_S = 30.0, 250_000
# A name that no name server knows is most often misspelt, and a port that speaks no TLS the wrong
# one; a service that is set up anew lacks its name or its certificate for a moment.
_SET_UP_S = 30.0
# A listing is many requests, each with time-outs and retries of its own.
_LISTING_S = 1800.0
# File systems that stand in front of another one: "zip://a.jsonl::s3://bucket/b.zip".
_CHAINING = {
    "blockcache", "cached", "dir", "filecache", "libarchive", "reference", "simplecache", "tar",
    "zip",
}  # fmt: skip
_LOCAL = ("file://", "local://")
_READ_ONLY = ("hf://", "http://", "https://", "github://", "git://", "data:")


@dataclass(frozen=True)
class Location:
    """A path or URI and how to reach it. Small and picklable.

    Attributes:
        uri: A local path, or a URI of any file system that fsspec knows, e.g. "s3://bucket/key".
        storage_options: Arguments of that file system, e.g. credentials; local paths ignore them.
        retry_s: How long a request that fails for a passing reason is repeated, in seconds.
        max_row_bytes: The most that whoever reads shards there takes for one row. Here, because it
            goes to every process that reads, as the rest does.
        below: A path below `uri`, of which nothing is parsed: names come from buckets and disks,
            and may hold `::`, `?`, `%` or `://`.
    """

    uri: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    retry_s: float = RETRY_S
    max_row_bytes: int = MAX_ROW_BYTES
    below: str = ""

    def __post_init__(self) -> None:
        # Here, so that every process that reaches a storage knows what no text of it may show.
        remember_secrets(self.uri, self.storage_options)

    def __reduce__(self) -> tuple[type["Location"], tuple[Any, ...]]:
        """Pickles a relative path as an absolute one: other processes run in other directories."""
        state = (whole_path(self.uri), self.storage_options, self.retry_s)
        return Location, (*state, self.max_row_bytes, self.below)

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        """The fsspec file system; fsspec returns the same instance for equal options."""
        with storage_errors(self):
            return self._resolved()[0]

    @property
    def path(self) -> str:
        """The path in the spelling of `fs`, without a trailing slash."""
        with storage_errors(self):
            return _joined(self._resolved()[1], self.below).rstrip("/")

    def _resolved(self) -> tuple[fsspec.AbstractFileSystem, str]:
        # Storage options are for the other side of a job that has a local one.
        if not self.is_remote:
            return LocalFileSystem(), whole_path(self.uri)
        # A copy, because botocore changes the options in place: fsspec, which finds an instance by
        # its options, would then make a second client for the second use of a location.
        wanted = client_options(self.uri.partition("://")[0], self.storage_options)
        options = copy.deepcopy(wanted)
        if self.uri.startswith("hf://"):
            # Its client takes long to load, and only who reads from the hub needs it.
            from sf_ray.storage.hub import HubFileSystem

            return HubFileSystem(**options), HubFileSystem._strip_protocol(self.uri)
        if "::" in self.uri and not _is_chain(self.uri):
            fs, path = _one_file_system(self.uri, options)
        else:
            fs, path = fsspec.core.url_to_fs(self.uri, **options)
        without_own_retries(fs)
        return fs, path

    @property
    def is_remote(self) -> bool:
        """Whether the URI names a file system other than this machine's own."""
        return _is_uri(self.uri) and not self.uri.startswith(_LOCAL)

    @property
    def is_read_only(self) -> bool:
        """Whether nothing can be written there, whoever asks."""
        return self.uri.startswith(_READ_ONLY)

    @property
    def public_uri(self) -> str:
        """The URI without secrets, for manifests, logs and errors; see `text.redaction`."""
        return _joined(public_uri(self.uri), self.below)

    def __repr__(self) -> str:
        """Without secrets: Ray and other libraries print the arguments of what fails."""
        return f"Location({self.public_uri!r})"

    def join(self, name: str) -> "Location":
        """The location of `name` below this one; nothing in a name is parsed."""
        return replace(self, below=_joined(self.below, name) if self.below else name)

    def above(self) -> tuple["Location", str]:
        """The location of the folder that this one lies in, and its name there."""
        uri = self.uri if self.is_remote else whole_path(self.uri)
        folder, _, name = (self.below or uri).rstrip("/").rpartition("/")
        if self.below:
            return replace(self, below=folder), name
        return replace(self, uri=folder), name

    def call(self, method: str, *args: Any, size: int = 0, **kwargs: Any) -> Any:
        """Calls a method of the file system, and repeats the call where the error may pass.

        Args:
            method: Name of the method, e.g. "cat_file".
            args: Arguments of the method.
            size: Bytes that the call transfers; more bytes allow one attempt more time.
            kwargs: Keyword arguments of the method.

        Raises:
            SfRayError: The file is absent or forbidden, or storage failed for `retry_s` seconds.
        """
        path = str(args[1] if method == "put_file" else args[0])
        with storage_errors(self), denials_explained(self, method, path):
            if isinstance(self.fs, AsyncFileSystem):
                fixed_s = _LISTING_S if method in ("find", "glob") else _TRY_S
                kwargs["timeout"] = fixed_s + size / _SLOWEST_BYTES_S
            if not self.is_remote:
                return getattr(self.fs, method)(*args, **kwargs)
            # The file system is looked up at each try: renewed credentials are in a new one.
            return self._retried(lambda: getattr(self._resolved()[0], method)(*args, **kwargs))

    def _retried(self, request: Callable[[], Any]) -> Any:
        return tenacity.Retrying(
            stop=self._is_enough,
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=20),
            retry=tenacity.retry_if_exception(lambda error: self.patience_s(judge(error)) > 0),
            before_sleep=self._before_retry,
            reraise=True,
        )(request)

    def patience_s(self, failure: Failure) -> float:
        """For how long a request that fails so is made again; 0 where that cannot help."""
        is_fixed = failure.kind is Kind.EXPIRED and not can_renew(self.storage_options)
        if is_fixed or not failure.may_pass or not self.is_remote:
            return 0
        is_set_up = failure.kind not in (Kind.HOST, Kind.TLS)
        return self.retry_s if is_set_up else min(self.retry_s, _SET_UP_S)

    def _is_enough(self, state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        return error is not None and (
            (state.seconds_since_start or 0) >= self.patience_s(judge(error))
        )

    def _before_retry(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is None:
            return
        failure = judge(error)
        if failure.kind is Kind.EXPIRED:
            forget_credentials(self._resolved()[0])
        # The first failures are not logged: a store that throttles is nothing to worry about.
        if state.attempt_number > 3:
            say(
                f"note: storage of {self.public_uri} fails ({failure.answer}); trying again for "
                f"{max(0, self.patience_s(failure) - (state.seconds_since_start or 0)):.0f} s more"
            )


def whole_path(uri: str) -> str:
    """Makes a local path absolute, for processes in other directories; leaves other URIs as is."""
    for prefix in _LOCAL:
        uri = uri.removeprefix(prefix)
    return uri if _is_uri(uri) else os.path.abspath(os.path.expanduser(uri))


def _is_uri(uri: str) -> bool:
    """Whether this begins as a URI or a chain of them; behind that, `://` is part of a name."""
    return bool(re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|data:", uri)) or (
        "::" in uri and uri.partition("::")[0] in _CHAINING
    )


def _joined(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if name else folder


def _is_chain(uri: str) -> bool:
    """Whether each `::` of a URI leads from a file system to the next; else they are in a name."""
    *fronts, _ = uri.split("::")
    return all(front.partition("://")[0] in _CHAINING for front in fronts)


def _one_file_system(uri: str, options: Mapping[str, Any]) -> tuple[fsspec.AbstractFileSystem, str]:
    """What fsspec's `url_to_fs` answers where it takes no `::` for the sign of a chain."""
    protocol = uri.partition("://")[0]
    kind = fsspec.get_filesystem_class(protocol)
    in_uri = kind._get_kwargs_from_urls(uri)  # e.g. the host of an sftp:// URI
    return fsspec.filesystem(protocol, **{**in_uri, **options}), str(kind._strip_protocol(uri))


@contextmanager
def storage_errors(location: Location, where: str = "") -> Iterator[None]:
    """Turns exceptions of the storage into a `SfRayError` that says what, where and what next.

    The original exception becomes the cause; `failures.is_missing` looks there.

    Args:
        location: The place.
        where: How to name the place. Default: its URI.
    """
    try:
        yield
    except (SfRayError, MemoryError):
        raise
    # A backend may raise anything; what it is, `judge` finds out.
    except Exception as error:
        # Of a store, "no such file" would mean that nothing is there yet.
        if location.is_remote and "::" not in location.uri and is_of_own_file(error):
            error = OwnFileError(str(error))
        failure = judge(error)
        raise SfRayError(
            failure.sentence(
                where or location.public_uri, location.is_remote, location.patience_s(failure)
            )
        ) from error
