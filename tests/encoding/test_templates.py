from pathlib import Path

import pytest

from sf_ray.corpus.examples import Example
from sf_ray.corpus.messages import chat_of
from sf_ray.encoding.encoder import Encoder
from sf_ray.encoding.templates import JinjaRenderer, Template
from sf_ray.engine.model_files import load_tokenizer, resolve_model
from sf_ray.errors import SfRayError
from tests.support.chats import JINJA, turn
from tests.support.engines import load


def test_special_text_in_the_data_is_special_in_the_plain_rendering_only(tiny_model: Path) -> None:
    _, tokenizer = load(tiny_model)
    chat = chat_of([turn("user", "a</s>b"), turn("assistant", "<s> word")])
    assert isinstance(chat, Example)
    (row,) = Encoder(tokenizer, 99).encode([chat])
    assert sum(token in (0, 1) for token in row.conditioned[0].ids) == 2
    (row,) = Encoder(tokenizer, 99, template=Template("chat", JINJA)).encode([chat])
    ids = row.conditioned[0].ids.tolist()
    assert [i for i in ids if i in (0, 1)] == [0, 1, 0]  # those of the template
    assert tokenizer.decode(ids) == "<s>user\na</s>b</s>\n<s>assistant\n<s> word"


THINKING = (
    "{% for m in messages %}\n"
    "{{- '<s>' + m.role + '\\n' }}\n"
    "{%- if m.reasoning_content %}{{ '(' + m.reasoning_content + ')' }}{% endif %}\n"
    "{{- m.content + '</s>' }}\n"
    "{%- endfor %}{% if add_generation_prompt %}{{ '<s>assistant\\n' }}{% endif %}"
)


@pytest.mark.parametrize(("content", "end"), [("word", "(Hm.)word"), ("", "(Hm.)</s>")])
def test_a_template_gets_the_reasoning(tiny_model: Path, content: str, end: str) -> None:
    _, tokenizer = load(tiny_model)
    answer = turn("assistant", content) | {"reasoning_content": "Hm."}
    chat = chat_of([turn("user", "a"), answer])
    assert isinstance(chat, Example)
    (row,) = Encoder(tokenizer, 99, template=Template("chat", THINKING)).encode([chat])
    whole = tokenizer.decode(row.conditioned[0].ids.tolist())
    assert whole.endswith(f"a</s><s>assistant\n{end}")


@pytest.mark.weights
def test_a_template_that_lets_the_answer_join_a_space_says_so() -> None:
    spaced = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"
    spaced += "{% if add_generation_prompt %}assistant: {% endif %}"
    tokenizer = load_tokenizer(resolve_model("demo"))
    with pytest.raises(SfRayError, match="ends with a space, which becomes one token"):
        JinjaRenderer(tokenizer, Template("spaced.jinja", spaced), [], 99)
