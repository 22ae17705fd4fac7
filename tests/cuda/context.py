"""What a part of the check on one GPU is given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class SkippedError(Exception):
    """Why a part was not run."""


@dataclasses.dataclass(frozen=True)
class Context:
    """What a part is given."""

    device: torch.device
    tiny: bool
    out: Path
    """For whatever it writes."""
    data: Path
    """A packed set of painted birds, at 76 pixels."""
    flowers: Path | None
    """A packed set of real pictures, for the last part."""
    left_s: float
    """Until the whole check has to end."""
    note: Callable[[str, Any], None]
    """Takes a measurement: a number that predictions.py knows, or anything else that is to be kept."""

    def needs_gpu(self, *, or_tiny: bool = False) -> None:
        """Skip where there is none; with `or_tiny`, only where this is no small run to see that it works."""
        if self.device.type != "cuda" and not (or_tiny and self.tiny):
            raise SkippedError("needs a GPU")
