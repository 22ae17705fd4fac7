"""How a process leaves a group that it cannot leave in order; loads no torch.

NCCL ends a group together: whoever leaves it because of an error waits for peers that stand in another collective and
never come, and with it waits what the error has to say. So the group is left as it is until the message is out; then it
is aborted, for a bounded time, and the process ends without the interpreter's own end, which would wait as well.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

_ABORT_S = 10.0
"""How long an abort may take; the process ends then in any case, and the system takes back what it held."""

_aborts: list[Callable[[], object]] = []


def leave_broken(abort: Callable[[], object]) -> None:
    """Have the process end by `end_process`, with `abort` before."""
    _aborts.append(abort)


def is_broken() -> bool:
    """Whether this process is in a group that it cannot leave in order."""
    return bool(_aborts)


def end_process(code: int) -> NoReturn:
    """End with `code`: in order, or at once where a group is broken."""
    if not _aborts:
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    aborting = threading.Thread(target=_abort_all, daemon=True)
    aborting.start()
    aborting.join(_ABORT_S)
    os._exit(code)


def _abort_all() -> None:
    for abort in _aborts:
        abort()
