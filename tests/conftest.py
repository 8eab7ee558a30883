"""Fixtures of all tests. What costs time starts only when a test asks for it."""

import gc
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from bench.support.corpora import make_rows, write_shards
from bench.support.models import make_model
from tests.support.encoders import make_encoder
from tests.support.hub import Hub
from tests.support.storage import S3

if TYPE_CHECKING:
    from sf_ray.storage.location import Location
    from tests.support.cli import Cli
    from tests.support.gcs import Gcs

# OpenMP reads this when torch is loaded, here and in every child process. Threads that spin while
# they wait take CPUs from the processes that they wait for; without spinning a model starts 4 times
# as fast.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# No deadline for an example: its time depends on what else runs on the machine.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")


@pytest.fixture(autouse=True, scope="session")
def _offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("HF_HUB_OFFLINE", "1")
    patch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    patch.setenv("RAY_num_workers_soft_limit", "10")  # what `start_ray` sets on two CPUs
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # its process would cost seconds in each Ray
    yield
    patch.undo()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer adds nothing; window 256."""
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def tiny_bos_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer adds a BOS; window 256."""
    return make_model(tmp_path_factory.mktemp("bos-model"), bos=True)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence encoder of 32 dimensions; window 64."""
    return make_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """120 Alpaca rows in 3 shards."""
    return write_shards(tmp_path / "corpus", make_rows(120))


@pytest.fixture(scope="session")
def ray_session(s3_environment: None, hub_server: Hub) -> Iterator[None]:
    """One small Ray for all tests of a pytest worker.

    Its processes know the S3 endpoint. They may ask the hub, and their hub is the stand-in.
    """
    import ray

    with pytest.MonkeyPatch.context() as patch:  # Ray's processes take over what is set now
        patch.setenv("HF_HUB_OFFLINE", "0")
        patch.setenv("HF_ENDPOINT", hub_server.endpoint)
        ray.init(
            address="local",
            num_cpus=2,
            object_store_memory=200 << 20,
            include_dashboard=False,
            logging_level="warning",
        )
    # A run collects garbage when it ends; what is imported by now needs no look each time.
    gc.collect()
    gc.freeze()
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def s3_options() -> Iterator[dict[str, object]]:
    """fsspec options of an S3 endpoint: SF_RAY_TEST_S3_ENDPOINT with AWS_* keys, or moto."""
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
    """The endpoint in environment variables, as users configure theirs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", str(s3_options["endpoint_url"]))
        patch.setenv("AWS_ACCESS_KEY_ID", str(s3_options["key"]))
        patch.setenv("AWS_SECRET_ACCESS_KEY", str(s3_options["secret"]))
        yield


@pytest.fixture(scope="session")
def hub_server() -> Iterator[Hub]:
    """A stand-in for the Hugging Face hub."""
    server = Hub()
    yield server
    server.close()


@pytest.fixture
def hub(hub_server: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub, which this process may ask."""
    from huggingface_hub import constants

    from sf_ray.storage import hub as view

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub_server.endpoint)
    files = f"{hub_server.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setattr(view, "_heads_agree", set())
    monkeypatch.setattr(view, "_heads_differ", set())
    view.HubFileSystem.clear_instance_cache()
    yield hub_server
    hub_server.forget()


@pytest.fixture
def s3(s3_options: dict[str, object]) -> S3:
    """A new bucket at the endpoint."""
    import s3fs

    name = f"sf-ray-test-{uuid.uuid4().hex[:12]}"
    s3fs.S3FileSystem(**s3_options).mkdir(name)
    return S3(f"s3://{name}", s3_options)


@pytest.fixture(scope="session")
def gcs() -> "Iterator[Gcs]":
    """A stand-in for Google Cloud Storage, with an empty bucket named `bucket`."""
    from tests.support.gcs import Gcs

    server = Gcs()
    yield server
    server.close()


@pytest.fixture(scope="session")
def azurite() -> str:
    """The connection string of an Azurite: SF_RAY_TEST_AZURITE."""
    text = os.environ.get("SF_RAY_TEST_AZURITE")
    if not text:
        pytest.skip("needs an Azurite: set SF_RAY_TEST_AZURITE to its connection string")
    return text


@pytest.fixture(params=["gs", pytest.param("az", marks=pytest.mark.azurite)])
def bucket(request: pytest.FixtureRequest) -> "Location":
    """A new bucket in each kind of store that is not S3."""
    from sf_ray.storage.location import Location

    name = f"sf-ray-test-{uuid.uuid4().hex[:12]}"
    if request.param == "gs":
        server: Gcs = request.getfixturevalue("gcs")
        server.new_bucket(name)
        return Location(f"gs://{name}", server.options)
    place = Location(f"az://{name}", {"connection_string": request.getfixturevalue("azurite")})
    place.fs.mkdir(name)
    return place


@pytest.fixture
def sf_ray_cli(capfd: pytest.CaptureFixture[str]) -> "Cli":
    """Runs a command line in this process: (exit code, stdout, stderr)."""
    from tests.support.cli import Cli

    return Cli(capfd)


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


@pytest.fixture
def free_scorer(sf_ray_cli: "Cli") -> Callable[..., None]:
    """A function that makes `sf_ray_cli` score for nothing; takes `Settings` of the free scorer."""
    from bench.support.free_scorer import Settings, specs

    def use(**settings: Any) -> None:
        sf_ray_cli.specs = specs(Settings(**settings))

    return use
