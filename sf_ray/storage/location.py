"""A path or URI: how to reach its storage, when to retry a request, and which error to show.

All access goes through fsspec, so callers treat local paths, `s3://`, `gs://` and the rest alike. A
request that fails for a passing reason is repeated, with growing pauses, for `retry_s` seconds.
Knows no Ray and no model.
"""

import asyncio
import copy
import errno
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import fsspec
import tenacity
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem

from sf_ray.errors import SfRayError, first_line
from sf_ray.runtime.log import say
from sf_ray.storage.rights import denials_explained

RETRY_S = 300.0
# The time-out of one attempt: a fixed part, and the time that the bytes need at the slowest rate
# (bytes/s) that is still worth waiting for.
_TRY_S, _SLOWEST_BYTES_S = 30.0, 250_000
# A listing is many requests, each with time-outs and retries of its own.
_LISTING_S = 1800.0
_CLIENT_OPTIONS = {
    "s3": {
        # Other runs write too, so a cached listing may be out of date.
        "use_listings_cache": False,
        # A read is one request: with more at once, s3fs requests the size of the file first.
        "max_concurrency": 1,
        # botocore repeats one page of a listing; `Location.call` could only repeat all of it.
        "config_kwargs": {"retries": {"mode": "standard", "max_attempts": 5}},
    }
}
# File systems that stand in front of another one: "zip://a.jsonl::s3://bucket/b.zip".
_CHAINING = {
    "blockcache", "cached", "dir", "filecache", "libarchive", "reference", "simplecache", "tar",
    "zip",
}  # fmt: skip
_LOCAL = ("file://", "local://")
_READ_ONLY = ("hf://", "http://", "https://", "github://", "git://", "data:")
# Errors of client libraries that are no OSError, and those of them that may pass.
_CLIENT_ERRORS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "aiohttp": (  # s3fs, gcsfs, adlfs, http
        ("ClientError",),
        ("ClientConnectionError", "ClientPayloadError", "ClientResponseError"),
    ),
    "httpx": (("HTTPError",), ("TransportError",)),  # huggingface_hub 1
    "httpx2": (("HTTPError",), ("TransportError",)),  # huggingface_hub 2
    "azure.core.exceptions": (("AzureError",), ("ServiceRequestError", "ServiceResponseError")),
    "paramiko": (("SSHException",), ()),
}
# Errors that the same request will raise again, however long one waits.
_LASTING_ERRNOS = {
    errno.EINVAL, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.EPERM
}  # fmt: skip


@dataclass(frozen=True)
class Location:
    """A path or URI and how to reach it. Small and picklable.

    Attributes:
        uri: A local path, or a URI of any file system that fsspec knows, e.g. "s3://bucket/key".
        storage_options: Arguments of that file system, e.g. credentials; local paths ignore them.
        retry_s: How long a request that fails for a passing reason is repeated, in seconds.
        below: A path below `uri`, of which nothing is parsed: names come from buckets and disks,
            and may hold `::`, `?`, `%` or `://`.
    """

    uri: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    retry_s: float = RETRY_S
    below: str = ""

    def __reduce__(self) -> tuple[type["Location"], tuple[str, Mapping[str, Any], float, str]]:
        """Pickles a relative path as an absolute one: other processes run in other directories."""
        return Location, (whole_path(self.uri), self.storage_options, self.retry_s, self.below)

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
        # A job has one set of storage options. A local path ignores them: they are for the other
        # side of the job.
        defaults = _CLIENT_OPTIONS.get(self.uri.partition("://")[0], {})
        # A copy, because botocore changes the options in place: fsspec, which finds an instance by
        # its options, would then make a second client for the second use of a location.
        if not self.is_remote:
            return LocalFileSystem(), whole_path(self.uri)
        options = copy.deepcopy({**defaults, **self.storage_options})
        if self.uri.startswith("hf://"):
            # Its client takes long to load, and only who reads from the hub needs it.
            from sf_ray.storage.hub import HubFileSystem

            return HubFileSystem(**options), HubFileSystem._strip_protocol(self.uri)
        if "::" in self.uri and not _is_chain(self.uri):
            fs, path = _one_file_system(self.uri, options)
        else:
            fs, path = fsspec.core.url_to_fs(self.uri, **options)
        if "s3" in fs.protocol:
            # s3fs retries too. Inside the retries of `call`, the numbers of tries would multiply.
            fs.retries = 1
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
        """The URI without user name and password, for manifests, logs and errors.

        They stand before the host. An "@" behind it belongs to a name: hf://datasets/o/n@v1.
        """
        is_remote = self.is_remote
        uri = re.sub(r"(?<=://)[^/?#]*@", "", self.uri, count=1) if is_remote else self.uri
        return _joined(uri, self.below)

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
            fs = self.fs
            if isinstance(fs, AsyncFileSystem):
                fixed_s = _LISTING_S if method in ("find", "glob") else _TRY_S
                kwargs["timeout"] = fixed_s + size / _SLOWEST_BYTES_S
            return self._retried(getattr(fs, method), *args, **kwargs)

    def _retried(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not self.is_remote:
            return call(*args, **kwargs)
        return tenacity.Retrying(
            stop=tenacity.stop_after_delay(self.retry_s),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=20),
            retry=tenacity.retry_if_exception(_may_pass),
            before_sleep=self._say_retry,
            reraise=True,
        )(call, *args, **kwargs)

    def _say_retry(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        # The first failures are not logged: a store that throttles is nothing to worry about.
        if error and state.attempt_number > 3:
            say(
                f"note: storage of {self.public_uri} fails ({_answer(error)}); trying again for "
                f"{max(0, self.retry_s - (state.seconds_since_start or 0)):.0f} s more"
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
def storage_errors(location: Location) -> Iterator[None]:
    """Turns exceptions of the storage into a `SfRayError` that says what, where and what next.

    The original exception becomes the cause; callers look there for `FileNotFoundError`.
    """
    where = location.public_uri
    try:
        yield
    except SfRayError:
        raise
    except FileNotFoundError as error:
        raise SfRayError(
            f"{where}: not found ({_answer(error)}); check the name, and that the bucket exists"
        ) from error
    except PermissionError as error:
        raise SfRayError(
            f"{where}: access denied ({_answer(error)}); check the credentials in the environment "
            "or --storage-options"
        ) from error
    except _storage_exceptions() as error:
        was_retried = location.is_remote and _may_pass(error)
        lasted = f" for {location.retry_s:g} s" if was_retried else ""
        raise SfRayError(
            f"{where}: storage failed{lasted} ({type(error).__name__}: {_answer(error)}); check "
            "the endpoint, the network and the credentials; the same command goes on where this "
            "one was"
        ) from error
    except (ImportError, ValueError, NotImplementedError) as error:
        raise SfRayError(f"{where}: cannot be opened ({_answer(error)})") from error


def _may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed later: throttling, resets, time-outs, server errors."""
    if isinstance(error, (FileNotFoundError, FileExistsError, PermissionError)):
        return False
    if isinstance(error, (IsADirectoryError, NotADirectoryError)):
        return False
    # s3fs turns the answer of a server into an OSError, and keeps the answer as the cause.
    for answer in (error, error.__cause__):
        response = getattr(answer, "response", None)
        if isinstance(response, Mapping):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code = response.get("Error", {}).get("Code")
            return status in (409, 429) or status >= 500 or code == "RequestTimeout"
        status = getattr(response, "status_code", None) or getattr(answer, "status", None)
        if isinstance(status, int) and status:
            return status in (408, 409, 429) or status >= 500
    if isinstance(error, OSError):  # TimeoutError is an OSError
        return error.errno not in _LASTING_ERRNOS
    return isinstance(error, (asyncio.TimeoutError, *_client_errors(passing=True)))


def _storage_exceptions() -> tuple[type[Exception], ...]:
    """The exceptions that file systems raise.

    s3fs passes some of botocore's on untranslated, e.g. for missing credentials or a refused
    connection.
    """
    return (OSError, *_client_errors(passing=False))


def _client_errors(passing: bool) -> tuple[type[Exception], ...]:
    """The errors of the client libraries; one that is not loaded cannot have raised any."""
    errors: list[type[Exception]] = [
        getattr(sys.modules[module], name)
        for module, names in _CLIENT_ERRORS.items()
        if module in sys.modules
        for name in names[passing]
    ]
    if "botocore" in sys.modules:
        from botocore import exceptions as boto

        may_pass = (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError)
        lasting_too = (boto.BotoCoreError, boto.ClientError)
        errors += (*may_pass, boto.ResponseStreamingError) if passing else lasting_too
    return tuple(errors)


def _answer(error: BaseException) -> str:
    """The first line of what the storage answered; s3fs keeps the answer in the cause."""
    return first_line(error, cause_first=True)
