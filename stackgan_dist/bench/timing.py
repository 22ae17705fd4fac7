"""Timing several ways to do one thing, in turns: A B A B ..., so that whatever else the machine does meets both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of each repeat, in order."""

    seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...] = ()
    """CPU time of this process, all its threads; unlike `seconds` it leaves out waiting for a core that others use."""

    @property
    def median(self) -> float:
        """Of the repeats, s."""
        return statistics.median(self.seconds)

    @property
    def min(self) -> float:
        """Of the repeats, s."""
        return min(self.seconds)

    @property
    def max(self) -> float:
        """Of the repeats, s."""
        return max(self.seconds)

    def times_faster_than(self, other: Timing) -> float:
        """Median over the rounds of `other`'s seconds over these, where both were timed in turns."""
        return _median_ratio(other.seconds, self.seconds)

    def times_less_cpu_than(self, other: Timing) -> float:
        """The same of CPU time."""
        return _median_ratio(other.cpu_seconds, self.cpu_seconds)

    def cells(self, images: int | None = None) -> dict[str, float]:
        """Columns of a table: seconds, and where it was done to a number of `images`, images/s."""
        cells = {"median s": self.median, "min s": self.min, "max s": self.max}
        return cells if images is None else {**cells, "images/s": images / self.median}


def in_turns(
    ways: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    warm_up: int = 1,
    device: torch.device | None = None,
) -> dict[str, Timing]:
    """Call each of `ways` once a round, `warm_up` rounds untimed and `repeats` timed.

    Args:
        ways: by name; what they return is dropped at once.
        repeats: rounds that are timed.
        warm_up: rounds before them that are not.
        device: where they compute; a CUDA device is waited for before and after each call.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(warm_up + repeats):
        for name, way in ways.items():
            wait_for(device)
            begin, cpu_begin = time.perf_counter(), time.process_time()
            way()
            wait_for(device)
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - begin)
                cpu_seconds[name].append(time.process_time() - cpu_begin)
    return {name: Timing(tuple(seconds[name]), tuple(cpu_seconds[name])) for name in ways}


def _median_ratio(above: tuple[float, ...], below: tuple[float, ...]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def wait_for(device: torch.device | None) -> None:
    """Until the device has done all that it was given; CPUs always have."""
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
