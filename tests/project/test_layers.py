"""The walls of the house: who may import whom, and what --help may cost."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "sf_ray"

# A module imports only from those above it.
LAYERS = [
    "errors",
    "console",
    "log_lines",
    "stopping",
    "quotas",
    "config",
    "commands",
    "ifd",
    "examples",
    "formats",
    "exports",
    "sequences",
    "templates",
    "encoding",
    "batching",
    "flops",
    "estimate",
    "estimate_text",
    "streams",
    "halving",
    "pending",
    "lanes",
    "losses",
    "memory",
    "onednn",
    "heads",
    "loading",
    "decoders",
    "elementwise",
    "packed",
    "compiled",
    "stream_attention",
    "engine",
    "tables",
    "locations",
    "storage",
    "leases",
    "models",
    "embedding",
    "scoring",
    "units",
    "stretches",
    "kinds",
    "handles",
    "parquet_shards",
    "arrow_shards",
    "json_shards",
    "shards",
    "planning",
    "footers",
    "score_sets",
    "reading",
    "samples",
    "rubbish",
    "bundles",
    "tally",
    "probe_sample",
    "metrics",
    "rules",
    "tasks",
    "stages",
    "selection",
    "consistency",
    "facility_location",
    "diversity",
    "copies",
    "pieces",
    "common_rows",
    "comparing",
    "groups",
    "candidates",
    "writing",
    "parts",
    "passes",
    "ranking",
    "duplicates",
    "ordering",
    "survey",
    "summary",
    "survey_run",
    "embedding_sets",
    "diversity_run",
    "output",
    "progress",
    "cluster",
    "scoring_run",
    "embedding_run",
    "export_run",
    "manifest",
    "terminal",
    "html",
    "plots",
    "page",
    "card",
    "report",
    "show",
    "selection_run",
    "preparing",
    "drawing",
    "engine_actor",
    "measuring",
    "estimate_run",
    "pipeline",
    "compare_tables",
    "compare_page",
    "compare_run",
    "probe",
    "demo",
    "cli",
    "options_doc",
    "__main__",
]
# What a layer must not know, wherever the import stands in its file.
PURE = [
    "config",
    "commands",
    "console",
    "log_lines",
    "stopping",
    "ifd",
    "examples",
    "formats",
    "sequences",
    "templates",
    "encoding",
    "batching",
    "halving",
]
PURE += ["streams", "survey", "summary"]
PURE += ["quotas", "selection", "copies", "facility_location", "diversity", "kinds"]
IO = ["tables", "locations", "storage", "leases", "units", "handles", "planning", "footers"]
IO += ["parquet_shards", "arrow_shards", "json_shards", "shards", "score_sets", "reading"]
IO += ["samples", "rubbish", "bundles", "tally", "pieces", "groups", "candidates", "writing"]
IO += ["parts", "output", "embedding_sets", "terminal", "html", "plots", "page", "card", "show"]
PURE += ["estimate", "estimate_text"]
PURE += ["consistency"]
IO += ["common_rows", "comparing", "compare_tables", "compare_page", "compare_run"]
IO += ["stretches", "probe_sample"]
SHELL = [
    "metrics",
    "rules",
    "tasks",
    "stages",
    "passes",
    "ranking",
    "duplicates",
    "ordering",
    "diversity_run",
    "embedding_run",
    "cluster",
    "progress",
    "scoring_run",
    "export_run",
    "manifest",
    "report",
    "survey_run",
    "selection_run",
    "preparing",
    "drawing",
    "engine_actor",
    "measuring",
    "estimate_run",
    "pipeline",
    "probe",
]
FOREIGN = {
    "ray": [*PURE, *IO, "engine", "models", "embedding", "scoring"],
    "torch": [*PURE, *IO, *SHELL],
    "pyarrow": [*PURE, "engine", "embedding"],
    "fsspec": [
        *PURE,
        "engine",
        "embedding",
        "tables",
        "stages",
        "scoring_run",
        "selection_run",
        "preparing",
        "pipeline",
    ],
}


def imports_of(module: str) -> set[str]:
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "sf_ray":
                found.update(f"sf_ray.{alias.name}" for alias in node.names)
    return found


def test_every_module_has_a_layer() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} == set(LAYERS)


def test_imports_point_upward_only() -> None:
    wrong = [
        f"{module} imports {name}"
        for place, module in enumerate(LAYERS)
        for name in imports_of(module)
        if name.startswith("sf_ray.") and LAYERS.index(name.split(".")[1]) >= place
    ]
    assert wrong == []


def test_layers_do_not_know_what_they_must_not() -> None:
    wrong = [
        f"{module} imports {name}"
        for library, modules in FOREIGN.items()
        for module in modules
        for name in imports_of(module)
        if name.split(".")[0] == library
    ]
    assert wrong == []


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from sf_ray.cli import main; assert main(['run', '--help']) == 0;"
        "heavy = {'torch', 'ray', 'transformers', 'pyarrow', 's3fs'}; print(heavy & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
