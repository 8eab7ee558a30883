import errno
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sf_ray.errors import LeaseError, SfRayError
from sf_ray.runtime.signals import stoppable
from sf_ray.storage.files import now_utc, put_bytes, remove
from sf_ray.storage.lease.files import list_leases, put_lease
from sf_ray.storage.lease.holder import Holder, process_name
from sf_ray.storage.lease.lease import lease, refuse_if_held
from sf_ray.storage.listing import File, list_files
from sf_ray.storage.location import Location
from tests.support.waiting import HANG_S, wait_until


def held_by(place: Location, holder: Holder, number: int = 1) -> None:
    put_bytes(place.join(f"_lease/{number:06d}.json"), json.dumps(asdict(holder)).encode())


# A machine that is not this one.
ELSEWHERE = Holder("r1", "gpu-head-0", 17, "2026-11-24T01:02:03Z", "another boot")


def test_the_second_run_is_refused_with_the_first_ones_name(place: Location) -> None:
    with lease(place):
        for refused in (lease(place).__enter__, lambda: refuse_if_held(place)):
            with pytest.raises(LeaseError, match="another run writes there: process") as error:
                refused()
            for words in (str(os.getpid()), now_utc()[:10], "expires after 60 s"):
                assert words in str(error.value)
    refuse_if_held(place)
    with lease(place):
        pass
    assert list_files(place.join("_lease")) == []


def test_a_silent_run_of_another_machine_is_waited_out(
    place: Location, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sf_ray.storage.lease.lease._EXPIRES_S", 2.5)
    monkeypatch.setattr("sf_ray.storage.lease.lease._LOOK_S", 0.2)
    held_by(place, ELSEWHERE)
    began = time.monotonic()
    with lease(place):
        assert time.monotonic() - began > 1.5  # S3 tells whole seconds
        assert [file.relative for file in list_files(place.join("_lease"))] == ["000002.json"]
    said = capsys.readouterr().err
    assert "a run on gpu-head-0 was seen" in said
    assert "took over from a run on gpu-head-0 that was silent for" in said


def test_a_run_of_another_machine_that_renews_its_lease_refuses_as_soon_as_it_does(
    place: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sf_ray.storage.lease.lease._LOOK_S", 0.2)
    held_by(place, ELSEWHERE)
    renewal = threading.Timer(2.5, held_by, (place, ELSEWHERE))
    renewal.start()
    began = time.monotonic()
    with pytest.raises(LeaseError, match="process 17 on gpu-head-0, since 2026-11-24T01:02:03Z"):
        refuse_if_held(place)
    assert 2.5 <= time.monotonic() - began < 30
    renewal.join()


def test_a_lease_that_is_given_back_while_another_run_looks_is_free(
    place: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sf_ray.storage.lease.lease._LOOK_S", 0.2)
    held_by(place, ELSEWHERE)
    release = threading.Timer(0.5, remove, (place.join("_lease/000001.json"),))
    release.start()
    refuse_if_held(place)
    # It did not go on before the lease was gone.
    assert list_files(place.join("_lease")) == []
    release.join()


# Not in memory: fsspec keeps that in a dictionary that threads may not share.
@pytest.mark.parametrize(
    "place", ["local", pytest.param("s3", marks=pytest.mark.s3)], indirect=True
)
def test_of_many_runs_that_start_at_once_one_wins(place: Location) -> None:
    # All of them are there before the first is refused, and the winner stays until all others are:
    # who comes after a lease was given back may have it.
    runs = 8
    barrier, refused = threading.Barrier(runs), threading.Semaphore(0)

    def start(_: int) -> int:
        barrier.wait()
        try:
            with lease(place):
                return sum(refused.acquire(timeout=HANG_S) for _ in range(runs - 1))
        except LeaseError:
            refused.release()
            return 0

    with ThreadPoolExecutor(runs) as threads:
        outlasted = list(threads.map(start, range(runs)))
    assert sorted(outlasted) == [0] * (runs - 1) + [runs - 1]


def test_a_disk_without_links_has_leases_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    place = Location(str(tmp_path))
    with lease(place), pytest.raises(LeaseError, match="another run writes there"):
        refuse_if_held(place)
    assert list(tmp_path.glob("_lease/*")) == list(tmp_path.glob("_lease/.*")) == []


def test_a_run_that_looked_too_early_does_not_hold_an_older_number(
    place: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_and_sleep(folder: Location) -> list[File]:
        seen = list_leases(folder)
        monkeypatch.setattr("sf_ray.storage.lease.lease.list_leases", list_leases)
        held_by(place, ELSEWHERE, number=2)  # another took over from number 1, which is gone
        return seen

    monkeypatch.setattr("sf_ray.storage.lease.lease.list_leases", look_and_sleep)
    monkeypatch.setattr("sf_ray.storage.lease.lease._watch", lambda *_: 1.0)
    with pytest.raises(LeaseError, match="process 17 on gpu-head-0"):
        lease(place).__enter__()
    assert [file.relative for file in list_files(place.join("_lease"))] == ["000002.json"]


def test_a_run_that_was_killed_on_this_machine_is_known_to_be_dead(
    place: Location, capsys: pytest.CaptureFixture[str]
) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    other = replace(ELSEWHERE, pid=process.pid, process=process_name(process.pid))
    held_by(place, other)
    with pytest.raises(LeaseError):  # at once: it is seen to live
        refuse_if_held(place)
    process.kill()
    process.wait()
    with lease(place):
        assert "took over from a run that died" in capsys.readouterr().err


def test_a_lease_is_renewed_and_its_loss_ends_the_run(
    place: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sf_ray.storage.lease.lease._RENEW_S", 0.1)
    monkeypatch.setattr("sf_ray.storage.lease.lease._EXPIRES_S", 2.5)
    with (
        pytest.raises(LeaseError, match="lost its lease to another run"),
        stoppable(),
        lease(place),
    ):
        time.sleep(4)
        with pytest.raises(LeaseError):
            refuse_if_held(place)  # renewed: it would have expired by now
        held_by(place, ELSEWHERE, number=2)
        time.sleep(10)
    # What another run holds is left alone.
    assert [file.relative for file in list_files(place.join("_lease"))] == ["000002.json"]


def test_a_lease_that_cannot_be_read_is_one(
    place: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sf_ray.storage.lease.lease._watch", lambda *_: 1.0)
    put_bytes(place.join("_lease/000001.json"), b"{")
    with pytest.raises(LeaseError, match="on unknown"):
        lease(place).__enter__()


@pytest.mark.parametrize("only_looks", [True, False])
def test_storage_without_conditional_writes_is_noted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    only_looks: bool,
) -> None:
    place = Location(str(tmp_path))

    def overwrite(location: Location, data: bytes) -> bool:
        put_bytes(location, data)
        return True

    if only_looks:
        monkeypatch.setattr("sf_ray.storage.lease.files._checks_before_writing", lambda _: True)
    else:
        monkeypatch.setattr("sf_ray.storage.lease.files.exclusive_put", overwrite)
    with lease(place):
        assert "has no conditional writes" in capsys.readouterr().err
        with pytest.raises(LeaseError):
            lease(place).__enter__()


def fail_to_renew(monkeypatch: pytest.MonkeyPatch, error: BaseException | None) -> list[float]:
    """From now on every put of a lease raises; returns when that happened."""
    tries: list[float] = []

    def put(location: Location, data: bytes) -> None:
        tries.append(time.monotonic())
        if error is not None:
            raise error
        put_lease(location, data)

    monkeypatch.setattr("sf_ray.storage.lease.lease.put_lease", put)
    return tries


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sf_ray.storage.lease.lease._RENEW_S", 0.05)
    monkeypatch.setattr("sf_ray.storage.lease.lease._LOOK_S", 0.05)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        MemoryError(),
        RuntimeError("can't start new thread"),
        SfRayError("storage failed"),
        KeyError("ETag"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.usefixtures("quick")
def test_a_renewal_outlives_any_exception_and_says_so_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
) -> None:
    place = Location(str(tmp_path))
    with stoppable(), lease(place):
        tries = fail_to_renew(monkeypatch, error)
        wait_until(lambda: len(tries) >= 3)
        renewals = fail_to_renew(monkeypatch, None)
        wait_until(lambda: len(renewals) >= 2)
        with pytest.raises(LeaseError, match="another run writes there"):
            refuse_if_held(place)
    said = capsys.readouterr().err
    assert said.count("the lease could not be renewed") == 1
    assert (str(error) or type(error).__name__).strip("'") in said
    assert list_files(place.join("_lease")) == []


@pytest.mark.usefixtures("quick")
def test_a_renewal_outlives_a_log_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with stoppable(), lease(Location(str(tmp_path))) as held:
        tries = fail_to_renew(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
        with monkeypatch.context() as patch:
            patch.setattr("sf_ray.storage.lease.lease.say", full)
            wait_until(lambda: len(tries) >= 3)
        renewals = fail_to_renew(monkeypatch, None)
        wait_until(lambda: len(renewals) >= 2)
        held.check()


@pytest.mark.usefixtures("quick")
def test_a_run_that_cannot_renew_ends_before_another_may_take_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sf_ray.storage.lease.lease._EXPIRES_S", 0.5)
    fail_to_renew(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    with (
        pytest.raises(LeaseError, match="could not be renewed for .* No space .*; nothing more"),
        stoppable(),
        lease(Location(str(tmp_path))),
    ):
        time.sleep(30)


@pytest.mark.usefixtures("quick")
def test_a_store_that_answers_nobody_gets_the_time_of_its_retries(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sf_ray.storage.lease.lease._EXPIRES_S", 0.2)
    looks: list[float] = []

    def gone(folder: Location) -> list[File]:
        looks.append(time.monotonic())
        raise SfRayError("storage failed")

    def held_while_gone(retry_s: float) -> None:
        place = Location(f"memory://{uuid.uuid4().hex}", retry_s=retry_s)
        looks.clear()
        with stoppable(), lease(place) as held:
            with monkeypatch.context() as patch:
                patch.setattr("sf_ray.storage.lease.lease.list_leases", gone)
                wait_until(lambda: len(looks) > 1 and looks[-1] - looks[0] > 1)
            held.check()

    held_while_gone(retry_s=300)
    with pytest.raises(LeaseError, match="could not be renewed for"):
        held_while_gone(retry_s=0.2)


def test_of_two_runs_the_one_that_was_silent_may_not_go_on(
    place: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sf_ray.storage.lease.lease._EXPIRES_S", 1.5)
    monkeypatch.setattr("sf_ray.storage.lease.lease._LOOK_S", 0.2)
    with lease(place) as suspended:  # nothing renews it: as when its process was stopped
        monkeypatch.setattr(Holder, "lives_here", lambda _: None)
        with lease(place) as other:
            with pytest.raises(LeaseError, match="lost its lease to another run"):
                suspended.check()
            other.check()
        with pytest.raises(LeaseError, match="lost its lease to another run"):
            suspended.check()
    assert list_files(place.join("_lease")) == []


def test_a_check_renews_the_lease(place: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    with lease(place) as held:
        puts = fail_to_renew(monkeypatch, None)
        held.check()
        assert len(puts) == 1
        fail_to_renew(monkeypatch, SfRayError("storage failed"))
        with pytest.raises(SfRayError, match="storage failed"):
            held.check()


@pytest.mark.parametrize("skew_s", [-600, 600])
def test_a_clock_that_is_ten_minutes_off_decides_nothing(
    place: Location, monkeypatch: pytest.MonkeyPatch, skew_s: int
) -> None:
    with lease(place) as held:
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + skew_s)
        monkeypatch.setattr(Holder, "lives_here", lambda _: True)
        with pytest.raises(LeaseError, match=r"last seen -?\d s ago"):
            refuse_if_held(place)
        held.check()


def test_a_remote_lease_needs_no_room_on_the_temporary_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "mkstemp", full)
    place = Location(f"memory://{uuid.uuid4().hex}")
    with lease(place) as held:
        held.check()
        with pytest.raises(LeaseError, match="another run writes there"):
            refuse_if_held(place)
