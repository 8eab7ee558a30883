"""OUTPUT: which files in it are ours, and when they are whole.

The manifest is written last: without it there is no result. While a run writes, `_writing.json`
names the files that it may write. So a killed run can be continued, and a file that no run of ours
has written is never overwritten or deleted. This module does not know what the files hold.
"""

import json
from collections.abc import Callable, Iterable, Mapping

from sf_ray.errors import SfRayError
from sf_ray.output.manifest import MOST_BYTES, Manifest
from sf_ray.storage.files import (
    map_requests,
    never_as_wanted,
    put_bytes,
    read_bounded_or_none,
    remove,
)
from sf_ray.storage.json_files import read_json_or_none
from sf_ray.storage.listing import list_files
from sf_ray.storage.location import Location

# Marks an exported file among the names of filtered shards, of which none has an empty part.
_EXPORT = "//export/"
# Files that an error names; more are counted.
_FILES_SHOWN = 3


class Output:
    """One output location."""

    def __init__(
        self, location: Location, refuse_if_lost: Callable[[], None] = lambda: None
    ) -> None:
        """
        Args:
            location: OUTPUT.
            refuse_if_lost: Raises where this run does not hold OUTPUT any more; called right before
                anything final is removed or written.
        """
        self.location = location
        self._refuse_if_lost = refuse_if_lost
        self.data = location.join("data")
        self.exports = location.join("export")
        self.manifest_location = location.join("manifest.json")
        # What people read; page and card can be made again from manifest and summary.
        self.page = location.join("report.html")
        self.card = location.join("README.md")
        self.summary = location.join("summary.json")
        self._lineage = location.join("lineage.json")
        self._writing = location.join("_writing.json")

    def manifest(self) -> Manifest | None:
        """Reads the manifest of a finished run; None where there is none.

        Raises:
            SfRayError: It is not one that this version can read.
        """
        data = read_bounded_or_none(self.manifest_location, MOST_BYTES)
        if data is None:
            return None
        return Manifest.from_json(data, self.manifest_location.public_uri)

    def finished(self, request_id: str) -> Manifest | None:
        """Reads the manifest; None unless it is of this request and all of its files are whole.

        Raises:
            SfRayError: The manifest is not one that this version can read.
        """
        manifest = self.manifest()
        if manifest is None or manifest.request_id != request_id:
            return None
        return manifest if self._present() == _recorded(manifest) else None

    def begin(self, names: Iterable[str], exports: Iterable[str] = ()) -> None:
        """Claims the names that may be written from now on, and removes all files of older runs.

        Also the files of the same names: a name may be left out this time.

        Args:
            names: Of filtered shards, below `data`.
            exports: Of files below `exports`.

        Raises:
            SfRayError: There are files that no run of ours has written.
        """
        names = {*names} | {_EXPORT + name for name in exports}
        manifest = self.manifest()
        owned = {*_recorded(manifest)} if manifest else set()
        owned |= self._claimed()
        present = {*self._present()}
        if foreign := sorted(present - owned):
            raise SfRayError(
                f"{self.data.public_uri} or {self.exports.public_uri} holds {len(foreign)} files "
                "that no finished or interrupted run wrote, e.g. "
                f"{self._place(foreign[0]).public_uri}; choose another output or move them"
            )
        self._refuse_if_lost()
        # In this order: were the run killed between two steps, the next one still knows all files.
        put_bytes(self._writing, json.dumps({"names": sorted(owned | names)}).encode())
        remove(self.manifest_location)
        # A run without the library writes none, and the old one would be of another output.
        remove(self._lineage)
        places = map(self._place, sorted(present))
        for _ in map_requests(self.location, remove, places):
            pass  # an error of a thread is raised when its result is taken

    def check_written(self, manifest: Manifest) -> None:
        """Lists the output, and refuses where it lacks what the manifest says.

        A task that wrote to the disk of its own node succeeds, and nothing of it is here.

        Raises:
            SfRayError: Names files that are not there, or have another size.
        """
        recorded, present = _recorded(manifest), self._present()
        suspects = [name for name, size in recorded.items() if present.get(name) != size]
        wrong = never_as_wanted(
            {name: self._place(name) for name in suspects},
            lambda name, size: size == recorded[name],
        )
        if wrong:
            raise SfRayError(self._unlike(recorded, wrong))
        self._refuse_if_lost()

    def _unlike(self, recorded: Mapping[str, int], wrong: Mapping[str, int | None]) -> str:
        shown = "; ".join(
            f"{self._place(name).public_uri} "
            + ("is not there" if size is None else f"has {size:,} bytes, not {recorded[name]:,}")
            for name, size in list(wrong.items())[:_FILES_SHOWN]
        )
        why = (
            "another run or program changes files there, or the storage lost them"
            if self.location.is_remote
            else "a node of the cluster wrote them to a disk of its own, or another program "
            "changes files there. Give OUTPUT a bucket, or a file system that all nodes share"
        )
        return (
            f"{self.location.public_uri}: {len(wrong):,} of {len(recorded):,} files that were "
            f"written are not there as they were written, so there is no manifest: {shown}: {why}; "
            "no row is scored again by the same command"
        )

    def _claimed(self) -> set[str]:
        """The names that an interrupted run may have written.

        Raises:
            SfRayError: The file of names is not one that a run of ours wrote.
        """
        advice = "remove it, and the files in data and export that an interrupted run left"
        claim = read_json_or_none(self._writing, MOST_BYTES, advice)
        if claim is None:
            return set()
        names = claim.get("names") if isinstance(claim, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SfRayError(f"{self._writing.public_uri}: no list of names; {advice}")
        return {*names}

    def keep_lineage(self, event: bytes) -> None:
        """Writes the OpenLineage event of this run, before the manifest that it is of."""
        put_bytes(self._lineage, event)

    def finish(self, manifest: Manifest) -> None:
        """Writes the manifest, after all other files."""
        self._refuse_if_lost()
        put_bytes(self.manifest_location, manifest.to_json())
        remove(self._writing)

    def _present(self) -> dict[str, int]:
        """Lists the files that a run of ours may own: name -> bytes."""
        data = {file.relative: file.size for file in list_files(self.data)}
        return data | {_EXPORT + file.relative: file.size for file in list_files(self.exports)}

    def _place(self, name: str) -> Location:
        if name.startswith(_EXPORT):
            return self.exports.join(name.removeprefix(_EXPORT))
        return self.data.join(name)


def _recorded(manifest: Manifest) -> dict[str, int]:
    """The files that a finished run wrote: name -> bytes."""
    output = manifest.output
    exported = output.export.files if output.export else ()
    data = {shard.path: shard.bytes for shard in output.shards}
    return data | {_EXPORT + file.path: file.bytes for file in exported}
