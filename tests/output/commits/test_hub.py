"""Whole outputs become commits of a stand-in for the hub, by the hub's own client."""

import io
import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sf_ray.errors import SfRayError, UsageError
from sf_ray.output.commits import hub as hub_commits
from sf_ray.output.commits.commit import Mode, Target, target_of
from sf_ray.storage.location import Location
from tests.support.hub import Hub
from tests.support.outputs import kept_table, local_output, make_output
from tests.support.storage import S3

NAME = "hf://datasets/o/n"
REPO = "datasets/o/n"
# Large enough to be a file that the hub keeps elsewhere.
LARGE = kept_table(*[f"{number} {number**7}" for number in range(400)])
SMALL = kept_table("small")


@pytest.fixture(autouse=True)
def _client(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its servers have no stand-in
    monkeypatch.setattr(hub_commits, "_PAUSE_S", 0.0)
    hub.put(REPO, {".gitattributes": b"*.parquet filter=lfs"})


def checked(mode: Mode = "append", name: str = NAME) -> Target:
    target = target_of(name, mode, {"token": "of-a-bucket"}, 0.1)
    target.check(None)
    return target


def files_of(hub: Hub, branch: str = "main") -> dict[str, bytes]:
    return hub.repositories[REPO][branch]


def rows_in(files: dict[str, bytes], path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(io.BytesIO(files[path])).to_pylist()
    return found


def test_an_append_is_one_commit_with_a_folder_of_its_own(tmp_path: Path, hub: Hub) -> None:
    kept = local_output(tmp_path / "out", {"a.parquet": LARGE, "b/c.parquet": SMALL})
    target = checked()
    assert target.find(kept.request_id) is None
    done = target.commit(kept)
    first, commit = hub.history(REPO, "main")
    assert (done.name, done.version, done.rows) == (NAME, f"commit {commit.sha[:12]}", 401)
    assert f"sf-ray.request-id: {kept.request_id}" in commit.message
    files = files_of(hub)
    part = "request-1"
    assert files.keys() - first.files.keys() == {
        "README.md", f"data/{part}/a.parquet", f"data/{part}/b/c.parquet",
        f"sf_ray/{part}/manifest.json", f"sf_ray/{part}/report.html", f"sf_ray/{part}/README.md",
    }  # fmt: skip
    assert rows_in(files, f"data/{part}/a.parquet") == LARGE.to_pylist()
    assert json.loads(files[f"sf_ray/{part}/manifest.json"])["request_id"] == kept.request_id
    # Readers of the hub find the rows by the head of the card.
    assert "data/**/*.parquet" in files["README.md"].decode()
    assert f"](sf_ray/{part}/report.html)" in files["README.md"].decode()
    assert "of-a-bucket" not in str(hub.requests)

    other = local_output(tmp_path / "out2", {"a.parquet": SMALL}, "request-2")
    card = files["README.md"]
    checked().commit(other)
    files = files_of(hub)
    assert rows_in(files, f"data/{part}/a.parquet") == LARGE.to_pylist()
    assert rows_in(files, "data/request-2/a.parquet") == SMALL.to_pylist()
    assert files["README.md"] == card


def test_an_overwrite_makes_the_data_exactly_ours_and_no_other_file(
    tmp_path: Path, hub: Hub
) -> None:
    others = {"data/old.parquet": b"old", "data/request-1/a.parquet": b"a", "extra.txt": b"x"}
    hub.put(REPO, others | {"README.md": b"by hand"})
    kept = local_output(tmp_path / "out", {"a.parquet": LARGE, "old.parquet": SMALL})
    checked("overwrite").commit(kept)
    files = files_of(hub)
    assert files.keys() == {
        "README.md", "extra.txt", "data/a.parquet", "data/old.parquet", "manifest.json",
        "report.html",
    }  # fmt: skip
    assert files["README.md"] == b"by hand"
    assert rows_in(files, "data/old.parquet") == SMALL.to_pylist()

    # A card of ours is written anew.
    hub.commit(REPO, "main", {k: v for k, v in files.items() if k != "README.md"}, "no card")
    for request in ("request-2", "request-3"):
        table = kept_table(*["x"] * int(request[-1]))
        kept = local_output(tmp_path / request, {"a.parquet": table}, request)
        checked("overwrite").commit(kept)
        card = files_of(hub)["README.md"].decode()
        assert f"\n{request[-1]} of the {request[-1]}0 rows" in card


def test_the_same_request_is_one_commit_and_one_that_was_overwritten_is_made_again(
    tmp_path: Path, hub: Hub
) -> None:
    first = local_output(tmp_path / "1", {"a.parquet": SMALL}, "request-1")
    second = local_output(tmp_path / "2", {"b.parquet": LARGE}, "request-2")
    once = checked().commit(first)
    again = checked().commit(first)
    assert (again.version, again.rows, again.is_new) == (once.version, 1, False)
    assert checked("overwrite").find("request-1") is None
    checked("overwrite").commit(second)
    assert checked().find("request-2") is not None
    assert checked().find("request-1") is None
    checked().commit(first)
    assert len(hub.history(REPO, "main")) == 4


def test_a_branch_is_made_of_main_where_it_is_missing(tmp_path: Path, hub: Hub) -> None:
    kept = local_output(tmp_path / "1", {"a.parquet": SMALL})
    target = checked(name=f"{NAME}@kept%2Fv1")
    assert "kept/v1" not in hub.repositories[REPO]
    assert target.name == f"{NAME}@kept/v1"
    target.commit(kept)
    assert "data/request-1/a.parquet" in files_of(hub, "kept/v1")
    assert "data/request-1/a.parquet" not in files_of(hub)
    assert checked(name=f"{NAME}@kept/v1").find(kept.request_id) is not None


def test_a_commit_that_others_overtook_goes_on_top_and_an_overwrite_is_refused(
    tmp_path: Path, hub: Hub
) -> None:
    def others() -> None:
        hub.commit(REPO, "main", files_of(hub) | {"data/z": b"z"}, "by hand")

    kept = local_output(tmp_path / "1", {"a.parquet": LARGE})
    hub.meanwhile = others
    checked().commit(kept)
    assert {"data/z", "data/request-1/a.parquet"} <= files_of(hub).keys()
    second = local_output(tmp_path / "2", {"b.parquet": LARGE}, "request-2")
    for moment in ("between", "during"):
        target = checked("overwrite")
        if moment == "between":
            others()
        else:
            hub.meanwhile = others
        with pytest.raises(SfRayError, match=r"commit \w{12} \(by hand\) was not there .* look at"):
            target.commit(second)
    assert "data/request-1/a.parquet" in files_of(hub)
    checked("overwrite").commit(second)
    assert [path for path in files_of(hub) if path.startswith("data/")] == ["data/b.parquet"]


def test_a_commit_whose_answer_was_lost_is_not_made_twice(tmp_path: Path, hub: Hub) -> None:
    kept = local_output(tmp_path / "1", {"a.parquet": LARGE})
    target = checked()
    hub.lost_answers = 1
    done = target.commit(kept)
    assert done.is_new
    assert len(hub.history(REPO, "main")) == 2


def test_a_commit_that_fails_half_way_leaves_nothing_to_be_seen(tmp_path: Path, hub: Hub) -> None:
    kept = local_output(tmp_path / "1", {"a.parquet": LARGE})
    target = checked()
    hub.readers = {""}  # the rights are taken away after the check
    with pytest.raises(SfRayError, match=rf"^{NAME}: access denied .*HF_TOKEN"):
        target.commit(kept)
    assert len(hub.history(REPO, "main")) == 1
    assert hub.uploads  # sent, and named by no commit
    hub.readers = set()
    target.commit(kept)
    assert len(hub.history(REPO, "main")) == 2


def test_a_file_that_the_repository_ignores_is_not_left_out_in_silence(
    tmp_path: Path, hub: Hub
) -> None:
    hub.ignored = {"data/request-1/a.parquet"}
    kept = local_output(tmp_path / "1", {"a.parquet": LARGE})
    with pytest.raises(SfRayError, match=r"\.gitignore keeps data/request-1/a\.parquet out"):
        checked().commit(kept)
    assert len(hub.history(REPO, "main")) == 1


@pytest.mark.release
@pytest.mark.s3
def test_files_of_a_bucket_pass_through_the_disk_a_few_at_a_time(
    hub: Hub, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = {f"{i}.parquet": LARGE for i in range(3)} | {"small.parquet": SMALL}
    kept = make_output(Location(f"{s3.bucket}/out", s3.options), shards)
    left: list[int] = []
    sent = hub_commits.HubTarget._sent

    def watched(self: Any, held: Any, folder: Path) -> Any:
        done = sent(self, held, folder)
        left.append(len(list(folder.iterdir())))
        return done

    monkeypatch.setattr(hub_commits.HubTarget, "_sent", watched)
    monkeypatch.setattr(hub_commits, "_FILES_AT_ONCE", 1)
    checked().commit(kept)
    # The small one goes in the body of the commit, and stays until then.
    assert left == [0, 0, 0, 1, 1]
    assert rows_in(files_of(hub), "data/request-1/2.parquet") == LARGE.to_pylist()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hf://o/n", "give hf://datasets/ORG/NAME"),
        ("hf://datasets/o", "give hf://datasets/ORG/NAME"),
        ("hf://datasets/o/n/data", "give hf://datasets/ORG/NAME"),
        ("hf://buckets/o/n", "give hf://datasets/ORG/NAME"),
        ("hf://datasets/o/absent", "no such dataset repository.*hf repos create o/absent --type"),
        ("lance:///d/t", "rows can be committed to iceberg://"),
        ("/d/t", "rows can be committed to iceberg://"),
    ],
)
def test_what_is_no_repository_is_refused_before_scoring(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        checked(name=name)


def test_a_token_that_may_not_write_is_refused_before_scoring(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.readers = {"hf_reader"}
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    with pytest.raises(UsageError, match="may not write there .*403.*HF_TOKEN") as error:
        checked()
    assert "hf_reader" not in str(error.value)
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    checked()


def test_an_old_client_cannot_ask_for_the_right_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi

    monkeypatch.setattr(HfApi, "auth_check", lambda self, repo_id, *, repo_type=None: None)
    with pytest.raises(SfRayError, match="pip install -U huggingface_hub"):
        checked()


def test_offline_and_a_hub_that_is_down_are_said_before_scoring(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client has pauses of its own
    hub.answers = [503] * 10_000
    with pytest.raises(SfRayError, match=rf"^{NAME}: storage failed .*503"):
        checked()
    hub.answers = [503]
    checked()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE .* is set, so nothing can be committed"):
        checked()


def test_too_much_text_for_one_request_is_refused(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_commits, "_BODY_BYTES", 100)
    kept = local_output(tmp_path / "1", {"a.parquet": SMALL})
    with pytest.raises(SfRayError, match="only as text in one request"):
        checked().commit(kept)


def test_any_columns_go_to_the_hub(tmp_path: Path, hub: Hub) -> None:
    odd = pa.table({"t": pa.array([1], pa.timestamp("ns")), "ifd": [0.5]})
    checked().commit(local_output(tmp_path / "1", {"a.parquet": odd}))
    assert rows_in(files_of(hub), "data/request-1/a.parquet")
