"""How far a long job is: a plain line every few seconds, since a log is no terminal."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_EVERY_S = 5.0


class ProgressLine:
    """Says now and then how much of a job is done, how fast it goes, and how long it will still take.

    Args:
        what: the job.
        total: of its pieces.
        unit: what a piece is, in the plural.
    """

    def __init__(self, what: str, total: int, unit: str) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._begin = self._last = time.monotonic()

    def show(self, done: int, file: TextIO | None = None) -> None:
        """`done` pieces of the job are done; the line goes to `file` (default: stdout), where one is due."""
        now = time.monotonic()
        if not done or now - self._last < _EVERY_S:
            return
        self._last = now
        speed = done / (now - self._begin)
        left_s = (self._total - done) / speed
        print(
            f"{self._what}: {done:,}/{self._total:,} {self._unit}, {speed:,.0f}/s, {left_s:.0f} s left",
            file=file or sys.stdout,
            flush=True,
        )
