"""Where tests keep what they make."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class S3:
    """An S3 endpoint over HTTP, and a bucket of one's own in it."""

    bucket: str
    options: dict[str, object]

    @property
    def options_json(self) -> str:
        return json.dumps(self.options)


def copy_of(made: Path, folder: Path) -> Path:
    """A test's own copy of what was made once; files keep their times, so scores stay theirs."""
    return Path(shutil.copytree(made, folder, dirs_exist_ok=True))
