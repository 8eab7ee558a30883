"""Run by a Python that has Airflow: loads a folder of DAGs, and runs their one DAG if asked to.

    python in_airflow.py FOLDER [run]

Prints a JSON object on the last line.
"""

import json
import sys

from airflow.dag_processing.dagbag import DagBag


def main(folder: str, runs: bool) -> dict[str, object]:
    bag = DagBag(folder, load_op_links=False)
    if bag.import_errors:
        return {"errors": bag.import_errors}
    (dag,) = bag.dags.values()
    told: dict[str, object] = {
        "errors": {},
        "dag": dag.dag_id,
        "schedule": dag.schedule,
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "tasks": {
            each.task_id: {
                "type": each.task_type,
                "retries": each.retries,
                "then": sorted(each.downstream_task_ids),
            }
            for each in dag.tasks
        },
    }
    if runs:
        for each in dag.tasks:
            each.retries = 0  # whoever tests wants to know at once
        done = dag.test()
        told["state"] = str(done.state)
        instances = {each.task_id: each for each in done.get_task_instances()}
        told["states"] = {name: str(each.state) for name, each in instances.items()}
        told["kept"] = instances["kept"].xcom_pull(task_ids="kept")
    return told


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], len(sys.argv) > 2), default=str))
