"""Run by a Python that has Dagster: loads definitions, and makes their one asset if asked to.

    python in_dagster.py FILE [run]

Prints a JSON object on the last line.
"""

import json
import runpy
import sys

import dagster as dg


def main(file: str, runs: bool) -> dict[str, object]:
    definitions: dg.Definitions = runpy.run_path(file)["defs"]
    dg.Definitions.validate_loadable(definitions)
    (asset,) = definitions.assets or ()
    assert isinstance(asset, dg.AssetsDefinition)
    (schedule,) = definitions.schedules or ()
    told: dict[str, object] = {
        "asset": asset.key.to_user_string(),
        "schedule": schedule.cron_schedule,
        "pool": asset.op.pool,
        "retries": asset.op.retry_policy.max_retries if asset.op.retry_policy else 0,
    }
    if runs:
        with dg.instance_for_test() as instance:
            done = dg.materialize(
                [asset], resources=definitions.resources, instance=instance, raise_on_error=False
            )
        told["success"] = done.success
        if done.success:
            (event,) = done.asset_materializations_for_node("kept_rows")
            told["metadata"] = {name: each.value for name, each in event.metadata.items()}
            told["version"] = (event.tags or {}).get("dagster/data_version")
        else:
            told["error"] = str(done.failure_data_for_node("kept_rows"))
    return told


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], len(sys.argv) > 2), default=str))
