"""Fixtures that cost something; they are asked for, never automatic."""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from sf_ray.storage.location import Location

WORDS = (
    "the a of to and in is it you that was for on are with as his they be at one have this from "
    "or had by hot word but what some we can out other were all there when up use your how said"
).split()

# Read when torch is loaded, here and in every process below. Threads that spin while they wait take
# the CPUs from what they wait for where more runs beside them: a model starts 4 times as fast so.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# How long an example takes depends on what else a machine does: no deadline, in any test.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")


@pytest.fixture(autouse=True, scope="session")
def _offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_HUB_OFFLINE", "1")
    patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    patch.setenv("RAY_num_workers_soft_limit", "10")  # as `start_ray` has it on two CPUs
    yield
    patch.undo()


def make_model(folder: Path, bos: bool = False, seed: int = 0, window: int = 256) -> Path:
    """A tiny random Llama with a byte-level BPE tokenizer, saved as any model is."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=window,
        initializer_range=0.5,  # large enough that scores differ between rows
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer adds nothing; window 256."""
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def tiny_bos_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer adds a BOS; window 256."""
    return make_model(tmp_path_factory.mktemp("bos-model"), bos=True)


def make_encoder(folder: Path, seed: int = 0) -> Path:
    """A tiny random BERT with a tokenizer of whole words, saved as any encoder is; window 64."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *dict.fromkeys(WORDS)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    plain = folder / "plain"
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_max_length=64
    ).save_pretrained(plain)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    BertModel(config).save_pretrained(plain)
    transformer = Transformer(str(plain))
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
    SentenceTransformer(modules=[transformer, pooling], device="cpu").save(str(folder / "encoder"))
    return folder / "encoder"


def make_rows(count: int, seed: int = 0) -> list[dict[str, str | None]]:
    """Alpaca rows of words, some of them awkward."""
    import random

    rng = random.Random(seed)

    def text(low: int, high: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))

    rows: list[dict[str, str | None]] = [
        {
            "id": f"row-{number}",
            "instruction": text(1, 12),
            "input": text(1, 6) if number % 3 == 0 else "",
            "output": text(2, 20),
        }
        for number in range(count)
    ]
    for at, change in ((7, {"output": ""}), (11, {"output": None}), (13, {"instruction": None})):
        if at < count:
            rows[at] |= change
    if count > 17:
        rows[17]["input"] = None
    return rows


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence encoder of 32 dimensions; window 64."""
    return make_encoder(tmp_path_factory.mktemp("encoder"))


def write_shards(folder: Path, rows: list[dict[str, str | None]], shards: int = 3) -> Path:
    """Writes rows as shards of several row groups each, in a nested directory."""
    schema = pa.schema([(name, pa.string()) for name in ("id", "instruction", "input", "output")])
    size = -(-len(rows) // shards)
    for shard in range(shards):
        part = pa.Table.from_pylist(rows[shard * size : (shard + 1) * size], schema=schema)
        path = folder / ("train" if shard else "extra") / f"{shard:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(part, path, row_group_size=16)
    return folder


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """120 Alpaca rows in 3 shards."""
    return write_shards(tmp_path / "corpus", make_rows(120))


@pytest.fixture(scope="session")
def ray_session(s3_environment: None) -> Iterator[None]:
    """One small Ray for all tests of a worker; its processes know the S3 endpoint."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=200 << 20,
        include_dashboard=False,
        logging_level="warning",
    )
    yield
    ray.shutdown()


@dataclass(frozen=True)
class S3:
    """An S3 endpoint over HTTP, and a bucket of one's own in it."""

    bucket: str
    options: dict[str, object]

    @property
    def options_json(self) -> str:
        return json.dumps(self.options)


@pytest.fixture(scope="session")
def s3_options() -> Iterator[dict[str, object]]:
    """fsspec options of the endpoint: SF_RAY_TEST_S3_ENDPOINT with AWS_* keys, or moto's."""
    endpoint = os.environ.get("SF_RAY_TEST_S3_ENDPOINT")
    if endpoint:
        keys = (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
        yield {"endpoint_url": endpoint, "key": keys[0], "secret": keys[1]}
        return
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield {"endpoint_url": f"http://{host}:{port}", "key": "test", "secret": "test"}
    server.stop()


@pytest.fixture(scope="session")
def s3_environment(s3_options: dict[str, object]) -> Iterator[None]:
    """The endpoint in the environment, where people have it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", str(s3_options["endpoint_url"]))
        patch.setenv("AWS_ACCESS_KEY_ID", str(s3_options["key"]))
        patch.setenv("AWS_SECRET_ACCESS_KEY", str(s3_options["secret"]))
        yield


@pytest.fixture
def s3(s3_options: dict[str, object]) -> S3:
    """A new bucket."""
    import s3fs

    name = f"sf-ray-test-{uuid.uuid4().hex[:12]}"
    s3fs.S3FileSystem(**s3_options).mkdir(name)
    return S3(f"s3://{name}", s3_options)


@pytest.fixture
def sf_ray_cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command line in this process: (exit code, stdout, stderr)."""
    from sf_ray.cli import main
    from sf_ray.runtime.json_log import end_log

    def run(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        end_log()
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture(params=["local", "memory", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> "Location":
    """An empty place in each kind of storage."""
    from sf_ray.storage.location import Location

    if request.param == "local":
        return Location(str(tmp_path / "place"))
    if request.param == "memory":
        return Location(f"memory://{tmp_path.name}")
    s3: S3 = request.getfixturevalue("s3")
    return Location(f"{s3.bucket}/place", s3.options)


@contextmanager
def scoring_for_free() -> "Iterator[Callable[..., None]]":
    """What puts a scorer that costs nothing in place of the model; the model is back afterwards."""
    import free_scorer

    from sf_ray.commands import setup as preparing
    from sf_ray.scoring import run as scoring_run
    from sf_ray.selection.diversity import embedding_run

    replaced = [(preparing, "EncodeRules"), (scoring_run, "EngineRules")]
    with pytest.MonkeyPatch.context() as patch:
        for module, name in [*replaced, (embedding_run, "EmbedRules")]:
            patch.setattr(module, name, getattr(module, name))
        yield lambda **settings: free_scorer.install(free_scorer.Settings(**settings))


@pytest.fixture
def free_scorer() -> "Iterator[Callable[..., None]]":
    """Puts a scorer that costs nothing in place of the model; takes its settings."""
    with scoring_for_free() as install:
        yield install


def copy_of(made: Path, folder: Path) -> Path:
    """A test's own copy of what was made once; files keep their times, so scores stay theirs."""
    return Path(shutil.copytree(made, folder, dirs_exist_ok=True))
