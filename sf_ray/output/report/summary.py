"""What a report shows of one run, kept beside its output: a survey, and rows to read.

Of bounded size: long texts are cut. Knows neither Ray nor where it is kept.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sf_ray.errors import SfRayError
from sf_ray.output.report.survey import GroupCounts, Points, Survey

_VERSION = 1
# Of a row, characters; messages and fields.
_MOST_CHARACTERS, _MOST_PARTS = 2400, 8
_COUNTS = ("ok", "eligible", "kept", "ppl", "by_answer", "by_prompt")
_NUMBERS = ("prompt_tokens", "answer_tokens", "truncated")


@dataclass(frozen=True)
class ShownText:
    """What one side says in a row, or the value of a field.

    Attributes:
        name: The role, or the field.
        text: Its first characters.
        omitted: How many characters were left out behind those.
    """

    name: str
    text: str
    omitted: int = 0

    def cut(self, most: int) -> "ShownText":
        """No more than so many characters of it."""
        # Half of a surrogate pair, which JSON can smuggle in, is no text that can be written.
        shown = self.text[:most].encode("utf-8", "replace").decode()
        return ShownText(self.name, shown, self.omitted + len(self.text) - len(shown))


@dataclass(frozen=True)
class ShownRow:
    """A row to read.

    Attributes:
        kinds: Why it is shown.
        shard, row: Where it is.
        status: Of its score.
        reason: Why it has none; "" where it has.
        is_kept: Whether the output has it.
        scores: Its losses, perplexities, IFD and tokens, of those that it has.
        texts: Its messages, or its fields where it has none; the first ones.
        omitted: How many of them were left out.
    """

    kinds: tuple[str, ...]
    shard: str
    row: int
    status: str
    reason: str
    is_kept: bool
    scores: Mapping[str, float]
    texts: tuple[ShownText, ...]
    omitted: int = 0

    @classmethod
    def of(cls, texts: Sequence[ShownText], **values: Any) -> "ShownRow":
        """Cuts long texts, and leaves out what stands between the first of many and the last."""
        shown = [*texts[: _MOST_PARTS - 1], *texts[-1:]] if len(texts) > _MOST_PARTS else texts
        most = _MOST_CHARACTERS // max(1, len(shown))
        cut = tuple(text.cut(most) for text in shown)
        return cls(texts=cut, omitted=len(texts) - len(shown), **values)


@dataclass(frozen=True)
class Summary:
    """What a report shows beside the manifest.

    Attributes:
        survey: Of all rows; without picks.
        column: Whose values the survey tells apart; "" for none.
        rows: To read.
    """

    survey: Survey
    column: str
    rows: tuple[ShownRow, ...]

    def to_json(self) -> bytes:
        """As it is kept."""
        survey = self.survey
        told = {
            "summary_version": _VERSION,
            "column": self.column,
            "rows": [asdict(row) for row in self.rows],
            "groups": None if survey.groups is None else _as_lists(survey.groups),
            "points": [[_short(value) for value in row] for row in survey.points.values.tolist()],
            **{name: getattr(survey, name) for name in _NUMBERS},
            **{name: _sparse(getattr(survey, name)) for name in _COUNTS},
        }
        return json.dumps(told, ensure_ascii=False, allow_nan=False).encode()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> "Summary":
        """Reads one back.

        Raises:
            SfRayError: It is not one that this version can read.
        """
        try:
            told = json.loads(data)
            if told["summary_version"] != _VERSION:
                raise KeyError
            rows = tuple(
                ShownRow(
                    **row
                    | {
                        "kinds": tuple(row["kinds"]),
                        "texts": tuple(ShownText(**text) for text in row["texts"]),
                    }
                )
                for row in told["rows"]
            )
            points = np.array(told["points"], np.float64).reshape(-1, 6)
            groups = told["groups"]
            survey = Survey(
                ok=_dense(told["ok"]),
                eligible=_dense(told["eligible"]),
                kept=_dense(told["kept"]),
                ppl=_dense(told["ppl"]),
                by_answer=_dense(told["by_answer"]),
                by_prompt=_dense(told["by_prompt"]),
                prompt_tokens=told["prompt_tokens"],
                answer_tokens=told["answer_tokens"],
                truncated=told["truncated"],
                picks={},
                points=Points(np.arange(len(points), dtype=np.uint64), points),
                groups=None if groups is None else {v: GroupCounts(*g) for v, g in groups.items()},
            )
            return cls(survey, told["column"], rows)
        except (ValueError, KeyError, TypeError):
            raise SfRayError(
                f"{where} is not a summary that this version of sf_ray can read; run the same "
                "command again after removing it and manifest.json: no row is scored again"
            ) from None


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _as_lists(groups: Mapping[str, GroupCounts]) -> dict[str, list[int]]:
    return {value: [group.rows, group.ok, group.kept] for value, group in groups.items()}


def _sparse(counts: NDArray[np.int64]) -> dict[str, Any]:
    flat = counts.reshape(-1)
    at = np.flatnonzero(flat)
    return {
        "shape": list(counts.shape),
        "steps": np.diff(at, prepend=0).tolist(),
        "counts": flat[at].tolist(),
    }


def _dense(told: dict[str, Any]) -> NDArray[np.int64]:
    flat = np.zeros(int(np.prod(told["shape"])), np.int64)
    flat[np.cumsum(np.array(told["steps"], np.int64))] = told["counts"]
    return flat.reshape(told["shape"])
