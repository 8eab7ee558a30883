"""The manifests of cluster/ are valid for KubeRay, and agree with the code, the image, the docs.

No Kubernetes is here: what the operator does with them is not tested.
"""

import copy
import gzip
import json
import os
import re
import shlex
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from jsonschema import Draft202012Validator

import sf_ray
from sf_ray.cli import click_command
from sf_ray.config.registry import COMMANDS, load
from sf_ray.config.selection_options import RunOptions

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
    others = {"compose.yaml", "network-policy.yaml", "service-account.yaml"}
    assert set(MANIFESTS) == {*RUNS, *others}


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
        sizes = {each["name"]: each.get("emptyDir") for each in pod["volumes"]}
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


def test_head_and_workers_have_accounts_of_their_own() -> None:
    text = (CLUSTER / "service-account.yaml").read_text(encoding="utf-8")
    accounts = [account["metadata"]["name"] for account in yaml.safe_load_all(text)]
    assert accounts == ["sf-ray", "sf-ray-head"]
    manifest = (CLUSTER / "rayjob.yaml").read_text(encoding="utf-8")
    manifest = re.sub("# (serviceAccountName: )", r"\1", manifest)  # as its comments say
    head, *workers = pods_of(job_of(yaml.safe_load(manifest)))
    assert head["serviceAccountName"] == "sf-ray-head"
    assert [pod["serviceAccountName"] for pod in workers] == ["sf-ray"] * len(workers)


# The levels "baseline" and "restricted" of the Kubernetes Pod Security Standards.
# https://kubernetes.io/docs/concepts/security/pod-security-standards/
VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip
SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
}  # fmt: skip


def templates_of(job: Any) -> dict[str, Any]:
    """Every pod that comes of a run; the autoscaler is a container of the head."""
    templates = {f"group {n}": copy.deepcopy(pod) for n, pod in enumerate(pods_of(job))}
    cluster = job["rayClusterSpec"]
    if cluster.get("enableInTreeAutoscaling"):
        autoscaler = cluster["autoscalerOptions"] | {"name": "autoscaler"}
        templates["group 0"]["containers"].append(autoscaler)
    return templates | {"submitter": job["submitterPodTemplate"]["spec"]}


def containers_of(pod: Any) -> list[Any]:
    kinds = ("initContainers", "containers", "ephemeralContainers")
    return [container for kind in kinds for container in pod.get(kind, [])]


def breaches(pod: Any) -> list[str]:
    """What of a pod the level "restricted" forbids."""
    context = pod.get("securityContext", {})
    found = [f"{key} is set" for key in ("hostNetwork", "hostPID", "hostIPC") if pod.get(key)]
    found += [
        f"volume {volume['name']}"
        for volume in pod.get("volumes", [])
        if not volume.keys() - {"name"} <= VOLUMES
    ]
    found += [
        f"sysctl {sysctl['name']}"
        for sysctl in context.get("sysctls", [])
        if sysctl["name"] not in SYSCTLS
    ]
    for container in containers_of(pod):
        own = container.get("securityContext", {})
        capabilities = own.get("capabilities", {})
        both = context | own  # a container's own word counts
        kept = {
            "runs as root": both.get("runAsNonRoot") is True and both.get("runAsUser") != 0,
            "seccomp": both.get("seccompProfile", {}).get("type")
            in ("RuntimeDefault", "Localhost"),
            "escalates": own.get("allowPrivilegeEscalation") is False,
            "capabilities": "ALL" in capabilities.get("drop", [])
            and set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
            "privileged": not own.get("privileged"),
            "host port": not any(port.get("hostPort") for port in container.get("ports", [])),
            "procMount": own.get("procMount", "Default") == "Default",
            "host process": not both.get("windowsOptions", {}).get("hostProcess"),
            "SELinux": not both.get("seLinuxOptions", {}).keys() & {"user", "role"},
            "AppArmor": both.get("appArmorProfile", {}).get("type") != "Unconfined",
        }
        found += [f"{container['name']}: {name}" for name, is_kept in kept.items() if not is_kept]
    return found


@pytest.mark.parametrize("name", RUNS)
def test_every_pod_passes_the_level_restricted(name: str) -> None:
    templates = templates_of(job_of(read(name)))
    assert len(templates) > 2
    assert [(pod, breach) for pod, spec in templates.items() for breach in breaches(spec)] == []


@pytest.mark.parametrize(
    ("change", "breach"),
    [
        ({"hostNetwork": True}, "hostNetwork is set"),
        ({"volumes": [{"name": "disk", "hostPath": {"path": "/"}}]}, "volume disk"),
        ({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}]}}, "sysctl kernel.msgmax"),
        ({"securityContext": {}}, "init: seccomp"),
        ({"initContainers": [{"name": "new"}]}, "new: escalates"),
    ],
)
def test_what_the_level_restricted_forbids_is_noticed(change: Any, breach: str) -> None:
    (pod, *_) = templates_of(job_of(read("rayjob.yaml"))).values()
    pod["initContainers"] = [pod["containers"][0] | {"name": "init"}]
    assert breaches(pod) == []
    assert breach in breaches(pod | change)


@pytest.mark.parametrize("name", RUNS)
def test_a_container_writes_to_volumes_alone_and_asks_for_their_room(name: str) -> None:
    for pod in templates_of(job_of(read(name))).values():
        volumes = {volume["name"]: volume.get("emptyDir") for volume in pod["volumes"]}
        for container in containers_of(pod):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
            assert "/tmp" in mounts  # Ray's session, temporary files
            if container["name"] == "autoscaler":
                continue  # an account of the room of its pod's first container
            assert "/home/ray/.cache" in mounts  # HOME: see the Dockerfile
            disks = [volumes[each] for each in set(mounts.values()) if volumes[each]]
            room = sum(number(disk["sizeLimit"]) for disk in disks if "medium" not in disk)
            for kind in ("requests", "limits"):
                assert number(container["resources"][kind]["ephemeral-storage"]) > room
    dockerfile = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    assert "ENV HOME=/home/ray/.cache " in dockerfile
    assert re.findall(r"^USER (.*)", dockerfile, re.MULTILINE)[-1] == "1000:1000"


@pytest.mark.parametrize("name", RUNS)
def test_no_pod_has_a_token_of_kubernetes_but_the_autoscaler(name: str) -> None:
    where = "/var/run/secrets/kubernetes.io/serviceaccount"
    for pod in templates_of(job_of(read(name))).values():
        assert pod["automountServiceAccountToken"] is False
        tokens = [each["name"] for each in pod["volumes"] if "projected" in each]
        for container in containers_of(pod):
            seen = [each for each in container["volumeMounts"] if each["name"] in tokens]
            is_autoscaler = container["name"] == "autoscaler"
            assert [each["mountPath"] for each in seen] == [where] * is_autoscaler


def test_only_the_cluster_its_namespace_and_the_operator_reach_a_pod() -> None:
    spec = read("network-policy.yaml")["spec"]
    of_ray = {"podSelector": {"matchLabels": {"ray.io/is-ray-node": "yes"}}}
    assert spec["podSelector"] == of_ray["podSelector"]
    assert spec["policyTypes"] == ["Ingress"]
    rules = [
        (rule["from"], {port["port"] for port in rule["ports"]} if "ports" in rule else None)
        for rule in spec["ingress"]
    ]
    operator = {
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
    }
    # An empty selector of pods alone is the namespace of the policy; without ports it is all ports.
    assert rules == [
        ([of_ray], None),
        ([{"podSelector": {}}], {8265, 10001}),
        ([operator], {8265}),
    ]


def test_a_laptop_s_containers_have_no_rights_either() -> None:
    services = read("compose.yaml")["services"]
    for name in ("head", "worker"):
        service = services[name]
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["volumes"] == ["/tmp", "/home/ray/.cache"]


def test_files_with_keys_are_not_uploaded_with_the_working_directory(tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import create_package

    checkout = tmp_path / "checkout"
    (checkout / "cluster").mkdir(parents=True)
    (checkout / ".gitignore").write_bytes((REPOSITORY / ".gitignore").read_bytes())
    for name in (
        "s3.env",
        ".env",
        ".env.local",
        "cluster/sf-ray-s3.env",
        "run.py",
        "cluster/a.yaml",
    ):
        (checkout / name).write_text("AWS_SECRET_ACCESS_KEY=hunter2\n")
    package = tmp_path / "package.zip"
    create_package(str(checkout), package, include_gitignore=True)
    with zipfile.ZipFile(package) as uploaded:
        assert sorted(uploaded.namelist()) == [".gitignore", "cluster/a.yaml", "run.py"]
    ignored = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "**/*.env" in ignored  # nor do they become a layer of an image


def test_the_docs_keep_keys_out_of_the_folder_that_is_uploaded() -> None:
    texts = [*CLUSTER.glob("*.yaml"), *REPOSITORY.glob("docs/*.md"), REPOSITORY / "README.md"]
    files = [
        file
        for path in texts
        for file in re.findall(r"--from-env-file=(\S+)", path.read_text(encoding="utf-8"))
    ]
    assert files
    assert set(files) == {'"$HOME/sf-ray-s3.env"'}
