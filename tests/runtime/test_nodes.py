import os
import time

import pytest
import ray

from sf_ray.errors import ClusterError, SfRayError, UsageError
from sf_ray.runtime.nodes import Node, alive_nodes, on_every_node, working_nodes

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


def test_every_node_answers_once_from_a_process_of_its_own() -> None:
    answers = on_every_node(lambda: (os.getpid(), ray.get_runtime_context().get_node_id()))
    assert list(answers) == alive_nodes()
    ((node, answer),) = answers.items()
    assert isinstance(answer, tuple)
    assert answer[0] != os.getpid()
    assert answer[1] == node.id


def test_what_goes_wrong_on_a_node_is_its_answer() -> None:
    def refuse() -> None:
        raise UsageError("not here")

    def divide() -> float:
        return 1 / 0

    (refused,), (divided,) = (on_every_node(function).values() for function in (refuse, divide))
    assert isinstance(refused, UsageError)
    assert str(refused) == "not here"
    assert isinstance(divided, ClusterError)
    assert "ZeroDivisionError" in str(divided)


def test_a_node_that_does_not_answer_is_not_waited_for_any_longer() -> None:
    (answer,) = on_every_node(lambda: time.sleep(60), timeout_s=0.5).values()
    assert isinstance(answer, SfRayError)
    assert "no answer" in str(answer)


def test_calls_do_not_wait_for_cpus_that_others_keep() -> None:
    keeper = ray.remote(num_cpus=2)(lambda: time.sleep(60)).remote()
    (answer,) = on_every_node(lambda: 1).values()
    ray.cancel(keeper, force=True)
    assert answer == 1


def test_a_node_that_is_gone_is_left_out() -> None:
    (here,) = working_nodes()
    gone = Node("gone", ray.NodeID.from_random().hex())
    assert on_every_node(lambda: 1, nodes=[here, gone]) == {here: 1}


@pytest.fixture
def _nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    def node(node_id: str, alive: bool, host: str, **resources: float) -> dict[str, object]:
        return {
            "NodeID": node_id,
            "Alive": alive,
            "Resources": resources,
            "NodeManagerAddress": "10.0.0.1",
            "NodeManagerHostname": host,
        }

    nodes = [
        node("ddddddddd", True, "cpu", CPU=4.0),
        node("bbbbbbbbb", False, "dead", CPU=4.0),
        node("ccccccccc", True, "head"),
        node("aaaaaaaaa", True, "other-head"),
        node("eeeeeeeee", True, "10.0.0.1", CPU=1.0, GPU=1.0),
    ]

    class Context:
        def get_node_id(self) -> str:
            return "ccccccccc"

    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray, "get_runtime_context", Context)


@pytest.mark.usefixtures("_nodes")
def test_the_nodes_that_count_run_tasks_or_this_process() -> None:
    assert [node.name for node in working_nodes()] == [
        "10.0.0.1 (head, node cccccccc)",
        "10.0.0.1 (cpu, node dddddddd)",
        "10.0.0.1 (node eeeeeeee)",
    ]
