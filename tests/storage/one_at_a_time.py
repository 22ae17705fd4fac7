"""Threads that want to be alone in the same place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager


def counts_inside(
    alone: Callable[[], AbstractContextManager[None]], *, threads: int, turns: int, stay_s: float
) -> list[int]:
    """How many threads were inside when each went in; every one goes in `turns` times and stays for `stay_s`."""
    inside: list[int] = []
    counts: list[int] = []

    def take(number: int) -> None:
        for _ in range(turns):
            with alone():
                inside.append(number)
                counts.append(len(inside))
                time.sleep(stay_s)
                inside.remove(number)

    started = [threading.Thread(target=take, args=(number,)) for number in range(threads)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join(60)
    return counts
