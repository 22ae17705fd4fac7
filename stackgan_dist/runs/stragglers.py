"""Which rank holds the others up: a step is as slow as its slowest rank, and all of them look alike in its time.

What tells them apart is what each does without the others: waiting for its data, and computing a small product.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

_WORTH_SAYING = 0.1
"""Of the time; below, the status line says nothing."""


class RankNumbers(NamedTuple):
    """What one rank measured since the last tick, all by itself."""

    data_wait: float
    """The share of the time that it waited for data."""
    probe_s: float
    """How long the small product took (probe.Probe); 0: not measured."""
    memory_bytes: float
    """The most memory that it has had at once: on CUDA what torch held, else resident in the host."""


class Straggler(NamedTuple):
    """The slowest rank of a tick."""

    rank: int
    lag: float
    """An estimate of the share of the time that the others could wait for it, from 0 to 1: its waiting for data, and
    of the rest what it computes longer than the median rank."""
    data_wait: float
    times_median: float
    """How many times as long as the median rank it takes for the small product."""

    def describe(self, host: str) -> str:
        """For the status line; empty where it is not worth a word."""
        if self.lag < _WORTH_SAYING:
            return ""
        return (
            f"rank {self.rank} on {host} holds up {self.lag:.0%}: waits for data {self.data_wait:.0%}, "
            f"computes {self.times_median:.2f} times as long as the median"
        )


def slowest(ranks: Sequence[RankNumbers]) -> Straggler:
    """The straggler among two ranks or more."""
    median = statistics.median(one.probe_s for one in ranks)
    found = []
    for rank, one in enumerate(ranks):
        times = one.probe_s / median if median > 0 and one.probe_s > 0 else 1.0
        lag = one.data_wait + (1 - one.data_wait) * max(0.0, 1 - 1 / times)
        found.append(Straggler(rank, lag, one.data_wait, times))
    return max(found, key=lambda one: one.lag)
