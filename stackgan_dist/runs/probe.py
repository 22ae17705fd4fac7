"""A small product, timed now and then while a run trains: it tells a rank whose machine is slow (runs/stragglers.py).

Nothing here touches torch's random numbers or a training's tensors, so no bit of a training depends on it.
"""

from __future__ import annotations

import statistics
import time
from collections import deque

import torch

_SIDE = {"cpu": 160, "cuda": 2048}
_EVERY = 8
"""Steps: a probe costs less than a thousandth of a step of the paper's size."""


class Probe:
    """How long this rank takes for the same small product, beside whatever else goes on on its machine.

    On CUDA the product stands in the device's own queue and is timed by events that are read when they are over, so
    that nobody waits for them.
    """

    def __init__(self, device: torch.device) -> None:
        side = _SIDE[device.type]
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self._matrix = torch.ones(side, side, device=device, dtype=dtype)
        self._product = torch.empty_like(self._matrix)
        self._on_cuda = device.type == "cuda"
        self._calls = 0
        self._running: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()
        self._seconds: list[float] = []

    def step(self) -> None:
        """Call it once a step; it does something in one of eight."""
        self._calls += 1
        if self._calls % _EVERY != 1:
            return
        if self._on_cuda:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            torch.mm(self._matrix, self._matrix, out=self._product)
            end.record()
            self._running.append((begin, end))
            return
        since = time.perf_counter()
        torch.mm(self._matrix, self._matrix, out=self._product)
        self._seconds.append(time.perf_counter() - since)

    def lap(self) -> float:
        """The median since the last lap, s; 0 where there was none."""
        while self._running and self._running[0][1].query():
            begin, end = self._running.popleft()
            self._seconds.append(begin.elapsed_time(end) / 1000)
        seconds, self._seconds = self._seconds, []
        return statistics.median(seconds) if seconds else 0.0
