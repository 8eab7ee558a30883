"""Refuses a local path that some node of the cluster does not see, before a model is loaded.

On a cluster whose nodes have disks of their own, a task writes to the disk of its node: the driver
would find nothing there, or an earlier state. Knows which places a command uses; how a machine
looks for them is `storage.shared`.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from sf_ray.corpus.planning import Corpus
from sf_ray.engine.model_files import local_model_files
from sf_ray.errors import SfRayError, UsageError
from sf_ray.runtime.log import say
from sf_ray.runtime.nodes import Node, on_every_node, this_node_id, working_nodes
from sf_ray.scoring.score_set import ScoreSet
from sf_ray.storage.listing import list_files
from sf_ray.storage.location import Location, storage_errors
from sf_ray.storage.shared import SeenFile, Token, local_path, look, token_in

# A node that is up starts a process in seconds, unless it has to unpack a runtime environment.
_LIMIT_S = 60.0
# Nodes that an error names; more are counted.
_NODES_SHOWN = 4


@dataclass(frozen=True)
class Places:
    """The places that tasks of a command use.

    Attributes:
        read: What an error calls the place, and the place -> the paths of its local files.
        written: What an error calls the place, and the place. One that does not exist is made for
            the moment.
    """

    read: Mapping[tuple[str, str], Sequence[str]]
    written: Sequence[tuple[str, Location]] = ()


def corpus_files(corpus: Corpus, flag: str = "INPUT") -> dict[tuple[str, str], list[str]]:
    """The local files of a corpus, for `Places.read`.

    Args:
        corpus: The corpus.
        flag: What errors call it.
    """
    path = local_path(corpus.location)
    if path is None:
        return {}
    if corpus.location.is_remote:  # a chain: an archive on a disk
        return {(flag, corpus.location.public_uri): [path]}
    return {(flag, path): [shard.file.path for shard in corpus.shards]}


def score_files(score_set: ScoreSet) -> dict[tuple[str, str], list[str]]:
    """The local pieces of scores, for `Places.read`."""
    if score_set.location.is_remote:
        return {}
    return {("SCORES", score_set.pieces.path): [file.path for file in list_files(score_set.pieces)]}


def model_files(flag: str, name: str) -> dict[tuple[str, str], list[str]]:
    """The files of a model or an encoder on a disk, for `Places.read`; none for any other name."""
    files = local_model_files(name)
    return {(flag, os.path.abspath(name)): files} if files else {}


def within(flag: str, *folders: Location) -> list[tuple[str, Location]]:
    """Local folders that exist in a place, for `Places.written`: each may be a disk of its own."""
    return [
        (flag, folder) for folder in folders if not folder.is_remote and os.path.isdir(folder.path)
    ]


def check_shared(places: Places, limit_s: float = _LIMIT_S) -> None:
    """Asks every node whether it sees what this machine sees.

    A cluster of one node, and a command whose places all are remote, cost nothing.

    Args:
        places: The places.
        limit_s: How long to wait for the nodes; one that does not answer in time is noted.

    Raises:
        UsageError: A node does not; names the place, and the nodes that do and do not see it.
        SfRayError: This machine itself cannot read or write there.
    """
    written = [(flag, place) for flag, place in places.written if not place.is_remote]
    read = {key: paths for key, paths in places.read.items() if paths}
    if not (written or read):
        return
    nodes = working_nodes()
    if len(nodes) < 2:
        return
    seen = {}
    for key, paths in read.items():
        with storage_errors(Location(key[1])):
            seen[key] = look(paths)
    with ExitStack() as tokens:
        put = {(flag, place.path): tokens.enter_context(token_in(place)) for flag, place in written}
        answers = on_every_node(lambda: _see(this_node_id(), seen, put), limit_s, nodes)
        problems = {
            node: dict(answer)
            for node, answer in answers.items()
            if not isinstance(answer, SfRayError)
        }
        for node, found in problems.items():
            for key, token in put.items():
                if key not in found and not token.is_answered_by(node.id):
                    found[key] = "writes there, but this machine does not see it"
    if silent := [node for node in nodes if node not in problems]:
        say(
            f"note: {_names(silent)} did not answer within {limit_s:.0f} s, so that nobody knows "
            f"whether {', '.join(path for _, path in [*seen, *put])} can be seen from there"
        )
    bad = [_refusal(key, problems, key in put) for key in [*seen, *put] if _any(key, problems)]
    if bad:
        raise UsageError("\n".join(bad))


_Problems = Mapping[tuple[str, str], str]


def _see(
    node_id: str,
    read: Mapping[tuple[str, str], Sequence[SeenFile]],
    written: Mapping[tuple[str, str], Token],
) -> dict[tuple[str, str], str]:
    """What is wrong with each place on the node that this runs on; places that are fine lack."""
    found = {key: _first_problem(files) for key, files in read.items()}
    found |= {key: token.answer(node_id) for key, token in written.items()}
    return {key: problem for key, problem in found.items() if problem}


def _first_problem(files: Sequence[SeenFile]) -> str:
    return next(filter(None, (file.problem() for file in files)), "")


def _any(key: tuple[str, str], problems: Mapping[Node, _Problems]) -> bool:
    return any(key in found for found in problems.values())


def _refusal(key: tuple[str, str], problems: Mapping[Node, _Problems], is_written: bool) -> str:
    flag, path = key
    blind = [node for node, found in problems.items() if key in found]
    seeing = [node for node, found in problems.items() if key not in found]
    what = "; ".join(f"{node.name} {problems[node][key]}" for node in blind[:_NODES_SHOWN])
    more = f"; so do {len(blind) - _NODES_SHOWN} more nodes" if len(blind) > _NODES_SHOWN else ""
    fine = f" All is well on {_names(seeing)}." if seeing else ""
    copies = "" if is_written else ", or put the same files at this path of every node"
    return (
        f"{flag} {path}: not every node of the cluster sees there what this machine sees: {what}"
        f"{more}.{fine} Nodes with disks of their own need a bucket (s3://...) or a file system "
        f"that all of them share{copies}"
    )


def _names(nodes: Sequence[Node]) -> str:
    shown = ", ".join(node.name for node in nodes[:_NODES_SHOWN])
    more = len(nodes) - _NODES_SHOWN
    return f"{shown} and {more} more nodes" if more > 0 else shown
