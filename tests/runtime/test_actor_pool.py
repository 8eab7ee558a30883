import pytest

from sf_ray.runtime.actor_pool import ActorPool, actors_of_node, size_pool
from sf_ray.runtime.cluster import resolve_device


def test_without_gpus_an_actor_a_node_computes_with_its_cpus(nodes: list[dict[str, float]]) -> None:
    assert resolve_device("auto") == "cpu"
    nodes[:] = [{"CPU": 4}, {"CPU": 4}, {}]
    assert size_pool("cpu", 100) == ActorPool(1, 2, 2, 3, 0, 0.5, 0.25, threads=4)


@pytest.mark.parametrize(
    ("node_cpus", "threads", "actors"),
    [
        ([2, 16], 2, 9),  # one, and eight: all CPUs are busy
        ([8, 4, 0], 4, 3),
        ([12, 16], 12, 2),
        ([1, 64], 64, 1),  # the small one reads and writes
        ([16] * 100 + [256], 16, 108),
        ([0, 32, 32], 32, 2),  # a head that takes no work
        ([1], 1, 1),
        ([0], 1, 1),  # nodes come later
        ([0.5, 0.5], 1, 2),  # parts of a CPU
    ],
)
def test_on_uneven_nodes_actors_of_equal_threads_keep_most_cpus_busy(
    nodes: list[dict[str, float]], node_cpus: list[float], threads: int, actors: int
) -> None:
    nodes[:] = [{"CPU": cpus} if cpus else {} for cpus in node_cpus]
    pool = size_pool("cpu", 1000)
    assert (pool.threads, pool.max_size) == (threads, actors)
    # Every node that has actors has room for the tasks that read and write beside them.
    for cpus in node_cpus:
        left = cpus - actors_of_node(cpus, threads) * pool.num_cpus
        assert cpus < threads or pool.read_cpus + pool.write_cpus <= left


def test_a_number_of_actors_or_cpus_that_was_asked_for_holds(
    nodes: list[dict[str, float]],
) -> None:
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


def test_nodes_are_counted_as_the_actors_fill_them(nodes: list[dict[str, float]]) -> None:
    nodes[:] = [{"CPU": 2}, {"CPU": 16}]
    assert size_pool("cpu", 100).count_nodes([2, 16, 0]) == 2
    assert size_pool("cpu", 8).count_nodes([2, 16, 0]) == 1
    # More than there are now: the others are to be bought.
    assert size_pool("cpu", 100, (12, 12)).count_nodes([2, 16, 0]) == 5
    assert size_pool("cpu", 100, (5, 5), cpus_per_actor=4).count_nodes([8, 8]) == 3
