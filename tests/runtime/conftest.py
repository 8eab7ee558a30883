import pytest
import ray


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """A cluster of two nodes with 8 and 4 CPUs; tests add GPUs to it."""
    of_nodes: list[dict[str, float]] = [{"CPU": 8}, {"CPU": 4}, {}]

    def cluster_resources() -> dict[str, float]:
        return {key: sum(node.get(key, 0) for node in of_nodes) for key in ("CPU", "GPU")}

    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": n} for n in of_nodes])
    monkeypatch.setattr(ray, "cluster_resources", cluster_resources)
    return of_nodes
