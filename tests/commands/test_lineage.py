"""What a backend gets of a run, and that a run does not care."""

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sf_ray.commands import lineage as module
from sf_ray.commands.lineage import Lineage, facts_of
from sf_ray.config.selection_options import SelectOptions
from sf_ray.corpus.planning import Corpus, plan_corpus
from sf_ray.errors import SfRayError, TerminatedError
from sf_ray.output.layout import Output
from sf_ray.output.lineage import LineageFacts
from sf_ray.output.manifest import Manifest
from sf_ray.runtime.log import run_id
from sf_ray.runtime.signals import Stop
from sf_ray.storage.location import Location
from tests.support.lineage import Backend, backend, problems
from tests.support.manifests import manifest_keys

PARENT = "airflow/nightly.sf_ray/01934f6e-0000-7000-8000-000000000001"


@pytest.fixture(autouse=True)
def _unset() -> Iterator[None]:
    """The library copies OPENLINEAGE_URL into variables of other names."""

    def forget() -> None:
        for name in [name for name in os.environ if name.startswith("OPENLINEAGE")]:
            del os.environ[name]

    forget()
    yield
    forget()


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    (tmp_path / "corpus").mkdir()
    pq.write_table(pa.table({"instruction": ["a"], "output": ["b"]}), tmp_path / "corpus/a.parquet")
    return plan_corpus(Location(str(tmp_path / "corpus")))


@pytest.fixture
def facts(corpus: Corpus, tmp_path: Path) -> Callable[[], LineageFacts]:
    options = SelectOptions(
        input=str(tmp_path / "corpus"),
        scores=str(tmp_path / "scores"),
        output=str(tmp_path / "out"),
        keep_count=1,
    )
    return lambda: facts_of(options, corpus, [], ())


@pytest.fixture
def run(facts: Callable[[], LineageFacts], tmp_path: Path) -> Callable[..., Path]:
    """A run that ends well, or with an error; returns where its event lies."""

    def run(error: BaseException | None = None) -> Path:
        output = Output(Location(str(tmp_path / "out")))
        manifest = Manifest.model_validate(manifest_keys(1, 1, 1) | {"run_id": run_id()})
        with Lineage() as lineage:
            begun = facts()
            lineage.start(begun)
            if error is not None:
                raise error
            lineage.keep(output, begun.corpus, manifest)
            lineage.complete()
        return tmp_path / "out" / "lineage.json"

    return run


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    with backend() as got:
        monkeypatch.setenv("OPENLINEAGE_URL", got.url)
        yield got


def test_a_backend_gets_the_start_and_the_end_and_the_file_is_the_end(
    run: Callable[..., Path], server: Backend, capfd: pytest.CaptureFixture[str]
) -> None:
    kept = json.loads(run().read_text())
    assert server.states == ["START", "COMPLETE"]
    start, end = server.events
    assert start["run"]["runId"] == end["run"]["runId"] == kept["run"]["runId"]
    assert [problems(event) for event in (start, end, kept)] == [[], [], []]
    # The library adds its own version, as a tag.
    end["run"]["facets"]["tags"]["tags"].pop()
    assert end == kept
    assert "sourceCodeLocation" not in end["job"]["facets"]
    assert capfd.readouterr().err == ""


def test_without_a_backend_the_file_is_all_there_is(
    run: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    assert json.loads(run().read_text())["eventType"] == "COMPLETE"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (SfRayError("no room on the disk"), "FAIL", "no room on the disk"),
        (RuntimeError("unforeseen"), "FAIL", "unforeseen"),
        (TerminatedError("stopped by SIGTERM"), "ABORT", "stopped by SIGTERM"),
        (Stop(TerminatedError("stopped by SIGTERM")), "ABORT", "stopped by SIGTERM"),
        (Stop(SfRayError("the lease is lost")), "FAIL", "the lease is lost"),
        (KeyboardInterrupt(), "ABORT", "KeyboardInterrupt"),
    ],
)
def test_a_run_that_ends_with_an_error_says_why(
    run: Callable[..., Path], server: Backend, error: BaseException, state: str, message: str
) -> None:
    with pytest.raises(type(error)):
        run(error)
    assert server.states == ["START", state]
    assert server.events[1]["run"]["facets"]["errorMessage"]["message"] == message


def test_what_fails_before_a_run_began_is_not_reported(server: Backend) -> None:
    with pytest.raises(SfRayError), Lineage():
        raise SfRayError("another run holds the lease")
    assert server.events == []


def test_a_backend_that_answers_500_costs_one_note(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with backend(status=500) as got:
        # The library's own settings hold: else it asks six times, with pauses.
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "http")
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT__URL", got.url)
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT__RETRY", '{"total": 1, "backoff_factor": 0}')
        assert run().is_file()
    assert got.states == ["START", "START", "COMPLETE", "COMPLETE"]
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("note: not all lineage of this run was sent: ")
    assert "too many 500 error responses" in line
    assert line.endswith("; the run is as it would be without")


def test_a_backend_that_is_down_costs_one_note(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "http")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__URL", f"http://me:hunter22@127.0.0.1:{port}")
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__RETRY", '{"total": 1, "backoff_factor": 0}')
    assert run().is_file()
    (line,) = capfd.readouterr().err.splitlines()
    assert "Connection refused" in line
    assert "hunter22" not in line


def test_a_backend_that_hangs_is_waited_for_a_while_only(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "_WAIT_S", 0.2)
    with backend(hangs=True) as got:
        monkeypatch.setenv("OPENLINEAGE_URL", got.url)
        assert run().is_file()
        (line,) = capfd.readouterr().err.splitlines()
        assert "the backend did not answer within 0 s" in line


@pytest.mark.parametrize(
    "settings",
    [
        {"OPENLINEAGE_URL": "no url"},
        {"OPENLINEAGE__TRANSPORT__TYPE": "no_such_transport"},
        {"OPENLINEAGE__TRANSPORT": '{"type": "http"}'},
    ],
)
def test_settings_that_the_library_refuses_cost_one_note(
    run: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    settings: dict[str, str],
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert run().is_file()
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("note: not all lineage of this run was sent: ")


def test_one_of_two_backends_that_is_down_is_named(
    run: Callable[..., Path],
    server: Backend,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """A composite transport says of the one only in its log."""
    config = tmp_path / "openlineage.yml"
    down = "{type: http, url: 'http://127.0.0.1:1', retry: {total: 0}}"
    up = f"{{type: http, url: '{server.url}'}}"
    config.write_text(f"transport: {{type: composite, transports: [{down}, {up}]}}\n")
    monkeypatch.delenv("OPENLINEAGE_URL")
    monkeypatch.setenv("OPENLINEAGE_CONFIG", str(config))
    run()
    assert server.states == ["START", "COMPLETE"]
    (line,) = capfd.readouterr().err.splitlines()
    assert "failed to emit event with error" in line


def test_the_library_s_switch_turns_the_file_off_too(
    run: Callable[..., Path], server: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    assert not run().exists()
    assert server.events == []


def test_the_key_of_the_backend_is_sent_in_the_header_alone(
    run: Callable[..., Path], server: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "k3y-of-the-backend")
    text = run().read_text()
    assert [each["Authorization"] for each in server.headers] == ["Bearer k3y-of-the-backend"] * 2
    assert "k3y" not in text + json.dumps(server.events)


def test_an_event_has_no_secrets(
    corpus: Corpus, server: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret-of-the-environment")
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/config").write_text('[remote "origin"]\nurl = https://me:hunter22@host/r\n')
    options = SelectOptions(
        input="s3://me:hunter22@bucket/corpus",
        scores="s3://bucket/scores",
        output="s3://me:hunter22@bucket/out?token=hunter22",
        storage_options={"secret": "s3cret-of-the-options"},
        keep_count=1,
    )
    moved = Corpus(Location(options.input, options.storage_options), corpus.shards, corpus.schemas)
    with pytest.raises(SfRayError), Lineage() as lineage:
        lineage.start(facts_of(options, moved, [], ()))
        raise SfRayError(
            "denied: https://host/x?X-Amz-Signature=hunter22 s3cret-of-the-options "
            "s3cret-of-the-environment"
        )
    text = json.dumps(server.events)
    assert server.states == ["START", "FAIL"]
    assert "denied: https://host/x" in text
    assert not [secret for secret in ("hunter22", "s3cret") if secret in text]


def test_job_and_parent_are_those_of_the_environment(
    facts: Callable[[], LineageFacts],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert (facts().namespace, facts().parent) == ("default", None)
    monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "team")
    monkeypatch.setenv("OPENLINEAGE_PARENT_ID", PARENT)
    monkeypatch.setenv("OPENLINEAGE_ROOT_PARENT_ID", "no parent")
    found = facts()
    assert (found.namespace, found.parent, found.root) == ("team", PARENT, None)
    (line,) = capfd.readouterr().err.splitlines()
    assert line == (
        "note: OPENLINEAGE_ROOT_PARENT_ID is left out of the lineage: 'no parent' is no "
        "NAMESPACE/JOB/RUN"
    )


@pytest.mark.parametrize("url", [None, "http://127.0.0.1:1"])
def test_without_the_library_a_run_says_what_to_install_only_if_events_are_wanted(
    run: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    url: str | None,
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "openlineage"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    if url is not None:
        monkeypatch.setenv("OPENLINEAGE_URL", url)
    assert not run().exists()
    lines = capfd.readouterr().err.splitlines()
    assert lines == (
        [
            "note: OPENLINEAGE_URL is set, but openlineage-python is not installed here, so no "
            "lineage is sent or written: pip install 'sf_ray[lineage]'"
        ]
        if url
        else []
    )
    assert "openlineage" not in sys.modules


def test_another_version_of_the_library_that_refuses_the_event_costs_one_note(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise TypeError("unexpected argument")

    monkeypatch.setattr(module, "completed", refuse)
    assert not run().exists()
    assert capfd.readouterr().err == (
        "note: no lineage.json is written: unexpected argument; the run is as it would be without\n"
    )
