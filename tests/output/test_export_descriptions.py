import pytest
import yaml

from sf_ray.corpus.formats import resolve_format
from sf_ray.output.export_descriptions import description
from sf_ray.output.export_formats import exporter
from tests.output.test_export_formats import PAIR, PLAIN_CHAT, TOOLS


@pytest.mark.parametrize("name", ["trl", "alpaca"])
@pytest.mark.parametrize("row", [PAIR, PLAIN_CHAT | {"tools": TOOLS}])
def test_a_card_has_the_types_of_all_columns(name: str, row: dict[str, object]) -> None:
    card = description(name, resolve_format(list(row)))
    assert card is not None
    _, head, rest = card.decode().split("---\n")
    assert rest == ""
    assert "&id" not in head  # a reference of YAML, at which `datasets` fails
    columns = {column["name"] for column in yaml.safe_load(head)["dataset_info"]["features"]}
    exported = exporter(name, resolve_format(list(row)))(row)
    if exported is not None:
        assert {*exported} <= columns


def test_openais_files_need_no_description() -> None:
    assert description("openai", resolve_format(["messages"])) is None
