"""Stopping together: a signal at any rank stops all of them after the same step.

SIGTERM (torchrun, Slurm, Kubernetes) and SIGUSR1 (Slurm's early warning) only set a flag. The flag travels with the
collective that carries every step's report, so no rank is left waiting in the next one. A rank whose torchrun was
killed stops too: nobody else could end it, and a second start would write beside it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Whether someone asked this rank to stop, and how."""

    def __init__(self) -> None:
        self.cause: str | None = None
        """Name of the signal, or what else it was."""
        self._agent = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None

    @property
    def raised(self) -> bool:
        """Whether a stop was asked for here."""
        if self._agent is not None and os.getppid() != self._agent:
            self.cause = "the end of torchrun"
        return self.cause is not None

    def ask(self, cause: str) -> None:
        """Ask for a stop."""
        self.cause = cause

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self.cause = signal.Signals(number).name


@contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Turn stop signals into a StopRequest while inside."""
    request = StopRequest()
    previous = {number: signal.signal(number, request._receive) for number in STOP_SIGNALS}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
