import pytest

from sf_ray.output.dataset_names import dataset_of


# The forms of https://openlineage.io/docs/spec/naming/, and what each is made of here.
@pytest.mark.parametrize(
    ("uri", "namespace", "name"),
    [
        ("s3://bucket/corpus/alpaca", "s3://bucket", "corpus/alpaca"),
        ("s3://bucket/corpus/", "s3://bucket", "corpus"),
        ("s3://bucket", "s3://bucket", "/"),
        ("s3a://bucket/corpus", "s3://bucket", "corpus"),
        ("gs://bucket/corpus", "gs://bucket", "corpus"),
        ("gcs://bucket/corpus", "gs://bucket", "corpus"),
        ("abfss://box@acc.dfs.core.windows.net/a/b", "abfss://box@acc.dfs.core.windows.net", "a/b"),
        ("abfs://box@acc.dfs.core.windows.net/", "abfss://box@acc.dfs.core.windows.net", "/"),
        ("hdfs://name:8020/data/corpus", "hdfs://name:8020", "/data/corpus"),
        ("/data/corpus", "file", "/data/corpus"),
        ("file:///data/corpus", "file", "/data/corpus"),
        ("hf://datasets/org/name@v1", "hf://datasets", "org/name@v1"),
        ("https://host/data.jsonl?sig=abcdefgh", "https://host", "data.jsonl"),
    ],
)
def test_a_place_has_the_name_that_the_spec_gives(uri: str, namespace: str, name: str) -> None:
    assert dataset_of(uri) == (namespace, name)


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("s3://bucket/corpus/**/*.parquet", "corpus"),
        ("s3://bucket/*.parquet", "/"),
        ("s3://bucket/corpus/2026-??/a.jsonl", "corpus"),
        ("/data/corpus/part-[0-9].parquet", "/data/corpus"),
    ],
)
def test_a_glob_is_named_by_the_folder_it_begins_in(uri: str, name: str) -> None:
    assert dataset_of(uri).name == name


def test_an_archive_s_files_are_named_by_the_archive() -> None:
    assert dataset_of("zip://*.jsonl::s3://bucket/b.zip") == ("s3://bucket", "b.zip")
    assert dataset_of("zip://a.jsonl::/data/b.zip") == ("file", "/data/b.zip")
    assert dataset_of("s3://bucket/a::b") == ("s3://bucket", "a::b")


def test_azure_s_account_may_stand_in_the_options() -> None:
    name = ("abfss://box@acc.dfs.core.windows.net", "corpus")
    assert dataset_of("az://box/corpus", "acc") == name
    assert dataset_of("az://box@other.blob.core.windows.net/corpus", "acc").namespace == (
        "abfss://box@other.dfs.core.windows.net"
    )
    assert dataset_of("az://box/corpus") == ("az://box", "corpus")


@pytest.mark.parametrize(
    "uri",
    ["s3://user:hunter22@bucket/corpus", "ftp://me:hunter22@host/x", "https://h/x?token=hunter22"],
)
def test_a_name_has_no_secrets(uri: str) -> None:
    assert "hunter22" not in "".join(dataset_of(uri))
