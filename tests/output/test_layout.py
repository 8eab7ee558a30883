import json
from pathlib import Path

import pytest

from sf_ray.errors import LeaseError, SfRayError
from sf_ray.output.layout import Output
from sf_ray.output.manifest import ExportedFiles, Manifest, OutputFiles, WrittenFile
from sf_ray.storage.location import Location


def manifest(names: list[str], root: Path, request_id: str = "r") -> Manifest:
    sizes = {name: (root / "data" / name).stat().st_size for name in names}
    shards = [WrittenFile(path=name, rows=1, bytes=sizes[name]) for name in names]
    return Manifest(
        manifest_version=1, request_id=request_id, output=OutputFiles(shards=tuple(shards))
    )


def write(root: Path, names: list[str]) -> Output:
    output = Output(Location(str(root)))
    output.begin(names)
    for name in names:
        (root / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "data" / name).write_text(name)
    return output


def test_a_result_is_finished_when_the_manifest_and_its_files_are_there(tmp_path: Path) -> None:
    output = write(tmp_path, ["a", "b"])
    assert output.finished("r") is None
    output.finish(manifest(["a", "b"], tmp_path))
    assert output.finished("r") is not None
    assert output.finished("another request") is None
    (tmp_path / "data" / "a").unlink()
    assert output.finished("r") is None


def test_an_older_result_of_ours_is_replaced(tmp_path: Path) -> None:
    write(tmp_path, ["a", "b"]).finish(manifest(["a", "b"], tmp_path))
    output = write(tmp_path, ["b", "c"])
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["b", "c"]
    assert output.manifest() is None


def test_a_killed_run_can_be_gone_on_with_even_for_another_corpus(tmp_path: Path) -> None:
    write(tmp_path, ["a", "b"])  # killed: no manifest
    write(tmp_path, ["b", "c"]).finish(manifest(["b", "c"], tmp_path))
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["b", "c"]
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["manifest.json"]


def test_the_lineage_of_an_older_run_is_gone_when_a_run_begins(tmp_path: Path) -> None:
    output = write(tmp_path, ["a"])
    output.keep_lineage(b"{}")
    output.finish(manifest(["a"], tmp_path))
    assert (tmp_path / "lineage.json").read_bytes() == b"{}"
    write(tmp_path, ["a"])
    assert not (tmp_path / "lineage.json").exists()


@pytest.mark.parametrize("name", ["a", "somebody.elses"])
def test_files_of_others_are_neither_overwritten_nor_deleted(tmp_path: Path, name: str) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_text("precious")
    with pytest.raises(
        SfRayError, match=f"1 files that no finished .* wrote, e.g. .*/data/{name};"
    ):
        Output(Location(str(tmp_path))).begin(["a"])
    assert (tmp_path / "data" / name).read_text() == "precious"


@pytest.mark.parametrize("text", ["{}", "rubbish", "[]", json.dumps({"manifest_version": 99})])
def test_a_manifest_of_another_version_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(SfRayError, match=r"manifest.json is not a manifest of this version"):
        Output(Location(str(tmp_path))).finished("r")


def test_a_file_of_an_older_run_is_gone_though_its_name_is_claimed_again(tmp_path: Path) -> None:
    write(tmp_path, ["a", "b"]).finish(manifest(["a", "b"], tmp_path))
    output = Output(Location(str(tmp_path)))
    output.begin(["a", "b"])
    (tmp_path / "data" / "a").write_text("a")  # of b nothing is kept this time
    output.finish(manifest(["a"], tmp_path, "other"))
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["a"]
    assert output.finished("other") is not None


def test_files_that_the_manifest_names_must_be_there_with_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sf_ray.storage.files._PAUSE_S", 0.0)
    output = write(tmp_path, ["a", "b", "c"])
    made = manifest(["a", "b", "c"], tmp_path)
    output.check_written(made)
    (tmp_path / "data/a").unlink()
    (tmp_path / "data/c").write_text("cut off or not")
    with pytest.raises(SfRayError) as error:
        output.check_written(made)
    assert f"{tmp_path}: 2 of 3 files that were written are not there" in str(error.value)
    assert f"{tmp_path}/data/a is not there; {tmp_path}/data/c has 14 bytes, not 1" in str(
        error.value
    )
    assert "a disk of its own" in str(error.value)


def test_exported_files_must_be_there_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sf_ray.storage.files._PAUSE_S", 0.0)
    exported = ExportedFiles(
        name="trl", left_out_rows=0, files=(WrittenFile(path="trl/0.jsonl", rows=1, bytes=2),)
    )
    made = Manifest(manifest_version=1, output=OutputFiles(export=exported))
    with pytest.raises(SfRayError, match=f"{tmp_path}/export/trl/0.jsonl is not there"):
        Output(Location(str(tmp_path))).check_written(made)
    remote = Location(f"memory://{tmp_path.name}")
    with pytest.raises(SfRayError, match="or the storage lost them"):
        Output(remote).check_written(made)


def test_a_listing_that_is_older_than_a_file_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = write(tmp_path, ["a", "b"])
    monkeypatch.setattr("sf_ray.output.layout.list_files", lambda _: [])
    output.check_written(manifest(["a", "b"], tmp_path))


def test_nothing_final_is_removed_or_written_by_a_run_that_lost_its_lease(tmp_path: Path) -> None:
    write(tmp_path, ["a"]).finish(made := manifest(["a"], tmp_path))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def lost() -> None:
        raise LeaseError("lost its lease")

    output = Output(Location(str(tmp_path)), lost)
    for step in (lambda: output.begin(["a"]), lambda: output.finish(made)):
        with pytest.raises(LeaseError):
            step()
    with pytest.raises(LeaseError):
        output.check_written(made)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
