"""OUTPUT: which files in it are ours, and the manifest that says that they are whole.

No manifest, no result. While shards are being written, `_writing.json` names them, so that a
killed run can be gone on with, and files of somebody else are never overwritten or deleted.
"""

import json
from collections.abc import Iterable
from typing import Any

from sf_ray.errors import SfRayError
from sf_ray.locations import Location
from sf_ray.storage import list_files, put_bytes, read_bytes_or_none, remove

MANIFEST_VERSION = 1


class Output:
    """One output location."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self.data = location.join("data")
        self.manifest_location = location.join("manifest.json")
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
        present = {file.relative: file.size for file in list_files(self.data)}
        recorded = {shard["path"]: shard["bytes"] for shard in manifest["output"]["shards"]}
        return manifest if present == recorded else None

    def begin(self, names: Iterable[str]) -> None:
        """Claims the names that are about to be written and clears what an older run left.

        Raises:
            SfRayError: Files are in the way that no run of ours has written.
        """
        names = set(names)
        manifest = self.manifest()
        owned = {shard["path"] for shard in manifest["output"]["shards"]} if manifest else set()
        unfinished = read_bytes_or_none(self._writing)
        owned |= set(json.loads(unfinished)["names"]) if unfinished else set()
        present = {file.relative for file in list_files(self.data)}
        if foreign := sorted(present - owned):
            raise SfRayError(
                f"{self.data.public_uri} holds {len(foreign)} files that no finished or "
                f"interrupted run wrote, e.g. {foreign[0]}; choose another output or move them"
            )
        put_bytes(self._writing, json.dumps({"names": sorted(owned | names)}).encode())
        remove(self.manifest_location)
        for name in sorted(present - names):
            remove(self.data.join(name))

    def finish(self, manifest: dict[str, Any]) -> None:
        """Writes the manifest, last of all."""
        text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False)
        put_bytes(self.manifest_location, text.encode())
        remove(self._writing)
