"""Runs every `sf-ray` line of README.md and docs/*.md, in the order of the page.

Each page starts with an empty directory and with a bucket called `bucket`, which holds a corpus,
chats and two models. Losses are hashes and embeddings cost nothing, because other tests run models;
all else is real, and blocks of Python use the models. `sf-ray demo` is left to test_demo. What a
page says is printed is compared only where it is an error.
"""

import importlib
import json
import random
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.cloudpickle
import s3fs
from pyiceberg.utils.config import Config

from bench.support import free_scorer
from bench.support.corpora import WORDS, make_rows
from bench.support.models import make_model
from sf_ray.commands.setup import Specs
from sf_ray.config.registry import COMMANDS
from tests.support import hash_scorer
from tests.support.cli import Cli

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
# What a newcomer reads; `make release` runs the lines of all pages.
FIRST_READ = ("README.md", "python-api.md")
SEEDS = ("corpus", "chats.jsonl", "model", "model-b")
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m.role }}\\n{{ m.content }}\\n{% endfor %}"
    "{% if add_generation_prompt %}assistant\\n{% endif %}"
)
# Begins a command line of a block; other lines are output, files or code.
PROGRAMS = ("sf-ray ", "ray job submit ", "make ", "python ", "docker ", "kubectl ")


@dataclass(frozen=True)
class Block:
    """An indented or fenced block of a page.

    Attributes:
        kind: "text" if the block is indented, else the language of the fence.
        lines: Without the indent; a line that ends with a backslash is joined with the next one.
        before: The last line of prose before the block; "" if the block follows another block.
    """

    kind: str
    lines: list[str]
    before: str

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    @property
    def commands(self) -> list[str]:
        return [line for line in self.lines if line.startswith(PROGRAMS)]

    @property
    def file(self) -> str | None:
        """The name of the file that the block shows: the line before it ends with: in `NAME`:"""
        named = re.search(r"in `([\w./-]+)`[^`]*:$", self.before)
        return named[1] if named else None


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page in their order; a blank line ends an indented block."""
    blocks: list[Block] = []
    kind, lines, before = "", list[str](), ""
    for line in [*page.read_text(encoding="utf-8").splitlines(), ""]:
        if kind not in ("", "text") and line != "```":
            lines.append(line)
        elif line.startswith("    ") and not kind:
            kind, lines = "text", [line[4:]]
        elif line.startswith("    "):
            lines.append(line[4:])
        elif kind:
            whole = "\n".join(lines).replace("\\\n", " ") if kind == "text" else "\n".join(lines)
            blocks.append(Block(kind, whole.split("\n"), before))
            kind, before = "", ""
        elif line.startswith("```"):
            kind, lines = line[3:] or "fenced", []
        if line and not kind and not line.startswith(("    ", "```")):
            before = line
    return blocks


def commands_of(page: Path) -> list[str]:
    return [line for block in blocks_of(page) if not block.file for line in block.commands]


def has_steps(page: Path) -> bool:
    is_python = any(block.kind == "python" for block in blocks_of(page))
    return is_python or any(line.startswith("sf-ray ") for line in commands_of(page))


def expected_error(blocks: list[Block], number: int) -> str | None:
    """The error that the last command of a block prints, if the next block shows one."""
    if number + 1 < len(blocks) and not blocks[number + 1].before:
        first = blocks[number + 1].lines[0]
        return first.split(";")[0] if first.startswith("error: ") else None
    return None


def chats(count: int) -> str:
    """ShareGPT chats as JSON Lines; every third calls a tool."""
    rng = random.Random(0)

    def turn(who: str, length: int) -> dict[str, str]:
        return {"from": who, "value": " ".join(rng.choices(WORDS, k=length))}

    lines = []
    for number in range(count):
        turns = [turn("human", 8), turn("gpt", 12)]
        if number % 3 == 0:
            turns += [turn("human", 5), turn("function_call", 4), turn("observation", 4)]
            turns.append(turn("gpt", 9))
        lines.append(json.dumps({"conversations": turns}))
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def seeded(
    s3_options: dict[str, object], ray_session: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[s3fs.S3FileSystem]:
    """The object store; its `bucket` holds what every page starts with."""
    folder = tmp_path_factory.mktemp("seeds")
    sources = ("code", "chat", "chat", "web", None)
    rows = [row | {"source": sources[i % 5]} for i, row in enumerate(make_rows(120))]
    schema = pa.schema(
        [(name, pa.string()) for name in ("id", "instruction", "input", "output", "source")]
    )
    (folder / "corpus").mkdir()
    for shard in range(3):
        part = pa.Table.from_pylist(rows[shard * 40 : shard * 40 + 40], schema=schema)
        pq.write_table(part, folder / f"corpus/{shard:05d}.parquet", row_group_size=20)
    (folder / "chats.jsonl").write_text(chats(12))
    for seed, name in enumerate(("model", "model-b")):
        make_model(folder / name, seed=seed, window=2048)
        (folder / name / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    fs = s3fs.S3FileSystem(**s3_options, skip_instance_cache=True, use_listings_cache=False)
    fs.mkdir("bucket")
    fs.put(f"{folder}/", "bucket/", recursive=True)
    yield fs
    fs.rm("bucket", recursive=True)


@pytest.fixture
def bucket(seeded: s3fs.S3FileSystem) -> Iterator[None]:
    yield
    for name in seeded.ls("bucket", detail=False):
        if Path(name).name not in SEEDS:
            seeded.rm(name, recursive=True)


@pytest.fixture
def scorers(sf_ray_cli: Cli) -> None:
    """Commands use fakes in place of models and encoders."""
    for module in (hash_scorer, free_scorer):  # by value, because workers cannot import them
        ray.cloudpickle.register_pickle_by_value(module)
    sf_ray_cli.specs = Specs(
        engine=hash_scorer.HashEngineSpec, embedder=free_scorer.FreeEmbedderSpec
    )


@pytest.mark.ray
@pytest.mark.s3
@pytest.mark.weights
@pytest.mark.usefixtures("ray_session", "bucket", "scorers")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[] if page.name in FIRST_READ else pytest.mark.release)
        for page in filter(has_steps, PAGES)
    ],
    ids=lambda page: page.name,
)
def test_what_a_page_says_works(
    page: Path, tmp_path: Path, sf_ray_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = blocks_of(page)
    for block in blocks:
        if block.file:
            Path(block.file).write_text(block.text)
    monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())  # read when it is imported
    names: dict[str, object] = {}
    for number, block in enumerate(blocks):
        if block.kind == "python":
            exec(compile(block.text, f"{page.name}, a block of Python", "exec"), names)
        lines = [] if block.file else [c for c in block.commands if c.startswith("sf-ray ")]
        error = expected_error(blocks, number)
        for place, line in enumerate(lines, 1):
            arguments = shlex.split(line, comments=True)[1:]
            if arguments[0] == "demo":
                continue
            code, _, stderr = sf_ray_cli(*arguments)
            if error and place == len(lines):
                assert code != 0, line
                assert error in stderr, f"{line}\n{stderr}"
            else:
                assert code == 0, f"{line}\n{stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_other_commands_name_is_there(page: Path) -> None:
    targets = re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    for line in commands_of(page):
        words = re.split(r"[\s;=]+", line.split("  #")[0])
        if words[0] == "make":
            assert words[1] in targets, line
        for word in words:
            if re.match(r"(bench|cluster|jobs|docs)/[\w./-]+$", word):
                assert (REPOSITORY / word).exists(), line


def submitted(page: Path) -> list[str]:
    return [line for line in commands_of(page) if line.startswith("ray job submit ")]


@pytest.mark.parametrize("page", [*filter(submitted, PAGES)], ids=lambda page: page.name)
def test_what_is_submitted_is_a_command_with_its_options(
    page: Path, sf_ray_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in submitted(page):
        words = shlex.split(line.partition(" -- ")[2])
        called: list[object] = []
        if words[0] == "sf-ray" or words[:3] == ["python", "-m", "sf_ray"]:
            name, *arguments = words[1 if words[0] == "sf-ray" else 3 :]
        else:
            assert (words[0], Path(words[1]).parent.name) == ("python", "jobs"), line
            name, arguments = Path(words[1]).stem, words[2:]
        module, _, function = COMMANDS[name].entry.partition(":")
        entry = importlib.import_module(f"sf_ray.{module}")
        monkeypatch.setattr(entry, function, called.append)
        assert sf_ray_cli(name, *arguments)[0] == 0, line
        assert len(called) == 1


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
