"""Plots: what they show, in the page's colours, the same text for the same data."""

import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from sf_ray.output.report.plots import MOST_POINTS, Axis, Line, Scatter, density, histogram, short
from sf_ray.output.report.svg import VARIABLES

EDGES = np.linspace(0, 2, 21)
AXIS = Axis("IFD", EDGES)


def bars(name: str = "a", lines: tuple[Line, ...] = ()) -> str:
    counts = np.arange(20)
    return histogram(name, AXIS, counts, counts, lines, width=5)


def points(count: int) -> str:
    values = np.linspace(0.1, 1.9, count)
    counts = np.histogram2d(values, values, (EDGES, EDGES))[0].astype(np.int64)
    return density("d", AXIS, AXIS, counts, Scatter(values, values, values > 1))


def test_a_plot_is_the_same_text_each_time_and_shares_no_id_with_another() -> None:
    assert bars() == bars()
    ids = [re.findall(r' id="([^"]+)"', bars(name)) for name in ("a", "b")]
    assert all(len({*own}) == len(own) > 10 for own in ids)
    assert not {*ids[0]} & {*ids[1]}


def test_colours_are_variables_of_the_page_and_text_stays_text() -> None:
    svg = bars(lines=(Line(0.5, "cut-off"),))
    assert not [colour for colour in VARIABLES if colour in svg]
    assert {"--kept", "--rest", "--mark", "--muted"} <= {*re.findall(r"var\((--\w+)\)", svg)}
    for text in ("IFD", "rows", "kept", "not kept", "cut-off"):
        assert f">{text}</text>" in svg
    assert "font-family" not in svg
    assert 'role="img"' in svg.split(">", 1)[0]


def test_a_line_beyond_the_axis_is_not_drawn() -> None:
    assert "far" not in bars(lines=(Line(2.5, "far"),))


def test_few_rows_are_points_and_many_an_image() -> None:
    assert "<image" not in points(MOST_POINTS)
    assert "<image" in points(MOST_POINTS + 1)


def test_no_row_at_all_is_an_empty_plot() -> None:
    none = np.zeros(20, np.int64)
    assert "<svg" in points(0)
    assert "<svg" in histogram("h", AXIS, none, none, (), 5)


def test_ticks_in_sight_are_thinned_out() -> None:
    axis = Axis("tokens", EDGES, range(15), [short(2**tick) for tick in range(15)])
    assert axis.within(3, 5).texts == ["8", "16", "32"]
    assert len(axis.within(0, 14).ticks) <= 6
    assert axis.within(20, 30).texts == []


@pytest.mark.parametrize(
    ("number", "text"), [(1, "1"), (999, "999"), (1000, "1k"), (16384, "16k"), (2e6, "2M")]
)
def test_ticks_are_short(number: float, text: str) -> None:
    assert short(number) == text


def test_a_histogram_is_drawn_once_with_one_outline_a_colour_however_many_bars_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draws: list[Figure] = []
    draw = Figure.draw

    def counted(figure: Figure, *arguments: object) -> None:
        draws.append(figure)
        draw(figure, *arguments)

    monkeypatch.setattr(Figure, "draw", counted)
    counts = np.ones(500, np.int64)
    many = histogram("a", Axis("IFD", np.linspace(0, 2, 501)), counts, counts, (), width=5)
    assert len(draws) == 1
    few = histogram("a", AXIS, counts[:20], counts[:20], (), width=5)
    assert many.count('id="a-patch_') == few.count('id="a-patch_') > 0
