"""How long a step would take on many devices: measured compute time plus what cannot hide of its communication.

The alpha-beta model: a message of n bytes takes latency + n / bandwidth. Pure arithmetic, nothing is measured here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from stackgan_dist.engines.ddp import BUCKETS


@dataclass(frozen=True)
class Step:
    """What a step of one rank does, whatever the number of ranks."""

    compute_s: float
    """Without communication."""
    gradient_bytes: tuple[int, ...]
    """Of each network, in the type that travels; one all-reduce for each, overlapped with its backward pass."""
    statistics: tuple[int, ...]
    """Bytes that a rank contributes to each small exchange: batch normalisation's, forward and backward, and the
    report's. The next layer waits for each of them."""
    host_s: float = 0.0
    """What the host takes to launch the step, beside which the device computes."""
    host_waits: int = 0
    """How often the host waits until the device has caught up, before it launches more."""


@dataclass(frozen=True)
class Network:
    """Between two devices."""

    latency_s: float
    bandwidth_bytes_s: float
    """That one device sends and receives at the same time."""


@dataclass(frozen=True)
class Estimate:
    """Of one step, in seconds."""

    gradients_s: float
    """All-reduces of the gradients, hidden or not."""
    exposed_s: float
    """What of them is left when the backward passes have ended."""
    statistics_s: float
    total_s: float
    """Launched at once, and with no wait of the host."""
    launched_s: float
    """Launched kernel by kernel by a host that waits as often as the step has it wait."""

    def share_of_linear(self, alone_s: float) -> float:
        """Against ranks that would never wait for each other."""
        return alone_s / self.total_s


BACKWARD_SHARE = 0.6
"""Of a step's compute time: backward passes take about twice the forward ones, and G's fakes have one of each."""


def estimate(step: Step, network: Network, ranks: int, wait_s: float = 0.0) -> Estimate:
    """One step on `ranks` devices with equally many rows each; a wait of the host leaves the device idle for `wait_s`.

    All-reduce: a tree's 2 log2(ranks) latencies and a ring's 2 (ranks - 1) / ranks of the bytes, as NCCL chooses
    between them; the last of a network's buckets overlaps with nothing. All-gather of statistics: log2(ranks)
    latencies and (ranks - 1) contributions.
    """
    if ranks == 1:
        return Estimate(0.0, 0.0, 0.0, step.compute_s, max(step.compute_s, step.host_s))
    hops = math.log2(ranks)
    ring = 2 * (ranks - 1) / ranks / network.bandwidth_bytes_s
    by_network = [2 * hops * network.latency_s * BUCKETS + size * ring for size in step.gradient_bytes]
    # A network's share of the backward passes is taken to be its share of the gradients.
    all_bytes = sum(step.gradient_bytes) or 1
    exposed = 0.0
    for size, taken in zip(step.gradient_bytes, by_network, strict=True):
        hidden = BACKWARD_SHARE * step.compute_s * size / all_bytes
        exposed += max(taken / BUCKETS, taken - hidden)
    statistics = sum(
        hops * network.latency_s + (ranks - 1) * size / network.bandwidth_bytes_s for size in step.statistics
    )
    total = step.compute_s + exposed + statistics
    launched = max(total, step.host_s) + step.host_waits * wait_s
    return Estimate(sum(by_network), exposed, statistics, total, launched)
