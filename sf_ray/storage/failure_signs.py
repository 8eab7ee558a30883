"""What an exception of a file system carries: what it was raised from, codes, status, number.

Libraries keep these under names of their own. It imports none of them, and judges nothing.
"""

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any


def links_of(error: BaseException) -> Iterator[BaseException]:
    """An error and all that it was raised from, outermost first."""
    waiting, seen = [error], set()
    while waiting:
        link = waiting.pop(0)
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        raised_from = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
        # aiohttp, requests and urllib keep the error of the socket as an argument, azure and
        # botocore under these names.
        kept = getattr(link, "kwargs", None)
        wrapped = (
            raised_from,
            *link.args,
            getattr(link, "inner_exception", None),
            kept.get("error") if isinstance(kept, Mapping) else None,
        )
        waiting += [inner for inner in wrapped if isinstance(inner, BaseException)]


def is_of_own_file(error: BaseException) -> bool:
    """Whether the operating system says "no such file" of an absolute path of this machine."""
    return (
        isinstance(error, FileNotFoundError)
        and error.errno == errno.ENOENT
        and isinstance(error.filename, str)
        and os.path.isabs(error.filename)
    )


def codes_of(link: BaseException) -> Iterator[str]:
    """The store's own codes for what happened, e.g. "NoSuchBucket"."""
    response = getattr(link, "response", None)
    if isinstance(response, Mapping):  # botocore
        yield str(response.get("Error", {}).get("Code"))
    if code := getattr(link, "error_code", None):  # azure
        yield str(getattr(code, "value", code))
    answer = getattr(link, "_error_response", None)  # gcsfs
    if isinstance(answer, Mapping):
        for part in answer.get("errors") or ():
            if isinstance(part, Mapping):
                yield str(part.get("reason"))


def status_of(link: BaseException) -> int:
    """The HTTP status of a store's answer; 0 where the error is none."""
    if type(link).__module__ == "aiohttp.http_exceptions":
        return 0  # its 400 is of an answer that arrived broken, e.g. cut short
    response = getattr(link, "response", None)
    if isinstance(response, Mapping):  # botocore
        return _as_status(response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
    # In this order: azure, aiohttp, gcsfs and urllib, requests and httpx. ("code" and "status" are
    # names that other exceptions use for other things, so the number has to be one of HTTP's.)
    names = ("status_code", "status", "code")
    for holder, name in [(link, name) for name in names] + [(response, "status_code")]:
        if status := _as_status(getattr(holder, name, None)):
            return status
    text = str(link)
    # gcsfs turns these into errors without a number.
    if isinstance(link, OSError) and link.errno is None and text.startswith("Forbidden: "):
        return 403
    return 400 if isinstance(link, ValueError) and text.startswith("Bad Request: ") else 0


def _as_status(value: Any) -> int:
    try:
        status = int(value)
    except (TypeError, ValueError):
        return 0
    return status if 300 <= status < 600 else 0


def errno_of(link: BaseException) -> int:
    """The number of the operating system; 0 where there is none."""
    if isinstance(link, (ssl.SSLError, socket.gaierror)):
        return 0
    if isinstance(link, OSError) and link.errno:
        return link.errno
    # Libraries in Rust, such as safetensors, have errors of their own with the number in the text.
    found = re.search(r"\(os error (\d+)\)", str(link))
    return int(found[1]) if found else 0
