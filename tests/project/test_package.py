"""What is installed from: the wheel, the source distribution, the image, and that all agree."""

import hashlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest

import sf_ray

REPOSITORY = Path(__file__).parents[2]
WHEEL = f"sf_ray-{sf_ray.__version__}-py3-none-any.whl"


def project() -> dict[str, Any]:
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    read: dict[str, Any] = tomllib.loads(text)["project"]
    return read


def done(*command: object, **how: Any) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, check=False, **how)


def test_the_version_is_the_same_wherever_it_is_named() -> None:
    assert "version" in project()["dynamic"]
    pages = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")]
    files = [REPOSITORY / "Dockerfile", *REPOSITORY.glob("cluster/*.yaml"), *pages]
    named = {
        (path.name, version)
        for path in files
        if path.name != "CHANGELOG.md"
        for version in re.findall(
            r"sf[-_]ray(?::|-|==)(\d+\.\d+\.\d+)", path.read_text(encoding="utf-8")
        )
    }
    assert ("Dockerfile", sf_ray.__version__) in named
    assert {(name, version) for name, version in named if version != sf_ray.__version__} == set()


def test_the_changelog_knows_the_version() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {sf_ray.__version__} (" in text


def test_every_extra_is_explained() -> None:
    page = (REPOSITORY / "docs/install.md").read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| `([a-z]+)` \|", page, re.MULTILINE))
    assert explained == {*project()["optional-dependencies"]}


def test_the_image_has_nothing_that_hadolint_finds() -> None:
    linter = shutil.which("hadolint", path=Path(sys.executable).parent)
    assert linter, "the extra `dev` brings it"
    linted = done(linter, REPOSITORY / "Dockerfile")
    assert (linted.returncode, linted.stdout) == (0, "")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that was made of it."""
    folder = tmp_path_factory.mktemp("dist")
    made = done(sys.executable, "-m", "uv", "build", "--out-dir", folder, REPOSITORY)
    assert made.returncode == 0, made.stderr
    return folder


@pytest.mark.release
@pytest.mark.slow
def test_the_wheel_has_the_package_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(built / WHEEL) as wheel:
        info = f"sf_ray-{sf_ray.__version__}.dist-info"
        names = {name for name in wheel.namelist() if not name.startswith(f"{info}/")}
        here = {
            path.relative_to(REPOSITORY).as_posix()
            for path in (REPOSITORY / "sf_ray").rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert names == here
        assert "sf_ray/py.typed" in names
        assert any(name.endswith(".html.jinja") for name in names)
        metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
        licence = wheel.read(f"{info}/licenses/LICENSE")
        entries = wheel.read(f"{info}/entry_points.txt").decode()
    assert licence == (REPOSITORY / "LICENSE").read_bytes()
    assert "sf-ray = sf_ray.cli:main" in entries
    assert metadata["Version"] == sf_ray.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert {*metadata.get_all("Provides-Extra", [])} == {*project()["optional-dependencies"]}
    assert metadata["Project-URL"] is None  # there is none to name


@pytest.mark.release
@pytest.mark.slow
def test_the_source_distribution_makes_the_wheel_of_the_checkout(
    built: Path, tmp_path: Path
) -> None:
    made = done(sys.executable, "-m", "uv", "build", "--wheel", "--out-dir", tmp_path, REPOSITORY)
    assert made.returncode == 0, made.stderr
    digests = {
        hashlib.sha256((folder / WHEEL).read_bytes()).hexdigest() for folder in (built, tmp_path)
    }
    assert len(digests) == 1


@pytest.mark.release
@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.weights
def test_an_empty_environment_runs_the_demo_after_one_more_command(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTHONPATH", "VIRTUAL_ENV", "SF_RAY_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SF_RAY_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "venv"
    assert done(sys.executable, "-m", "venv", place).returncode == 0
    constraints = REPOSITORY / "constraints.txt"
    # The command of docs/install.md.
    installed = done(
        place / "bin/pip", "install", "--constraint", constraints, f"{built / WHEEL}[gguf]"
    )
    assert installed.returncode == 0, installed.stderr
    command = place / "bin/sf-ray"
    said = done(command, "--version", cwd=tmp_path)
    assert said.stdout.strip() == f"sf-ray {sf_ray.__version__}"
    # The environment is not activated, and has no weights: the command that it names brings them.
    said = done(command, "demo", cwd=tmp_path)
    assert said.returncode == 1
    named = re.search(r"install them with `(.+)`", said.stderr)
    assert named, said.stderr
    more = done(*shlex.split(named[1]), cwd=tmp_path)
    assert more.returncode == 0, more.stderr
    ran = done(command, "demo", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "what became of the planted rows" in ran.stdout
    assert (tmp_path / "demo-output/output/report.html").exists()
    asked = "import sf_ray.reading; print(sf_ray.__file__)"
    checked = done(place / "bin/python", "-c", asked, cwd=tmp_path)
    assert str(place) in checked.stdout
