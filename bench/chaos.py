"""Full runs under random kills and failing requests, each compared with an undisturbed one.

python bench/chaos.py [--rounds 50] [--seed 1] [--fail 0.1] [--own-disks]

A Ray cluster of a head and two nodes runs on this machine; with `--own-disks` (root, Linux) each
node has a file system of its own at its folder, as another machine has. Model, corpus and output
lie in a bucket, behind a proxy that breaks a share of the requests. The stores take turns:
SF_RAY_CHAOS_STORES names them as "moto ceph=http://KEY:SECRET@HOST:PORT seaweedfs=http://...",
where "moto" alone is the server of SF_RAY_TEST_S3_ENDPOINT, else a moto server that this script
starts; without the variable it is the only store. In each round a driver runs the whole job with
the scorer that costs nothing but time; some rounds export too, some diversify. This script
waits for one stage of the job, each in turn, and then kills something at a random moment of it: a
scoring actor, another worker process, a whole node or the driver. More such kills follow, at random
moments. A driver that ended early is started again with the same command. The round is over when a
driver exits with 0. Then every score piece, filtered shard and exported file must have the bytes of
the undisturbed run, and no unit may have been scored after its piece was committed. Ctrl-C or
SIGTERM ends it with the report of the rounds that are over.
"""

import argparse
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from ray.cluster_utils import Cluster
from support.corpora import make_rows, write_shards
from support.models import make_model
from support.proxy import FAULTS, Proxy

from sf_ray.storage.location import Location

SCORER = Path(__file__).parent / "support/free_scorer.py"
ROUND_S = 600  # a round that takes longer is a hang
UNIT_S = 0.06
KILLS = 3  # at most, in a round
# The start of processes is most of a round, so none starts that has nothing to do, and those that
# idle stay, as docs/cluster.md has it for nodes with few CPUs.
RAY = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_prestart_worker_first_driver": "false",
    "RAY_enable_worker_prestart": "false",
    "RAY_num_workers_soft_limit": "9",
    # A node whose agents are slow to start ends by itself.
    "RAY_agent_register_timeout_ms": "300000",
}
# Options of a round -> the stages of its job, in order. The log names a stage when it ends.
FIRST, LAST = ("plan", "prepare", "score"), ("write", "survey", "report")
JOBS: dict[tuple[str, ...], tuple[str, ...]] = {
    (): (*FIRST, "select", *LAST),
    ("--export", "trl"): (*FIRST, "select", "write", "export", "survey", "report"),
    ("--diversify-to", "0.1"): (*FIRST, "select", "embed", "diversify", *LAST),
}
WRONG = ("lost", "different", "scored again", "hung", "failed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fail", type=float, default=0.1, help="share of requests that fail")
    parser.add_argument("--own-disks", action="store_true", help="a file system for each node")
    options = parser.parse_args()
    os.environ.update(RAY)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log shows each round when it is over
    with tempfile.TemporaryDirectory() as folder, moto() as of_moto:
        chaos = Chaos(Path(folder), options)
        # A shell lets its background ignore Ctrl-C, and Ray's head has a handler of SIGTERM.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        try:
            for name, storage_options in stores(of_moto).items():
                chaos.add_store(name, storage_options)
            started = time.monotonic()
            with suppress(KeyboardInterrupt):
                for number in range(options.rounds):
                    chaos.round(number)
            chaos.report(time.monotonic() - started)
        finally:
            chaos.close()
    sys.exit(1 if any(sum(row[what] for what in WRONG) for row in chaos.table.values()) else 0)


def stores(of_moto: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Name -> fsspec options of each store in the environment."""
    found = {}
    for entry in os.environ.get("SF_RAY_CHAOS_STORES", "moto").split():
        if entry == "moto":
            found[entry] = of_moto
            continue
        name, _, url = entry.partition("=")
        parts = urlsplit(url)
        endpoint = f"{parts.scheme}://{parts.hostname}:{parts.port}"
        found[name] = {"endpoint_url": endpoint, "key": parts.username, "secret": parts.password}
    return found


@dataclass
class Store:
    """A bucket at a store, behind a proxy that breaks requests."""

    name: str
    direct: dict[str, Any]
    bucket: str
    fs: Any
    proxy: Proxy


class OwnDiskNode:
    """A node of the cluster in a mount namespace, where its folder is a file system of its own."""

    def __init__(self, folder: Path, address: str) -> None:
        folder.mkdir(exist_ok=True)
        script = (
            'mount -t tmpfs -o size=2g tmpfs "$0" && mkdir "$0/home" "$0/tmp" && cd "$0" && '
            'HOME="$0/home" TMPDIR="$0/tmp" exec "$1" -m ray.scripts.scripts start --block '
            '--address "$2" --num-cpus 1 --object-store-memory 100000000 --temp-dir "$0/tmp" '
            # Else two nodes of one machine give the same ports to their workers.
            "--min-worker-port 0 --max-worker-port 0"
        )
        self.process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", script, str(folder), sys.executable, address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def is_up(self) -> bool:
        if self.process.poll() is not None:
            return False
        # What started the raylet outlives it by minutes.
        with suppress(psutil.NoSuchProcess):  # something ended meanwhile: look again later
            children = psutil.Process(self.process.pid).children()
            return all(child.status() != psutil.STATUS_ZOMBIE for child in children)
        return True

    def kill(self) -> None:
        with suppress(psutil.NoSuchProcess):  # it ended by itself
            top = psutil.Process(self.process.pid)
            for process in (top, *top.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):  # some end with the others
                    process.kill()
        self.process.wait()


class moto:  # noqa: N801 (a context manager, used as a function)
    """fsspec options of the server in the environment, or of a moto server in another process."""

    def __enter__(self) -> dict[str, Any]:
        self._server = None
        if endpoint := os.environ.get("SF_RAY_TEST_S3_ENDPOINT"):
            keys = (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
            return {"endpoint_url": endpoint, "key": keys[0], "secret": keys[1]}
        code = (
            "from moto.server import ThreadedMotoServer as S; import time;"
            "s = S(ip_address='127.0.0.1', port=0, verbose=False); s.start();"
            "print(s.get_host_and_port()[1], flush=True); time.sleep(1e9)"
        )
        self._server = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._server.stdout
        port = self._server.stdout.readline().strip()
        return {"endpoint_url": f"http://127.0.0.1:{port}", "key": "test", "secret": "test"}

    def __exit__(self, *error: object) -> None:
        if self._server:
            self._server.kill()


class Chaos:
    """A cluster, the stores, and counts of what went wrong so far.

    Attributes:
        expected: Options of a job -> files of the undisturbed run, which all stores must hold.
        table: (store, stage that was waited for) -> rounds, kills, and what went wrong in them.
        at: (store, stage) -> kills while the job was in the stage.
    """

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.random = random.Random(options.seed)
        self.folder, self.options = folder, options
        self.stores: list[Store] = []
        self.expected: dict[tuple[str, ...], dict[str, bytes]] = {}
        self.table: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.at: Counter[tuple[str, str]] = Counter()
        self.kills: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()
        self.drivers = self.requests = self.added = self.mended = 0
        self.next_look = 0.0  # at the nodes
        self.driver: subprocess.Popen[bytes] | None = None
        self.model = make_model(folder / "model")
        write_shards(folder / "corpus", make_rows(320, options.seed), shards=8)
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0, "include_dashboard": False, "object_store_memory": 100 << 20
            },
        )  # fmt: skip
        self.nodes = [self.add_node() for _ in range(2)]

    def add_store(self, name: str, storage_options: dict[str, Any]) -> None:
        """Fills a bucket; in the first store, runs every job undisturbed."""
        bucket = f"sf-ray-chaos-{os.getpid()}"
        fs = Location(f"s3://{bucket}", storage_options).fs
        fs.mkdir(bucket)
        for part in ("model", "corpus"):
            fs.put(f"{self.folder}/{part}/", f"{bucket}/{part}/", recursive=True)
        proxy = Proxy(str(storage_options["endpoint_url"]), seed=self.options.seed)
        store = Store(name, storage_options, bucket, fs, proxy)
        self.stores.append(store)
        for number, job in enumerate([] if self.expected else JOBS):
            out = f"undisturbed-{number}"
            driver = self.start(store, job, out, storage_options["endpoint_url"])
            until = time.monotonic() + ROUND_S
            while driver.poll() is None and time.monotonic() < until:
                time.sleep(0.5)
                self.mend_nodes()
            assert driver.poll() == 0, self.log.read_text()
            self.expected[job] = self.contents(store, out)
        proxy.faults = {fault: self.options.fail / len(FAULTS) for fault in FAULTS}

    def add_node(self) -> Any:
        if not self.options.own_disks:
            return self.cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
        self.added += 1
        return OwnDiskNode(self.folder / f"disk-{self.added}", self.cluster.address)

    def mend_nodes(self) -> None:
        """Replaces nodes that ended by themselves: Ray's agents start late on a busy machine."""
        if time.monotonic() < self.next_look:
            return
        self.next_look = time.monotonic() + 1
        for at, node in enumerate(self.nodes):
            if isinstance(node, OwnDiskNode) and not node.is_up():
                self.mended += 1
                node.kill()
                self.nodes[at] = self.add_node()

    def lose_node(self, node: Any) -> None:
        if isinstance(node, OwnDiskNode):
            node.kill()
        else:
            self.cluster.remove_node(node, allow_graceful=False)

    def start(
        self, store: Store, job: tuple[str, ...], out: str, endpoint: str
    ) -> subprocess.Popen[bytes]:
        self.log = self.folder / f"{store.name}-{out}.log"
        scored = self.folder / f"{store.name}-{out}.scored"
        settings = json.dumps({"unit_s": UNIT_S, "log": str(scored), "embeds": True})
        storage = json.dumps(store.direct | {"endpoint_url": endpoint})
        place = f"s3://{store.bucket}"
        self.asked_before = store.proxy.requests.total()
        with self.log.open("a") as log:
            log.write("-- driver\n")
            log.flush()
            self.driver = subprocess.Popen(
                [
                    *(sys.executable, str(SCORER), settings, "run"),
                    *(f"{place}/corpus", f"{place}/{out}", "--model", f"{place}/model"),
                    *("--encoder", f"{place}/model", "--max-length", "128", "--unit-rows", "6"),
                    *("--keep-fraction", "0.2", "--storage-options", storage),
                    *("--ray-address", self.cluster.address, "--stall-s", "120", *job),
                ],
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        return self.driver

    def stage(self, store: Store, job: tuple[str, ...]) -> str:
        """The stage that the driver is in, which is the one after those that its log has."""
        if store.proxy.requests.total() == self.asked_before:
            return "start"  # Python imports
        said = self.log.read_text().rpartition("-- driver\n")[2]
        ended = {line.partition(":")[0] for line in said.splitlines() if re.match(r"\w+: \d", line)}
        left = [stage for stage in JOBS[job] if stage not in ended]
        # A driver that finds all units scored skips that stage without a word.
        later = [at for at, stage in enumerate(JOBS[job]) if stage in ended]
        return next((s for s in left if not later or JOBS[job].index(s) > later[-1]), "report")

    def contents(self, store: Store, out: str) -> dict[str, bytes]:
        root = f"{store.bucket}/{out}"
        names = store.fs.find(root)
        exact = [n for n in names if n.endswith(".parquet") or n.startswith(f"{root}/export/")]
        # These hold times and dates: they must be there.
        timed = {f"{root}/{name}" for name in ("manifest.json", "report.html")} & set(names)
        found = store.fs.cat(exact) | dict.fromkeys(timed, b"")
        return {name.removeprefix(root): data for name, data in found.items()}

    def round(self, number: int) -> None:
        store = self.stores[number % len(self.stores)]
        turn = number // len(self.stores)
        job = list(JOBS)[turn % len(JOBS)]
        target = JOBS[job][turn // len(JOBS) % len(JOBS[job])]
        row = self.table[store.name, target]
        before = Counter(row)
        out, until = f"round-{number:03d}", time.monotonic() + ROUND_S
        for counted in (store.proxy.requests, store.proxy.broken, store.proxy.puts):
            counted.clear()
        driver = self.start(store, job, out, store.proxy.endpoint)
        self.drivers += 1
        next_kill: float | None = None  # until the stage begins
        kills = 0
        while time.monotonic() < until:
            time.sleep(0.02)
            self.mend_nodes()
            code = driver.poll()
            if code == 0:
                break
            if code is not None:
                said = self.log.read_text().rpartition("-- driver\n")[2]
                # 143 is the driver's own exit code on SIGTERM; -15 came before its handler was set.
                if code == 1 and "error: " not in said:
                    self.kills["driver with its node"] += 1  # Ray ends it without a message
                elif code not in (-signal.SIGKILL, -signal.SIGTERM, 143):
                    row["failed"] += 1
                    print(f"round {number}: exit code {code}\n{said[-3000:]}")
                driver = self.start(store, job, out, store.proxy.endpoint)
                self.drivers += 1
            if next_kill is None and self.stage(store, job) == target:
                next_kill = time.monotonic() + self.random.uniform(0, 0.3)
            if kills < KILLS and next_kill is not None and time.monotonic() > next_kill:
                self.at[store.name, self.stage(store, job)] += 1
                self.kill(driver)
                kills += 1
                next_kill = time.monotonic() + self.random.uniform(0.2, 4)
        else:
            row["hung"] += 1
            print(f"round {number} hangs\n{self.log.read_text()[-3000:]}")
            driver.kill()
            driver.wait()
        self.requests += store.proxy.requests.total()
        self.broken.update(store.proxy.broken)
        row["kills"] += kills
        self.compare(store, job, out, row)
        row["rounds"] += 1
        wrong = "".join(f", {row[k] - before[k]} {k}" for k in WRONG if row[k] > before[k])
        took_s = ROUND_S - (until - time.monotonic())
        options = " ".join(job) or "plain"
        print(
            f"round {number}: {store.name}, {options}, from {target} on: {kills} kills, "
            f"{took_s:.0f} s{wrong}"
        )

    def kill(self, driver: subprocess.Popen[bytes]) -> None:
        """Kills a process or a node, chosen at random of what there is."""
        processes = psutil.Process().children(recursive=True)
        workers = [process for process in processes if titled(process, "ray::")]
        actors = [process for process in workers if titled(process, "ray::MapWorker")]
        there_is = ["driver", "term", "node"] + ["worker"] * 2 * bool(workers)
        what = self.random.choice(there_is + ["actor"] * 2 * bool(actors))
        if what in ("driver", "term"):
            driver.send_signal(signal.SIGKILL if what == "driver" else signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):  # a driver that does not end makes a hang
                driver.wait(timeout=120)
        elif what == "node":
            self.lose_node(self.nodes.pop(0))  # the older one: the other may not have joined yet
            self.nodes.append(self.add_node())
        else:
            with suppress(psutil.NoSuchProcess):
                self.random.choice(actors if what == "actor" else workers).kill()
        self.kills[what] += 1

    def compare(self, store: Store, job: tuple[str, ...], out: str, row: Counter[str]) -> None:
        expected, got = self.expected[job], self.contents(store, out)
        row["lost"] += len(expected.keys() - got.keys())
        differ = [name for name, data in got.items() if expected.get(name) != data]
        row["different"] += len(differ)
        for name in differ:
            print(f"differs: {name}")
        commits = {}
        for path, when in store.proxy.puts.items():
            if path.endswith(".parquet") and "/scores/" in path:
                stem, _, rows = (
                    path.rpartition("/scores/")[2].removesuffix(".parquet").rsplit(".", 2)
                )
                commits[f"{stem.partition('/')[2]}.parquet", int(rows.split("-")[0])] = when
        for line in (self.folder / f"{store.name}-{out}.scored").read_text().splitlines():
            shard, start, when, _ = line.split()
            committed = commits.get((shard, int(start)))
            if committed is None:
                # A lost unit has no commit and is counted above. If no unit is lost, the proxy
                # missed a commit, and this check would show nothing.
                assert expected.keys() - got.keys(), f"no commit seen: {shard} {start}"
            elif int(when) > committed:
                row["scored again"] += 1
                print(f"scored after commit: {shard} {start}")

    def report(self, wall_s: float) -> None:
        rounds = sum(row["rounds"] for row in self.table.values())
        print(
            f"\n{rounds} rounds, seed {self.options.seed}, {wall_s / 60:.0f} min"
            f"{', nodes with disks of their own' if self.options.own_disks else ''}\n"
            f"drivers started: {self.drivers}, nodes that ended by themselves: {self.mended}\n"
            f"kills: {self.kills.total()} ({listed(self.kills)})\n"
            f"requests: {self.requests}, failed on purpose: {self.broken.total()} "
            f"({listed(self.broken)})\n"
        )
        columns = ("rounds", "kills", *WRONG)
        print(f"{'store':12}{'from stage':12}" + "".join(f"{name:>14}" for name in columns))
        for (store, stage), row in sorted(self.table.items()):
            print(f"{store:12}{stage:12}" + "".join(f"{row[name]:>14}" for name in columns))
        print("\nkills by the stage that they met:")
        for (store, stage), count in sorted(self.at.items()):
            print(f"{store:12}{stage:12}{count:>14}")

    def close(self) -> None:
        if self.driver and self.driver.poll() is None:
            self.driver.kill()
        for node in self.nodes:
            if isinstance(node, OwnDiskNode):
                node.kill()
        self.cluster.shutdown()
        for store in self.stores:
            store.proxy.close()


def listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))


def titled(process: psutil.Process, title: str) -> bool:
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return False
    # A node ends with its agents, and the cluster ends with those of the head.
    return command.startswith(title) and "Agent" not in command


if __name__ == "__main__":
    main()
