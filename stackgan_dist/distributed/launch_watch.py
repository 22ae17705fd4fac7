"""A rank whose host stands in a launch: it ran ahead of its device, which waits for a peer that hangs.

CUDA takes about a thousand launches in advance, and a step has as many. Beyond that the host blocks in C, where it
neither sees that its time is over nor handles signals; so another thread looks at the clock. Loads no torch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_LOOKS = 20
"""In the time that a launch may take."""


class LaunchWatch:
    """Calls `give_up`, in a thread of its own, when what runs inside the context takes longer than `timeout_s`.

    The context may be entered again and again, by one thread. Python's lock has to be free meanwhile, as it is in
    torch's launches.
    """

    def __init__(self, timeout_s: float, give_up: Callable[[], object]) -> None:
        self._timeout_s, self._give_up = timeout_s, give_up
        self._since: float | None = None
        self._closed = threading.Event()
        threading.Thread(target=self._look, name="launch-watch", daemon=True).start()

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._since = None

    def close(self) -> None:
        """Look no longer."""
        self._closed.set()

    def _look(self) -> None:
        while not self._closed.wait(self._timeout_s / _LOOKS):
            since = self._since
            if since is not None and time.monotonic() - since > self._timeout_s:
                self._give_up()
                return
