import json
import os
import pickle
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sf_ray.commands import setup
from sf_ray.commands.locations import input_of, location_of, model_storage_options
from sf_ray.commands.setup import (
    Specs,
    check_columns,
    check_places,
    find_encoding,
    list_corpus,
    scoring_spec_of,
    without_bad,
)
from sf_ray.commands.usable import usable_shards
from sf_ray.config.quotas import Quota
from sf_ray.config.selection_options import RunOptions
from sf_ray.corpus.examples import Example, Message
from sf_ray.corpus.formats import SampleRow
from sf_ray.corpus.plan_cache import Sample, keep_footers, sample_of
from sf_ray.corpus.planning import Corpus, plan_corpus
from sf_ray.encoding.specs import EncodingSpec
from sf_ray.encoding.template_process import PROCESS, TemplateError, TemplateJob, Turn
from sf_ray.errors import SfRayError, TerminatedError, UsageError
from sf_ray.scoring.score_set import mark_bad, score_set_of
from sf_ray.storage.files import put_bytes
from sf_ray.storage.location import Location
from tests.support.arrow_types import interval_field
from tests.support.engines import load
from tests.support.storage import S3


def options(**values: Any) -> RunOptions:
    given = {"input": "in", "output": "out", "model": "m", "keep_fraction": 0.5}
    return RunOptions.model_validate(given | values)


def sample_of_rows(*rows: Mapping[str, object]) -> Sample:
    return Sample((), tuple(SampleRow("a.jsonl", i, dict(row)) for i, row in enumerate(rows)))


def json_corpus(folder: Path, *rows: Mapping[str, object]) -> Corpus:
    folder.mkdir()
    (folder / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return plan_corpus(Location(str(folder)))


def test_a_location_has_the_storage_options_of_the_command() -> None:
    asked = options(storage_options={"anon": True}, storage_retry_s=7)
    assert location_of(asked, "s3://b/x") == Location("s3://b/x", {"anon": True}, 7)


def test_input_and_model_may_have_storage_options_of_their_own() -> None:
    shared: dict[str, object] = {"storage_options": {"key": "mine"}, "input": "s3://b/in"}
    asked = options(**shared, storage_retry_s=7)
    assert input_of(asked) == Location("s3://b/in", {"key": "mine"}, 7)
    assert model_storage_options(asked) == {"key": "mine"}
    asked = options(**shared, input_storage_options='{"anon": true}', model_storage_options={})
    assert input_of(asked).storage_options == {"anon": True}
    assert model_storage_options(asked) == {}
    assert location_of(asked, "s3://b/out").storage_options == {"key": "mine"}


@pytest.mark.s3
def test_a_corpus_is_listed_with_the_options_of_the_input(s3: S3) -> None:
    put_bytes(Location(f"{s3.bucket}/in/a.jsonl", s3.options), b'{"prompt": "a"}\n')
    asked = options(
        input=f"{s3.bucket}/in",
        input_storage_options=s3.options,
        storage_options={"endpoint_url": "http://127.0.0.1:1"},  # where the output would go
        storage_retry_s=0,
    )
    corpus, _ = list_corpus(asked, None, {})
    assert corpus.rows == 1
    sample_of(None, corpus)


@pytest.mark.parametrize("flag", ["INPUT", "OUTPUT", "--scores"])
def test_a_place_whose_name_is_no_text_is_refused(flag: str) -> None:
    places = {"INPUT": "in", "OUTPUT": "out", "--scores": "scores"} | {flag: os.fsdecode(b"a\xff")}
    with pytest.raises(UsageError, match=rf"{flag} a\\xff: not UTF-8"):
        check_places(options(input=places["INPUT"]), places["--scores"], places["OUTPUT"])


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (("corpus", None, "corpus/out"), "corpus and .*corpus/out lie inside each other"),
        (("all/corpus", "all", None), "all/corpus and .*all lie inside each other"),
        (("corpus", "corpus", "out"), "corpus and .*corpus lie inside each other"),
        (("all/*.parquet", None, "all"), "lie inside each other"),
        (("corpus", "out/data/scores", "out"), "scores lies in .*out/data, where only filtered"),
    ],
)
def test_places_inside_each_other_are_refused(
    places: tuple[str, str | None, str | None], words: str, tmp_path: Path
) -> None:
    corpus, scores, output = (place and str(tmp_path / place) for place in places)
    with pytest.raises(UsageError, match=words):
        check_places(options(input=corpus), scores, output)


def test_a_path_is_absolute_so_that_what_is_printed_says_where_things_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for relative in ("out", "./out", "other/../out"):
        assert location_of(options(), relative).public_uri == str(tmp_path / "out")
    with pytest.raises(UsageError, match=f"INPUT {tmp_path}/in and {tmp_path}/in/out lie inside"):
        check_places(options(input="in"), None, "in/out")


@pytest.mark.parametrize("flag", ["OUTPUT", "--scores"])
@pytest.mark.parametrize("spelling", ["relative", "absolute", "a link"])
def test_results_in_the_folder_that_ray_unpacked_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str, spelling: str
) -> None:
    unpacked = tmp_path / "session_1/runtime_resources/working_dir_files/_ray_pkg_1"
    unpacked.mkdir(parents=True)
    monkeypatch.chdir(unpacked)
    (tmp_path / "link").symlink_to(unpacked)
    place = {"relative": "out", "absolute": f"{unpacked}/out", "a link": f"{tmp_path}/link/out"}
    asked = {"OUTPUT": (None, place[spelling]), "--scores": (place[spelling], None)}
    with pytest.raises(UsageError, match=f"^{flag} {tmp_path}/.*/out: .* Ray removes it after"):
        check_places(options(input="corpus"), *asked[flag])
    # What is only read may lie there: every node has unpacked it.
    check_places(options(input="corpus"), f"{tmp_path}/scores", f"{tmp_path}/out")


def test_the_memory_of_a_process_is_no_place_for_results() -> None:
    with pytest.raises(UsageError, match="^OUTPUT memory://out: this is the memory of one process"):
        check_places(options(), None, "memory://out")


def test_scores_may_lie_beside_the_data_of_an_output(tmp_path: Path) -> None:
    asked = options(input=str(tmp_path / "corpus"))
    check_places(asked, str(tmp_path / "out/scores"), str(tmp_path / "out"))
    check_places(asked, None, None)
    assert list(tmp_path.iterdir()) == []


def test_listing_reads_no_shard_whose_footer_is_known(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, scores = options(input=str(corpus)), Location(str(tmp_path / "scores"))
    wall_s: dict[str, float] = {}
    listed, known = list_corpus(asked, scores, wall_s)
    assert known == {}
    assert wall_s.keys() == {"plan"}
    assert "plan: 3 shards, 120 rows, 0.0 MB" in capsys.readouterr().err
    keep_footers(scores, listed, known)
    again, known = list_corpus(asked, scores, {})
    assert known.keys() == {shard.shard_id for shard in listed.shards}
    assert again == listed


def test_what_is_passed_over_is_told(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (corpus / "b.jsonl.lzo").write_text("x")
    list_corpus(options(input=str(corpus)), None, {})
    told = "note: passed over: 1 file, e.g. b.jsonl.lzo: not read: unpack it"
    assert told in capsys.readouterr().err


def test_an_output_with_brackets_in_its_name_is_a_place_like_others(tmp_path: Path) -> None:
    output = f"{tmp_path}/out [v1]"
    (tmp_path / "in [v1]").mkdir()
    check_places(options(input=f"{tmp_path}/in [v1]"), f"{output}/scores", output)


def test_a_shard_that_is_skipped_is_named(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (corpus / "train/00001.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(SfRayError, match="train/00001.parquet"):
        list_corpus(options(input=str(corpus)), None, {})
    listed, _ = list_corpus(options(input=str(corpus), on_bad_shard="skip"), None, {})
    assert [shard.relative for shard in listed.skipped] == ["train/00001.parquet"]
    assert "note: skipping shard train/00001.parquet: " in capsys.readouterr().err


def test_shards_that_are_marked_bad_are_left_out_where_bad_shards_are_skipped(
    corpus: Path, tmp_path: Path
) -> None:
    listed = plan_corpus(Location(str(corpus)))
    score_set = score_set_of(Location(str(tmp_path / "scores")), {"unit_rows": 16})
    mark_bad(score_set.pieces, listed.shards[0].stem, "cut off")
    assert without_bad(options(on_bad_shard="fail"), listed, score_set) == listed
    left = without_bad(options(on_bad_shard="skip"), listed, score_set)
    assert left.shards[0].file == listed.shards[1].file
    assert [shard.reason for shard in left.skipped] == ["cut off"]


def test_columns_that_are_there_already_or_missing_are_refused(corpus: Path) -> None:
    listed = plan_corpus(Location(str(corpus)))
    sample = sample_of(None, listed)
    check_columns(options(), listed, sample)
    with pytest.raises(UsageError, match="has a column 'id' already.*--ifd-column"):
        check_columns(options(ifd_column="id"), listed, sample)
    with pytest.raises(UsageError, match="--report-by"):
        check_columns(options(report_by="source"), listed, sample)
    with pytest.raises(UsageError, match="--quota"):
        quota = Quota("source", {"web": 0.5})
        check_columns(options(keep_fraction=None, quota=quota), listed, sample)


def test_a_column_whose_rows_cannot_be_written_is_refused(tmp_path: Path) -> None:
    schema = pa.schema([("text", pa.string()), interval_field("since", "months")])
    pa.ipc.new_stream(tmp_path / "a.arrow", schema).close()
    listed = plan_corpus(Location(str(tmp_path)))
    with pytest.raises(UsageError, match=r"column 'since' is .* cannot copy the type month_inter"):
        check_columns(options(), listed, sample_of_rows())


def test_a_compression_that_the_files_cannot_have_is_refused(corpus: Path, tmp_path: Path) -> None:
    parquet = plan_corpus(Location(str(corpus)))
    check_columns(options(compression="snappy"), parquet, sample_of(None, parquet))
    row = {"prompt": "a", "completion": "b"}
    lines, sample = json_corpus(tmp_path / "json", row), sample_of_rows(row)
    with pytest.raises(UsageError, match="snappy: JSON files cannot.*zstd, gzip, lz4, none"):
        check_columns(options(compression="snappy"), lines, sample)
    with pytest.raises(UsageError, match="keep the names of the input; give --file-size too"):
        check_columns(options(compression="gzip"), lines, sample)
    check_columns(options(compression="gzip", file_size="1MB"), lines, sample)


def test_a_field_of_json_is_looked_for_in_sampled_rows(tmp_path: Path) -> None:
    rows = {"instruction": "a", "output": "b", "meta": {"source": "web"}}
    listed = json_corpus(tmp_path / "corpus", rows)
    sample = sample_of_rows(rows)
    check_columns(options(report_by="meta.source"), listed, sample)
    with pytest.raises(UsageError, match="no row of a sample has the field 'source'.*'meta'"):
        check_columns(options(report_by="source"), listed, sample)


def test_the_encoding_is_that_of_the_columns_and_the_options(
    corpus: Path, tiny_model: Path
) -> None:
    listed = plan_corpus(Location(str(corpus)))
    asked = options(model=str(tiny_model), max_length=128, alignment="aligned", turns="last")
    encoding = find_encoding(asked, listed, sample_of(None, listed), Specs())
    assert encoding.format.name == "alpaca"
    assert (encoding.max_length, encoding.alignment, encoding.turns) == (128, "aligned", "last")
    assert encoding.template.identity == "plain"
    assert encoding.model.name == str(tiny_model)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_what_decides_a_score_is_its_identity(corpus: Path, tiny_model: Path) -> None:
    listed = plan_corpus(Location(str(corpus)))
    asked = options(model=str(tiny_model), max_length=128, unit_rows=16, alignment="aligned")
    encoding = find_encoding(asked, listed, sample_of(None, listed), Specs())
    spec = scoring_spec_of(asked, encoding, Specs())
    assert spec.identity == {
        "model": encoding.model.fingerprint,
        "format": "alpaca",
        "columns": dict(encoding.format.columns),
        "template": "plain",
        "turns": "all",
        "alignment": "aligned",
        "max_length": 128,
        "dtype": "float32",
        "unit_rows": 16,
    }
    assert (spec.engine.device, spec.engine.dtype) == ("cpu", "float32")
    # What older versions read otherwise gives another identity, and only that.
    newly = scoring_spec_of(asked, replace(encoding, newly_read=("weight",)), Specs())
    assert newly.identity == spec.identity | {"newly_read": ["weight"]}


def test_an_optional_field_of_json_counts_though_no_sampled_row_has_it(
    tmp_path: Path, tiny_model: Path
) -> None:
    row = {"instruction": "a", "output": "b"}
    listed = json_corpus(tmp_path / "corpus", row)
    asked = options(model=str(tiny_model), max_length=128)
    encoding = find_encoding(asked, listed, sample_of_rows(row), Specs())
    assert encoding.format.columns["input"] == "input"


def test_columns_of_text_that_no_score_depends_on_are_named(
    corpus: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = plan_corpus(Location(str(corpus)))
    asked = options(model=str(tiny_model), max_length=128)
    find_encoding(asked, listed, sample_of(None, listed), Specs())
    assert "columns not used: id (text)" in capsys.readouterr().err


def test_a_column_of_nan_is_no_text_but_nothing(tmp_path: Path, tiny_model: Path) -> None:
    columns = {"instruction": ["a"], "input": [float("nan")], "output": ["b"]}
    (tmp_path / "corpus").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "corpus/a.parquet")
    listed = plan_corpus(Location(str(tmp_path / "corpus")))
    sample = sample_of(None, listed)
    asked = options(model=str(tiny_model), max_length=128)
    encoding = find_encoding(asked, listed, sample, Specs())
    assert encoding.format.render(sample.rows[0].row) == Example(
        (Message("user", "a"), Message("assistant", "b"))
    )
    numbers = pa.table(columns | {"input": [1]})
    pq.write_table(numbers, tmp_path / "corpus/a.parquet")
    listed = plan_corpus(Location(str(tmp_path / "corpus")))
    with pytest.raises(SfRayError, match=r"shard a.parquet: column 'input' has the type int64"):
        usable_shards(asked, listed, encoding.format)


def test_fakes_are_made_in_place_of_the_real_specs(corpus: Path, tiny_model: Path) -> None:
    class FakeEncoding(EncodingSpec):
        pass

    listed = plan_corpus(Location(str(corpus)))
    asked = options(model=str(tiny_model), max_length=128)
    specs = Specs(encoding=FakeEncoding)
    encoding = find_encoding(asked, listed, sample_of(None, listed), specs)
    assert type(encoding) is FakeEncoding


def test_a_window_that_the_model_does_not_have_is_refused(corpus: Path, tiny_model: Path) -> None:
    listed = plan_corpus(Location(str(corpus)))
    sample = sample_of(None, listed)
    find_encoding(options(model=str(tiny_model), max_length=256), listed, sample, Specs())
    with pytest.raises(
        UsageError, match=f"--max-length 257 exceeds the window of {tiny_model}, 256 tokens"
    ):
        find_encoding(options(model=str(tiny_model), max_length=257), listed, sample, Specs())


def test_a_template_is_read_from_its_file(corpus: Path, tiny_model: Path, tmp_path: Path) -> None:
    listed = plan_corpus(Location(str(corpus)))
    sample = sample_of(None, listed)
    path = tmp_path / "turns.jinja"
    path.write_text("{{ messages[0].content }}", encoding="utf-8")
    asked = options(model=str(tiny_model), max_length=128, template=str(path))
    template = find_encoding(asked, listed, sample, Specs()).template
    assert template.jinja == "{{ messages[0].content }}"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=f"--template {path}: cannot be read"):
        find_encoding(asked, listed, sample, Specs())
    path.unlink()
    with pytest.raises(UsageError, match="give 'plain', 'chat' or a file"):
        find_encoding(asked, listed, sample, Specs())


def test_a_model_that_is_not_there_is_named(corpus: Path, tmp_path: Path) -> None:
    listed = plan_corpus(Location(str(corpus)))
    with pytest.raises(SfRayError, match="model .*none: no such directory"):
        find_encoding(
            options(model=str(tmp_path / "none")), listed, sample_of(None, listed), Specs()
        )
    shutil.rmtree(corpus)
    with pytest.raises(SfRayError, match="no shards found"):
        list_corpus(options(input=str(corpus)), None, {})


def test_a_stop_does_not_wait_for_a_template_that_never_ends(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    _, tokenizer = load(tiny_model)
    job = TemplateJob(pickle.dumps(tokenizer), loop, 99, cpu_s=3600)
    ended: list[Exception] = []

    class Endless:
        def check(self) -> None:
            asked.set()
            try:
                PROCESS.ids(job, Turn([{"role": "user", "content": ""}] * 2, "", is_open=False))
            except TemplateError as error:
                ended.append(error)

    def stopped(address: str | None) -> None:
        asked.wait()
        while PROCESS._child is None:
            time.sleep(0.01)
        raise TerminatedError("stopped by SIGTERM")

    monkeypatch.setattr(setup, "start_ray", stopped)
    with pytest.raises(TerminatedError):
        setup.join_cluster(options(), Endless())  # type: ignore[arg-type]
    assert len(ended) == 1
