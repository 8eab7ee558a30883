"""A whole output -> one commit to a dataset repository of the Hugging Face hub.

An append puts its files into a folder of its own, named after the request, so that no two requests
write over each other; an overwrite makes the repository's `data` folder exactly ours. The commit
names the one that it follows: where another is there by now, the hub refuses it. So a commit whose
answer was lost is never made twice: the next attempt looks at the history first.
"""

import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from inspect import signature
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, unquote

import pyarrow as pa
import tenacity

from sf_ray.errors import SfRayError, UsageError
from sf_ray.output.commits.commit import (
    ATTEMPTS,
    ROWS,
    Committed,
    KeptRows,
    Mode,
    is_answer,
    overtaken,
    worn_out,
)
from sf_ray.output.report.card import MARK, render_card
from sf_ray.runtime.log import say
from sf_ray.storage.failures import judge
from sf_ray.storage.files import copy_here, read_bytes, read_bytes_or_none
from sf_ray.storage.location import Location
from sf_ray.text.redaction import public_uri

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
    from huggingface_hub.hf_api import GitCommitInfo

_Answer = TypeVar("_Answer")

_NAME = re.compile(r"hf://datasets/(?P<repo>[^/@]+/[^/@]+)(@(?P<branch>.+?))?/?")
# Files that are sent together; those that come from a store lie on this machine's disk meanwhile.
_FILES_AT_ONCE, _BYTES_AT_ONCE = 64, 1 << 30
# The hub takes small text files in the body of the commit itself, which is one request.
_BODY_BYTES = 256 << 20
_LINE = re.compile(r"^(sf-ray\.[\w-]+): (.*)$", re.MULTILINE)
_TOO_LATE = (409, 412)
# Before a commit is tried again whose failure may pass: this long the first time, in seconds.
_PAUSE_S = 2.0


class HubTarget:
    """A branch of a dataset repository; a `commit.Target`."""

    is_table = False

    def __init__(self, repo: str, branch: str, mode: Mode, retry_s: float) -> None:
        from huggingface_hub import HfApi

        self.name = f"hf://datasets/{repo}"
        if branch != "main":
            self.name += f"@{quote(branch, safe='/')}"
        self._repo, self._branch, self._mode, self._retry_s = repo, branch, mode, retry_s
        # The token is that of HF_TOKEN or of `hf auth login`; --storage-options are for buckets.
        self._api = HfApi()
        self._head: str | None = None

    @classmethod
    def of(cls, place: str, mode: Mode, retry_s: float) -> "HubTarget":
        """Takes the name of a repository apart.

        Raises:
            UsageError: It is none of a dataset.
        """
        found = _NAME.fullmatch(place)
        if found is None:
            raise UsageError(
                f"--commit-to {public_uri(place)}: give hf://datasets/ORG/NAME, and behind it "
                "@BRANCH if it is not to be main; rows are committed to dataset repositories alone"
            )
        return cls(found["repo"], unquote(found["branch"] or "main"), mode, retry_s)

    def check(self, columns: pa.Schema | None) -> None:
        """See `Target.check`."""
        from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

        if "write" not in signature(self._api.auth_check).parameters:
            raise SfRayError(
                "committing to the hub needs a newer huggingface_hub, which can ask for the right "
                "to write: pip install -U huggingface_hub"
            )
        with _explained(self.name):
            try:
                history = self._asked(self._history)
                self._asked(
                    lambda: self._api.auth_check(self._repo, repo_type="dataset", write=True)
                )
            except RepositoryNotFoundError:
                raise UsageError(
                    f"--commit-to {self.name}: no such dataset repository, or none that HF_TOKEN "
                    "may see. Who may see what you commit is for you to say, so make it yourself: "
                    f"hf repos create {self._repo} --type dataset --private"
                ) from None
            except HfHubHTTPError as error:
                if error.response.status_code not in (401, 403):
                    raise
                raise UsageError(
                    f"--commit-to {self.name}: the token may not write there (the hub answers "
                    f"{error.response.status_code}); HF_TOKEN must be one with write access to "
                    "this repository"
                ) from None
        self._head = history[0].commit_id

    def find(self, request_id: str) -> Committed | None:
        """See `Target.find`."""
        with _explained(self.name):
            return self._find(self._asked(self._history), request_id)

    def commit(self, kept: KeptRows) -> Committed:
        """See `Target.commit`."""
        from huggingface_hub.errors import HfHubHTTPError

        with _explained(self.name), _quiet(), tempfile.TemporaryDirectory() as folder:
            found = self._find(self._asked(self._history), kept.request_id)
            if found is not None:
                return found
            self._asked(self._make_branch)
            additions = self._uploaded(kept, Path(folder))
            failure: Exception | None = None
            for attempt in range(ATTEMPTS):
                sleep(_PAUSE_S * attempt if failure else 0)
                history = self._asked(self._history)
                if found := self._find(history, kept.request_id):
                    return found if failure is None else replace(found, is_new=True)
                if self._mode == "overwrite" and history[0].commit_id != self._head:
                    raise overtaken(self.name, f"commit {_short(history[0])} ({history[0].title})")
                try:
                    return self._committed(kept, additions, history[0].commit_id)
                except Exception as error:
                    is_late = isinstance(error, HfHubHTTPError) and (
                        error.response.status_code in _TOO_LATE
                    )
                    # Where the answer was lost, the commit may be there.
                    if not is_late and not judge(error).may_pass:
                        raise
                    failure = None if is_late else error
            raise failure or worn_out(self.name)

    def _committed(
        self, kept: KeptRows, additions: "Sequence[CommitOperationAdd]", head: str
    ) -> Committed:
        """Makes the commit, on top of the one that it names."""
        said = kept.properties(self._mode)
        operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
            *self._removals(additions, head), *self._card(kept, head), *additions,
        ]  # fmt: skip
        done = self._api.create_commit(
            self._repo,
            operations,
            commit_message=f"sf-ray: {kept.rows:,} rows",
            commit_description="\n".join(f"{name}: {value}" for name, value in said.items()),
            repo_type="dataset",
            revision=self._branch,
            parent_commit=head,
        )
        return Committed(self.name, f"commit {done.oid[:12]}", kept.rows)

    def _uploaded(self, kept: KeptRows, folder: Path) -> "list[CommitOperationAdd]":
        """Sends the files, a part at a time; no reader sees them before a commit names them."""
        from huggingface_hub import CommitOperationAdd

        part = self._folder(kept)
        beside = f"sf_ray/{part}" if part else ""
        done: list[CommitOperationAdd] = []
        held: list[CommitOperationAdd] = []
        for number, file in enumerate(kept.files()):
            path = Path(file.path)
            if kept.output.data.is_remote:
                path = folder / f"{number}"
                copy_here(kept.output.data, file, path)
            held.append(CommitOperationAdd(f"data/{part}{file.relative}", path))
            size = sum(each.upload_info.size for each in held)
            if len(held) == _FILES_AT_ONCE or size >= _BYTES_AT_ONCE:
                done += self._sent(held, folder)
                held = []
        done += self._sent(held, folder)
        for place in (kept.output.manifest_location, kept.output.page):
            name = place.above()[1]
            done.append(CommitOperationAdd(beside + name, read_bytes(place)))
        if beside:
            done.append(
                CommitOperationAdd(f"{beside}README.md", render_card(kept.manifest).encode())
            )
        in_body = sum(each.upload_info.size for each in done if each._upload_mode == "regular")
        if in_body > _BODY_BYTES:
            raise SfRayError(
                f"{self.name}: the hub takes {in_body:,} bytes of these files only as text in one "
                "request, which is too much for it: write larger files with --file-size, or a "
                "corpus of Parquet"
            )
        return done

    def _sent(self, held: "list[CommitOperationAdd]", folder: Path) -> "list[CommitOperationAdd]":
        """Sends files, and removes the copies on this disk that are not needed any more."""
        copies = {each.path_in_repo: Path(str(each.path_or_fileobj)) for each in held}
        self._asked(
            lambda: self._api.preupload_lfs_files(
                self._repo, held, repo_type="dataset", revision=self._branch
            )
        )
        for each in held:
            if each._should_ignore:  # the client would leave it out without a word
                raise SfRayError(
                    f"{self.name}: the repository's .gitignore keeps {each.path_in_repo} out, so "
                    "nothing was committed; change it there, or name another repository"
                )
            copy = copies[each.path_in_repo]
            if each.path_or_fileobj == b"" and copy.parent == folder:
                copy.unlink()
        return held

    def _folder(self, kept: KeptRows) -> str:
        """The folder of an append in `data` and in `sf_ray`; "" for an overwrite."""
        return f"{kept.request_id[:16]}/" if self._mode == "append" else ""

    def _removals(
        self, additions: "Sequence[CommitOperationAdd]", head: str
    ) -> "list[CommitOperationDelete]":
        """What an overwrite takes out of `data`."""
        from huggingface_hub import CommitOperationDelete

        if self._mode == "append":
            return []
        listed = self._asked(
            lambda: self._api.list_repo_files(self._repo, repo_type="dataset", revision=head)
        )
        ours = {each.path_in_repo for each in additions}
        gone = [path for path in listed if path.startswith("data/") and path not in ours]
        return [CommitOperationDelete(path, is_folder=False) for path in gone]

    def _card(self, kept: KeptRows, head: str) -> "list[CommitOperationAdd]":
        """The repository's README, unless another wrote the one that is there."""
        from huggingface_hub import CommitOperationAdd

        there = read_bytes_or_none(
            Location(f"hf://datasets/{self._repo}@{head}/README.md", {}, self._retry_s)
        )
        if there is not None and (self._mode == "append" or MARK.encode() not in there):
            if MARK.encode() not in there:
                say(f"note: README.md of {self.name} is not of our writing, and stays as it is")
            return []
        card = render_card(kept.manifest)
        if part := self._folder(kept):
            for name in ("report.html", "manifest.json"):
                card = card.replace(f"]({name})", f"](sf_ray/{part}{name})")
        return [CommitOperationAdd("README.md", card.encode())]

    def _history(self) -> "list[GitCommitInfo]":
        """The commits of the branch, the newest first; those of main before it is made."""
        from huggingface_hub.errors import RevisionNotFoundError

        try:
            return self._api.list_repo_commits(
                self._repo, repo_type="dataset", revision=self._branch
            )
        except RevisionNotFoundError:
            return self._api.list_repo_commits(self._repo, repo_type="dataset")

    def _make_branch(self) -> None:
        if self._branch != "main" and not self._branch.startswith("refs/"):
            self._api.create_branch(
                self._repo, branch=self._branch, repo_type="dataset", exist_ok=True
            )

    def _find(self, history: "Sequence[GitCommitInfo]", request_id: str) -> Committed | None:
        for commit in history:
            said: Mapping[str, str] = dict(_LINE.findall(commit.message or ""))
            answer = is_answer(said, request_id, self._mode)
            if answer is not None:
                rows = int(said.get(ROWS, "0"))
                version = f"commit {_short(commit)}"
                return Committed(self.name, version, rows, is_new=False) if answer else None
        return None

    def _asked(self, request: Callable[[], _Answer]) -> _Answer:
        """Makes a request that may be made twice, again where its failure may pass."""
        answer: _Answer = tenacity.Retrying(
            stop=tenacity.stop_after_delay(self._retry_s),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=20),
            retry=tenacity.retry_if_exception(lambda error: judge(error).may_pass),
            reraise=True,
        )(request)
        return answer


def _short(commit: "GitCommitInfo") -> str:
    return commit.commit_id[:12]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the client's bars, which do not fit between lines of a log."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    was_quiet = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not was_quiet:
            enable_progress_bars()


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turns what the hub's client raises into an error that says where, and what to do."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        yield
    except (SfRayError, MemoryError):
        raise
    except OfflineModeIsEnabled:
        raise UsageError(
            f"{name}: HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set, so nothing can be committed "
            "there; unset it, or leave --commit-to out"
        ) from None
    except Exception as error:
        raise SfRayError(judge(error).sentence(name, is_remote=True)) from error
