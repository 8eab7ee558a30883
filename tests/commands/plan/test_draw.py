from itertools import chain
from pathlib import Path

import pytest
import ray

from sf_ray.commands.plan.draw import Reading, count_segments, counts_of, encode_whole
from sf_ray.corpus.formats import resolve_format
from sf_ray.corpus.planning import Corpus, plan_corpus
from sf_ray.corpus.units import Place, Unit, units_of
from sf_ray.encoding.encoded_rows import EncodedRow
from sf_ray.encoding.encoded_table import encoded_table, sequences_of
from sf_ray.encoding.encoder import Encoder
from sf_ray.encoding.specs import EncodingSpec, ModelSpec
from sf_ray.engine.flops import Work
from sf_ray.engine.model_files import load_tokenizer, resolve_model
from sf_ray.engine.sequences import TokenSequences
from sf_ray.errors import BadShardError
from sf_ray.storage.location import Location

CHAT = [
    {"role": "user", "content": "what is it"},
    {"role": "assistant", "content": "it is a word"},
    {"role": "user", "content": "and that"},
    {"role": "assistant", "content": "that is one too"},
]


def encoded_chats(model: Path, alignment: str) -> list[EncodedRow]:
    render = resolve_format(["messages"]).render
    rows = [{"messages": CHAT}, {"messages": CHAT[:2]}, {"messages": CHAT[:1]}]
    encoder = Encoder(load_tokenizer(resolve_model(str(model))), 256, alignment)
    return list(encoder.encode([render(row) for row in rows]))


@pytest.mark.parametrize("alignment", ["reference", "aligned"])
def test_the_passes_of_a_chat_are_told_apart(tiny_model: Path, alignment: str) -> None:
    rows = encoded_chats(tiny_model, alignment)
    counts = counts_of(encoded_table(rows), cpu_s=0.5)
    conditioned, direct = (
        TokenSequences.of(list(chain(*passes)))
        for passes in ([row.conditioned for row in rows], [row.direct for row in rows])
    )
    assert counts.conditioned == Work.plain(conditioned)
    assert counts.direct == Work.plain(direct)
    assert counts.conditioned.tokens > counts.direct.tokens > 0
    assert counts.statuses == {"ok": 2, rows[2].status.value: 1}
    assert (counts.rows, counts.cpu_s) == (3, 0.5)


def reading_of(corpus: Corpus, model: Path, skip_bad: bool = False) -> Reading:
    row_format = resolve_format(list(corpus.schema.names))
    spec = ModelSpec(str(model), resolve_model(str(model)).fingerprint)
    encoding = EncodingSpec(row_format, spec, 256, "reference")
    return Reading(corpus.location, encoding.for_workers(), skip_bad, skip_bad_lines=False)


def places_of(corpus: Corpus) -> list[Place]:
    return [
        Place(shard, unit) for shard in corpus.shards for unit in units_of(shard.row_groups, 16)
    ]


def test_places_in_shards_that_cannot_be_read_are_left_out(corpus: Path, tiny_model: Path) -> None:
    listed = plan_corpus(Location(str(corpus)))
    first, second = (Place(shard, Unit(4, 9)) for shard in listed.shards[:2])
    (corpus / first.shard.file.relative).unlink()
    with pytest.raises(BadShardError, match=first.shard.file.relative):
        list(reading_of(listed, tiny_model).encoded([first, second]))
    (left,) = reading_of(listed, tiny_model, skip_bad=True).encoded([first, second])
    assert (left.shard, left.start) == (second.shard.file.relative, 4)
    assert left.rows.num_rows == 5


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_segments_are_counted_in_the_order_of_the_corpus(corpus: Path, tiny_model: Path) -> None:
    listed = plan_corpus(Location(str(corpus)))
    reading, places = reading_of(listed, tiny_model), places_of(listed)
    segments = count_segments(reading, places, 30, seed=0, stall_s=60)
    assert sum(segment.rows for segment in segments) == 30
    again = count_segments(reading, places, 30, seed=0, stall_s=60)
    assert [segment.both for segment in again] == [segment.both for segment in segments]
    whole = count_segments(reading, places, 1000, seed=0, stall_s=60)
    encoded = [encoded.rows for encoded in reading.encoded(places)]
    plain = sum((Work.plain(sequences_of(rows)) for rows in encoded), Work())
    assert sum((segment.both for segment in whole), Work()) == plain


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_whole_units_are_kept_with_their_work_and_in_order(corpus: Path, tiny_model: Path) -> None:
    listed = plan_corpus(Location(str(corpus)))
    reading, places = reading_of(listed, tiny_model), places_of(listed)[:4]
    units = encode_whole(reading, places, seed=0, stall_s=60)
    assert len(units) == 4
    for unit, encoded in zip(units, reading.encoded(places), strict=True):
        stored = ray.get(unit.encoded)
        assert stored.equals(encoded.rows)
        assert unit.plain == Work.plain(sequences_of(stored))
        assert unit.read.rows == stored.num_rows
        assert unit.read.cpu_s > 0
