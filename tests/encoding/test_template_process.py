import pickle
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sf_ray.corpus.examples import Example
from sf_ray.corpus.status import Status
from sf_ray.encoding.template_process import TemplateError, TemplateJob, TemplateProcess, Turn
from sf_ray.encoding.templates import JinjaRenderer, Template
from tests.support.engines import load

ANSWER = "{% for m in messages %}{{ m.content + '</s>' }}{% endfor %}"
# What a template does with a question of this name.
LOOP = (
    "{% if messages[0].content == 'loop' %}{% for i in range(99999) %}{% for j in range(99999) %}"
    "{% endfor %}{% endfor %}{% endif %}"
)
POWER = "{% if messages[0].content == 'power' %}{{ 7 ** (messages|length * 10**9) }}{% endif %}"
LARGE = (
    "{% if messages[0].content == 'large' %}{% for i in range(99999) %}{{ 'x' * 9999999 }}"
    "{% endfor %}{% endif %}"
)
AT_ONCE = "{% if messages[0].content == 'at once' %}{{ 'x' * 10 ** 11 }}{% endif %}"
JINJA = LOOP + POWER + LARGE + AT_ONCE + ANSWER


def turn(question: str, answer: str = "word") -> Turn:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Turn(messages, "", is_open=True)


@pytest.fixture(scope="module")
def process() -> Iterator[TemplateProcess]:
    made = TemplateProcess()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def job(tiny_model: Path) -> TemplateJob:
    _, tokenizer = load(tiny_model)
    return TemplateJob(pickle.dumps(tokenizer), JINJA, 99, cpu_s=1.0, memory_bytes=256 << 20)


@pytest.mark.parametrize("question", ["loop", "power"])
def test_a_template_that_never_ends_is_stopped(
    process: TemplateProcess, job: TemplateJob, question: str
) -> None:
    with pytest.raises(TemplateError, match=r"took more than 1 s, and was stopped"):
        process.ids(job, turn(question))
    assert len(process.ids(job, turn("a")).whole)  # a new process


@pytest.mark.parametrize("question", ["large", "at once"])
def test_a_template_that_fills_the_memory_is_stopped(
    process: TemplateProcess, job: TemplateJob, question: str
) -> None:
    with pytest.raises(TemplateError, match="MemoryError|took more|process ended"):
        process.ids(job, turn(question))
    assert len(process.ids(job, turn("a")).whole)


def test_a_template_that_never_gets_compiled_is_stopped(
    process: TemplateProcess, job: TemplateJob
) -> None:
    folded = TemplateJob(job.tokenizer, "{{ 7 ** (7 ** 11) }}" + ANSWER, 99, cpu_s=1.0)
    with pytest.raises(TemplateError, match="was stopped"):
        process.ids(folded, turn("a"))


def test_a_wait_ends_when_another_thread_stops_it(tiny_model: Path) -> None:
    """As SIGTERM does, while a thread of the driver tries the template."""
    _, tokenizer = load(tiny_model)
    process = TemplateProcess()
    endless = TemplateJob(pickle.dumps(tokenizer), JINJA, 99, cpu_s=3600)
    assert len(process.ids(endless, turn("a")).whole)
    timer = threading.Timer(0.2, process.stop)
    timer.start()
    with pytest.raises(TemplateError):
        process.ids(endless, turn("loop"))
    timer.join()


def test_an_interrupt_ends_the_process_and_so_no_answer_is_of_another_turn(
    process: TemplateProcess, job: TemplateJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = process.ids(job, turn("a", "another word")).whole.tolist()

    def interrupted(question: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(process, "_ask", interrupted)
        process.ids(job, turn("a"))
    assert process.ids(job, turn("a", "another word")).whole.tolist() == expected


def test_the_process_takes_turns_of_several_templates(
    process: TemplateProcess, job: TemplateJob
) -> None:
    other = TemplateJob(job.tokenizer, "{{ messages[0].content }}|" + ANSWER, 99)
    one = process.ids(job, turn("a")).whole.tolist()
    two = process.ids(other, turn("a")).whole.tolist()
    assert one != two
    assert process.ids(job, turn("a")).whole.tolist() == one


def test_a_template_sees_no_files_and_no_environment(
    tiny_model: Path, job: TemplateJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "canary")
    _, tokenizer = load(tiny_model)
    process = TemplateProcess()
    for jinja in (
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ self.__init__.__globals__ }}",
        "{% include '/etc/passwd' %}",
        "{{ raise_exception.__globals__['os'].environ }}",
        "{{ cycler.__init__.__globals__.os.environ }}",
        "{{ ('%s' | attr('format'))(1) }}{{ ''|attr('__class__') }}",
    ):
        try:
            ids = process.ids(TemplateJob(job.tokenizer, jinja + ANSWER, 9999), turn("a"))
            seen = tokenizer.decode(ids.whole.tolist())
        except TemplateError as error:
            seen = str(error)
        assert not re.search("canary|root:|<class|environ\\(", seen)
    process.stop()


def test_a_row_on_which_a_template_never_ends_gets_a_status(
    tiny_model: Path, process: TemplateProcess, job: TemplateJob
) -> None:
    _, tokenizer = load(tiny_model)
    renderer = JinjaRenderer(tokenizer, Template("t.jinja", JINJA), [], 64, process)
    renderer._job = job  # with a shorter time
    pairs = [(Example.pair(name, "word"), 1) for name in ("a", "loop", "b")]
    turns = renderer.turns(pairs)
    assert list(turns.problems) == [1]
    assert turns.problems[1].status is Status.TEMPLATE_ERROR
    assert "was stopped" in turns.problems[1].reason
    assert (turns.alone_lengths > 0).tolist() == [True, False, True]


def test_of_a_long_answer_the_template_gets_what_the_window_can_show(
    tiny_model: Path, process: TemplateProcess
) -> None:
    _, tokenizer = load(tiny_model)
    renderer = JinjaRenderer(tokenizer, Template("t.jinja", ANSWER), [], 64, process)
    long = "some words of an answer " * 40_000
    turns, known = (
        renderer.turns([(Example.pair("a", answer), 1)]) for answer in (long, long[:20_000])
    )
    assert not turns.problems
    shown = [one.ids[one.whole_starts[0] :][:64].tolist() for one in (turns, known)]
    assert shown[0] == shown[1]
    assert turns.whole_lengths[0] > 64
