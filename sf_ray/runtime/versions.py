"""Whether the workers of a cluster have the software of the driver."""

from collections.abc import Mapping, Sequence

from sf_ray.errors import SfRayError
from sf_ray.runtime.log import say
from sf_ray.runtime.nodes import Node, on_every_node

# Package -> version without the build's own part (2.13.0 for 2.13.0+cpu); None where it is missing.
Versions = dict[str, str | None]

# Beside sf_ray itself: those in which a difference changes scores, files, or what can be pickled.
_PACKAGES = ("ray", "torch", "transformers", "pyarrow")
# Nodes that an error names.
_NAMED = 3


def check_workers() -> None:
    """Compares what every node has with what this process has.

    Raises:
        SfRayError: Names the nodes and what differs there, or says that no node runs workers.
    """
    packages = _PACKAGES

    def versions() -> Versions:
        # All in here, because a function of this package is not found where the package is not.
        import importlib
        import platform
        from importlib.metadata import PackageNotFoundError, version

        found: Versions = {"python": ".".join(platform.python_version_tuple()[:2])}
        try:
            # Imported, because a checkout has no metadata.
            found["sf_ray"] = importlib.import_module("sf_ray").__version__
        except ImportError:
            found["sf_ray"] = None
        for package in packages:
            try:
                found[package] = version(package).partition("+")[0]
            except PackageNotFoundError:
                found[package] = None
        return found

    versions.__annotations__ = {}  # they would be looked up in this package
    judge(versions(), on_every_node(versions))


def judge(ours: Versions, answers: Mapping[Node, Versions | SfRayError]) -> None:
    """Refuses nodes whose versions differ from ours; says which gave no answer.

    Raises:
        SfRayError: Some differ, or none gave an answer.
    """
    silent = {node: answer for node, answer in answers.items() if isinstance(answer, SfRayError)}
    differing = {
        node: problem
        for node, answer in answers.items()
        if not isinstance(answer, SfRayError) and (problem := _difference(ours, answer))
    }
    if differing:
        problem = next(iter(differing.values()))
        raise SfRayError(
            f"{_in_words(list(differing))}: the workers there {problem}; install the same on every "
            "node (the image of the Dockerfile has all of it), or send the code along with "
            "`ray job submit --working-dir`"
        )
    if silent:
        reason = next(iter(silent.values()))
        if len(silent) == len(answers):
            raise SfRayError(
                f"no node of the cluster runs a worker for this job ({reason}); look at the log of "
                "the workers (`ray logs`), and whether the job's runtime environment can be made"
            )
        say(f"note: {_in_words(list(silent))}: versions are not compared there ({reason})")


def _difference(ours: Versions, theirs: Versions) -> str:
    """What differs, in words; empty where nothing does."""
    missing = [name for name, version in theirs.items() if ours[name] and version is None]
    if missing:
        return f"cannot import {', '.join(missing)}, which this process has"
    other = [name for name, version in theirs.items() if ours[name] != version]
    return (
        "have another version than this process: "
        + ", ".join(f"{name} {theirs[name]}, here {ours[name]}" for name in other)
        if other
        else ""
    )


def _in_words(nodes: Sequence[Node]) -> str:
    """Some nodes by address, a few of them by name."""
    names = sorted({node.address for node in nodes})
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"node{'s' if len(names) > 1 else ''} {', '.join(names[:_NAMED])}{more}"
