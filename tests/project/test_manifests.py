"""The manifests of cluster/ are valid for KubeRay, and agree with the code, the image, the docs.

No Kubernetes is here: what the operator does with them is not tested.
"""

import copy
import gzip
import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from jsonschema import Draft202012Validator

import sf_ray
from sf_ray.cli import click_command
from sf_ray.config.options import RunOptions
from sf_ray.config.registry import COMMANDS, load

REPOSITORY = Path(__file__).parents[2]
CLUSTER = REPOSITORY / "cluster"
SCHEMAS = Path(
    os.environ.get("SF_RAY_KUBERAY_SCHEMAS", REPOSITORY.parent / "shared" / "kuberay")
).absolute()
MANIFESTS = sorted(path.name for path in CLUSTER.glob("*.yaml"))
RUNS = ["laptop.yaml", "nightly.yaml", "rayjob.yaml"]
UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "m": 1e-3, "": 1}


def read(name: str) -> Any:
    return yaml.safe_load((CLUSTER / name).read_text(encoding="utf-8"))


def job_of(manifest: Any) -> Any:
    """The specification of a RayJob, which both kinds of manifests have."""
    spec = manifest["spec"]
    return spec["jobTemplate"] if manifest["kind"] == "RayCronJob" else spec


def groups_of(job: Any) -> list[Any]:
    """The head, then the groups of workers."""
    cluster = job["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def pods_of(job: Any) -> list[Any]:
    return [group["template"]["spec"] for group in groups_of(job)]


def number(quantity: str) -> float:
    """A quantity of Kubernetes, as `500m` or `2Gi`."""
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(quantity))
    assert match, quantity
    return float(match[1]) * UNITS[match[2]]


def arguments_of(job: Any) -> tuple[str, list[str]]:
    """The script of an entry point, and the script's arguments."""
    python, script, *arguments = shlex.split(job["entrypoint"])
    assert python == "python"
    return script, arguments


def options_of(arguments: list[str]) -> RunOptions:
    """Parses them as the command line does."""
    command = COMMANDS["run"]
    with click_command(command).make_context("run", list(arguments)) as context:
        flags = {name: context.params[name] for name in context.params if name != "debug"}
    options = load(command, flags, flags.pop("config"))
    assert isinstance(options, RunOptions)
    return options


def strict(schema: Any) -> Any:
    """The schema, where an object that lists its fields has no others.

    So it is in Kubernetes with field validation, where a misspelt field is an error and not
    dropped in silence.
    """
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items() if key != "properties"}
    if "properties" in schema:
        made["properties"] = {name: strict(each) for name, each in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    return made


def problems(manifest: Any) -> list[str]:
    path = SCHEMAS / f"{manifest['kind']}.v1.openapi.json.gz"
    if not path.is_file():
        pytest.skip(
            f"{path} is missing: set SF_RAY_KUBERAY_SCHEMAS to a folder with KubeRay's schemas"
        )
    schema = strict(json.loads(gzip.decompress(path.read_bytes())))
    errors = Draft202012Validator(schema).iter_errors(manifest)
    return [f"{error.json_path}: {error.message}" for error in errors]


@pytest.mark.parametrize("name", RUNS)
def test_manifests_are_valid_for_the_operator(name: str) -> None:
    assert problems(read(name)) == []


def test_a_misspelt_field_a_wrong_type_and_a_missing_field_are_noticed() -> None:
    def spoil(manifest: Any) -> None:
        job = job_of(manifest)
        job["backofLimit"] = 3
        job["shutdownAfterJobFinishes"] = "yes"
        pods_of(job)[1]["containers"][0]["resources"]["limit"] = {}
        del job["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplicas"]

    manifest = copy.deepcopy(read("rayjob.yaml"))
    spoil(manifest)
    reported = "\n".join(sorted(problems(manifest)))
    for words in (
        "$.spec: Additional properties are not allowed ('backofLimit' was unexpected)",
        "$.spec.shutdownAfterJobFinishes: 'yes' is not of type 'boolean'",
        "resources: Additional properties are not allowed ('limit' was unexpected)",
        "workerGroupSpecs[0]: 'maxReplicas' is a required property",
    ):
        assert words in reported


def test_every_manifest_is_known_here() -> None:
    assert set(MANIFESTS) == {*RUNS, "compose.yaml", "service-account.yaml"}


def test_the_nightly_run_is_the_single_one() -> None:
    single, nightly = job_of(read("rayjob.yaml")), job_of(read("nightly.yaml"))
    assert nightly["activeDeadlineSeconds"] < 24 * 3600
    assert nightly | {"activeDeadlineSeconds": single["activeDeadlineSeconds"]} == single


@pytest.mark.parametrize("name", RUNS)
def test_entry_points_are_command_lines_of_this_version(name: str) -> None:
    dockerfile = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    workdir = re.search(r"^WORKDIR (\S+)$", dockerfile, re.MULTILINE)
    assert workdir
    script, arguments = arguments_of(job_of(read(name)))
    inside = Path(script).relative_to(workdir[1])
    assert (REPOSITORY / inside).is_file()
    options = options_of(arguments)
    assert options.model == "demo" or options.model.startswith("s3://")  # each node can get it
    assert yaml.safe_load(job_of(read(name))["runtimeEnvYAML"]).keys() == {"env_vars"}


@pytest.mark.parametrize("name", ["nightly.yaml", "rayjob.yaml"])
def test_a_cluster_that_starts_without_a_gpu_waits_for_as_many_as_it_may_have(name: str) -> None:
    job = job_of(read(name))
    options = options_of(arguments_of(job)[1])
    gpus = sum(
        group["maxReplicas"]
        * int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
        for group in job["rayClusterSpec"]["workerGroupSpecs"]
        if group["groupName"] == "gpu"
    )
    assert options.device == "cuda"
    assert options.actors is not None
    assert options.actors[1] * options.gpus_per_actor == gpus


@pytest.mark.parametrize("name", RUNS)
def test_versions_images_and_names_agree(name: str) -> None:
    job = job_of(read(name))
    constraints = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
    assert f"ray=={job['rayClusterSpec']['rayVersion']}\n" in constraints
    images = {container["image"] for pod in pods_of(job) for container in pod["containers"]}
    suffix = "-cpu" if name == "laptop.yaml" else ""
    assert images == {f"sf-ray:{sf_ray.__version__}{suffix}"}
    built = re.findall(r"-t (sf-ray:\S+)", (REPOSITORY / "Dockerfile").read_text(encoding="utf-8"))
    assert images <= set(built)
    secrets = [
        source["secretRef"]["name"]
        for pod in pods_of(job)
        for source in pod["containers"][0]["envFrom"]
    ]
    assert secrets == ["sf-ray-s3"] * len(pods_of(job))


@pytest.mark.parametrize("name", RUNS)
def test_a_node_has_room_for_what_is_said_of_it(name: str) -> None:
    job = job_of(read(name))
    user = re.search(r"--uid (\d+)", (REPOSITORY / "Dockerfile").read_text(encoding="utf-8"))
    for group, pod in zip(groups_of(job), pods_of(job), strict=True):
        container = pod["containers"][0]
        sizes = {each["name"]: each["emptyDir"] for each in pod["volumes"]}
        mounts = {each["mountPath"]: sizes[each["name"]] for each in container["volumeMounts"]}
        assert mounts["/dev/shm"]["medium"] == "Memory"
        shm = number(mounts["/dev/shm"]["sizeLimit"])
        limits = container["resources"]["limits"]
        # Memory that is full of objects counts as the container's own.
        assert int(group["rayStartParams"]["object-store-memory"]) < shm
        assert 4 * shm <= number(limits["memory"])
        assert number(container["resources"]["requests"]["memory"]) <= number(limits["memory"])
        assert pod["securityContext"]["runAsUser"] == int(user[1] if user else -1)
        assert "/home/ray/.cache" in mounts  # where SF_RAY_CACHE lies
        limit = {each["name"]: each["value"] for each in container.get("env", [])}
        if group["rayStartParams"].get("num-cpus") != "0":
            assert int(limit["RAY_num_workers_soft_limit"]) == number(limits["cpu"]) + 8
    assert "SF_RAY_CACHE=/home/ray/.cache/" in (REPOSITORY / "Dockerfile").read_text()
    assert job["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


@pytest.mark.parametrize("name", RUNS)
def test_a_failed_attempt_is_tried_again_a_bounded_number_of_times_and_leaves_no_cluster(
    name: str,
) -> None:
    job = job_of(read(name))
    assert 1 <= job["backoffLimit"] <= 5
    assert job["activeDeadlineSeconds"] > 0
    assert job["shutdownAfterJobFinishes"] is True
    # A run may take 25 s to end on SIGTERM: tests/end_to_end/test_interrupted.py.
    variables = yaml.safe_load(job["runtimeEnvYAML"])["env_vars"]
    assert int(variables["RAY_JOB_STOP_WAIT_TIME_S"]) > 25


def ray_options(command: str) -> set[str]:
    from ray.scripts import scripts

    made: click.Command = getattr(scripts, command)
    return {name.removeprefix("--") for param in made.params for name in param.opts}


@pytest.mark.parametrize("name", RUNS)
def test_nodes_start_with_options_that_ray_has(name: str) -> None:
    given = {key for group in groups_of(job_of(read(name))) for key in group["rayStartParams"]}
    assert given <= ray_options("start")


def flags_in(words: list[str]) -> Iterator[str]:
    for word in words:
        if word.startswith("--"):
            yield word.removeprefix("--").partition("=")[0]


def test_the_cluster_of_compose_is_the_one_of_the_manifests() -> None:
    services = read("compose.yaml")["services"]
    options = ray_options("start")
    for name in ("head", "worker"):
        service = services[name]
        assert service["image"] == f"sf-ray:{sf_ray.__version__}-cpu"
        words = shlex.split(service["command"])
        assert words[:2] == ["ray", "start"]
        assert set(flags_in(words)) <= options
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
    # Nobody else's machine reaches a laptop's cluster or its bucket.
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    for key in keys:
        assert services["s3"]["environment"][key] == services["head"]["environment"][key]


def test_the_account_is_the_one_that_the_manifests_speak_of() -> None:
    account = read("service-account.yaml")
    text = (CLUSTER / "rayjob.yaml").read_text(encoding="utf-8")
    assert f"# serviceAccountName: {account['metadata']['name']}\n" in text
