import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sf_ray.corpus.formats import Row
from sf_ray.corpus.planning import Corpus, plan_corpus
from sf_ray.corpus.readers import json_array, json_lines
from sf_ray.corpus.readers.content import is_json_text
from sf_ray.corpus.readers.file_types import codec_of
from sf_ray.corpus.readers.json_lines import LINE, LINES
from sf_ray.corpus.readers.shard import open_shard, read_footer
from sf_ray.corpus.rows import BadLine, first_bad_row, read_units, rows_of
from sf_ray.corpus.units import group_reads, units_of
from sf_ray.errors import BadRowError, BadShardError
from sf_ray.output.shard_writer import write_shard
from sf_ray.storage.files import put_bytes
from sf_ray.storage.listing import list_files
from sf_ray.storage.location import Location
from tests.support.packing import packed

# Numbers that Python writes as it reads them; all else as JSON has it.
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text(), VALUES, max_size=4), max_size=12)
PACKINGS = [
    "jsonl", "jsonl.gz", "ndjson.zst", "json", "json.gz", "lines.json", "JSONL.bz2", "jsonl.xz",
    "Json.LZ4",
]  # fmt: skip


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Edges everywhere: of buffers, of groups of rows."""
    for module in (json_lines, json_array):
        monkeypatch.setattr(module, "_BUFFER_BYTES", 16)
    for name in ("_GROUP_ROWS", "_PACKED_GROUP_ROWS"):
        monkeypatch.setattr(json_lines, name, 3)
    monkeypatch.setattr(json_lines, "_GROUP_BYTES", 200)
    monkeypatch.setattr(json_lines, "_BATCH_BYTES", 300)


def pack(texts: list[bytes], packing: str, newline: bytes = b"\n", mark: bytes = b"") -> bytes:
    """JSON texts as the content of a file."""
    packing = packing.lower()
    if packing.startswith("json") and "jsonl" not in packing:
        data = mark + b"[" + (newline + b",").join(texts) + newline + b"]"
    else:
        data = mark + newline.join(texts)
    return packed(data, codec_of(packing))


def plan(folder: Path, name: str, data: bytes) -> Corpus:
    (folder / name).write_bytes(data)
    return plan_corpus(Location(str(folder)))


def read_all(corpus: Corpus, unit_rows: int = 2) -> list[Row | BadLine]:
    """The rows, unit by unit, each unit read as if it were the only one that is left."""
    (shard,) = corpus.shards
    return [
        row
        for unit in units_of(shard.row_groups, unit_rows)
        for table in read_units(corpus.location, group_reads(shard, [unit])[0], ["any"])
        for row in rows_of(table)
    ]


def lines_of(corpus: Corpus) -> list[bytes]:
    with open_shard(corpus.location, corpus.shards[0].file) as reader:
        return [line for batch in reader.batches(5) for line in batch[LINE].to_pylist()]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("packing", PACKINGS)
@settings(max_examples=8)  # each of them writes files to disk
@given(
    rows=OBJECTS,
    is_ascii=st.booleans(),
    newline=st.sampled_from([b"\n", b"\r\n", b"\n\n \n"]),
    mark=st.sampled_from([b"", b"\xef\xbb\xbf"]),
)
def test_rows_come_back_from_every_packing_and_kept_ones_keep_their_text(
    tmp_path_factory: pytest.TempPathFactory,
    packing: str,
    rows: list[dict[str, Any]],
    is_ascii: bool,
    newline: bytes,
    mark: bytes,
) -> None:
    # A file of one object with an array or object in it may be no row, but hold rows.
    assume(len(rows) != 1 or not any(isinstance(v, list | dict) for v in rows[0].values()))
    folder = tmp_path_factory.mktemp("json")
    texts = [json.dumps(row, ensure_ascii=is_ascii).encode() for row in rows]
    corpus = plan(folder, f"a.{packing}", pack(texts, packing, newline, mark))
    assert corpus.rows == len(rows)
    assert read_all(corpus) == rows
    assert [line.strip() for line in lines_of(corpus)] == texts

    keep = np.arange(len(rows)) % 2 == 0
    ifd = np.linspace(0.1, 0.9, len(rows))
    shard = corpus.shards[0]
    added = "no such name"
    out = Location(str(folder / "out"))
    contents = set()
    if not rows:
        assert write_shard(corpus.location, shard, ifd, keep, out, added).rows == 0
        assert not (folder / "out").exists()
        return
    for _ in range(2):
        write_shard(corpus.location, shard, ifd, keep, out, added)
        contents.add((folder / "out" / f"a.{packing}").read_bytes())
    assert len(contents) == 1
    again = plan_corpus(out)
    kept = [(row, value) for row, value, is_kept in zip(rows, ifd, keep, strict=True) if is_kept]
    assert read_all(again) == [row | {added: value} for row, value in kept]
    for line, text, value in zip(
        lines_of(again), [t for t, k in zip(texts, keep, strict=True) if k], ifd[keep], strict=True
    ):
        comma = "" if text == b"{}" else ", "
        assert line.strip() == text[:-1] + f'{comma}"{added}": {float(value)!r}}}'.encode()


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("packing", ["jsonl", "jsonl.gz"])
def test_text_is_kept_to_the_byte(tmp_path: Path, packing: str) -> None:
    texts = [
        b'{"n": 1.50e+10, "n": 2, "z" :[ 1,\t2 ] }\r',
        b'  {"broken": "\xff\xfe"}',
        b'{"big": 123456789012345678901234567890, "nan": NaN, "slash": "\\/"}  ',
    ]
    assert lines_of(plan(tmp_path, f"a.{packing}", pack(texts, packing))) == texts


def test_reading_begins_where_a_group_begins(tmp_path: Path) -> None:
    texts = [json.dumps({"row": i}).encode() for i in range(10_000)]
    for packing in ("jsonl", "json", "jsonl.gz"):
        folder = tmp_path / packing
        folder.mkdir()
        (shard,) = plan(folder, f"a.{packing}", pack(texts, packing)).shards
        size = len(shard.row_groups)
        assert shard.row_groups == ((10_000,) if packing.endswith("gz") else (4096, 4096, 1808))
        assert len(shard.starts) == size
        reads = group_reads(shard, units_of(shard.row_groups, 4096)[-1:])
        assert reads[0].offset == shard.starts[-1]
        (table,) = read_units(Location(str(folder)), reads[0], [])
        assert next(rows_of(table)) == {"row": 10_000 - table.num_rows}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"a": 1', "not valid JSON (Expecting ',' delimiter at character 8)"),
        (b"{'a': 1}", "not valid JSON"),
        (b'{"a": 1} {"b": 2}', "not valid JSON (Extra data at character 10)"),
        (b'{"a": "\xff"}', "not valid UTF-8 (byte 0xff at 7)"),
        (b"[1]", "a JSON array, expected an object"),
        (b'"text"', "a JSON string, expected an object"),
        (b"7", "a JSON number, expected an object"),
        (b"null", "a JSON null, expected an object"),
        (b"[" * 100_000, "not readable JSON"),
        (b'{"a": ' + b"7" * 5000 + b"}", "not readable JSON"),
    ],
)
def test_a_broken_line_is_a_row_that_says_what_is_wrong(
    tmp_path: Path, line: bytes, words: str
) -> None:
    corpus = plan(tmp_path, "a.jsonl", b'\n{"a": 1}\n\n' + line + b'\n{"a": 2}')
    first, broken, last = read_all(corpus, unit_rows=9)
    assert (first, last) == ({"a": 1}, {"a": 2})
    assert isinstance(broken, BadLine)
    assert words in broken.reason

    shard = corpus.shards[0]
    (table,) = read_units(corpus.location, group_reads(shard, units_of([3], 9))[0], [])
    error = first_bad_row(corpus.location, shard.file, 0, table, [0, 1])
    assert isinstance(error, BadRowError)
    assert str(error).startswith("shard a.jsonl, line 4: " + words)
    assert "--on-bad-line skip, which gives row 1 the status bad_row" in str(error)
    assert first_bad_row(corpus.location, shard.file, 0, table, [0, 2]) is None


def test_an_element_that_is_no_object_is_a_broken_row(tmp_path: Path) -> None:
    corpus = plan(tmp_path, "a.json", b'[{"a": 1}, 12, {"a": 2}]')
    assert read_all(corpus)[1] == BadLine("a JSON number, expected an object")
    shard = corpus.shards[0]
    (table,) = read_units(corpus.location, group_reads(shard, units_of([3], 9))[0], [])
    error = first_bad_row(corpus.location, shard.file, 0, table, [1])
    assert str(error).startswith("shard a.json, element 2: a JSON number")


@pytest.mark.usefixtures("small_parts")
def test_a_number_with_too_many_digits_breaks_its_own_row(tmp_path: Path) -> None:
    data = b'[{"instruction": "a", "output": ' + b"9" * 5000 + b'}, {"output": "b"}]'
    broken, row = read_all(plan(tmp_path, "a.json", data))
    assert isinstance(broken, BadLine)
    assert "4300 digits" in broken.reason
    assert row == {"output": "b"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'[{"a": 1}, {"b": 2}', "at byte 19 (expected a comma or ])"),
        (b'[{"a": 1} {"b": 2}]', "at byte 10 (expected a comma or ])"),
        (b'[{"a": 1},]', "at byte 10 (a comma before the end)"),
        (b'[{"a": 1}, {"b: 2}]' + b" " * 99, "at byte 11 (Unterminated string"),
        (b'[{"a": 1}, {b: 2}]' + b"\n" * 99, "at byte 11 (Expecting property name"),
        (b'[{"a": 1}] more', "at byte 11 (something follows its end)"),
        (b"[", "at byte 1 (Expecting value)"),
        (b"[,]", "at byte 1 (Expecting value)"),
        (b"[" * 100_000, "at byte 1 ("),
    ],
)
def test_a_broken_array_is_a_bad_shard(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(BadShardError, match="shard a.json: no valid JSON array") as error:
        plan(tmp_path, "a.json", data)
    assert words in str(error.value)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.json.gz"])
@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_compressed_file_is_a_bad_shard(tmp_path: Path, name: str, damage: str) -> None:
    data = pack([b'{"a": "%d"}' % i for i in range(5000)], name.removeprefix("a."))
    data = {"cut": data[:-40], "empty": b"", "other": b"1,2,3\n" * 99}[damage]
    with pytest.raises(BadShardError, match=f"shard {name}: (cannot be read|empty|its name)"):
        plan(tmp_path, name, data)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.zst", "a.jsonl.xz"])
def test_a_file_that_was_unpacked_on_its_way_is_read_and_written_packed(
    tmp_path: Path, name: str
) -> None:
    texts = [b'{"a": 1}', b'{"a": 2}']
    plain = name.rpartition(".")[0]
    corpus = plan(tmp_path, name, b"\xef\xbb\xbf \n" + pack(texts, plain.removeprefix("a.")))
    assert read_all(corpus) == [{"a": 1}, {"a": 2}]
    out = Location(str(tmp_path / "out"))
    write_shard(
        corpus.location, corpus.shards[0], np.zeros(2), np.ones(2, bool), out, "ifd"
    )  # fmt: skip
    assert not is_json_text((tmp_path / "out" / name).read_bytes())
    assert len(read_all(plan_corpus(out))) == 2


ROWS = b'{"a": 1}\n{"a": 2}\n'


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", packed(ROWS, "gzip"), "is gzip, not JSON; give it the name a.jsonl.gz"),
        ("a.json", packed(ROWS, "xz"), "is xz, not JSON; give it the name a.json.xz"),
        ("a.jsonl.gz", packed(ROWS, "zstd"), "says gzip, but its content is zstd; give"),
        ("a.jsonl.bz2", packed(ROWS, "gzip"), "says bz2, but its content is gzip; give"),
        ("a.jsonl.gz", packed(packed(ROWS, "gzip"), "gzip"), "content is gzip, not JSON; unpack"),
        ("a.jsonl", b"PAR1" + b"\0" * 99, "content is Parquet, not JSON; give it the name a.parq"),
        ("a.jsonl.gz", packed(b"ARROW1\0\0", "gzip"), "content is Arrow, not JSON; unpack it, an"),
        ("a.jsonl", ROWS.decode().encode("utf-16"), "content is UTF-16 text, not JSON; make it"),
        ("a.jsonl", ROWS.decode().encode("utf-16-le"), "content is UTF-16 text, not JSON"),
        ("a.jsonl.zst", packed(ROWS.decode().encode("utf-16-be"), "zstd"), "is UTF-16 text"),
        ("a.json", b"<!DOCTYPE html><html>", "is a page in HTML or XML, as a server answers, not"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid", "is a pointer of Git LFS"),
        ("a.jsonl.gz", b"version https://git-lfs.github.com/spec/v1\noid", "`git lfs pull`"),
        ("a.jsonl", b"\0" * 4096, "is NUL bytes, as a crash while writing leaves them"),
        ("a.jsonl", b"instruction,output\na,b\nc,d\n", "is no JSON: it begins with 'instruction,o"),
        ("a.jsonl", b'{\n "a": 1\n}\n{\n "a": 2\n}\n', "holds objects over several lines, while"),
        ("a.jsonl.gz", packed(b'{"a": 1}\r{"a": 2}\r', "gzip"), "end in a carriage return alone"),
    ],
)
def test_a_file_of_other_content_is_a_bad_shard_that_says_what_it_is(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    with pytest.raises(BadShardError, match=f"^shard {name}: ") as error:
        plan(tmp_path, name, content)
    assert words in str(error.value)


def test_a_crash_while_writing_leaves_a_bad_row(tmp_path: Path) -> None:
    corpus = plan(tmp_path, "a.jsonl", ROWS + b"\0" * 500)
    assert read_all(corpus)[2] == BadLine(
        "NUL bytes, from byte 0 on, as a crash while writing leaves them"
    )
    with pytest.raises(BadShardError, match="NUL bytes follow its end"):
        plan(tmp_path, "b.json", b"[{}]\n" + b"\0" * 500)
    with pytest.raises(BadShardError, match="another array follows"):
        plan(tmp_path, "b.json", b"[{}]\n[{}]\n")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.json.gz"])
def test_nothing_is_no_rows(tmp_path: Path, name: str) -> None:
    data = gzip.compress(b"[\n]\n") if name.endswith("gz") else b"\xef\xbb\xbf \n\n"
    corpus = plan(tmp_path, name, data)
    assert (corpus.rows, corpus.shards[0].row_groups) == (0, ())


def test_lines_are_read_from_every_storage(place: Location) -> None:
    texts = [json.dumps({"row": i, "text": "x" * 99}).encode() for i in range(9000)]
    for name in ("a.json", "a.jsonl", "a.jsonl.gz"):
        put_bytes(place.join(name), pack(texts, name.removeprefix("a.")))
    for file in list_files(place):
        footer = read_footer(place, file)
        assert footer.schema is LINES
        assert sum(footer.row_groups) == 9000
        with open_shard(place, file) as reader:
            batch = next(reader.batches(10, offset=footer.starts[-1]))
        number = 9000 - footer.row_groups[-1]
        assert json.loads(batch[LINE][0].as_py())["row"] == number
