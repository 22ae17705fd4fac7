"""A logger that works in a thread of its own, and whose faults are said once and end nothing.

The thread starts with the first point, when a loader's processes have been forked, and opens the service then: what
came before waits. A queue that is full, because the service is slower than the run or away, drops what comes.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from stackgan_dist.runs.loggers import Logger, RunState

_MOST_WAITING = 1_000
"""Entries: a thousand ticks are hours of a run."""
_GOODBYE_S = 15.0
"""How long the end of a run waits for what the service has not taken yet: who stops a run gives it 30 s in all."""


class BackgroundLogger:
    """Hands entries to the logger that `open_page` opens.

    Args:
        open_page: called once, in the thread; tried again at the next entry where it fails.
        lost: gets what could not be handed over; called from the thread as well.
    """

    def __init__(self, open_page: Callable[[], Logger], lost: Callable[[Exception], None]) -> None:
        self._open_page, self._lost = open_page, lost
        self._logger: Logger | None = None
        self._queue: queue.Queue[Callable[[Logger], None] | None] = queue.Queue(_MOST_WAITING)
        self._thread: threading.Thread | None = None

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """See Logger."""
        self._put(lambda logger: logger.scalars(values, step))
        self._start()

    def text(self, tag: str, content: str) -> None:
        """See Logger."""
        self._put(lambda logger: logger.text(tag, content))

    def picture(self, tag: str, png: bytes, step: int) -> None:
        """See Logger."""
        self._put(lambda logger: logger.picture(tag, png, step))

    def close(self, state: RunState) -> None:
        """Hand over what is left, for a while at most."""
        if self._thread is None:  # no step was reported: there is nothing to show
            return
        deadline = time.monotonic() + _GOODBYE_S
        self._put(lambda logger: logger.close(state))
        with suppress(queue.Full):
            self._queue.put(None, timeout=_GOODBYE_S)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            self._lost(TimeoutError(f"it has not taken the last entries within {_GOODBYE_S:.0f} s"))

    def _start(self) -> None:
        if self._thread is None:
            # A daemon: a service that never answers must not keep the process from its end.
            self._thread = threading.Thread(target=self._work, name="logger", daemon=True)
            self._thread.start()

    def _put(self, entry: Callable[[Logger], None]) -> None:
        try:
            self._queue.put_nowait(entry)
        except queue.Full:
            self._lost(TimeoutError(f"it has {_MOST_WAITING:,} entries to take yet, and gets no more for now"))

    def _work(self) -> None:
        while (entry := self._queue.get()) is not None:
            try:
                if self._logger is None:
                    self._logger = self._open_page()
                entry(self._logger)
            except Exception as error:
                self._lost(error)
