"""One writer at a time: a lease on a place, renewed while its run lives and taken over when not.

    PLACE/_lease/000007.json     who holds the place and since when; rewritten every `_RENEW_S`

To hold a place is to have created its highest number. A run creates the next number exclusively, so
that one of several runs wins. It may do so when no number exists, or when the highest one is dead:
its process on this machine is gone, or it was not renewed for `_EXPIRES_S`. Whether a holder on
another machine lives cannot be seen at once. A new run therefore waits until that holder renews its
lease, and is refused, or until the lease expires, and takes over. So a retry on a new cluster goes
on by itself.

A holder that cannot renew is overtaken in its turn. It ends when another run has taken over, or
when one may do so at any moment: `_EXPIRES_S` after the last renewal. A store that answers nothing
at all gets the time that its requests are repeated for, because no run can take over there
meanwhile. Before a run overwrites anything that is final, it calls `HeldLease.check`.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from time import monotonic, sleep

from sf_ray.errors import LeaseError, SfRayError, first_line
from sf_ray.runtime.log import say
from sf_ray.runtime.signals import interrupt
from sf_ray.storage.files import read_bounded_or_none, read_bytes_or_none, remove
from sf_ray.storage.lease.files import (
    create_lease,
    lease_age_s,
    lease_name,
    lease_number,
    list_leases,
    put_lease,
    try_rights,
)
from sf_ray.storage.lease.holder import Holder
from sf_ray.storage.listing import File
from sf_ray.storage.location import Location
from sf_ray.text.printable import printable

_RENEW_S, _EXPIRES_S = 15.0, 60.0
# How often a waiting run looks at the lease of another, and how long a run that ends waits for
# storage to take its own lease back.
_LOOK_S, _PATIENCE_S = 3.0, 5.0
# A run that was overtaken while it started looks again this often.
_TRIES = 3
# Bytes that a lease file may have; ours have about 200.
_MOST_BYTES = 1 << 16


class HeldLease:
    """The lease of this run on one place, renewed in a thread of its own."""

    def __init__(self, folder: Location, number: int, holder: Holder) -> None:
        """
        Args:
            folder: The `_lease` folder of the place.
            number: The number that this run has created.
            holder: This run.
        """
        self._patient = folder
        # A storage that does not answer must not hold up the thread, or the end of the run.
        self._folder = replace(folder, retry_s=min(folder.retry_s, _PATIENCE_S))
        self._outage_s = max(_EXPIRES_S, folder.retry_s)
        self._number, self._holder = number, holder
        self._renewed = monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Renews the lease, and asks the store whether it is still this run's.

        In this order: a run that looks after the renewal finds a living holder, and one that has
        taken over before is seen.

        Raises:
            LeaseError: Another run has taken over.
            SfRayError: The lease cannot be renewed.
        """
        _refuse_if_overtaken(self._patient, self._number, self._holder)
        self._put(self._patient)
        _refuse_if_overtaken(self._patient, self._number, self._holder)
        self._renewed = monotonic()

    def give_back(self) -> None:
        """Ends the renewal and removes the lease, unless another run holds the place by now."""
        self._done.set()
        self._thread.join(timeout=_PATIENCE_S)
        mine = self._folder.join(lease_name(self._number))
        try:
            data = read_bounded_or_none(mine, _MOST_BYTES)
            if data is not None and Holder.from_json(data).run == self._holder.run:
                remove(mine)
        except (SfRayError, OSError) as error:
            say(f"note: the lease could not be given back and will expire ({first_line(error)})")

    def _keep(self) -> None:
        """Renews the lease until the run ends; interrupts the run when the lease is lost."""
        said, wait_s = False, _RENEW_S
        while not self._done.wait(wait_s):
            listed = False
            try:
                _refuse_if_overtaken(self._folder, self._number, self._holder)
                listed = True
                self._put(self._folder)
                self._renewed = monotonic()
                said, wait_s = False, _RENEW_S
            except LeaseError as error:
                interrupt(error)
                return
            except Exception as error:  # noqa: BLE001 - a thread that ends in silence loses the lease
                silent_s = monotonic() - self._renewed
                store_is_gone = (
                    self._folder.is_remote and not listed and isinstance(error, SfRayError)
                )
                if silent_s > (self._outage_s if store_is_gone else _EXPIRES_S):
                    interrupt(self._silent_for(silent_s, error))
                    return
                wait_s = min(_RENEW_S, _LOOK_S)
                if not said:
                    said = True
                    with suppress(OSError, ValueError):  # the log may lie on the same full disk
                        say(
                            f"note: {_place(self._folder)}: the lease could not be renewed "
                            f"({_named(error)}); trying again"
                        )

    def _put(self, folder: Location) -> None:
        put_lease(folder.join(lease_name(self._number)), _content(self._holder))

    def _silent_for(self, silent_s: float, error: BaseException) -> LeaseError:
        return LeaseError(
            f"{_place(self._folder)}: the lease could not be renewed for {silent_s:.0f} s "
            f"({_named(error)}), so that another run may take over; nothing more is written. Mend "
            "the cause; the same command goes on where this one was"
        )


@contextmanager
def lease(place: Location) -> Iterator[HeldLease]:
    """Holds a place, so that no other run writes there meanwhile.

    Tries first whether this run may do there all that it will.

    Raises:
        SfRayError: A right is missing, or storage failed.
        LeaseError: Another run holds the place. In the main thread this error may also interrupt
            the block: when another run took over, or may take over because this one could not
            renew the lease for too long.
    """
    folder, holder = place.join("_lease"), Holder.this_run()
    try_rights(folder)
    held = HeldLease(folder, _take(folder, holder), holder)
    try:
        yield held
    finally:
        held.give_back()


def refuse_if_held(place: Location) -> None:
    """Checks that no other run writes to a place, before work is spent on a plan.

    Takes at most as long as a lease lasts without renewal.

    Raises:
        LeaseError: Another run holds the place.
    """
    folder = place.join("_lease")
    if leases := list_leases(folder):
        _refuse_if_alive(folder, leases[-1])


def _take(folder: Location, holder: Holder) -> int:
    """Creates the next number, and removes the dead ones before it; returns the number."""
    for _ in range(_TRIES):
        leases = list_leases(folder)
        number, dead = 1, ""
        if leases:
            dead = _refuse_if_alive(folder, leases[-1])
            number += lease_number(leases[-1])
        mine = folder.join(lease_name(number))
        if not create_lease(mine, _content(holder)):
            continue
        # If this run was suspended between the listing and the put, other runs may have come and
        # gone meanwhile, and a higher number may hold the place.
        if lease_number(list_leases(folder)[-1]) == number:
            if dead:
                say(f"note: took over from a run {dead}: {_place(folder)}")
            for file in leases:
                remove(folder.join(file.relative))
            return number
        remove(mine)
    raise LeaseError(f"{folder.public_uri}: other runs are starting here at this moment; try later")


def _refuse_if_alive(folder: Location, file: File) -> str:
    """Refuses where the holder of a lease lives.

    Returns:
        How to describe the dead holder in a note; "" where it has given its lease back meanwhile.

    Raises:
        LeaseError: The holder lives.
    """
    # A larger file is a holder that nobody knows, whose age tells whether it lives.
    data = b"" if file.size > _MOST_BYTES else read_bytes_or_none(folder.join(file.relative))
    if data is None:
        return ""
    other = Holder.from_json(data)
    lives_here = other.lives_here()
    if lives_here is False:
        return f"that died (process {other.pid} of this machine)"
    age_s = lease_age_s(folder, file) if lives_here else _watch(folder, file, other.host)
    if age_s is None:
        return ""
    if age_s > _EXPIRES_S:
        return f"on {printable(other.host)} that was silent for {age_s:.0f} s"
    raise LeaseError(
        f"{_place(folder)}: another run writes there: process {other.pid} on "
        f"{printable(other.host)}, since {printable(other.since)}, last seen {age_s:.0f} s ago. "
        f"Wait for it or stop it; its lease expires after {_EXPIRES_S:.0f} s without a sign of life"
    )


def _watch(folder: Location, file: File, host: str) -> float | None:
    """Waits until the holder renews its lease, or the lease has expired.

    Returns:
        Seconds since the lease was renewed; None where it is gone.
    """
    age_s = lease_age_s(folder, file)
    if age_s is not None and age_s <= _EXPIRES_S:
        say(
            f"note: {_place(folder)}: a run on {printable(host)} was seen {age_s:.0f} s ago; "
            f"waiting until it is seen again or has been silent for {_EXPIRES_S:.0f} s"
        )
    earlier_age_s = 0.0
    # An age that shrinks between two looks is a renewal.
    while age_s is not None and earlier_age_s <= age_s <= _EXPIRES_S:
        sleep(_LOOK_S)
        earlier_age_s, age_s = age_s, lease_age_s(folder, file)
    return age_s


def _refuse_if_overtaken(folder: Location, number: int, holder: Holder) -> None:
    leases = list_leases(folder)
    if not leases or lease_number(leases[-1]) != number:
        raise LeaseError(
            f"{_place(folder)}: run {holder.run} lost its lease to "
            "another run, after it could not renew it in time; nothing more is written"
        )


def _content(holder: Holder) -> bytes:
    return json.dumps(asdict(holder), indent=2).encode()


def _place(folder: Location) -> str:
    return folder.public_uri.removesuffix("/_lease")


def _named(error: BaseException) -> str:
    return (
        first_line(error)
        if isinstance(error, SfRayError)
        else (f"{type(error).__name__}: {first_line(error)}")
    )
