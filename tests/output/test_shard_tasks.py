"""Which shards one task writes. No Ray."""

import pytest

from sf_ray.corpus.units import Shard, Unit
from sf_ray.output import shard_tasks
from sf_ray.output.shard_tasks import share_shards
from sf_ray.storage.listing import File


def test_small_shards_share_a_task_and_a_large_one_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shard_tasks, "_BYTES_A_TASK", 100)
    monkeypatch.setattr(shard_tasks, "_SHARDS_A_TASK", 3)
    sizes = [40, 60, 30, 500, 10, 20, 30, 40]
    units = [
        (Shard(File(f"{number}", f"{number}", size, "1"), (2,), 2 * number), [Unit(0, 2)])
        for number, size in enumerate(sizes)
    ]
    tasks = share_shards(units)
    assert [shard for task in tasks for shard in task] == units  # in order, each once
    assert [[shard.file.size for shard, _ in task] for task in tasks] == [
        [40, 60],
        [30],
        [500],
        [10, 20, 30],
        [40],
    ]
