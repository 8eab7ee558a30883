"""Repositories of the Hugging Face hub: the file system of hub's own client, asked for less.

That client serves people who look around: it remembers listings, lists a whole directory to tell
about one file, and reads megabytes ahead. A job asks about many files from many processes, has to
see that a file changed, and reads exact ranges. So here every answer is the hub's answer of now,
and each question is one request. Nothing is retried here: `Location.call` does that. Reads only.
Knows no Ray and no model, and nothing of what is in a file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from huggingface_hub import (
    HfFileSystem,
    get_hf_file_metadata,
    get_session,
    hf_hub_url,
    hf_raise_for_status,
)
from huggingface_hub.errors import (
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from sf_ray.errors import SfRayError

# The hub's client waits without end where nothing else is said; this is for the next byte.
_SILENCE_S = 30.0
_COPIED_AT_ONCE = 1 << 20  # bytes
# What was tried in this process: (endpoint, length of the ETag) where a HEAD request told the same
# as the API does, and endpoints where it did not. Small and large files have other ETags.
_heads_agree: set[tuple[str, int]] = set()
_heads_differ: set[str] = set()


class HubFileSystem(HfFileSystem):
    """`hf://datasets/OWNER/NAME[@REVISION]/path`, as the rest of storage wants a file system.

    The details of a file have its `etag`: the SHA-256 of a large file, git's id of a small one.
    """

    def find(self, path: str, *args: Any, **kwargs: Any) -> Any:
        """Lists all files below a path, by one request for 1,000 of them."""
        with _hub_errors(path):
            found = super().find(path, *args, **kwargs | {"refresh": True})
        # Each thread copies what the first one remembers, and nothing here asks memory.
        self.dircache.clear()
        for details in found.values() if isinstance(found, dict) else ():
            if details.get("blob_id"):
                details["etag"] = _etag(details["blob_id"], details["lfs"])
        return found

    def glob(self, path: str, *args: Any, **kwargs: Any) -> Any:
        """Lists the paths that match a pattern, by one listing below the first wildcard."""
        with _hub_errors(path):
            return super().glob(path, *args, **kwargs)

    def info(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Details of one file or directory as it is now."""
        with _hub_errors(path):
            where: Any = self.resolve_path(path)
            if not where.path:
                return {"name": where.unresolve(), "size": 0, "type": "directory"}
            if not hasattr(where, "repo_id"):  # a bucket's file
                details: dict[str, Any] = super().info(path, refresh=True)
                return details
            return self._details(where)

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        """Reads bytes [start, end) by one request for just them; None: from or to the end."""
        ranged = {"Range": f"bytes={start or 0}-{'' if end is None else end - 1}"}
        with _hub_errors(path):
            response = get_session().get(
                self._url(path),
                headers=self._headers() | (ranged if start or end is not None else {}),
                timeout=_SILENCE_S,
                follow_redirects=True,  # large files lie on other servers
            )
            hf_raise_for_status(response)
        data: bytes = response.content
        # A server between may know no ranges, and send all.
        return data if response.status_code == 206 else data[start:end]

    def get_file(
        self,
        rpath: Any,
        lpath: Any = None,
        callback: Any = None,
        outfile: Any = None,
        **kwargs: Any,
    ) -> None:
        """Copies a file to this machine's disk."""
        with (
            _hub_errors(rpath),
            get_session().stream(
                "GET",
                self._url(rpath),
                headers=self._headers(),
                timeout=_SILENCE_S,
                follow_redirects=True,
            ) as response,
        ):
            hf_raise_for_status(response)
            with open(lpath, "wb") as copy:
                for part in response.iter_bytes(_COPIED_AT_ONCE):
                    copy.write(part)

    def _details(self, where: Any) -> dict[str, Any]:
        """Details of a path in a repository.

        The hub allows a user several times as many requests for files, HEAD among them, as
        questions to its API. So HEAD is asked, once it has told the same as the API does.
        """
        head = self._head(where) if self.endpoint not in _heads_differ else None
        kind = (self.endpoint, len(head["etag"]) if head else 0)
        if head and kind in _heads_agree:
            return head
        details = self._ask_api(where)
        if head == details:
            _heads_agree.add(kind)
        elif head:  # a proxy may have ETags of its own
            _heads_differ.add(self.endpoint)
        return details

    def _head(self, where: Any) -> dict[str, Any] | None:
        """What a HEAD request tells of a file; None where it tells too little, or of no file."""
        try:
            answer = get_hf_file_metadata(self._url_of(where), token=self.token, timeout=_SILENCE_S)
        except HfHubHTTPError as error:
            if error.response.status_code in (404, 405, 501):
                return None
            raise
        if answer.etag is None or answer.size is None:
            return None
        return {
            "name": where.unresolve(),
            "size": answer.size,
            "type": "file",
            "etag": answer.etag,
        }

    def _ask_api(self, where: Any) -> dict[str, Any]:
        found = self._api.get_paths_info(
            where.repo_id,
            [where.path_in_repo],
            revision=where.revision,
            repo_type=where.repo_type,
        )
        if not found:
            raise FileNotFoundError("no such file in this revision")
        details = {"name": where.unresolve(), "size": 0, "type": "directory"}
        entry: Any = found[0]
        if hasattr(entry, "blob_id"):
            etag = _etag(entry.blob_id, entry.lfs)
            details |= {"size": entry.size, "type": "file", "etag": etag}
        return details

    def _url(self, path: str) -> str:
        return self._url_of(self.resolve_path(path))

    def _url_of(self, where: Any) -> str:
        if not hasattr(where, "repo_id"):
            return f"{self.endpoint}/buckets/{where.bucket_id}/resolve/{quote(where.path)}"
        return hf_hub_url(
            where.repo_id,
            where.path_in_repo,
            repo_type=where.repo_type,
            revision=where.revision,
            endpoint=self.endpoint,
        )

    def _headers(self) -> dict[str, str]:
        # Compressed on the way, the bytes would not be those of the range.
        headers: dict[str, str] = build_hf_headers(token=self.token)
        return headers | {"Accept-Encoding": "identity"}


def _etag(blob_id: str, lfs: Any) -> str:
    """The ETag that the hub sends with a file, of what its listing tells."""
    return str(lfs.sha256) if lfs else blob_id


@contextmanager
def _hub_errors(path: str) -> Iterator[None]:
    """Turns what the hub's client raises into the errors of a file system, in words of a user.

    Answers that may pass (too many requests, server errors) stay as they are.
    """
    try:
        yield
    except OfflineModeIsEnabled:
        raise SfRayError(
            f"hf://{path.removeprefix('hf://')}: HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set, "
            "so the hub may not be asked; unset it, or give a copy on a disk or in a bucket"
        ) from None
    except (FileNotFoundError, HfHubHTTPError) as error:
        # The client keeps the hub's answer as the cause of its FileNotFoundError.
        answer = error.__cause__ if isinstance(error, FileNotFoundError) else error
        if not isinstance(answer, HfHubHTTPError):
            raise
        status = answer.response.status_code
        if status in (401, 403):
            said = (answer.server_message or "").splitlines()
            reason = said[0] if said else "the repository is private or gated, or there is none"
            raise PermissionError(
                f"the hub answers {status}: {reason}; HF_TOKEN must be, on every machine, a token "
                "that may read it"
            ) from None
        if isinstance(answer, RevisionNotFoundError):
            raise FileNotFoundError("the repository has no such revision") from None
        if isinstance(answer, RepositoryNotFoundError):
            raise FileNotFoundError("no such repository, or none that HF_TOKEN may see") from None
        if status == 404:
            raise FileNotFoundError("no such file in this revision") from None
        raise
