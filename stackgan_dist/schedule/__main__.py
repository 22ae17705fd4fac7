"""What a run will ask of its nodes: `python -m stackgan_dist.schedule [--url URL] --nodes 128 --ranks-per-node 8`.

Prints, for one epoch, the shards and bytes that each node fetches, the cache it needs (--data.cache-gb), and whether
any rank waits or goes without. Without --url it does so for a made-up data set of --shards and --samples.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from stackgan_dist.cli.doors import front_door, parse_options
from stackgan_dist.data.index import Index, NoIndexError, Shard, load_index, packed_folders, parse_index
from stackgan_dist.data.plan import Plan, rows_of_rank
from stackgan_dist.errors import UserError
from stackgan_dist.machine import peak_memory_bytes
from stackgan_dist.ranges import Range, Seed
from stackgan_dist.schedule.nodes import Link, NodeEpoch, node_epoch
from stackgan_dist.storage.folder import Folder


@dataclass(frozen=True)
class Options:
    """The data set and the cluster."""

    url: str | None = None
    """A packed set, whose training split is taken at its smallest size, or the folder of an index.json in it, e.g.
    s3://bucket/cub/train/76. Without it the set is a made-up one of the three numbers below."""
    shards: Annotated[int, Range(at_least=1)] = 100_000
    """Without --url: the number of shards."""
    samples: Annotated[int, Range(at_least=1)] = 1_000_000_000
    """Without --url: the number of samples in all shards."""
    sample_bytes: Annotated[int, Range(at_least=1, at_most=10**9)] = 10_000
    """Without --url: the bytes of a sample, which is one picture with its captions and embeddings."""
    nodes: Annotated[int, Range(at_least=1)] = 128
    """The number of machines."""
    ranks_per_node: Annotated[int, Range(at_least=1)] = 8
    """The number of ranks on each of them."""
    batch_size: Annotated[int, Range(at_least=1)] = 65_536
    """The rows of the global batch."""
    seed: Seed = 0
    """The seed of the run, as --training.seed."""
    epoch: Annotated[int, Range(at_least=0)] = 0
    """The epoch to look at; the first is 0."""
    step_s: Annotated[float, Range(above=0)] = 0.5
    """The duration of a training step in seconds."""
    node_mb_per_s: Annotated[float, Range(above=0)] = 1_000.0
    """The megabytes per second that one node gets from the store."""
    lookahead_steps: Annotated[int, Range(at_least=0)] = 64
    """Shards are fetched this many steps before they are needed, as --data.lookahead-steps."""


@front_door
def main() -> None:
    """Parse, open, add up, print."""
    options = parse_options(Options, "schedule", __doc__)
    world_size = options.nodes * options.ranks_per_node
    if world_size > options.batch_size:
        raise UserError(
            f"--nodes {options.nodes} x --ranks-per-node {options.ranks_per_node} is {world_size} ranks; there must be "
            f"at most one per row of --batch-size {options.batch_size}"
        )
    content = b"" if options.url else hypothetical_index(options).to_bytes()
    begin = time.process_time()
    index = packed_index(options.url) if options.url else parse_index(content, "the hypothetical index")
    plan = Plan([shard.samples for shard in index.shards], options.seed, options.batch_size)
    opened_s = time.process_time() - begin
    del content
    sizes = np.array([shard.bytes for shard in index.shards], dtype=np.int64)
    print(
        f"{index.name}, {index.split}, {index.image_size} px: {len(index.shards):,} shards, {index.samples:,} samples, "
        f"{sizes.sum() / 1e12:.2f} TB; index and plan open in {opened_s:.2f} s of CPU time"
    )
    begin = time.process_time()
    plan.locate(options.epoch * plan.steps_per_epoch, range(1))
    enter_s = time.process_time() - begin
    usual_s, first_s = find_rows(plan, options.epoch, world_size)
    print(
        f"finding a row: {usual_s * 1e6:.1f} us; {first_s * 1e6:.0f} us for the first row in a shard, "
        f"{enter_s * 1e3:.0f} ms for the first one in an epoch"
    )

    link = Link(options.step_s, options.node_mb_per_s * 1e6, options.lookahead_steps)
    begin = time.process_time()
    nodes = [
        node_epoch(
            plan, sizes, options.epoch, range(n * options.ranks_per_node, (n + 1) * options.ranks_per_node),
            world_size, link,
        )
        for n in range(options.nodes)
    ]  # fmt: skip
    print(
        f"schedule of {world_size:,} ranks on {options.nodes} nodes made in {time.process_time() - begin:.2f} s of CPU "
        f"time; peak memory {peak_memory_bytes() / 1e6:.0f} MB"
    )
    show(plan, nodes, options)


def packed_index(url: str) -> Index:
    """The one in the folder `url`, or of the set there: of its training split, if it has one, at the smallest size."""
    try:
        return load_index(url)
    except NoIndexError:
        every = [load_index(folder) for folder in packed_folders(Folder.at(url)).values()]
    return min(every, key=lambda index: (index.split != "train", index.image_size))


def hypothetical_index(options: Options) -> Index:
    """An index of the size asked for; its shards are of uneven sizes, and exist nowhere."""
    even, left = divmod(options.samples, options.shards)
    if even < 1:
        raise UserError(f"--shards {options.shards} hold {options.samples} samples: give fewer shards or more samples")
    shards = []
    for number in range(options.shards):
        samples = even + (number < left)
        digest = hashlib.sha256(number.to_bytes(8, "big")).hexdigest()
        # As JPEGs are: no two shards of the same bytes, a few per cent apart.
        wobble = 1 + (int(digest[:4], 16) / 0xFFFF - 0.5) / 10
        shards.append(Shard(f"{number:06d}.tar", int(samples * options.sample_bytes * wobble), digest, samples))
    return Index("hypothetical set", "train", 76, "minilm", 384, 10, (), options.samples, tuple(shards))


def find_rows(plan: Plan, epoch: int, world_size: int) -> tuple[float, float]:
    """Seconds of CPU time to find one row of a rank's step, and a single row in a shard that is new (medians)."""
    rows = rows_of_rank(plan.batch_size, world_size // 2, world_size)
    first = epoch * plan.steps_per_epoch
    plan.locate(first, rows)

    def median_s(asked: list[tuple[int, Sequence[int]]]) -> float:
        times = []
        for step, wanted in asked:
            begin = time.process_time()
            plan.locate(step, wanted)
            times.append((time.process_time() - begin) / len(wanted))
        return float(np.median(times))

    usual_s = median_s([(first + step, rows) for step in range(min(50, plan.steps_per_epoch))])
    others = [row for row in range(plan.batch_size) if row not in rows][:: max(1, plan.batch_size // 500)]
    return usual_s, median_s([(first, [row]) for row in others or rows])


def show(plan: Plan, nodes: list[NodeEpoch], options: Options) -> None:
    """The figures over all nodes, smallest, median and largest."""
    print(f"epoch {options.epoch}: {plan.steps_per_epoch:,} steps of {plan.batch_size:,} rows, per node:")
    columns = (
        ("different shards", "shards", 1, ",.0f"),
        ("fetches", "fetches", 1, ",.0f"),
        ("fetched, GB", "fetched_bytes", 1e9, ",.1f"),
        ("with a cache of, GB", "cache_bytes", 1e9, ",.1f"),
        ("fetched once with, GB", "shard_bytes", 1e9, ",.1f"),
        ("before the first step, s", "fill_s", 1, ",.1f"),
        ("longest wait after it, s", "longest_wait_s", 1, ",.2f"),
        ("fewest rows of a rank", "fewest_rows", 1, ",.0f"),
    )
    print(f"  {'':26}{'least':>10}{'median':>10}{'most':>10}")
    for title, name, unit, form in columns:
        values = np.array([getattr(node, name) for node in nodes]) / unit
        cells = "".join(f"{format(value, form):>10}" for value in (values.min(), np.median(values), values.max()))
        print(f"  {title:26}{cells}")
    waiting = sum(node.longest_wait_s > 0 for node in nodes)
    without = sum(node.fewest_rows == 0 for node in nodes)
    print(
        f"nodes on which a rank waits for a shard after the first step: {waiting}; goes without rows: {without}; "
        f"fetched by all nodes: {sum(node.fetched_bytes for node in nodes) / 1e12:.2f} TB"
    )


if __name__ == "__main__":
    main()
