import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from sf_ray.corpus.formats import resolve_format
from sf_ray.encoding.specs import EncodingSpec, ModelSpec
from sf_ray.encoding.templates import Template
from sf_ray.engine.model_files import resolve_model
from tests.support.chats import ANSWER, JINJA, USER


def test_a_run_says_on_which_row_and_line_a_template_fails(
    tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = resolve_model(str(tiny_model))
    jinja = "{% if messages|length > 2 %}\n{{ raise_exception('too long') }}{% endif %}" + JINJA
    spec = EncodingSpec(
        resolve_format(["messages"]),
        ModelSpec(str(tiny_model), model.fingerprint),
        256,
        "reference",
        Template("t.jinja", jinja),
        "last",
    )
    rows = pa.table({"messages": [[USER, ANSWER], [USER, ANSWER, USER, ANSWER]]})
    encoded = spec.encode(rows, "a.parquet", 40)
    assert encoded["status"].to_pylist() == ["ok", "template_error"]
    said = "".join(capfd.readouterr())
    assert "fails on 1 rows of a.parquet, first on row 41 (message 3: line 2 of the tem" in said


def spec_of(model: Path) -> EncodingSpec:
    fingerprint = resolve_model(str(model)).fingerprint
    return EncodingSpec(
        resolve_format(["prompt", "completion"]),
        ModelSpec(str(model), fingerprint),
        64,
        "reference",
        sample=({"prompt": "what", "completion": "one word"}, {"prompt": None}),
    )


def test_the_driver_says_what_encodes_and_workers_say_nothing(
    tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = spec_of(tiny_model)
    spec.check()
    assert "encoding with fastokens" in capfd.readouterr().err
    worker = spec.for_workers()
    assert (worker.fast, worker.sample) == (True, ())
    worker.check()
    assert capfd.readouterr().err == ""
    rows = pa.table({"prompt": ["what"], "completion": ["one word"]})
    assert worker.encode(rows, "a.parquet", 0).equals(spec.encode(rows, "a.parquet", 0))


def test_a_worker_without_fastokens_encodes_the_same_and_says_so(
    tiny_model: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(tiny_model)
    worker = spec.for_workers()
    monkeypatch.setitem(sys.modules, "fastokens", None)
    rows = pa.table({"prompt": ["what"], "completion": ["one word"]})
    assert worker.encode(rows, "a.parquet", 0).equals(spec.encode(rows, "a.parquet", 0))
    said = capfd.readouterr().err
    assert "this process encodes with tokenizers, unlike the driver: fastokens is not inst" in said


def test_workers_of_a_driver_without_fastokens_do_not_try_it(
    tiny_model: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "fastokens", None)
        spec = spec_of(tiny_model)
        spec.check()
        worker = spec.for_workers()
    worker.check()
    assert worker.fast is False
    assert not worker._texts.is_fast
    assert capfd.readouterr().err == ""


def test_a_template_of_the_user_tries_no_fastokens(
    tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = replace(spec_of(tiny_model), template=Template("t.jinja", JINJA))
    spec.check()
    assert capfd.readouterr().err == ""
