"""Lineage of a run: OUTPUT/lineage.json, and events for an OpenLineage backend.

Where events go is the business of `openlineage-python` and its settings: OPENLINEAGE_URL,
OPENLINEAGE_API_KEY, openlineage.yml, OPENLINEAGE_DISABLED, ... Lineage never fails a run: whatever
goes wrong costs a bounded wait and one note.
"""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

from sf_ray.commands.locations import location_of
from sf_ray.config.selection_options import RunOptions, SelectionOptions
from sf_ray.corpus.formats import SampleRow
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.sampling import field_names
from sf_ray.errors import SfRayError, TerminatedError, first_line
from sf_ray.output.layout import Output
from sf_ray.output.lineage import (
    DEFAULT_NAMESPACE,
    LineageFacts,
    completed,
    ended,
    parent_of,
    started,
    to_json,
)
from sf_ray.output.manifest import Manifest
from sf_ray.runtime.log import run_id, say
from sf_ray.runtime.signals import Stop
from sf_ray.selection.excluded import ExcludedFiles

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient
    from openlineage.client.event_v2 import RunEvent

_T = TypeVar("_T")
# How long the end of a run waits for the backend. The library asks one that answers 500 again for
# about 9 s; more than that would have whoever waits for the run wait for its bookkeeping.
_WAIT_S = 10.0
_UNHARMED = "the run is as it would be without"


def facts_of(
    options: SelectionOptions,
    corpus: Corpus,
    sample: Sequence[SampleRow],
    beside: Sequence[ExcludedFiles],
) -> LineageFacts:
    """What is known of a run before it has kept any rows.

    Args:
        options: Of `run` or `select`.
        corpus: The corpus.
        sample: Some of its rows, which show the fields of JSON.
        beside: The files of `--exclude` and `--drop-overlap-with`.
    """
    named = options.storage_options.get("account_name")
    return LineageFacts(
        command="run" if isinstance(options, RunOptions) else "select",
        namespace=os.environ.get("OPENLINEAGE_NAMESPACE") or DEFAULT_NAMESPACE,
        corpus=corpus,
        fields=field_names(corpus, sample),
        beside=[files.corpus for files in beside],
        output=location_of(options, options.output),
        ifd_column=options.ifd_column,
        account=str(named or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")),
        parent=_parent("OPENLINEAGE_PARENT_ID"),
        root=_parent("OPENLINEAGE_ROOT_PARENT_ID"),
    )


def _parent(name: str) -> str | None:
    """What the environment says of a run above this one; None where it says nothing of use."""
    text = os.environ.get(name)
    if not text:
        return None
    try:
        parent_of(text)
    except ValueError as error:
        say(f"note: {name} is left out of the lineage: {first_line(error)}")
        return None
    return text


class Lineage:
    """A context that reports what becomes of the run in it, from `start` on.

    Outside of the leases of a run: others need not wait until a backend has answered.
    """

    def __init__(self) -> None:
        self._facts: LineageFacts | None = None
        self._sender: Sender | None = None
        self._event: RunEvent | None = None
        self._is_complete = False

    def __enter__(self) -> "Lineage":
        return self

    def start(self, facts: LineageFacts) -> None:
        """Reports that the run begins, in the background."""
        self._facts = facts
        if _is_on():
            self._sender = Sender()
            self._sender.send(lambda: started(facts, run_id()))
        elif os.environ.get("OPENLINEAGE_URL") and not _is_disabled():
            say(
                "note: OPENLINEAGE_URL is set, but openlineage-python is not installed here, so no "
                "lineage is sent or written: pip install 'sf_ray[lineage]'"
            )

    def keep(self, output: Output, corpus: Corpus, manifest: Manifest) -> None:
        """Writes OUTPUT/lineage.json, the event of this run, before its manifest is there.

        Args:
            output: OUTPUT.
            corpus: The corpus, without the shards that turned out to be bad.
            manifest: Of the run.
        """
        if self._facts is None or self._sender is None:
            return
        facts = replace(self._facts, corpus=corpus)
        try:
            self._event = completed(facts, manifest)
            data = to_json(self._event)
        except Exception as error:  # noqa: BLE001 - another version of the library may refuse it
            say(f"note: no lineage.json is written: {first_line(error)}; {_UNHARMED}")
            return
        output.keep_lineage(data)

    def complete(self) -> None:
        """Reports that the run has written its manifest."""
        self._is_complete = True
        event = self._event
        if event is not None and self._sender is not None:
            self._sender.send(lambda: event)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        facts = self._facts
        if facts is None or self._sender is None:
            return
        if error is not None and not self._is_complete:
            why = error.error if isinstance(error, Stop) else error
            is_stopped = isinstance(why, (KeyboardInterrupt, TerminatedError))
            message = why.message if isinstance(why, SfRayError) else first_line(why)
            self._sender.send(
                lambda: ended(facts, run_id(), "ABORT" if is_stopped else "FAIL", message)
            )
        if problem := self._sender.close():
            say(f"note: not all lineage of this run was sent: {problem}; {_UNHARMED}")


class Sender:
    """A thread that hands events to the library, one after the other.

    A thread, because every transport of the library waits for its backend in its own way, and some
    for ever. A daemon, so that one that hangs does not keep the process. Importing the library
    takes a second, which the thread takes while the run does other things.
    """

    def __init__(self) -> None:
        self._made: SimpleQueue[Callable[[], RunEvent] | None] = SimpleQueue()
        self._problems: list[str] = []
        self._thread = threading.Thread(target=self._run, name="openlineage", daemon=True)
        self._thread.start()

    def send(self, make: "Callable[[], RunEvent]") -> None:
        """Sends the event that a function makes, when those before it are sent."""
        self._made.put(make)

    def close(self) -> str | None:
        """Waits until all events are sent, for some seconds; returns what went wrong."""
        self._made.put(None)
        self._thread.join(_WAIT_S)
        if self._thread.is_alive():
            return f"the backend did not answer within {_WAIT_S:.0f} s"
        return self._problems[0] if self._problems else None

    def _run(self) -> None:
        with _Warnings(self._problems):
            client = self._tried(_configured_client)
            while (make := self._made.get()) is not None:
                if client is not None:
                    self._tried(lambda make=make: client.emit(make()))  # type: ignore[misc]
            if client is not None:
                self._tried(lambda: client.close(_WAIT_S))

    def _tried(self, what: Callable[[], _T]) -> _T | None:
        try:
            return what()
        except Exception as error:  # noqa: BLE001 - a transport may raise anything
            # Behind what the library has logged of it, which says more.
            self._problems.append(first_line(error))
            return None


class _Warnings(logging.Handler):
    """A context in which warnings of the library, and of the HTTP client in this thread, are kept.

    By default Python prints them to standard error, where they are many, and not redacted.
    """

    def __init__(self, kept: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._kept = kept
        self._library = logging.getLogger("openlineage")
        self._http = logging.getLogger("urllib3.connectionpool")
        self._thread = threading.get_ident()

    def __enter__(self) -> None:
        self._propagated = self._library.propagate
        self._library.propagate = False
        self._library.addHandler(self)
        self._http.addFilter(self._is_of_others)

    def __exit__(self, *_: object) -> None:
        self._http.removeFilter(self._is_of_others)
        self._library.removeHandler(self)
        self._library.propagate = self._propagated

    def emit(self, record: logging.LogRecord) -> None:
        """Keeps what a record says."""
        self._kept.append(record.getMessage())

    def _is_of_others(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread


def _configured_client() -> "OpenLineageClient | None":
    """The library's client; None where nothing says where events should go.

    The library would print them then.
    """
    from openlineage.client import OpenLineageClient

    # It would read the remote of the git repository that the command happens to run in, which is
    # not where this code comes from, and may hold a password.
    own = {"facets": {"source_code_location": {"disabled": True}}}
    is_asked_for = bool(os.environ.get("OPENLINEAGE_URL"))
    logging.getLogger("openlineage.client.client").addFilter(_is_no_advice)
    client = OpenLineageClient(config=own)
    return client if is_asked_for or (client.config.transport or {}).get("type") else None


def _is_no_advice(record: logging.LogRecord) -> bool:
    """Leaves out what the library says where nothing is configured, which is no problem here."""
    return "find any OpenLineage transport configuration" not in record.getMessage()


def _is_on() -> bool:
    # Several packages have a part of `openlineage`, so that it alone says nothing.
    is_installed = find_spec("openlineage") and find_spec("openlineage.client")
    return bool(is_installed) and not _is_disabled()


def _is_disabled() -> bool:
    """Whether the library's own switch is off."""
    return os.environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true"
