import pytest

from sf_ray.errors import ClusterError, SfRayError
from sf_ray.runtime.nodes import Node
from sf_ray.runtime.versions import Versions, check_workers, judge

OURS: Versions = {"python": "3.11", "sf_ray": "0.2.0", "torch": "2.9.0", "pyarrow": "26.0"}
A, B = Node("10.0.0.1", "a"), Node("10.0.0.2", "b")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_workers_of_the_same_environment_pass(capfd: pytest.CaptureFixture[str]) -> None:
    check_workers()
    assert "note" not in capfd.readouterr().err


def test_what_workers_lack_is_named_with_their_node() -> None:
    answers = {A: OURS, B: OURS | {"sf_ray": None, "torch": None}}
    with pytest.raises(SfRayError) as raised:
        judge(OURS, answers)
    assert str(raised.value).startswith(
        "node 10.0.0.2: the workers there cannot import sf_ray, torch"
    )


def test_another_version_is_named_with_ours() -> None:
    with pytest.raises(SfRayError, match="another version.*: torch 2.8.0, here 2.9.0"):
        judge(OURS, {A: OURS | {"torch": "2.8.0"}})


def test_what_this_process_lacks_too_is_no_difference() -> None:
    without = OURS | {"torch": None}
    judge(without, {A: without})


def test_few_of_many_nodes_are_named() -> None:
    nodes = {Node(f"10.0.0.{i}", str(i)): OURS | {"sf_ray": None} for i in range(1, 8)}
    with pytest.raises(SfRayError, match="^nodes 10.0.0.1, 10.0.0.2, 10.0.0.3 and 4 more: "):
        judge(OURS, nodes)


def test_a_node_without_an_answer_is_said_and_does_not_end_the_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    judge(OURS, {A: OURS, B: ClusterError("no answer for 1 min 0 s")})
    assert "note: node 10.0.0.2: versions are not compared there (no answer" in (
        capsys.readouterr().err
    )


def test_a_cluster_that_starts_no_worker_at_all_is_refused() -> None:
    answers: dict[Node, Versions | SfRayError] = {A: ClusterError("no answer for 1 min 0 s")}
    with pytest.raises(SfRayError, match="no node of the cluster runs a worker.*no answer for"):
        judge(OURS, answers)
