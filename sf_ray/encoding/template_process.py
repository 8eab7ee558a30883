"""A process in which chat templates are rendered, so that one that never ends can be stopped.

A template is a program. The sandbox of Jinja keeps it from files and from the environment, but not
from loops in loops, or from a text of gigabytes, and Python cannot interrupt either of them in a
thread. So each process that encodes has one child that renders and tokenises. The kernel ends the
child where a turn takes too much time or memory; the row gets a status, and the next row a new
child. Knows no examples and no files.
"""

import json
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sf_ray.errors import first_line
from sf_ray.runtime.child_python import child_command, child_environment

# What one turn may take. Rendering takes milliseconds, so these are far from any honest template;
# tokenising a long text takes a second for a million characters.
_CPU_S, _CPU_S_A_CHARACTER = 10.0, 1e-5
_MEMORY_BYTES = 2 << 30
# An answer of the child: what it is, and the bytes of it that follow.
_HEADER = struct.Struct("<cQ")
_IDS, _ERROR = b"i", b"e"


class TemplateError(Exception):
    """A template fails on a turn; the text says why, and in which line."""


@dataclass(frozen=True, eq=False)
class TemplateJob:
    """What renders turns. Large; sent to the child when another job was before it.

    Attributes:
        tokenizer: Pickle of a fast tokenizer of transformers.
        jinja: Text of the template.
        most_ids: Ids behind those of the prompt that anybody needs.
        cpu_s: Seconds that a turn may take; more where its texts are long.
        memory_bytes: Bytes that it may take.
    """

    tokenizer: bytes
    jinja: str
    most_ids: int
    cpu_s: float = _CPU_S
    memory_bytes: int = _MEMORY_BYTES


class Turn(NamedTuple):
    """What a template gets.

    Attributes:
        messages: In the form that chat templates expect; the last one is the answer.
        tools: JSON text; "" for none.
        is_open: Whether the rendering ends with the text of the answer.
    """

    messages: Sequence[dict[str, Any]]
    tools: str
    is_open: bool


class TurnIds(NamedTuple):
    """Ids of everything before the answer, and of that and the answer."""

    before: NDArray[np.int32]
    whole: NDArray[np.int32]


class TemplateProcess:
    """The child of this process; starts when it is first asked, and again after it was ended."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._job: TemplateJob | None = None
        self._lock = threading.Lock()

    def ids(self, job: TemplateJob, turn: Turn) -> TurnIds:
        """Renders a turn and tokenises it.

        Raises:
            TemplateError: The template fails on it, or was stopped.
        """
        with self._lock:
            try:
                if job is not self._job or self._child is None:
                    self._start(job)
                kind, data = self._ask(pickle.dumps(tuple(turn)))
            except (BrokenPipeError, EOFError):
                raise TemplateError(self._end(job)) from None
            except BaseException:  # an interrupt: what the child says next answers no later turn
                self.stop()
                raise
        if kind == _ERROR:
            raise TemplateError(data.decode("utf-8", "replace"))
        ids = np.frombuffer(data, np.int32)
        return TurnIds(ids[1 : 1 + ids[0]], ids[1 + ids[0] :])

    def stop(self) -> None:
        """Ends the child, also from another thread than the one that waits for it."""
        child, self._child, self._job = self._child, None, None
        if child is not None:
            child.kill()

    def _start(self, job: TemplateJob) -> None:
        if self._child is None:
            self._child = subprocess.Popen(
                child_command(__name__),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=child_environment() | {"TOKENIZERS_PARALLELISM": "false"},
                # Outside the process group, whose Ctrl-C would print a traceback of the child.
                start_new_session=True,
            )
        self._job = job
        kind, data = self._ask(pickle.dumps(tuple(vars(job).values())))
        if kind == _ERROR:
            self.stop()
            raise TemplateError(data.decode("utf-8", "replace"))

    def _ask(self, question: bytes) -> tuple[bytes, bytes]:
        child = self._child
        if child is None:  # stopped by another thread
            raise EOFError
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(question)
        child.stdin.flush()
        kind, length = _HEADER.unpack(_read(child.stdout, _HEADER.size))
        return kind, _read(child.stdout, length)

    def _end(self, job: TemplateJob) -> str:
        """Why the child is gone."""
        child = self._child
        self.stop()
        code = child.wait() if child is not None else -signal.SIGKILL
        if code == -signal.SIGPROF:
            return f"the template took more than {job.cpu_s:g} s, and was stopped"
        return (
            f"the template's process ended with {code}; it may take {job.memory_bytes >> 20:,} MiB"
        )


PROCESS = TemplateProcess()


def _read(stream: Any, length: int) -> bytes:
    data: bytes = stream.read(length)
    if len(data) < length:
        raise EOFError
    return data


def serve() -> None:
    """The child: answers questions of standard input until it ends."""
    questions = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    render = None
    with suppress(EOFError):
        while True:
            question = pickle.load(questions)
            try:
                if render is None or isinstance(question[0], bytes):
                    render = _Rendering(TemplateJob(*question))
                    data = b""
                else:
                    data = render.ids(Turn(*question))
                _answer(answers, _IDS, data)
            except Exception as error:  # noqa: BLE001 - a template may do anything
                signal.setitimer(signal.ITIMER_PROF, 0)
                _answer(answers, _ERROR, _description(error).encode("utf-8", "replace"))


def _answer(answers: BinaryIO, kind: bytes, data: bytes) -> None:
    answers.write(_HEADER.pack(kind, len(data)) + data)
    answers.flush()


class _Rendering:
    """A template and a tokenizer, in the child."""

    def __init__(self, job: TemplateJob) -> None:
        from transformers.dynamic_module_utils import init_hf_modules

        init_hf_modules()  # where a tokenizer's class comes with the model, and may run
        self._tokenizer = pickle.loads(job.tokenizer)
        # Imports Jinja and all that rendering needs, at no turn's expense.
        self._ids([{"role": "user", "content": ""}], None, "{{ 1 }}")
        self._job = job
        _limit_memory(job.memory_bytes)

    def ids(self, turn: Turn) -> bytes:
        """The length of `before`, then the ids of `before` and of `whole`."""
        # The kernel ends this process at this time, whatever code runs.
        characters = sum(len(message["content"]) for message in turn.messages)
        seconds = self._job.cpu_s + characters * _CPU_S_A_CHARACTER
        signal.setitimer(signal.ITIMER_PROF, seconds)
        tools = json.loads(turn.tools) if turn.tools else None
        jinja = self._job.jinja
        before = self._ids(turn.messages[:-1], tools, jinja, add_generation_prompt=True)
        whole = self._ids(turn.messages, tools, jinja, continue_final_message=turn.is_open)
        signal.setitimer(signal.ITIMER_PROF, 0)
        whole = whole[: len(before) + self._job.most_ids]
        return np.array([len(before), *before, *whole], np.int32).tobytes()

    def _ids(
        self, messages: Sequence[dict[str, Any]], tools: Any, jinja: str, **options: bool
    ) -> list[int]:
        ids: list[int] = self._tokenizer.apply_chat_template(
            list(messages),
            tools=tools,
            chat_template=jinja,
            sanitize_control_tokens=True,
            return_dict=False,
            **options,
        )
        return ids


def _limit_memory(more_bytes: int) -> None:
    """From now on this process may take so much more; only Linux counts it."""
    with suppress(OSError, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        taken = next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData:"))
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = taken + more_bytes
        resource.setrlimit(
            resource.RLIMIT_DATA,
            (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard),
        )


def _description(error: Exception) -> str:
    """Says what went wrong, and in which line of the template."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename in ("<template>", "<unknown>")  # names that Jinja gives to templates
    ]
    line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
    where = f"line {line} of the template: " if line else ""
    text = first_line(error)
    name = type(error).__name__
    return f"{where}{name}: {text}" if text != name else f"{where}{name}"


if __name__ == "__main__":
    serve()
