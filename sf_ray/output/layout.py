"""OUTPUT: which files in it are ours, and the manifest that says that they are whole.

No manifest, no result. While shards are being written, `_writing.json` names them, so that a
killed run can be gone on with, and files of somebody else are never overwritten or deleted.
"""

import json
from collections.abc import Iterable
from typing import Any

from sf_ray.errors import SfRayError
from sf_ray.storage.files import list_files, put_bytes, read_bytes_or_none, remove
from sf_ray.storage.location import Location

MANIFEST_VERSION = 1
# No shard's relative path begins like this.
_EXPORT = "//export/"


class Output:
    """One output location."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self.data = location.join("data")
        self.exports = location.join("export")
        self.manifest_location = location.join("manifest.json")
        # What people read: made again from the last of them.
        self.page = location.join("report.html")
        self.card = location.join("README.md")
        self.summary = location.join("summary.json")
        self._writing = location.join("_writing.json")

    def manifest(self) -> dict[str, Any] | None:
        """The manifest of a finished run; None where there is none.

        Raises:
            SfRayError: It is not one that this version can read.
        """
        data = read_bytes_or_none(self.manifest_location)
        if data is None:
            return None
        try:
            manifest: dict[str, Any] = json.loads(data)
            version = manifest["manifest_version"]
        except (ValueError, KeyError, TypeError):
            version = None
        if version != MANIFEST_VERSION:
            raise SfRayError(
                f"{self.manifest_location.public_uri} is not a manifest of this version of sf_ray; "
                "choose another output, or remove it together with data/ to write anew"
            )
        return manifest

    def finished(self, request_id: str) -> dict[str, Any] | None:
        """The manifest, where it answers this very request and its files are all there."""
        manifest = self.manifest()
        if manifest is None or manifest["request_id"] != request_id:
            return None
        return manifest if self._present() == _recorded(manifest) else None

    def begin(self, names: Iterable[str], exports: Iterable[str] = ()) -> None:
        """Claims the names that are about to be written and clears what an older run left.

        Args:
            names: Of filtered shards, below `data`.
            exports: Of files below `exports`.

        Raises:
            SfRayError: Files are in the way that no run of ours has written.
        """
        names = {*names} | {_EXPORT + name for name in exports}
        manifest = self.manifest()
        owned = {*_recorded(manifest)} if manifest else set()
        unfinished = read_bytes_or_none(self._writing)
        owned |= set(json.loads(unfinished)["names"]) if unfinished else set()
        present = {*self._present()}
        if foreign := sorted(present - owned):
            raise SfRayError(
                f"{self.data.public_uri} or {self.exports.public_uri} holds {len(foreign)} files "
                "that no finished or interrupted run wrote, e.g. "
                f"{self._place(foreign[0]).public_uri}; choose another output or move them"
            )
        put_bytes(self._writing, json.dumps({"names": sorted(owned | names)}).encode())
        remove(self.manifest_location)
        for name in sorted(present - names):
            remove(self._place(name))

    def _present(self) -> dict[str, int]:
        """Bytes of every file that a run of ours may own."""
        data = {file.relative: file.size for file in list_files(self.data)}
        return data | {_EXPORT + file.relative: file.size for file in list_files(self.exports)}

    def _place(self, name: str) -> Location:
        if name.startswith(_EXPORT):
            return self.exports.join(name.removeprefix(_EXPORT))
        return self.data.join(name)

    def finish(self, manifest: dict[str, Any]) -> None:
        """Writes the manifest, last of all."""
        text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False)
        put_bytes(self.manifest_location, text.encode())
        remove(self._writing)


def _recorded(manifest: dict[str, Any]) -> dict[str, int]:
    """Bytes of every file that a finished run wrote."""
    output = manifest["output"]
    exported = (output.get("export") or {"files": []})["files"]
    data = {shard["path"]: shard["bytes"] for shard in output["shards"]}
    return data | {_EXPORT + file["path"]: file["bytes"] for file in exported}
