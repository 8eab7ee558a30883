"""What `embed_kept` does when rows are lost. No Ray."""

from pathlib import Path
from typing import cast

import pytest

from bench.support.corpora import make_rows, write_shards
from sf_ray.config.selection_options import SelectionOptions
from sf_ray.corpus.formats import resolve_format
from sf_ray.corpus.planning import plan_corpus
from sf_ray.encoding.specs import ModelSpec
from sf_ray.errors import ClusterError
from sf_ray.selection.chunks import Chunk, Kept
from sf_ray.selection.corpus_pass import CorpusPass
from sf_ray.selection.diversity import embedding_run
from sf_ray.selection.diversity.embedder import EmbedderSpec
from sf_ray.selection.diversity.embedding_set import EmbeddingSet
from sf_ray.selection.ranking import Ranking
from sf_ray.selection.selection import Selection
from sf_ray.storage.location import Location


def test_what_is_lost_is_embedded_again_as_long_as_anything_is_done(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    left = iter([9, 9, 5, 5, 5, 5])
    tries = []

    def fail(*_: object) -> None:
        tries.append(1)
        raise ClusterError("a node is gone")

    def missing(*_: object) -> embedding_run._Missing:
        return embedding_run._Missing(next(left), [Chunk([])])

    monkeypatch.setattr(embedding_run, "_missing", missing)
    monkeypatch.setattr(embedding_run, "_embed_once", fail)
    corpus = plan_corpus(Location(str(write_shards(tmp_path / "corpus", make_rows(9)))))
    place = Location(str(tmp_path))
    corpus_pass = CorpusPass(place, False, 1.0)
    selection = Selection(corpus, corpus_pass, [], cast(Kept, None), cast(Ranking, None))
    with pytest.raises(ClusterError, match="a node is gone"):
        embedding_run.embed_kept(
            cast(SelectionOptions, None),
            selection,
            EmbedderSpec(ModelSpec("minilm", "abc")),
            resolve_format(["instruction", "output"]),
            EmbeddingSet(place, {}),
        )
    assert len(tries) == 5  # once without, once with, three times without any row more
