"""Dagster: the kept rows as an asset, made by a Ray job. docs/schedulers.md explains it.

Needs `dagster-ray[pipes]`, fsspec and s3fs where Dagster runs, RAY_ADDRESS (the URL of the job
server), and the keys of the bucket, to read the manifest.
"""

import json

import dagster as dg
import fsspec
from dagster_ray import PipesRayJobClient

OUTPUT = "s3://bucket/out"
RUN = (
    "python /home/ray/sf_ray/jobs/run.py s3://bucket/corpus s3://bucket/out "
    "--model s3://bucket/model --keep-fraction 0.1 --on-bad-shard skip"
)


# What the try before has scored is not scored again. In one pool of one slot, because a second run
# on the same output is refused: `dagster instance concurrency set sf_ray 1`.
@dg.asset(retry_policy=dg.RetryPolicy(max_retries=3, delay=300), pool="sf_ray")
def kept_rows(
    context: dg.AssetExecutionContext, ray_jobs: PipesRayJobClient
) -> dg.MaterializeResult:
    """The rows that sf-ray keeps, below OUTPUT/data."""
    try:
        ray_jobs.run(
            context=context,
            submit_job_params={
                "entrypoint": RUN,
                "runtime_env": {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "30"}},
            },
        )
    except RuntimeError as error:
        # Done, without some shards: the manifest names them.
        if "command failed with exit code 3," not in str(error):
            raise
        context.log.warning("done without some shards")
    with fsspec.open(f"{OUTPUT}/manifest.json") as file:
        manifest = json.load(file)
    return dg.MaterializeResult(
        # The same request gives the same files, so that nothing behind this asset need run again.
        data_version=dg.DataVersion(manifest["request_id"]),
        metadata={
            "dagster/row_count": manifest["selection"]["kept_rows"],
            "dagster/uri": f"{OUTPUT}/data",
            "rows": manifest["input"]["rows"],
            "units_scored": manifest["scores"]["units"]["scored"],
            "units_reused": manifest["scores"]["units"]["reused"],
            "skipped_shards": [shard["path"] for shard in manifest["input"]["skipped_shards"]],
            "report": dg.MetadataValue.url(f"{OUTPUT}/report.html"),
        },
    )


defs = dg.Definitions(
    assets=[kept_rows],
    resources={"ray_jobs": PipesRayJobClient()},
    schedules=[
        dg.ScheduleDefinition("sf_ray_nightly", cron_schedule="30 1 * * *", target=[kept_rows])
    ],
)
