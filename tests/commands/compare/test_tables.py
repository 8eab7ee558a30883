import numpy as np
import pytest

from sf_ray.commands.compare.join import Comparison, compare_sets
from sf_ray.commands.compare.tables import number, percent, tables_of
from sf_ray.corpus.status import Status
from tests.support.score_sets import Row, random_rows, somewhere, two_sets, whole, write_set


@pytest.mark.parametrize(
    ("fraction", "text"), [(0.05, "5%"), (0.125, "12.5%"), (0.1, "10%"), (1.0, "100%")]
)
def test_a_fraction_is_shown_as_it_was_written(fraction: float, text: str) -> None:
    assert percent(fraction) == text


def test_what_has_no_value_is_no_number() -> None:
    assert number(float("nan")) == "none"
    assert number(-0.0001) == "0.000"
    assert number(0.5) == "0.500"


def cells(comparison: Comparison) -> dict[str, list[str]]:
    """First text of a line of any table -> the other texts of the line."""
    tables = tables_of(comparison, 1.0)
    return {row[0].strip(): list(row[1:]) for table in tables for row in table.rows}


def test_each_table_says_what_was_compared() -> None:
    a, b = two_sets()
    comparison = compare_sets(a, b, [0.25], 1.0)
    shown = cells(comparison)
    assert shown["model"] == ["model a", "model b"]
    assert shown["scores"] == [a.scoring_id, b.scoring_id]
    assert shown["on both sides"] == ["40", "100.0%"]
    overlap = comparison.consistency.overlaps[0]
    assert shown["25%"][:4] == [
        f"{rows}" for rows in (overlap.wanted, overlap.kept_a, overlap.kept_b, overlap.both)
    ]
    assert shown["IFD"] == [number(comparison.consistency.ifd)]
    agreement = comparison.agreement
    assert shown["A: below 1"] == [f"{agreement.only_b}", f"{agreement.neither}"]


def test_a_sample_is_called_a_sample() -> None:
    a, b = two_sets(400)
    comparison = compare_sets(a, b, [0.1], 1.0, most_rows=100)
    (title,) = (table.title for table in tables_of(comparison, 1.0) if "Spearman" in table.title)
    assert title.endswith(f"of a sample of {comparison.ranked:,}")


def test_many_pairs_of_statuses_are_added_up() -> None:
    statuses = [status.value for status in Status if status is not Status.OK][:10]
    bad: list[Row] = [(status, 1.0, 1.0) for status in statuses]
    rows_a = {"x.parquet": [*random_rows(10, 0), bad[0]]}
    rows_b = {"x.parquet": [*bad, bad[0]]}
    a, b = (
        write_set(somewhere(), rows, whole(rows), model=model)
        for rows, model in ((rows_a, "a"), (rows_b, "b"))
    )
    comparison = compare_sets(a, b, [0.5], 1.0)
    shown = cells(comparison)
    assert shown["of different statuses"][0] == "10"
    assert sum(name.startswith("A ok, B ") for name in shown) == 8
    assert shown["others"] == ["2", "18.2%"]
    assert np.isnan(comparison.consistency.ifd)
    assert shown["both say the same"][0] == "none"
