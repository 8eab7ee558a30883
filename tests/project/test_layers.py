"""Walls between the wings that import-linter cannot see: what a process really loads.

The rules themselves are `[tool.importlinter]` in pyproject.toml; `make lint` checks them.
"""

import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

import sf_ray

# The engine and what holds one load torch, although they do not import it themselves.
LOAD_AN_ENGINE = {"sf_ray.engine.engine", "sf_ray.scoring.unit_scorer", "sf_ray.scorer"}


def contract_on(library: str) -> dict[str, list[str]]:
    """The contract of pyproject.toml that says which modules import a library."""
    path = Path(__file__).parents[2] / "pyproject.toml"
    contracts = tomllib.loads(path.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    on_it: list[dict[str, list[str]]]
    on_it = [contract for contract in contracts if library in contract.get("protected_modules", ())]
    assert len(on_it) == 1, f"contracts on {library}: {len(on_it)}"
    return on_it[0]


def modules_without(library: str) -> list[str]:
    """All modules of the package but those that may load a library."""
    allowed = LOAD_AN_ENGINE if library == "torch" else set()
    allowed |= {*contract_on(library)["allowed_importers"]}
    every = [module.name for module in pkgutil.walk_packages(sf_ray.__path__, "sf_ray.")]
    assert allowed <= {*every}, allowed - {*every}
    return [
        name
        for name in every
        if name != "sf_ray.__main__"  # runs the command line
        and not any(f"{name}.".startswith(f"{module}.") for module in allowed)
    ]


def test_the_two_lists_of_the_contract_on_ray_are_the_same() -> None:
    contract = contract_on("ray")
    assert contract["protected_modules"] == ["ray", *contract["allowed_importers"]]
    assert contract["allowed_importers"]


@pytest.mark.parametrize("library", ["ray", "torch"])
def test_a_module_that_may_import_a_library_does(library: str) -> None:
    graph = grimp.build_graph(
        "sf_ray",
        include_external_packages=True,
        exclude_type_checking_imports=True,
        cache_dir=None,
    )
    allowed = contract_on(library)["allowed_importers"]
    assert allowed
    without = [
        name
        for name in allowed
        if not graph.chain_exists(importer=name, imported=library, as_packages=True)
    ]
    assert without == [], "remove these from the contract in pyproject.toml"


@pytest.mark.slow
@pytest.mark.parametrize("library", ["ray", "torch"])
def test_a_process_that_imports_all_other_modules_does_not_load(library: str) -> None:
    modules = modules_without(library)
    assert len(modules) > 50
    code = (
        f"import importlib, sys\nfor name in {modules}:\n    importlib.import_module(name)\n"
        f"    assert {library!r} not in sys.modules, f'{{name}} loads {library}'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from sf_ray.cli import main; assert main(['run', '--help']) == 0;"
        "heavy = {'torch', 'ray', 'transformers', 'pyarrow', 's3fs'}; print(heavy & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_tasks_that_select_and_write_import_no_pandas() -> None:
    """A worker takes a second to import Ray Data, and pandas with it, which only scoring needs."""
    names = "sf_ray.selection.cutoff_tasks, sf_ray.output.report.survey_tasks"
    code = f"import sys, {names}, sf_ray.output.shard_tasks; print({{'pandas'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
