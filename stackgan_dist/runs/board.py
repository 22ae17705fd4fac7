"""A run's page in TensorBoard: a full disk or a fault of TensorBoard leaves gaps in it, and does not end the run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Board:
    """Event files in `folder`: opened when there is something to write, anew after `close` or a failure.

    Args:
        folder: where they are.
        purge_step: what an earlier start wrote from this step on is not shown.
        lost: gets what could not be written.
    """

    def __init__(self, folder: Path, purge_step: int, lost: Callable[[Exception], None]) -> None:
        self._folder = folder
        self._purge_step: int | None = purge_step
        self._lost = lost
        self._writer: SummaryWriter | None = None
        if threading.excepthook is not _without_event_writers:
            threading.excepthook = _without_event_writers

    def write(self, entry: Callable[[SummaryWriter], object]) -> None:
        """Write `entry`, or give `lost` the reason why that was not possible."""
        try:
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter  # half a second, which rank 0 alone needs

                self._writer = SummaryWriter(str(self._folder), purge_step=self._purge_step)
                self._purge_step = None
            entry(self._writer)
        except Exception as error:
            self._abandon()
            self._lost(error)

    def close(self) -> None:
        """End the event file, if one is open."""
        try:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
        except Exception as error:
            self._abandon()
            self._lost(error)

    def _abandon(self) -> None:
        writer, self._writer = self._writer, None
        with suppress(Exception):
            if writer is not None:
                writer.close()


_default_hook = threading.excepthook


def _without_event_writers(error: threading.ExceptHookArgs) -> None:
    """Spare the terminal the traceback of TensorBoard's own thread: the next entry raises the same error."""
    if not (isinstance(error.exc_value, OSError) and type(error.thread).__name__ == "_AsyncWriterThread"):
        _default_hook(error)
