"""Stopping together: a signal at any rank stops all of them after the same step.

SIGTERM (torchrun, Slurm, Kubernetes) and SIGUSR1 (Slurm's early warning) only set a flag. The flag travels with the
collective that carries every step's report, so no rank is left waiting in the next one.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Whether someone asked this rank to stop, and by which signal."""

    def __init__(self) -> None:
        self.signal_name: str | None = None

    @property
    def raised(self) -> bool:
        """Whether a stop was asked for here."""
        return self.signal_name is not None

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self.signal_name = signal.Signals(number).name


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
