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
