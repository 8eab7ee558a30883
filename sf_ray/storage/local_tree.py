"""The files below a folder of this machine, with links to folders followed once.

Knows paths only: no URI, no version of a file and no content.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

LISTED_ALREADY = "a link to a folder that is listed already"


@dataclass
class LocalTree:
    """What a walk has found.

    Attributes:
        files: Absolute paths of files, and of links to files.
        links: Absolute paths of the links to folders.
        left_out: Absolute path -> why nothing is read there.
    """

    files: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)


def is_hidden(name: str) -> bool:
    """Whether Hive, Spark and Hadoop take a name for that of a marker or an unfinished file."""
    return name.startswith(("_", "."))


def walk(root: str, depth: int | None = None) -> LocalTree:
    """Finds the files below a folder, without hidden names and what lies below those.

    Links are followed after all real folders: where a link leads back into the tree, files have
    the names that they have without the link.

    Args:
        root: Absolute path of a folder.
        depth: How many levels of names to look at, 1 for the folder alone; None for all.
    """
    tree = LocalTree()
    seen: set[tuple[int, int]] = set()
    waiting = [(root, 1)]
    while waiting:
        links: list[tuple[str, int]] = []
        for folder, level in waiting:
            links += _walk_folders(folder, level, depth, seen, tree)
        waiting = sorted(links)
        tree.links += [path for path, _ in waiting]
    return tree


def _walk_folders(
    root: str, level: int, depth: int | None, seen: set[tuple[int, int]], tree: LocalTree
) -> Iterator[tuple[str, int]]:
    """Walks real folders; yields the links to folders on the way, and the level of each."""
    folders = [(root, level)]
    while folders:
        folder, level = folders.pop()
        try:
            status = os.stat(folder)
            if (key := (status.st_dev, status.st_ino)) in seen:
                tree.left_out[folder] = LISTED_ALREADY
                continue
            seen.add(key)
            with os.scandir(folder) as scan:
                entries = [entry for entry in scan if not is_hidden(entry.name)]
        except PermissionError:  # e.g. the lost+found of a disk, of which all else can be read
            tree.left_out[folder] = "a folder that may not be read"
            continue
        except FileNotFoundError:  # removed since its name was read
            continue
        for entry in entries:
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file() or entry.is_symlink()
            except OSError as error:  # e.g. a link that leads to itself
                tree.left_out[entry.path] = error.strerror or "cannot be read"
                continue
            if not is_folder and is_file:  # a link that leads nowhere is listed, for the error
                tree.files.append(entry.path)
            elif not is_folder:
                tree.left_out[entry.path] = "neither a file nor a folder"
            elif depth is None or level < depth:
                if entry.is_symlink():
                    yield entry.path, level + 1
                else:
                    folders.append((entry.path, level + 1))
