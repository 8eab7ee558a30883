import pytest
import ray

from sf_ray.cluster import resolve_device, size_pool
from sf_ray.stages import ActorPool


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
    assert size_pool("cpu", 100, None, 1, None, None) == (ActorPool(1, 2, 2, 3, 0), 4)
    assert size_pool("cpu", 100, (3, 5), 1, 2, None) == (ActorPool(3, 5, 3, 2, 0), 2)
    assert size_pool("cpu", 100, None, 1, None, 7)[1] == 7


def test_a_node_of_one_cpu_has_room_for_reading_too(nodes: list[dict[str, float]]) -> None:
    nodes[:] = [{"CPU": 1}]
    assert size_pool("cpu", 100, None, 1, None, None) == (ActorPool(1, 1, 1, 0.55, 0), 1)


def test_with_gpus_an_actor_each(nodes: list[dict[str, float]]) -> None:
    nodes[0]["GPU"] = 8
    assert resolve_device("auto") == "cuda"
    assert size_pool("cuda", 100, None, 1, None, None) == (ActorPool(1, 8, 8, 1, 1), None)
    assert size_pool("cuda", 100, None, 0.5, None, None)[0].max_size == 16


def test_no_more_actors_than_units(nodes: list[dict[str, float]]) -> None:
    nodes[0]["GPU"] = 8
    assert size_pool("cuda", 3, None, 1, None, None)[0] == ActorPool(1, 3, 3, 1, 1)
    assert size_pool("cuda", 3, (5, 9), 1, None, None)[0] == ActorPool(3, 3, 3, 1, 1)


def test_waiting_for_a_gpu_is_said(
    nodes: list[dict[str, float]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert resolve_device("cuda") == "cuda"
    assert "has no GPU now; the scoring actors wait" in capsys.readouterr().err
    assert resolve_device("cpu") == "cpu"
