"""Manifests: of an older version, and of runs that never were."""

from pathlib import Path
from typing import Any

from sf_ray.corpus.status import Status
from sf_ray.output.manifest import Manifest

# Outputs of sf_ray 0.1.0, written before manifests had a model.
OLD = Path(__file__).parents[1] / "data" / "version_0_1_0"
# Of a run with `--exact`.
EXACT = {
    "scoring_id": "mixed",
    "dtype": "float32",
    "sampled_rows": 256,
    "rescored_rows": 370,
    "rounds": 1,
    "safety_factor": 2.0,
    "errors": [
        {
            "most_answer_tokens": 8,
            "rows": 64,
            "median_error": 0.004,
            "largest_error": 0.0321,
            "band": 0.0642,
        },
        {
            "most_answer_tokens": None,
            "rows": 192,
            "median_error": 0.001,
            "largest_error": 0.009,
            "band": 0.018,
        },
    ],
}
CUTOFF = {"ifd": 0.7, "shard": "a", "row": 1}


def manifest_keys(rows: int, ok: int, kept: int, **selection: Any) -> dict[str, Any]:
    """The keys of a manifest, to be changed before a `Manifest` is made of them."""
    counts = dict.fromkeys(map(str, Status), 0) | {"ok": ok, "bad_row": rows - ok}
    return {
        "manifest_version": 1,
        "sf_ray_version": "0",
        "finished": "2026-01-01T00:00:00Z",
        "command": "sf-ray run in out --model m --keep-fraction 0.1",
        "wall_s": {"plan": 0.1, "score": 100.0},
        "input": {"uri": "in", "rows": rows, "shards": 1, "fingerprint": "f", "skipped_shards": []},
        "scores": {
            "uri": "out/scores",
            "scoring_id": "id",
            "model_name": "m",
            "identity": {"model": "x", "dtype": "float32", "alignment": "a", "max_length": 9},
            "units": {"total": 1, "scored": 1, "reused": 0},
            "tokens": {"scored": 1000, "saved": 100},
        },
        "selection": {
            "keep_fraction": 0.1,
            "dropped_duplicates": None,
            "diversity": None,
            "groups": None,
            "wanted_rows": kept,
            "eligible_rows": ok,
            "kept_rows": kept,
            "cutoff": CUTOFF if kept else None,
            **selection,
        },
        "status_counts": counts,
        "output": {"ifd_column": "ifd", "shards": [{"path": "a.parquet", "rows": 1, "bytes": 9}]},
    }


def group_keys(kept: int, **changes: Any) -> dict[str, Any]:
    """The keys of a group's result."""
    cutoff = CUTOFF if kept else None
    counts = {"rows": kept, "eligible": kept, "wanted": kept, "kept": kept}
    return {"asked": 0.1, **counts, "cutoff": cutoff, **changes}


def manifest_with(rows: int, ok: int, kept: int, **selection: Any) -> Manifest:
    """The manifest of a run that kept some of its rows."""
    return Manifest.model_validate(manifest_keys(rows, ok, kept, **selection))
