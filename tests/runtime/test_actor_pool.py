import pytest
import ray

from sf_ray.runtime.actor_pool import ActorPool, size_pool
from sf_ray.runtime.cluster import resolve_device


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """A cluster of two nodes with 8 and 4 CPUs; tests add GPUs to it."""
    found: list[dict[str, float]] = [{"CPU": 8}, {"CPU": 4}, {}]
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": n} for n in found])
    total = lambda: {key: sum(n.get(key, 0) for n in found) for key in ("CPU", "GPU")}  # noqa: E731
    monkeypatch.setattr(ray, "cluster_resources", total)
    return found


def test_without_gpus_an_actor_a_node_computes_with_its_cpus(nodes: list[dict[str, float]]) -> None:
    assert resolve_device("auto") == "cpu"
    assert size_pool("cpu", 100) == ActorPool(1, 2, 2, 3, 0, 0.5, 0.25, threads=4)
    pool = size_pool("cpu", 100, (3, 5), cpus_per_actor=2)
    assert pool == ActorPool(3, 5, 3, 2, 0, 1, 0.5, threads=2)
    assert size_pool("cpu", 100, threads_per_actor=7).threads == 7


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 16, 64])
@pytest.mark.parametrize("gpus", [0, 1, 4, 8])
def test_beside_the_actors_of_a_node_there_is_room_to_read_and_write(
    nodes: list[dict[str, float]], cpus: int, gpus: int
) -> None:
    nodes[:] = [{"CPU": cpus, "GPU": gpus}]
    pool = size_pool(resolve_device("auto"), 100)
    assert pool.max_size == max(gpus, 1)
    left = cpus - pool.max_size * pool.num_cpus
    assert pool.read_cpus + pool.write_cpus <= left
    # And none for another actor without a GPU.
    assert gpus or left < pool.num_cpus


def test_with_gpus_an_actor_each(nodes: list[dict[str, float]]) -> None:
    nodes[0]["GPU"] = 4
    assert resolve_device("auto") == "cuda"
    assert size_pool("cuda", 100) == ActorPool(1, 4, 4, 1, 1, 0.5, 0.25, threads=None)
    assert size_pool("cuda", 100, gpus_per_actor=0.5).max_size == 8


def test_no_more_actors_than_units(nodes: list[dict[str, float]]) -> None:
    nodes[0]["GPU"] = 8
    for actors in (None, (5, 9)):
        pool = size_pool("cuda", 3, actors)
        assert (pool.max_size, pool.initial_size) == (3, 3)


def test_waiting_for_a_gpu_is_said(
    nodes: list[dict[str, float]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert resolve_device("cuda") == "cuda"
    assert "has no GPU now; the scoring actors wait" in capsys.readouterr().err
    assert resolve_device("cpu") == "cpu"
