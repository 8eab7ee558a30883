"""What a model's layers ask of attention beside causality. Plain Python; knows no tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Arguments by which some models change attention in ways that are not implemented here.
_UNSUPPORTED = ("softcap", "s_aux", "position_bias", "head_mask")


@dataclass(frozen=True)
class Needs:
    """What the layers ask for; filled in while they run.

    Attributes:
        windows: Sliding windows in tokens.
        unsupported: Names of arguments that are not implemented here.
    """

    windows: set[int] = field(default_factory=set)
    unsupported: set[str] = field(default_factory=set)

    def add(self, arguments: Mapping[str, Any]) -> None:
        """Takes note of the arguments that one layer passes to its attention."""
        self.unsupported.update(n for n in _UNSUPPORTED if arguments.get(n) is not None)
        if arguments.get("sliding_window"):
            self.windows.add(int(arguments["sliding_window"]))
