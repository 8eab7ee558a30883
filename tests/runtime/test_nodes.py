import time
from collections.abc import Iterator

import pytest

from sf_ray.runtime.nodes import Node, on_every_node, working_nodes


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_function_is_called_on_each_node_and_a_node_that_is_gone_is_left_out() -> None:
    import ray

    (here,) = working_nodes()
    gone = Node(ray.NodeID.from_random().hex(), "gone")
    answers = on_every_node(lambda node_id, a, b: (node_id, a, b), [1, "x"], [here, gone], 60)
    assert answers == {here: (here.node_id, 1, "x")}
    assert here.node_id[:8] in here.name
    assert on_every_node(lambda _: time.sleep(60), [], [here], 0.5) == {}


@pytest.fixture
def _nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import ray

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
    return


@pytest.mark.usefixtures("_nodes")
def test_the_nodes_that_count_run_tasks_or_this_process() -> None:
    assert [node.name for node in working_nodes()] == [
        "10.0.0.1 (cpu, node dddddddd)",
        "10.0.0.1 (head, node cccccccc)",
        "10.0.0.1 (node eeeeeeee)",
    ]
