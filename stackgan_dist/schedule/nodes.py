"""What a plan asks of a cluster: which shards each node fetches, when, how many bytes, and how large a cache it needs.

Pure arithmetic on the plan; nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.data.plan import Plan, rows_of_rank


@dataclass(frozen=True)
class Link:
    """How fast a node works and fetches."""

    step_s: float
    """Seconds per training step."""
    bytes_per_s: float
    """From the store to one node."""
    lookahead_steps: int
    """A shard is asked for so many steps before it is needed."""


@dataclass(frozen=True)
class NodeEpoch:
    """One node in one epoch."""

    shards: int
    """Different shards that its ranks read."""
    shard_bytes: int
    """Of these: with a cache of so much each of them is fetched once."""
    fetches: int
    """With a cache of `cache_bytes`: a shard on the border of two lanes is read at the end of one and the begin of the
    next, and fetched twice."""
    fetched_bytes: int
    cache_bytes: int
    """The most that is in use or fetched ahead at one time: the least with which no shard in use has to go."""
    fill_s: float
    """Before the first step everything that it reads must be here."""
    longest_wait_s: float
    """Of any later step for a shard that comes too late."""
    fewest_rows: int
    """Of any of its ranks in any step."""


def node_epoch(
    plan: Plan, shard_bytes: NDArray[np.int64], epoch: int, ranks: Sequence[int], world_size: int, link: Link
) -> NodeEpoch:
    """What the node of `ranks` (of `world_size`) does in `epoch`, when it begins with an empty cache."""
    shares = [rows_of_rank(plan.batch_size, rank, world_size) for rank in ranks]
    shards, begins, ends = plan.reading(epoch, range(shares[0].start, shares[-1].stop))
    order = np.lexsort((begins, shards))
    shards, needs, ends = shards[order], begins[order], ends[order]
    asked = np.maximum(0, needs - link.lookahead_steps)

    # Uses of one shard that overlap are one stay in the cache.
    stays: list[list[int]] = []
    for shard, ask, need, end in zip(shards.tolist(), asked.tolist(), needs.tolist(), ends.tolist(), strict=True):
        if stays and stays[-1][0] == shard and ask <= stays[-1][3]:
            stays[-1][3] = max(stays[-1][3], end)
        else:
            stays.append([shard, ask, need, end])
    table = np.array(stays, dtype=np.int64)
    sizes = shard_bytes[table[:, 0]]

    # Bytes in the cache after each arrival; what ends at a step goes before what is asked for at it.
    times = np.concatenate([table[:, 3], table[:, 1]])
    changes = np.concatenate([-sizes, sizes])
    in_order = np.lexsort((changes, times))
    fill_s, longest_wait_s = _waits(table, sizes, link)
    return NodeEpoch(
        shards=len(np.unique(shards)),
        shard_bytes=int(shard_bytes[np.unique(shards)].sum()),
        fetches=len(table),
        fetched_bytes=int(sizes.sum()),
        cache_bytes=int(np.cumsum(changes[in_order]).max()),
        fill_s=fill_s,
        longest_wait_s=longest_wait_s,
        fewest_rows=min(map(len, shares)),
    )


def _waits(stays: NDArray[np.int64], sizes: NDArray[np.int64], link: Link) -> tuple[float, float]:
    """Seconds before the first step, and the longest wait after it, of one line that serves in the order of need."""
    order = np.lexsort((stays[:, 1], stays[:, 2]))
    clock, longest, began = 0.0, 0.0, False
    fill_s = delay = 0.0
    for ask, need, size in zip(stays[order, 1].tolist(), stays[order, 2].tolist(), sizes[order].tolist(), strict=True):
        if need > 0 and not began:
            began, fill_s = True, clock
        clock = max(clock, fill_s + ask * link.step_s + delay if began else 0.0) + size / link.bytes_per_s
        if need > 0:
            wait = clock - (fill_s + need * link.step_s + delay)
            if wait > 0:
                longest = max(longest, wait)
                delay += wait
    return fill_s if began else clock, longest
