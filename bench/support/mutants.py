"""Damaged shards of every kind, and what becomes of a process that reads them.

Each mutant is planned, sampled, read as units, copied and written, in a child that is forked for
some mutants at a time: a child that dies takes no more than the rest of its mutants with it, and
those are given to the next one. Counts how mutants end; knows no Ray and no model.
"""

import bz2
import faulthandler
import gzip
import io
import json
import lzma
import os
import random
import resource
import select
import signal
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sf_ray.corpus.planning import plan_corpus
from sf_ray.corpus.readers.file_types import FileType
from sf_ray.corpus.rows import BadLine, read_units, rows_of
from sf_ray.corpus.sampling import sample_rows
from sf_ray.corpus.units import group_reads, units_of
from sf_ray.errors import SfRayError
from sf_ray.output.shard_writer import write_shard
from sf_ray.output.writers.arrow_dictionaries import with_one_dictionary
from sf_ray.output.writers.arrow_rows import take_rows
from sf_ray.storage.location import Location

ROWS = 48
# Whole row groups, so that each mutant is opened a few times only.
UNIT_ROWS = ROWS // 2
# A mutant that takes more CPU time hangs, or that takes as much longer: a busy machine is no fault.
MUTANT_S, _WAIT_S = 60, 600
# Peak memory that a child may have beyond what it was forked with.
MOST_BYTES = 1 << 30
# What a child may ask of the system beyond what it was forked with. More than `MOST_BYTES`, because
# memory that is asked for and never touched costs nothing, and allocators ask for a gigabyte at
# once.
_ADDRESS_BYTES = 6 << 30
_MUTANTS_A_CHILD = 50
# In memory where the system has such a folder: what is written is flushed, which a disk is slow at.
_FOLDER = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
_OK, _REFUSED = "read to its end", "refused by name"


def _objects() -> list[dict[str, object]]:
    return [
        {"instruction": f"Name {i}", "output": f"The answer is {i}. " * (1 + i % 3), "n": i}
        for i in range(ROWS)
    ]


def _table() -> pa.Table:
    """Rows with a column of every layout that Arrow has in a file."""
    texts = [None if i % 7 == 3 else f"text {i % 5} and more than twelve" for i in range(ROWS)]
    columns = {
        "instruction": pa.array([f"Name {i}" for i in range(ROWS)]),
        "output": pa.array([f"The answer is {i}. " * (1 + i % 3) for i in range(ROWS)]),
        "source": pa.array(texts).dictionary_encode(),
        "meta": pa.array([{"a": "x" * (i % 4), "l": [i, None]} for i in range(ROWS)]),
        "messages": pa.array(
            [[{"role": "user", "content": f"q{i}"}] * (i % 3) for i in range(ROWS)]
        ),
        "when": pa.array(range(ROWS), pa.timestamp("us")),
        "flag": pa.array([i % 2 == 0 for i in range(ROWS)]),
    }
    return pa.table(columns)


def _arrow_table() -> pa.Table:
    table = _table()
    texts = table["source"].cast(pa.string())
    runs = pa.RunEndEncodedArray.from_arrays([10, 20, ROWS], ["a", None, "c"], pa.run_end_encoded(
        pa.int32(), pa.string()
    ))  # fmt: skip
    lists = pa.array([["é" * (i % 3)] * (i % 4) for i in range(ROWS)], pa.list_view(pa.string()))
    union = pa.UnionArray.from_dense(
        pa.array([i % 2 for i in range(ROWS)], pa.int8()),
        pa.array([i // 2 for i in range(ROWS)], pa.int32()),
        [pa.array(range(ROWS // 2)), pa.array(["t"] * (ROWS // 2))],
    )
    pairs = pa.array([[("k", i)] for i in range(ROWS)], pa.map_(pa.string(), pa.int32()))
    nested = pa.array([[f"v{i % 3}"] for i in range(ROWS)]).flatten().dictionary_encode()
    return (
        table.append_column("view", texts.cast(pa.string_view()))
        .append_column("runs", runs)
        .append_column("lists", lists)
        .append_column("union", union)
        .append_column("pairs", pairs)
        .append_column("nested", pa.ListArray.from_arrays(list(range(ROWS + 1)), nested))
        .append_column("large", texts.cast(pa.large_string()))
    )


def _parquet(**options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(_table(), sink, row_group_size=ROWS // 2, **options)
    return sink.getvalue()


def _ipc(is_file: bool, codec: str | None = None) -> bytes:
    table = _arrow_table()
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=codec)
    new = pa.ipc.new_file if is_file else pa.ipc.new_stream
    with new(sink, table.schema, options=options) as writer:
        for start in range(0, ROWS, ROWS // 2):
            writer.write_table(table.slice(start, ROWS // 2).unify_dictionaries())
    return sink.getvalue().to_pybytes()


def _lines() -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in _objects())


def _packed(codec: str) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(_lines())
    return sink.getvalue().to_pybytes()


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        suffix: How its name ends.
        make: Makes the bytes of a good file.
    """

    suffix: str
    make: Callable[[], bytes]


KINDS = {
    "parquet": Kind(".parquet", lambda: _parquet(compression="none")),
    "parquet-plain": Kind(".parquet", lambda: _parquet(compression="none", use_dictionary=False)),
    "parquet-v2": Kind(
        ".parquet",
        lambda: _parquet(compression="snappy", data_page_version="2.0", write_page_checksum=True),
    ),
    "parquet-delta": Kind(
        ".parquet",
        lambda: _parquet(
            use_dictionary=False,
            data_page_version="2.0",
            compression="none",
            column_encoding={
                "instruction": "DELTA_BYTE_ARRAY",
                "output": "DELTA_LENGTH_BYTE_ARRAY",
                "when": "DELTA_BINARY_PACKED",
            },
        ),
    ),
    "parquet-zstd": Kind(".parquet", lambda: _parquet(compression="zstd")),
    "parquet-lz4": Kind(".parquet", lambda: _parquet(compression="lz4")),
    "parquet-gzip": Kind(".parquet", lambda: _parquet(compression="gzip")),
    "parquet-brotli": Kind(".parquet", lambda: _parquet(compression="brotli")),
    "stream": Kind(".arrow", lambda: _ipc(False)),
    "stream-zstd": Kind(".arrow", lambda: _ipc(False, "zstd")),
    "file": Kind(".arrow", lambda: _ipc(True)),
    "file-lz4": Kind(".feather", lambda: _ipc(True, "lz4")),
    "jsonl": Kind(".jsonl", _lines),
    "json": Kind(".json", lambda: json.dumps(_objects(), indent=1).encode()),
    "gz": Kind(".jsonl.gz", lambda: gzip.compress(_lines(), mtime=0)),
    "zst": Kind(".jsonl.zst", lambda: _packed("zstd")),
    "bz2": Kind(".jsonl.bz2", lambda: bz2.compress(_lines())),
    "xz": Kind(".jsonl.xz", lambda: lzma.compress(_lines())),
    "lz4": Kind(".jsonl.lz4", lambda: _packed("lz4")),
}
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 20, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_LONG_EXTREMES = (-1, -5, 1 << 31, 1 << 40, 10**12, 2**62, 2**63 - 1, -(2**63))


def mutant(good: bytes, chance: random.Random) -> bytes:
    """A damaged copy: bytes flipped, numbers made extreme, parts cut off, doubled or swapped."""
    data = bytearray(good)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        if not data:
            break
        at = chance.randrange(len(data))
        size = min(chance.choice([1, 2, 4, 8, 16, 64, 256]), len(data) - at)
        way = chance.randrange(10)
        if way < 4:
            data[at] = chance.choice([0, 0xFF, 0x7F, 0x80, chance.randrange(256)])
        elif way == 4:
            data[at] ^= 1 << chance.randrange(8)
        elif way == 5:  # as the lengths of Arrow and of a Parquet file are stored
            aligned = at & ~3
            data[aligned : aligned + 4] = struct.pack("<I", chance.choice(_EXTREMES))
        elif way == 6:
            aligned = at & ~7
            data[aligned : aligned + 8] = struct.pack("<q", chance.choice(_LONG_EXTREMES))
        elif way == 7:  # as those of Thrift are
            data[at : at + 1] = _varint(chance.choice(_EXTREMES + _LONG_EXTREMES))
        elif way == 8:
            other = chance.randrange(len(data) - size + 1)
            data[at : at + size], data[other : other + size] = (
                data[other : other + size],
                data[at : at + size],
            )
        else:
            cut = chance.randrange(3)
            if cut == 0:
                del data[at:]
            elif cut == 1:
                del data[at : at + size]
            else:
                data[at:at] = data[at : at + size]
    return bytes(data)


def _varint(number: int) -> bytes:
    value = number << 1 if number >= 0 else ~(number << 1)
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


@dataclass
class Ends:
    """How mutants ended.

    Attributes:
        mutants: How many there were.
        counts: How many ended in which way; the two good ways are `_OK` and `_REFUSED`.
        bad: One mutant of each other way.
        peak_bytes: The most memory that a child had beyond what it was forked with.
        slowest_s: The longest time that one mutant took.
    """

    mutants: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    bad: dict[str, bytes] = field(default_factory=dict)
    peak_bytes: int = 0
    slowest_s: float = 0.0

    @property
    def problems(self) -> dict[str, int]:
        """The ways in which no mutant may end."""
        return {way: n for way, n in self.counts.items() if way not in (_OK, _REFUSED)}

    def add(self, way: str, data: bytes, seconds: float) -> None:
        """Counts one mutant."""
        self.mutants += 1
        self.counts[way] += 1
        self.slowest_s = max(self.slowest_s, seconds)
        if way not in (_OK, _REFUSED):
            self.bad.setdefault(way, data)


def use(path: Path, unit_rows: int = UNIT_ROWS) -> None:
    """Does with a file of a corpus all that a run does, apart from scoring.

    Args:
        path: The only file in its folder.
        unit_rows: Rows that are read together, at most.

    Raises:
        SfRayError: The file is bad.
    """
    corpus = plan_corpus(Location(str(path.parent)))
    sample_rows(corpus)
    (shard,) = corpus.shards
    plans = group_reads(shard, units_of(shard.row_groups, unit_rows))
    columns = None if corpus.file_type is FileType.JSON else corpus.column_names
    is_row: list[bool] = []  # whether it could have a score, and so be kept
    for plan in plans:
        for table in read_units(corpus.location, plan, columns or ["instruction", "output"]):
            is_row += [not isinstance(row, BadLine) for row in rows_of(table)]
    for plan in plans:
        for table in read_units(corpus.location, plan, None):
            take_rows(with_one_dictionary(table), np.arange(table.num_rows)[::-2])
    ifd = np.linspace(0, 1, shard.rows)
    keep = np.array(is_row, bool) & (np.arange(shard.rows) % 3 != 1)
    written = Location(str(path.parent.parent / "written"))
    write_shard(corpus.location, shard, ifd, keep, written, "ifd")


def run(kind: str, mutants: int, seed: int, most_a_child: int = _MUTANTS_A_CHILD) -> Ends:
    """Makes mutants of a kind, and lets children use them.

    Args:
        kind: One of `KINDS`.
        mutants: How many.
        seed: Other seeds make other mutants.
        most_a_child: Mutants that one child uses, at most.
    """
    good = KINDS[kind].make()
    chance = random.Random(f"{kind} {seed}")
    ends = Ends()
    with tempfile.TemporaryDirectory(dir=_FOLDER) as folder:
        path = Path(folder) / "corpus" / f"a{KINDS[kind].suffix}"
        path.parent.mkdir()
        left = [mutant(good, chance) for _ in range(mutants)]
        while left:
            done = _in_child(path, left[:most_a_child], ends)
            left = left[done:]
    return ends


def _in_child(path: Path, batch: list[bytes], ends: Ends) -> int:
    """Lets a child use mutants until it dies or has used all; returns how many it was given."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reader)
        _child(path, batch, writer)
    os.close(writer)
    began, left = time.monotonic(), ""
    done = 0
    with os.fdopen(reader, "rb") as answers:
        while True:
            ready, _, _ = select.select([answers], [], [], _WAIT_S + 1)
            line = answers.readline().decode() if ready else ""
            if not line:
                break
            way, peak = line.rstrip("\n").split("\t")
            ends.add(way, batch[done], time.monotonic() - began)
            ends.peak_bytes = max(ends.peak_bytes, int(peak))
            began, done = time.monotonic(), done + 1
    if done < len(batch):
        os.kill(pid, signal.SIGKILL) if not ready else None
    _, status = os.waitpid(pid, 0)
    if done < len(batch):
        end = os.WTERMSIG(status) if os.WIFSIGNALED(status) else status
        hung = (signal.SIGALRM, signal.SIGPROF, signal.SIGKILL)
        left = "hang" if end in hung else f"signal {end}"
        ends.add(left, batch[done], time.monotonic() - began)
        done += 1
    return done


def _address_bytes() -> int:
    """What this process has asked of the system; each library that was imported adds to it."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _child(path: Path, batch: list[bytes], answers: int) -> None:
    """Uses mutants, writes a line about each, and ends the process."""
    faulthandler.disable()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_bytes() + _ADDRESS_BYTES, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    base = _peak_bytes()
    for data in batch:
        path.write_bytes(data)
        signal.setitimer(signal.ITIMER_PROF, MUTANT_S)
        signal.alarm(_WAIT_S)
        try:
            use(path)
            way = _OK
        except SfRayError as error:
            way = _REFUSED if path.name in str(error) or str(path.parent) in str(error) else (
                f"refused without a name: {str(error)[:80]!r}"
            )  # fmt: skip
        except BaseException as error:  # noqa: BLE001 - whatever it is would be a traceback
            way = f"{type(error).__name__}: {str(error)[:80]!r}"
        peak = _peak_bytes() - base
        if peak > MOST_BYTES:
            way = f"{peak >> 20} MiB"
        os.write(answers, f"{way}\t{peak}\n".encode())
    os._exit(0)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
