"""Exports and the files for trainers, loaded by the frameworks that they are for.

Their requirements exclude ours, so each is in a Python of its own, which the environment names:

    SF_RAY_TEST_LLAMA_FACTORY, SF_RAY_TEST_TRL, SF_RAY_TEST_AXOLOTL
"""

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer

from bench.support.models import make_model
from sf_ray.commands.study.record import Rendering, Run, Study, StudyRecord, Training, put_study
from sf_ray.commands.study.trainer_files import put_trainer_files
from sf_ray.corpus.examples import Example
from sf_ray.corpus.formats import resolve_format
from sf_ray.output.export_descriptions import DESCRIPTIONS, description
from sf_ray.output.export_formats import exporter
from sf_ray.storage.location import Location

pytestmark = pytest.mark.readers

READERS = Path(__file__).parents[1] / "support/readers"
Rows = list[dict[str, Any]]

NASTY = (
    'a\r\n\tb "q" \\ \u2028\x85\u202e{{content}} {% x %} '
    "\U0001f469\u200d\U0001f4bb \x00 e\u0301 </p>"
)
# The rows of the second file have what no row of the first one has.
PAIRS: list[Rows] = [
    [
        {"instruction": "Add.", "input": "2 and 2", "output": "4"},
        {"instruction": NASTY, "input": "", "output": NASTY},
        {"instruction": "2020-01-01", "input": "", "output": "  spaces stay  "},
    ],
    [{"instruction": "When?", "input": "", "output": "Now.", "history": [["q", NASTY]]}],
    [{"instruction": "Who?", "input": "", "output": "I.", "system": NASTY}],
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": NASTY,
            "parameters": {"type": "object", "properties": properties, "required": ["a"]},
        },
    }
    for name, properties in (
        ("f", {"a": {"type": "string"}}),
        ("g", {"b": {"type": "string", "enum": ["x", "y"]}, "c": {"type": "array", "items": {}}}),
    )
]


def called(*calls: tuple[str, Any]) -> dict[str, Any]:
    functions = [{"name": name, "arguments": json.dumps(given)} for name, given in calls]
    made = [
        {"id": f"c{at}", "type": "function", "function": function}
        for at, function in enumerate(functions)
    ]
    return {"role": "assistant", "content": "", "tool_calls": made}


def said(role: str, content: str, **more: str) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


CHATS: list[Rows] = [
    [
        {"messages": [said("user", "a"), said("assistant", NASTY)]},
        {"messages": [said("user", NASTY), said("assistant", "b")] * 3},
    ],
    [
        {
            "messages": [
                said("system", NASTY),
                said("user", "c"),
                called(("f", {"a": NASTY})),
                said("tool", NASTY, tool_call_id="c0"),
                said("assistant", "d"),
            ],
            "tools": TOOLS,
        },
        {"messages": [said("user", "e"), called(("f", {}), ("g", {"b": 1}))], "tools": TOOLS[:1]},
    ],
]
TEMPLATE = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}"
    "{% for message in messages %}<s>{{ message.role }}\n{{ message.content }}"
    "{% if message.tool_calls %}{% for call in message.tool_calls %}<call>{{ call.function.name }} "
    "{% if call.function.arguments is string %}{{ call.function.arguments }}"
    "{% else %}{{ call.function.arguments | tojson }}{% endif %}</call>{% endfor %}{% endif %}"
    "</s>\n{% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer has a chat template."""
    folder = make_model(tmp_path_factory.mktemp("chat-model"), window=4096)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def reader(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs the reader of a framework, whose last argument is the file that it writes."""

    def read(name: str, *arguments: object) -> dict[str, Any]:
        variable = f"SF_RAY_TEST_{name.upper()}"
        python = os.environ.get(variable)
        if not python:
            pytest.skip(f"needs a Python with {name}: set {variable} to its path")
        out = tmp_path / "seen.json"
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
        environment |= {"CUDA_VISIBLE_DEVICES": "", "AXOLOTL_DO_NOT_TRACK": "1", "PYTHONPATH": ""}
        words = [str(out) if argument is None else str(argument) for argument in arguments]
        command = [python, str(READERS / f"read_{name}.py"), *words]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr[-4000:]
        found: dict[str, Any] = json.loads(out.read_text())
        print(name, found["version"])
        return found

    return read


def examples_of(shards: list[Rows]) -> list[Example]:
    return [example for shard in shards for row in shard if (example := rendered(row))]


def rendered(row: dict[str, Any]) -> Example:
    example = resolve_format(list(row)).render(row)
    assert isinstance(example, Example)
    return example


def put_export(folder: Path, name: str, shards: list[Rows]) -> Path:
    """The files of an export, as a run writes them."""
    folder = folder / name
    (folder / "data").mkdir(parents=True)
    for number, rows in enumerate(shards):
        lines = [exporter(name, resolve_format(list(row)))(row) for row in rows]
        text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines if line)
        (folder / f"data/{number:05d}.jsonl").write_text(text, encoding="utf-8")
    described = description(name, resolve_format(list(shards[0][0])))
    if described is not None:
        (folder / DESCRIPTIONS[name]).write_bytes(described)
    return folder


def as_chat(model: Path, example: Example, stop: int | None = None, prompt: bool = False) -> str:
    """Messages of an example by the model's own template, as transformers renders it here."""
    messages = [
        {
            "role": message.role,
            "content": message.content,
            "tool_calls": [
                {"function": {"name": call.name, "arguments": call.arguments}}
                for call in message.calls
            ],
        }
        for message in example.messages[:stop]
    ]
    text = AutoTokenizer.from_pretrained(model).apply_chat_template(
        messages,
        tools=json.loads(example.tools) if example.tools else None,
        tokenize=False,
        add_generation_prompt=prompt,
    )
    assert isinstance(text, str)
    return text


def answers_of(model: Path, example: Example) -> str:
    """What is learned of a chat under the template: every answer, and the end of its turn."""
    return "".join(
        as_chat(model, example, turn + 1).removeprefix(as_chat(model, example, turn, True))
        for turn in example.turns
    )


def study_of(folder: Path, model: Path, shards: list[Rows], **how: str) -> Study:
    """A planned study with one run, with its export and the files for trainers."""
    put_export(folder / "arms/ifd/export", "llama-factory", shards)
    rendering = {"format": "x", "columns": {}, "template": "plain", "turns": "all"} | how
    record = StudyRecord(
        study_version=1, sf_ray_version="0", study_id="id", command="", input="", scoring_id="s",
        token_budget=500, held_out_rows=1,
        training=Training(
            student=str(model), epochs=1, learning_rate=1e-4, batch_tokens=500, lora_rank=0,
            freeze_embeddings=False,
        ),
        rendering=Rendering(**rendering, alignment="reference", max_length=4096),
        runs=(Run(name="ifd-0", arm="ifd", seed=0, data="arms/ifd", rows=4),),
        overlaps=(),
    )  # fmt: skip
    study = Study(Location(str(folder)), record)
    put_trainer_files(study)
    put_study(study)
    return study


def plain_answers(example: Example) -> list[str]:
    return [example.messages[turn].text for turn in example.turns]


def by_text(trained: Sequence[dict[str, str]]) -> dict[str, str]:
    return {row["text"]: row["learned"] for row in trained}


@pytest.mark.parametrize("shards", [PAIRS, CHATS], ids=["pairs", "chats"])
@pytest.mark.parametrize("how", [("plain", "all"), ("plain", "last"), ("chat", "all")])
def test_llama_factory_sees_our_conversations_and_learns_the_answers(
    shards: list[Rows],
    how: tuple[str, str],
    model: Path,
    tmp_path: Path,
    reader: Callable[..., dict[str, Any]],
) -> None:
    template, turns = how
    study_of(tmp_path, model, shards, template=template, turns=turns)
    config = yaml.safe_load((tmp_path / "trainers/llama-factory/ifd-0.yaml").read_text())
    place = tmp_path / "config.json"
    place.write_text(json.dumps(config | {"use_cpu": True}))
    seen = reader("llama_factory", place, None)
    examples = examples_of(shards)
    found = {
        tuple(map(str, (row["_system"], row["_tools"], *said_in(row)))) for row in seen["rows"]
    }
    assert found == {expected_by_llama_factory(example) for example in examples}
    assert len(seen["rows"]) == len(seen["trained"]) == len(examples)
    if template == "plain" and shards is PAIRS:  # of tools it makes texts of its own
        learned = {
            "".join(plain_answers(example)[-1:] if turns == "last" else plain_answers(example))
            if all(m.weight for m in example.messages)
            else ""
            for example in map(llama_factory_view, examples)
        }
        assert {row["learned"].removesuffix("</s>") for row in seen["trained"]} == learned
    if template == "chat" and shards is PAIRS:
        assert {row["text"] for row in seen["trained"]} == {as_chat(model, e) for e in examples}


def llama_factory_view(example: Example) -> Example:
    """The example with all answers to be learned: rounds of a history are turns there."""
    return Example(example.messages, example.tools)


def said_in(row: dict[str, Any]) -> list[str]:
    messages = [*row["_prompt"], *row["_response"]]
    return [
        f"{m['role']}: {json.loads(m['content']) if m['role'] == 'function' else m['content']}"
        for m in messages
    ]


def expected_by_llama_factory(example: Example) -> tuple[str, ...]:
    system = [m.content for m in example.messages if m.role == "system"]
    texts = []
    for message in example.messages:
        if message.calls:
            calls = [{"name": c.name, "arguments": c.arguments} for c in message.calls]
            texts.append(f"function: {calls[0] if len(calls) == 1 else calls}")
        elif message.role != "system":
            role = "observation" if message.role == "tool" else message.role
            texts.append(f"{role}: {message.content}")
    return ("".join(system), example.tools, *texts)


@pytest.mark.parametrize("shards", [PAIRS, CHATS], ids=["pairs", "chats"])
def test_trl_sees_our_conversations(
    shards: list[Rows], model: Path, tmp_path: Path, reader: Callable[..., dict[str, Any]]
) -> None:
    folder = put_export(tmp_path, "trl", shards)
    trained = by_text(reader("trl", folder, model, None)["trained"])
    examples = examples_of(shards)
    assert {*trained} == {as_chat(model, example) for example in examples}
    if shards is PAIRS:
        assert trained == {as_chat(model, e): answers_of(model, e) for e in examples}


@pytest.mark.parametrize("shards", [PAIRS, CHATS], ids=["pairs", "chats"])
@pytest.mark.parametrize("how", [("plain", "all"), ("plain", "last"), ("chat", "all")])
def test_the_script_for_trl_learns_what_a_study_trains(
    shards: list[Rows],
    how: tuple[str, str],
    model: Path,
    tmp_path: Path,
    reader: Callable[..., dict[str, Any]],
) -> None:
    template, turns = how
    study_of(tmp_path, model, shards, template=template, turns=turns)
    script = tmp_path / "trainers/train_trl.py"
    trained = by_text(reader("trl", script, None, tmp_path, "ifd-0")["trained"])
    expected = {}
    for example in map(llama_factory_view, examples_of(shards)):
        if template == "plain":
            answers = plain_answers(example)
            expected[example.text] = "".join(answers if turns == "all" else answers[-1:])
        else:
            expected[as_chat(model, example)] = answers_of(model, example)
    assert trained == expected
    assert list((tmp_path / "models/id/ifd-0").glob("*.safetensors"))


@pytest.mark.parametrize(
    ("name", "shards", "how"),
    [
        ("trl", CHATS, {"type": "chat_template"}),
        # The types of its columns stand nowhere: they must be those of the first file.
        ("openai", PAIRS[:1], {"type": "chat_template"}),
        ("alpaca", PAIRS[:1], {"type": "alpaca"}),
    ],
)
def test_axolotl_sees_our_conversations(
    name: str,
    shards: list[Rows],
    how: dict[str, Any],
    model: Path,
    tmp_path: Path,
    reader: Callable[..., dict[str, Any]],
) -> None:
    folder = put_export(tmp_path, name, shards)
    data = {"path": str(folder), "split": "train"}
    if name == "openai":  # without a card
        files = sorted(map(str, folder.glob("data/*.jsonl")))
        data |= {"ds_type": "json", "data_files": files}  # type: ignore[dict-item]
    config = {
        "base_model": str(model),
        "datasets": [data | how],
        "chat_template": "tokenizer_default",
        "special_tokens": {"pad_token": "</s>"},
        "output_dir": str(tmp_path / "out"),
        "dataset_prepared_path": str(tmp_path / "prepared"),
        "sequence_len": 4096,
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-4,
        "num_epochs": 1,
        "dataset_num_proc": 1,
    }
    place = tmp_path / "config.yaml"
    place.write_text(yaml.safe_dump(config))
    trained = by_text(reader("axolotl", place, None)["trained"])
    if name == "alpaca":
        for row in shards[0]:
            (text,) = [text for text in trained if row["instruction"] in text]
            assert row["input"] in text
            assert trained[text].removesuffix("</s>") == row["output"]
        return
    for example in examples_of(shards):
        assert as_chat(model, example) in trained
