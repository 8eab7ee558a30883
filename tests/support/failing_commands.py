"""Command lines that fail in every stage, one after the other in one process and one Ray.

    python failing_commands.py COMMANDS.json [words that the process is started with]

The file has [name of the stage, arguments] for each. Stages that begin with "worker" fail in a
process of Ray; those that begin with "select" lose their corpus between scoring and selection.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.cloudpickle

from bench.support import free_scorer
from sf_ray.cli import main
from sf_ray.commands import pipeline
from sf_ray.commands.setup import Specs
from sf_ray.storage.location import Location


@dataclass(frozen=True)
class FailingEngineSpec(free_scorer.FreeEngineSpec):
    """An engine whose weights are gone when an actor wants them."""

    def start(self) -> Any:
        Location(self.model.name, self.model.storage_options, 0).call("cat_file", "gone/weights")


def without_corpus(*args: Any, **kwargs: Any) -> Any:
    corpus = args[1].location
    corpus.fs.rm(corpus.path, recursive=True)
    return select_and_write(*args, **kwargs)


select_and_write = pipeline.select_and_write

if __name__ == "__main__":
    ray.cloudpickle.register_pickle_by_value(free_scorer)
    for stage, arguments in json.loads(Path(sys.argv[1]).read_text()):
        specs = free_scorer.specs()
        if stage.startswith("worker"):
            specs = Specs(specs.encoding, FailingEngineSpec, specs.embedder)
        pipeline.select_and_write = (
            without_corpus if stage.startswith("select") else select_and_write
        )
        takes_specs = arguments[0] in ("run", "score", "select")
        print(f"{stage} ends with {main(arguments, specs if takes_specs else None)}", flush=True)
    ray.shutdown()
