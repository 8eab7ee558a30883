import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sf_ray.storage.files import put_bytes, read_bytes
from sf_ray.storage.lease.files import exclusive_put
from sf_ray.storage.location import Location


@pytest.mark.parametrize(
    "place", ["local", pytest.param("s3", marks=pytest.mark.s3)], indirect=True
)
def test_of_many_exclusive_puts_one_is_made(place: Location) -> None:
    runs = 8
    barrier = threading.Barrier(runs)

    def put(where: Location, number: int) -> bool:
        barrier.wait()
        return exclusive_put(where, str(number).encode())

    put_bytes(place.join("made-before"), b"")
    with ThreadPoolExecutor(runs) as threads:
        for round_ in range(100 if not place.is_remote else 5):
            where = place.join(str(round_))
            made = list(threads.map(put, [where] * runs, range(runs)))
            assert sum(made) == 1
            assert read_bytes(where) == str(made.index(True)).encode()


def test_a_lease_on_a_disk_comes_with_its_content(tmp_path: Path) -> None:
    path = tmp_path / "000001.json"
    seen: list[bytes | None] = []

    def look(*_: object) -> Any:  # at each line of what puts the file
        content = path.read_bytes() if path.exists() else None
        if not seen or seen[-1] != content:
            seen.append(content)
        return look

    tracer = sys.gettrace()
    sys.settrace(look)
    try:
        assert exclusive_put(Location(str(path)), b"whole")
    finally:
        sys.settrace(tracer)
    look()
    assert seen == [None, b"whole"]
    assert list(tmp_path.iterdir()) == [path]
