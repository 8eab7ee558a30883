"""Airflow 3: a run every night on a Ray cluster that stands. docs/schedulers.md explains it.

Put this file into the folder of DAGs. The worker needs the command `ray` of the cluster's version,
RAY_API_SERVER_ADDRESS (the URL of the job server), and the keys of the bucket for the second task.
"""

import json
from datetime import datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, ObjectStoragePath, task

OUTPUT = "s3://bucket/out"

# Each try is a Ray job with a name of its own, because a name can be used once. What the try before
# has scored is not scored again.
#
# `ray job submit` ends with 1 whatever the job's own exit code was, and with 0 where somebody
# stopped the job. So Ray is asked what became of it. 3 is "done without some shards", which happens
# with `--on-bad-shard skip` alone: the output is there, and the manifest names the shards.
RUN = """
ID="sf-ray-{{ ti.id }}"
trap 'ray job stop --no-wait "$ID"; exit 143' TERM INT
ray job submit --submission-id "$ID" \
    --runtime-env-json '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "30"}}' -- \
    python /home/ray/sf_ray/jobs/run.py s3://bucket/corpus s3://bucket/out \
    --model s3://bucket/model --keep-fraction 0.1 --on-bad-shard skip
STATUS=$(ray job status "$ID" 2>&1)
case "$STATUS" in
    *"Job '$ID' succeeded"*) exit 0 ;;
    *"command failed with exit code 3,"*) echo "done without some shards"; exit 0 ;;
    *"command failed with exit code 2,"*) echo "wrong usage: see above"; exit 2 ;;
    *) exit 1 ;;
esac
"""

with DAG(
    "sf_ray_nightly",
    schedule="30 1 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,  # a second run on the same output is refused
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
):
    run = BashOperator(
        task_id="run",
        bash_command=RUN,
        append_env=True,
        execution_timeout=timedelta(hours=22),
    )

    @task
    def kept() -> dict:
        """Counts of the result, for tasks behind this one; fails where there is no result."""
        manifest = json.loads(ObjectStoragePath(f"{OUTPUT}/manifest.json").read_text())
        return {
            "request_id": manifest["request_id"],
            "rows": manifest["input"]["rows"],
            "kept_rows": manifest["selection"]["kept_rows"],
            "skipped_shards": len(manifest["input"]["skipped_shards"]),
        }

    run >> kept()
