"""The plots of report.html, made of a survey."""

import numpy as np
from numpy.typing import NDArray

from sf_ray.output.report.plots import Axis, Line, Scatter, density, histogram, short
from sf_ray.output.report.survey import IFD_EDGES, IFD_WIDTH, PPL_EDGES, TOKEN_EDGES, Survey
from sf_ray.output.report.surveyed_rows import Floats, Ints

# Bins of IFD that one bar stands for. The bars reach at least to this IFD.
_BINS_A_BAR, _LEAST_SHOWN = 64, 1.2
# Width of a histogram in inches, where there is little room.
NARROW = 4.2


def plots_of(survey: Survey, cutoff: float | None) -> dict[str, str]:
    """Draws the plots: name in the template -> SVG.

    Args:
        survey: Of all rows.
        cutoff: IFD of the cut-off, where all rows have the same one.
    """
    direct, conditioned, ifd, prompts, answers, kept = survey.points.values.T
    is_kept = kept == 1
    marks = [1.0] if cutoff is None else [1.0, cutoff]
    levels = [Line(mark, kind="level") for mark in marks]

    def by_tokens(name: str, counts: Ints, tokens: Floats) -> str:
        ticks = range(15)
        axis = Axis(f"{name} tokens", TOKEN_EDGES, ticks, [short(2**tick) for tick in ticks])
        points = Scatter(np.log2(np.maximum(tokens, 1)), ifd, is_kept)
        return density(name, axis, Axis("IFD", IFD_EDGES), counts, points, levels)

    return {
        "ifd": ifd_histogram("ifd", survey.ok, survey.kept, cutoff),
        # The same, to be read on a narrow screen: text keeps its size.
        "narrow": ifd_histogram("narrow", survey.ok, survey.kept, cutoff, width=NARROW),
        "ppl": density(
            "ppl",
            _perplexity("perplexity of the answer alone"),
            _perplexity("perplexity behind its prompt"),
            survey.ppl,
            Scatter(np.log10(direct), np.log10(conditioned), is_kept),
            [Line(0, kind="diagonal")],
        ),
        "answer": by_tokens("answer", survey.by_answer, answers),
        "prompt": by_tokens("prompt", survey.by_prompt, prompts),
    }


def ifd_histogram(name: str, ok: Ints, kept: Ints, cutoff: float | None, width: float = 7.8) -> str:
    """Draws rows with a score by IFD, kept and not kept.

    Args:
        name: Distinguishes this plot from others of the page.
        ok: [IFD_BINS + 1] rows with a score, by IFD, as a survey counts them.
        kept: [IFD_BINS + 1] rows that are kept, by IFD.
        cutoff: IFD of the cut-off, where all rows have the same one.
        width: In inches, at the size of the text.
    """
    lines = [Line(1.0, "1: no help")]
    if cutoff is not None:
        lines.insert(0, Line(cutoff, f"cut-off {cutoff:.4f}"))
    rest_bars, kept_bars = _bars(ok, kept)
    edges = np.arange(len(rest_bars) + 1, dtype=np.float64) * (_BINS_A_BAR * IFD_WIDTH)
    return histogram(name, Axis("IFD", edges), rest_bars, kept_bars, lines, width)


def _perplexity(label: str) -> Axis:
    ticks = range(6)
    return Axis(label, PPL_EDGES, ticks, [short(10**tick) for tick in ticks])


def _bars(ok: Ints, kept: Ints) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[bars] rows with a score that are not kept, and those that are; without IFD above 2."""
    ok, kept = (counts[:-1].reshape(-1, _BINS_A_BAR).sum(axis=1) for counts in (ok, kept))
    last = int(np.flatnonzero(ok)[-1]) + 2 if ok.any() else 0
    shown = max(last, round(_LEAST_SHOWN / (_BINS_A_BAR * IFD_WIDTH)))
    return ok[:shown] - kept[:shown], kept[:shown]
