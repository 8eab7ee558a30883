"""Full runs under random kills and failing requests, each compared with an undisturbed one.

python bench/chaos.py [--rounds 50] [--seed 1] [--fail 0.1]

A Ray cluster of a head and two nodes runs on this machine. Corpus and output lie in a bucket (of
the server in SF_RAY_TEST_S3_ENDPOINT, else of moto), behind a proxy that breaks a share of the
requests. In each round a driver runs the whole job with the scorer that costs nothing but time,
while this script kills scoring actors, other worker processes, whole nodes and the driver itself at
random moments. A driver that ended early is started again with the same command. The round is over
when a driver exits with 0. Then every score piece and every filtered shard must have the bytes of
the undisturbed run, and no unit may have been scored after its piece was committed.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from ray.cluster_utils import Cluster
from support.corpora import make_rows, write_shards
from support.models import make_model
from support.proxy import FAULTS, Proxy

from sf_ray.storage.location import Location

SCORER = Path(__file__).parent / "support/free_scorer.py"
ROUND_S = 300  # a round that takes longer is a hang
UNIT_S = 0.06


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--fail", type=float, default=0.1, help="share of requests that fail")
    options = parser.parse_args()
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    with tempfile.TemporaryDirectory() as folder, moto() as storage_options:
        chaos = Chaos(Path(folder), storage_options, options.seed, options.fail)
        try:
            started = time.monotonic()
            for number in range(options.rounds):
                chaos.round(number)
            chaos.report(time.monotonic() - started)
        finally:
            chaos.close()
    sys.exit(1 if any(chaos.wrong.values()) else 0)


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
    """A cluster, a bucket behind a proxy, and counts of what went wrong so far."""

    def __init__(
        self, folder: Path, storage_options: dict[str, Any], seed: int, fail: float
    ) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.folder = folder
        self.direct = storage_options
        self.bucket = f"sf-ray-chaos-{os.getpid()}"
        self.fs = Location(f"s3://{self.bucket}", storage_options).fs
        self.fs.mkdir(self.bucket)
        self.model = make_model(folder / "model")
        write_shards(folder / "corpus", make_rows(320, seed), shards=8)
        self.fs.put(f"{folder}/corpus/", f"{self.bucket}/corpus/", recursive=True)
        self.proxy = Proxy(str(storage_options["endpoint_url"]), seed=seed)
        self.kills: Counter[str] = Counter()
        self.drivers = self.requests = 0
        self.broken: Counter[str] = Counter()
        self.wrong = dict.fromkeys(
            ["units lost", "results that differ", "units scored after commit", "hangs",
             "runs that failed"], 0
        )  # fmt: skip
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 << 20
            },
        )  # fmt: skip
        self.nodes = [self.add_node() for _ in range(2)]
        self.start("undisturbed", self.direct["endpoint_url"])
        assert self.driver.wait(timeout=ROUND_S) == 0, self.log.read_text()
        self.expected = self.contents("undisturbed")
        self.proxy.faults = {fault: fail / len(FAULTS) for fault in FAULTS}

    def add_node(self) -> Any:
        return self.cluster.add_node(num_cpus=2, object_store_memory=100 << 20)

    def start(self, out: str, endpoint: str) -> None:
        self.log = self.folder / f"{out}.log"
        settings = json.dumps({"unit_s": UNIT_S, "log": str(self.folder / f"{out}.scored")})
        storage = json.dumps(self.direct | {"endpoint_url": endpoint})
        with self.log.open("a") as log:
            self.driver = subprocess.Popen(
                [
                    *(sys.executable, str(SCORER), settings, "run"),
                    *(f"s3://{self.bucket}/corpus", f"s3://{self.bucket}/{out}"),
                    *("--model", str(self.model), "--max-length", "128", "--unit-rows", "6"),
                    *("--keep-fraction", "0.2", "--storage-options", storage),
                    *("--ray-address", self.cluster.address, "--stall-s", "60"),
                ],
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )

    def contents(self, out: str) -> dict[str, bytes]:
        root = f"{self.bucket}/{out}"
        names = [name for name in self.fs.find(root) if name.endswith(".parquet")]
        return {name.removeprefix(root): data for name, data in self.fs.cat(names).items()}

    def round(self, number: int) -> None:
        out, until = f"round-{number:03d}", time.monotonic() + ROUND_S
        self.proxy.requests.clear()
        self.proxy.broken.clear()
        self.proxy.puts.clear()
        before = dict(self.wrong)
        kills = 0
        self.start(out, self.proxy.endpoint)
        self.drivers += 1
        next_kill = time.monotonic() + self.random.uniform(1, 7)
        while time.monotonic() < until:
            time.sleep(0.05)
            code = self.driver.poll()
            if code == 0:
                break
            if code is not None:
                # 143 is the driver's own exit code on SIGTERM; -15 came before its handler was set.
                if code == 1 and "error: " not in self.log.read_text().rpartition("plan: ")[2]:
                    self.kills["driver with its node"] += 1  # Ray ends it without a message
                elif code not in (-signal.SIGKILL, -signal.SIGTERM, 143):
                    self.wrong["runs that failed"] += 1
                    print(f"round {number}: exit code {code}\n{self.log.read_text()[-3000:]}")
                self.start(out, self.proxy.endpoint)
                self.drivers += 1
            # The first kills meet a driver that starts, the later ones one that scores and writes.
            if kills < 4 and time.monotonic() > next_kill:
                kills += self.kill()
                next_kill = time.monotonic() + self.random.uniform(0.2, 4)
        else:
            self.wrong["hangs"] += 1
            print(f"round {number} hangs\n{self.log.read_text()[-3000:]}")
            self.driver.kill()
            self.driver.wait()
        self.requests += self.proxy.requests.total()
        self.broken.update(self.proxy.broken)
        self.compare(out)
        wrong = "".join(f", {k} {v - before[k]}" for k, v in self.wrong.items() if v > before[k])
        took_s = ROUND_S - (until - time.monotonic())
        print(f"round {number}: {kills} kills, {took_s:.0f} s{wrong}", flush=True)

    def kill(self) -> int:
        """Kills a process or a node, chosen at random; returns the number of kills, 0 or 1."""
        what = self.random.choice(["actor", "actor", "worker", "worker", "node", "driver", "term"])
        if what in ("driver", "term"):
            number = signal.SIGKILL if what == "driver" else signal.SIGTERM
            self.driver.send_signal(number)
            self.driver.wait(timeout=60)
        elif what == "node":
            lost = self.nodes.pop(self.random.randrange(len(self.nodes)))
            self.cluster.remove_node(lost, allow_graceful=False)
            self.nodes.append(self.add_node())
        else:
            title = "ray::MapWorker" if what == "actor" else "ray::"
            workers = [p for p in psutil.Process().children(recursive=True) if titled(p, title)]
            if not workers:
                return 0
            self.random.choice(workers).send_signal(signal.SIGKILL)
        self.kills[what] += 1
        return 1

    def compare(self, out: str) -> None:
        got = self.contents(out)
        self.wrong["units lost"] += len(self.expected.keys() - got.keys())
        differ = [name for name, data in got.items() if self.expected.get(name) != data]
        self.wrong["results that differ"] += len(differ)
        for name in differ:
            print(f"differs: {name}")
        commits = {}
        for path, when in self.proxy.puts.items():
            if path.endswith(".parquet") and "/scores/" in path:
                stem, _, rows = (
                    path.rpartition("/scores/")[2].removesuffix(".parquet").rsplit(".", 2)
                )
                commits[f"{stem.partition('/')[2]}.parquet", int(rows.split("-")[0])] = when
        for line in (self.folder / f"{out}.scored").read_text().splitlines():
            shard, row, when, _ = line.split()
            committed = commits.get((shard, int(row)))
            if committed is None:
                # A lost unit has no commit and is counted above. If no unit is lost, the proxy
                # missed a commit, and this check would show nothing.
                assert self.expected.keys() - got.keys(), f"no commit seen: {shard} {row}"
            elif int(when) > committed:
                self.wrong["units scored after commit"] += 1
                print(f"scored after commit: {shard} {row}")

    def report(self, wall_s: float) -> None:
        rounds = self.drivers and len(list(self.folder.glob("round-*.scored")))
        print(
            f"\n{rounds} rounds, seed {self.seed}, {wall_s / 60:.0f} min\n"
            f"drivers started: {self.drivers}\n"
            f"kills: {self.kills.total()} "
            f"({', '.join(f'{count} {what}' for what, count in sorted(self.kills.items()))})\n"
            f"requests: {self.requests}, failed on purpose: {self.broken.total()} "
            f"({', '.join(f'{count} {what}' for what, count in sorted(self.broken.items()))})"
        )
        for what, count in self.wrong.items():
            print(f"{what}: {count}")

    def close(self) -> None:
        if self.driver.poll() is None:
            self.driver.kill()
        self.cluster.shutdown()
        self.proxy.close()


def titled(process: psutil.Process, title: str) -> bool:
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return False
    # A node ends with its agents, and the cluster ends with those of the head.
    return command.startswith(title) and "Agent" not in command


if __name__ == "__main__":
    main()
