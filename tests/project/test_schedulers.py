"""The recipes of cluster/schedulers/ say what this version and their schedulers understand."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from sf_ray.config.selection_options import RunOptions
from tests.project.test_manifests import breaches, options_of, problems, read, strict
from tests.support.schedulers import RECIPES, answer_of, job_of, run_of

RAY_JOB = read("rayjob.yaml")


def argo() -> list[Any]:
    return [*yaml.safe_load_all((RECIPES / "argo.yaml").read_text(encoding="utf-8"))]


def template() -> Any:
    (only,) = argo()[0]["spec"]["workflowSpec"]["templates"]
    return only


def job_in(recipe: str) -> list[str]:
    if recipe == "argo.yaml":
        made = yaml.safe_load(template()["resource"]["manifest"])
        return job_of(made["spec"]["entrypoint"])
    return job_of(run_of(recipe))


def test_every_recipe_is_known_here() -> None:
    recipes = {path.name for path in RECIPES.iterdir() if path.is_file()}
    assert recipes == {"argo.yaml", "sf_ray_assets.py", "sf_ray_dag.py"}


@pytest.mark.parametrize("recipe", ["argo.yaml", "sf_ray_assets.py", "sf_ray_dag.py"])
def test_a_recipe_s_command_is_one_of_this_version_and_that_of_the_rayjob(recipe: str) -> None:
    python, script, *arguments = job_in(recipe)
    of_cluster = job_of(RAY_JOB["spec"]["entrypoint"])
    assert [python, script] == of_cluster[:2]
    own, other = options_of(arguments), options_of(of_cluster[2:])
    # A cluster that stands has the GPUs that it has.
    differ = {"device", "actors", "on_bad_shard"}
    shared = RunOptions.model_fields.keys() - differ
    assert own.model_dump(include={*shared}) == other.model_dump(include={*shared})


def test_the_rayjob_that_argo_makes_is_the_one_of_the_cluster() -> None:
    made = yaml.safe_load(template()["resource"]["manifest"])
    assert made["metadata"] == {"generateName": f"{RAY_JOB['metadata']['name']}-"}
    assert made | {"metadata": RAY_JOB["metadata"]} == RAY_JOB


def test_the_rayjob_that_argo_makes_is_valid_for_the_operator() -> None:
    assert problems(yaml.safe_load(template()["resource"]["manifest"])) == []


def test_argo_starts_no_second_night_and_cleans_up() -> None:
    spec = argo()[0]["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["schedules"] == [read("nightly.yaml")["spec"]["schedule"]]
    resource = template()["resource"]
    assert resource["setOwnerReference"] is True
    # One that KubeRay gave up, and one that somebody stopped: no RayJob is waited for in vain.
    failed = resource["failureCondition"]
    assert "status.jobDeploymentStatus in (Failed, ValidationFailed)" in failed
    assert "status.jobStatus == STOPPED" in failed


def test_argo_s_own_pod_passes_the_level_restricted() -> None:
    workflow = argo()[0]["spec"]["workflowSpec"]
    patch = yaml.safe_load(template()["podSpecPatch"])
    assert [container["name"] for container in patch["containers"]] == ["main"]
    assert breaches(patch | {"securityContext": workflow["securityContext"]}) == []


def test_argo_s_account_may_make_rayjobs_and_nothing_else() -> None:
    workflow, account, role, binding = argo()
    name = workflow["spec"]["workflowSpec"]["serviceAccountName"]
    assert account["metadata"]["name"] == binding["subjects"][0]["name"] == name
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert {resource for rule in role["rules"] for resource in rule["resources"]} == {
        "rayjobs",
        "workflowtaskresults",
    }
    assert "*" not in str(role["rules"])


@pytest.mark.argo
def test_argo_knows_every_field_of_its_recipe() -> None:
    schema = strict(answer_of("argo", env=os.environ, timeout_s=120))
    del schema["printed"]
    validator = Draft202012Validator(schema)

    def found(manifest: Any) -> list[str]:
        return [f"{each.json_path}: {each.message}" for each in validator.iter_errors(manifest)]

    manifest = argo()[0]
    assert found(manifest) == []
    manifest["spec"]["concurencyPolicy"] = manifest["spec"].pop("concurrencyPolicy")
    assert "'concurencyPolicy' was unexpected" in "\n".join(found(manifest))


@pytest.mark.airflow
def test_airflow_loads_its_recipe(tmp_path: Path) -> None:
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags/sf_ray_dag.py").write_text((RECIPES / "sf_ray_dag.py").read_text())
    env = os.environ | {"AIRFLOW_HOME": str(tmp_path / "home")}
    told = answer_of("airflow", tmp_path / "dags", env=env, timeout_s=120)
    del told["printed"]
    assert told == {
        "errors": {},
        "dag": "sf_ray_nightly",
        "schedule": read("nightly.yaml")["spec"]["schedule"],
        "catchup": False,
        "max_active_runs": 1,
        "tasks": {
            "run": {"type": "BashOperator", "retries": 3, "then": ["kept"]},
            "kept": {"type": "_PythonDecoratedOperator", "retries": 3, "then": []},
        },
    }


@pytest.mark.dagster
def test_dagster_loads_its_recipe() -> None:
    told = answer_of("dagster", RECIPES / "sf_ray_assets.py", env=os.environ, timeout_s=120)
    del told["printed"]
    assert told == {
        "asset": "kept_rows",
        "schedule": read("nightly.yaml")["spec"]["schedule"],
        "pool": "sf_ray",
        "retries": 3,
    }
