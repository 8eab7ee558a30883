"""Places in which tests keep files, and what lies there."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class S3:
    """An S3 endpoint over HTTP, and a bucket of one test in it."""

    bucket: str
    options: dict[str, object]

    @property
    def options_json(self) -> str:
        return json.dumps(self.options)


def copy_of(made: Path, folder: Path) -> Path:
    """A copy for one test of what is made once for many.

    Files keep their times: a shard's id contains when the shard was modified, so its scores stay
    its scores.
    """
    return Path(shutil.copytree(made, folder, dirs_exist_ok=True))


def contents(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    """The bytes of each file below a folder by its path in the folder, sorted by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob(pattern))
        if path.is_file()
    }
