"""Names of tables are taken apart without asking anybody."""

import pytest

from sf_ray.errors import UsageError
from sf_ray.storage.table_names import TableName, parse_table
from sf_ray.text.redaction import redact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("iceberg://cat/ns.t", TableName("iceberg", "cat", "ns.t")),
        ("iceberg://cat/a.b.t@123", TableName("iceberg", "cat", "a.b.t", ref="123")),
        ("iceberg://cat/ns.t@kept/v1", TableName("iceberg", "cat", "ns.t", ref="kept/v1")),
        ("delta:///d/t", TableName("delta", uri="/d/t")),
        ("delta:///d/t/", TableName("delta", uri="/d/t")),
        ("delta:///d/t@7", TableName("delta", uri="/d/t", ref="7")),
        # A slash behind the digits makes them a part of the path.
        ("delta:///d/t@7/", TableName("delta", uri="/d/t@7")),
        ("delta:///d/t@main", TableName("delta", uri="/d/t@main")),
        ("delta:///", TableName("delta", uri="/")),
        ("delta://here/t", TableName("delta", uri="here/t")),
        ("delta://s3://b/t@12", TableName("delta", uri="s3://b/t", ref="12")),
        (
            "delta://abfss://box@account.dfs.core.windows.net/t",
            TableName("delta", uri="abfss://box@account.dfs.core.windows.net/t"),
        ),
        ("lance://s3://b/t.lance@0", TableName("lance", uri="s3://b/t.lance", ref="0")),
    ],
)
def test_a_name_is_taken_apart(text: str, expected: TableName) -> None:
    assert parse_table(text) == expected


@pytest.mark.parametrize(
    "text", ["iceberg://cat/a.b.t@123", "delta:///d/t", "delta:///d/t@7/", "lance://s3://b/t@0"]
)
def test_a_table_is_shown_as_it_was_asked_for(text: str) -> None:
    table = parse_table(text)
    assert table is not None
    assert table.public_name == table.text == table.absolute().text == text


@pytest.mark.parametrize(
    "text",
    ["/d/t", "s3://b/t", "hf://datasets/o/n@main", "delta", "delta:/x", "iceberg", "a/delta://b"],
)
def test_other_places_name_no_table(text: str) -> None:
    assert parse_table(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "iceberg://", "iceberg://cat", "iceberg://cat/", "iceberg://cat/t", "iceberg://cat/ns.",
        "iceberg://cat/.t", "iceberg://cat/ns/t", "iceberg://cat/ns.t@", "iceberg:///ns.t",
    ],
)  # fmt: skip
def test_half_a_name_of_an_iceberg_table_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"give iceberg://CATALOG/namespace\.table"):
        parse_table(text)


@pytest.mark.parametrize("text", ["delta://", "lance://", "delta://s3://"])
def test_a_table_without_a_place_is_refused(text: str) -> None:
    kind = text.partition(":")[0]
    with pytest.raises(UsageError, match=f"no table is named; give {kind}://URI"):
        parse_table(text)


def test_a_name_shows_no_secret() -> None:
    table = parse_table("delta://ftp://ann:hunter2-hunter2@host/t@3")
    assert table is not None
    assert table.uri == "ftp://ann:hunter2-hunter2@host/t"
    assert table.public_name == "delta://ftp://host/t@3"
    assert "hunter2-hunter2@" in table.text
    assert "hunter2" not in repr(table)
    assert "hunter2" not in redact("cannot log in with hunter2-hunter2")


def test_the_parts_of_an_iceberg_name() -> None:
    table = parse_table("iceberg://cat/a.b.t")
    assert table is not None
    assert table.identifier == ("a", "b", "t")
