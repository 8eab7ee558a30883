"""What a command makes of the answers of nodes; the nodes themselves are in tests/end_to_end."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sf_ray.commands import shared_places
from sf_ray.commands.shared_places import (
    Places,
    check_shared,
    corpus_files,
    model_files,
    score_files,
    within,
)
from sf_ray.corpus.planning import plan_corpus
from sf_ray.errors import UsageError
from sf_ray.runtime.nodes import Node
from sf_ray.scoring.score_set import score_set_of
from sf_ray.storage import shared
from sf_ray.storage.files import put_bytes
from sf_ray.storage.location import Location
from sf_ray.storage.shared import Token

HEAD, WORKER, GPU = Node("head", "h"), Node("worker", "w"), Node("gpu", "g")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    """The nodes that were asked; they see what this process sees, unless a test says otherwise."""
    asked: list[Node] = []
    monkeypatch.setattr(shared, "_PAUSE_S", 0.0)
    use_nodes(monkeypatch, asked, HEAD, WORKER, GPU)
    return asked


def use_nodes(
    monkeypatch: pytest.MonkeyPatch,
    asked: list[Node],
    *nodes: Node,
    silent: Sequence[Node] = (),
    before: dict[Node, Callable[[], object]] | None = None,
) -> None:
    def ask(function: Callable[[], Any], _: float, of: Sequence[Node]) -> dict[Node, Any]:
        answers = {}
        for node in of:
            asked.append(node)
            if node not in silent:
                (before or {}).get(node, lambda: None)()
                monkeypatch.setattr(shared_places, "this_node_id", lambda: node.id)  # noqa: B023
                answers[node] = function()
        return answers

    monkeypatch.setattr(shared_places, "working_nodes", lambda: list(nodes))
    monkeypatch.setattr(shared_places, "on_every_node", ask)


def places(tmp_path: Path) -> Places:
    read = tmp_path / "in" / "a.parquet"
    read.parent.mkdir(exist_ok=True)
    read.write_text("rows")
    written = [("OUTPUT", Location(str(tmp_path / "out")))]
    return Places({("INPUT", str(read.parent)): [str(read)]}, written)


def test_places_that_all_nodes_see_pass_and_keep_no_trace(
    tmp_path: Path, asked: list[Node]
) -> None:
    check_shared(places(tmp_path))
    assert asked == [HEAD, WORKER, GPU]
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_node_that_lacks_a_file_is_named_with_those_that_have_it(
    tmp_path: Path, asked: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, lost = places(tmp_path), tmp_path / "in/a.parquet"
    use_nodes(monkeypatch, asked, HEAD, WORKER, before={WORKER: lost.unlink})
    with pytest.raises(UsageError) as error:
        check_shared(wanted)
    assert str(error.value).startswith(f"INPUT {lost.parent}: not every node of the cluster")
    assert f"{WORKER.name} has no {lost}. All is well on {HEAD.name}." in str(error.value)
    assert "or put the same files at this path of every node" in str(error.value)
    assert "OUTPUT" not in str(error.value)


@pytest.mark.parametrize("problem", ["sees no token", "its answer is not seen"])
def test_a_place_for_results_that_is_another_disk_is_refused(
    tmp_path: Path, asked: list[Node], monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    answer = Token.answer

    def elsewhere(token: Token, name: str) -> str:
        if name != WORKER.id:
            return answer(token, name)
        if problem == "sees no token":
            return answer(Token(f"{token.folder}-of-another-disk"), name)
        return ""

    monkeypatch.setattr(Token, "answer", elsewhere)
    with pytest.raises(UsageError) as error:
        check_shared(places(tmp_path))
    said = {
        "sees no token": f"{WORKER.name} does not see what this machine writes there",
        "its answer is not seen": f"{WORKER.name} writes there, but this machine does not see it",
    }[problem]
    assert str(error.value) == (
        f"OUTPUT {tmp_path}/out: not every node of the cluster sees there what this machine sees: "
        f"{said}. All is well on {HEAD.name}, {GPU.name}. Nodes with disks of their own need a "
        "bucket (s3://...) or a file system that all of them share"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_node_that_does_not_answer_is_said_and_not_waited_for(
    tmp_path: Path,
    asked: list[Node],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    use_nodes(monkeypatch, asked, HEAD, GPU, silent=[GPU])
    check_shared(places(tmp_path), limit_s=7)
    said = capsys.readouterr().err
    assert said == (
        f"note: {GPU.name} did not answer within 7 s, so that nobody knows whether "
        f"{tmp_path}/in, {tmp_path}/out can be seen from there\n"
    )


def test_one_node_and_places_that_are_remote_cost_nothing(
    tmp_path: Path, asked: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    check_shared(Places({}, [("OUTPUT", Location("s3://bucket/out"))]))
    use_nodes(monkeypatch, asked, HEAD)
    check_shared(places(tmp_path))
    assert asked == []


def test_the_files_of_each_kind_of_place_are_found(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    corpus = plan_corpus(Location(f"{tmp_path}/in/*.jsonl"))
    ((flag, _), files), *_ = corpus_files(corpus).items()
    assert (flag, files) == ("INPUT", [f"{tmp_path}/in/a.jsonl"])

    score_set = score_set_of(Location(str(tmp_path / "scores")), {})
    put_bytes(score_set.pieces.join("a.parquet"), b"x")
    ((key, files),) = score_files(score_set).items()
    assert (key, files) == (("SCORES", score_set.pieces.path), [f"{key[1]}/a.parquet"])
    assert score_files(score_set_of(Location("s3://bucket/scores"), {})) == {}

    ((key, files),) = model_files("--model", str(tiny_model)).items()
    assert key == ("--model", str(tiny_model))
    assert {"config.json", "model.safetensors"} <= {Path(file).name for file in files}
    for name in ("demo", "minilm", "organisation/model", "s3://bucket/model"):
        assert model_files("--model", name) == {}

    there = Location(str(tmp_path / "in"))
    assert within("OUTPUT", there, there.join("absent"), Location("s3://b")) == [("OUTPUT", there)]
