"""Stopping together: a signal at any rank stops all of them after the same step.

SIGTERM (torchrun, Slurm, Kubernetes), SIGUSR1 (Slurm's early warning), SIGINT (Ctrl-C) and SIGHUP (a closed terminal;
under nohup it is ignored) only set a flag. The flag travels with the collective that carries every step's report, so no
rank is left waiting in the next one. A second Ctrl-C ends the process at once. A rank whose torchrun was killed stops
too: nobody else could end it, and a second start would write beside it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from stackgan_dist.interruption import handled

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)


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
        if number == signal.SIGINT and self.cause == "SIGINT":
            os._exit(128 + number)  # whoever presses Ctrl-C twice does not want to wait for a checkpoint
        self.cause = signal.Signals(number).name


@contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Turn stop signals into a StopRequest while inside."""
    request = StopRequest()
    with handled(request._receive, STOP_SIGNALS):
        yield request
