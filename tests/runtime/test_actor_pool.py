import pytest

from sf_ray.runtime.actor_pool import ActorPool, size_pool
from sf_ray.runtime.cluster import resolve_device


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
    # Ray Data fuses tasks that need the same as the actors into the actors.
    assert pool.read_cpus != pool.num_cpus


def test_with_gpus_an_actor_each(nodes: list[dict[str, float]]) -> None:
    nodes[0]["GPU"] = 4
    assert resolve_device("auto") == "cuda"
    assert size_pool("cuda", 100) == ActorPool(1, 4, 4, 1, 1, 0.5, 0.25, threads=None)
    assert size_pool("cuda", 100, gpus_per_actor=0.5).max_size == 8


def test_a_reading_task_never_needs_the_same_as_an_actor(nodes: list[dict[str, float]]) -> None:
    pool = size_pool("cpu", 100, cpus_per_actor=1)
    assert (pool.num_cpus, pool.read_cpus) == (1, 0.9)


def test_no_more_actors_than_units(nodes: list[dict[str, float]]) -> None:
    nodes[0]["GPU"] = 8
    for actors in (None, (5, 9)):
        pool = size_pool("cuda", 3, actors)
        assert (pool.max_size, pool.initial_size) == (3, 3)
