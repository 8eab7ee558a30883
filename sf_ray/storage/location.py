"""A path or URI, how to reach it, and what its storage says when it fails. No Ray, no model.

Everything goes through fsspec, so a local path, `s3://`, `gs://` and the rest are alike. A request
that fails in a way that may pass is made again, with growing pauses, for `retry_s` seconds.
"""

import asyncio
import copy
import errno
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import fsspec
import tenacity
from fsspec.asyn import AsyncFileSystem

from sf_ray.errors import SfRayError
from sf_ray.runtime.log import say

RETRY_S = 300.0
# One try of one request may take this long, and as much longer as its bytes need at the slowest
# rate that is still worth waiting for.
_TRY_S, _SLOWEST_BYTES_S = 30.0, 250_000
# A listing is many requests, each with time-outs and retries of its own.
_LISTING_S = 1800.0
# No cache of listings: other runs write too. One request for one read: with more, s3fs asks for the
# size first. And one page of a listing is asked for again rather than the whole of it.
_CLIENT_OPTIONS = {
    "s3": {
        "use_listings_cache": False,
        "max_concurrency": 1,
        "config_kwargs": {"retries": {"mode": "standard", "max_attempts": 5}},
    }
}
# What a server or a disk says once and will say again.
_LASTING = {
    errno.EINVAL, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENAMETOOLONG, errno.EPERM
}  # fmt: skip


@dataclass(frozen=True)
class Location:
    """A path or URI and how to reach it; small, and may be sent to another process."""

    uri: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    retry_s: float = RETRY_S

    def __reduce__(self) -> tuple[type["Location"], tuple[str, Mapping[str, Any], float]]:
        """Other processes have other directories: a relative path reaches them whole."""
        return Location, (whole_path(self.uri), self.storage_options, self.retry_s)

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        """The file system; fsspec keeps one instance for equal options."""
        with storage_errors(self):
            return self._resolved()[0]

    @property
    def path(self) -> str:
        """The path as `fs` writes it, without a slash at the end."""
        with storage_errors(self):
            return self._resolved()[1].rstrip("/")

    def _resolved(self) -> tuple[fsspec.AbstractFileSystem, str]:
        # Local paths take no options: those given are for the other side of the job.
        ours = _CLIENT_OPTIONS.get(self.uri.partition("://")[0], {})
        # Copies: botocore changes the options it is given, and fsspec keeps instances by options.
        options = copy.deepcopy({**ours, **self.storage_options}) if self.is_remote else {}
        fs, path = fsspec.core.url_to_fs(self.uri, **options)
        if "s3" in fs.protocol:
            fs.retries = 1  # s3fs tries again too; with ours around it, bounds would multiply
        return fs, path

    @property
    def is_remote(self) -> bool:
        """Whether the URI names another file system than this machine's."""
        return "://" in self.uri and not self.uri.startswith(("file://", "local://"))

    @property
    def public_uri(self) -> str:
        """The URI without user name and password, fit for manifests, logs and errors."""
        parts = urlsplit(self.uri)
        if not self.is_remote or "@" not in parts.netloc:
            return self.uri
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def join(self, name: str) -> "Location":
        """The location of `name` below this one."""
        return replace(self, uri=f"{self.uri.rstrip('/')}/{name}")

    def call(self, method: str, *args: Any, size: int = 0, **kwargs: Any) -> Any:
        """Calls a method of the file system; again, where what it raises may pass.

        Args:
            method: Its name, e.g. "cat_file".
            args: Its arguments.
            size: Bytes that it moves, which bound the time that one try may take.
            kwargs: Its keyword arguments.

        Raises:
            SfRayError: It is not there, it is forbidden, or storage stayed away for `retry_s`.
        """
        with storage_errors(self):
            fs = self.fs
            if isinstance(fs, AsyncFileSystem):
                bulk = _LISTING_S if method in ("find", "glob") else _TRY_S
                kwargs["timeout"] = bulk + size / _SLOWEST_BYTES_S
            return self._retried(getattr(fs, method), *args, **kwargs)

    def _retried(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not self.is_remote:
            return call(*args, **kwargs)
        return tenacity.Retrying(
            stop=tenacity.stop_after_delay(self.retry_s),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=20),
            retry=tenacity.retry_if_exception(_may_pass),
            before_sleep=self._say_again,
            reraise=True,
        )(call, *args, **kwargs)

    def _say_again(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        # The first few pass unsaid: a store that throttles is nothing to worry about.
        if error and state.attempt_number > 3:
            say(
                f"note: storage of {self.public_uri} fails ({_short(error)}); trying again for "
                f"{max(0, self.retry_s - (state.seconds_since_start or 0)):.0f} s more"
            )


def whole_path(uri: str) -> str:
    """A path of this process as any process of this machine understands it; a URI as it is."""
    return uri if "://" in uri else os.path.abspath(uri)


@contextmanager
def storage_errors(location: Location) -> Iterator[None]:
    """Turns what storage raises into errors that say what, where and what next."""
    where = location.public_uri
    try:
        yield
    except SfRayError:
        raise
    except FileNotFoundError as error:
        raise SfRayError(
            f"{where}: not found ({_short(error)}); check the name, and that the bucket exists"
        ) from error
    except PermissionError as error:
        raise SfRayError(
            f"{where}: access denied ({_short(error)}); check the credentials in the environment "
            "or --storage-options"
        ) from error
    except _storage_exceptions() as error:
        lasted = f" for {location.retry_s:g} s" if location.is_remote and _may_pass(error) else ""
        raise SfRayError(
            f"{where}: storage failed{lasted} ({type(error).__name__}: {_short(error)}); check the "
            "endpoint, the network and the credentials; the same command goes on where this one was"
        ) from error
    except (ImportError, ValueError) as error:
        raise SfRayError(f"{where}: cannot be opened ({_short(error)})") from error


def _may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed later: throttling, resets, time-outs, server errors."""
    if isinstance(error, (FileNotFoundError, FileExistsError, PermissionError)):
        return False
    if isinstance(error, (IsADirectoryError, NotADirectoryError)):
        return False
    # s3fs translates what a server says into an OSError, and keeps the answer as its cause.
    for answer in (error, error.__cause__):
        response = getattr(answer, "response", None)
        if isinstance(response, Mapping):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code = response.get("Error", {}).get("Code")
            return status in (409, 429) or status >= 500 or code == "RequestTimeout"
    if isinstance(error, OSError):  # time-outs are OSErrors too
        return error.errno not in _LASTING
    if isinstance(error, asyncio.TimeoutError):
        return True
    if "botocore" not in sys.modules:
        return False
    from aiohttp import ClientError as HttpError
    from botocore import exceptions as boto

    passing = (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError, HttpError)
    return isinstance(error, (*passing, boto.ResponseStreamingError))


def _storage_exceptions() -> tuple[type[Exception], ...]:
    """What file systems raise; s3fs passes some on untranslated: no credentials, no connection."""
    if "botocore" not in sys.modules:
        return (OSError,)
    from aiohttp import ClientError as HttpError
    from botocore.exceptions import BotoCoreError, ClientError

    return (OSError, BotoCoreError, ClientError, HttpError)


def _short(error: BaseException) -> str:
    """The first line of what storage says; s3fs says it in the cause only."""
    text = str(error.__cause__ or error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
