"""A rank of `bench scaling`: torchrun -m stackgan_dist.bench.scaling_rank OPTIONS OUT, both JSON.

Steps of rank 0 alone, while the others sleep, of all ranks side by side, each by itself, and joint ones take turns: so
all meet the same machine.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from stackgan_dist.bench.exchanges import counted_exchanges
from stackgan_dist.bench.step import TEXT_DIM, Options, made_up_batch
from stackgan_dist.bench.timing import wait_for
from stackgan_dist.data.batch import Batch
from stackgan_dist.distributed.gather import Gather, gather_alone
from stackgan_dist.distributed.process_group import Ranks, process_group
from stackgan_dist.train.precision import resolve_precision
from stackgan_dist.train.state import TrainingState
from stackgan_dist.train.step_metrics import FLAGS, METRICS


class CountedGather:
    """A Gather that notes the bytes of each call and how long it took, waiting for peers included."""

    def __init__(self, gather: Gather) -> None:
        self._gather = gather
        self.sizes: list[int] = []
        self.seconds = 0.0

    def __call__(self, part: Tensor) -> Tensor:
        """The parts of all ranks; see Gather."""
        begin = time.perf_counter()
        parts = self._gather(part)
        self.seconds += time.perf_counter() - begin
        self.sizes.append(part.numel() * part.element_size())
        return parts


def build(options: Options, ranks: Ranks) -> TrainingState:
    """Of a run whose every rank has `options.rows` rows."""
    config = options.config
    training = dataclasses.replace(config.training, batch_size=options.rows * ranks.world_size)
    precision = resolve_precision(options.precision, ranks.device)
    return TrainingState(dataclasses.replace(config, training=training), TEXT_DIM, None, ranks, precision)


def measure(options: Options) -> dict[str, Any]:
    """Seconds of a step in each of the three ways, and what a joint one exchanges."""
    torch.set_num_threads(options.threads)
    with process_group(600) as ranks:
        on_cpu = ranks.device.type == "cpu"
        counted = CountedGather(ranks.gather) if on_cpu and ranks.gather is not None else None
        joint = build(options, dataclasses.replace(ranks, gather=counted or ranks.gather))
        alone_ranks = Ranks(0, 1, ranks.device, gather_alone if on_cpu else None)
        alone = build(options, alone_ranks)
        batch = made_up_batch(options.config.model, options.rows, ranks.device)
        taken: dict[str, list[float]] = {"joint": [], "alone": [], "beside": []}
        gathering: list[float] = []
        exchanged, forward = exchanged_bytes(joint, batch)
        sizes: list[int] = []
        launching: list[float] = []
        for number in range(options.repeats + 2):  # two that arrange and allocate
            if ranks.distributed:
                dist.barrier()
            if ranks.is_main:
                taken["alone"].append(_seconds(alone, 2 * number, batch, ranks, launching))
            if ranks.distributed:
                dist.barrier()
                taken["beside"].append(_seconds(alone, 2 * number + 1, batch, ranks))
                dist.barrier()
            if counted is not None:
                counted.sizes, counted.seconds = [], 0.0
            taken["joint"].append(_seconds(joint, number, batch, ranks))
            if counted is not None:
                sizes = list(counted.sizes)
                gathering.append(counted.seconds)
        return {
            "rank": ranks.rank,
            "ranks": ranks.world_size,
            "joint_s": taken["joint"][2:],
            "alone_s": taken["alone"][2:],
            "beside_s": taken["beside"][2:],
            "launching_s": launching[2:],
            "rows": options.rows,
            "exchanged_bytes": exchanged,
            "forward_exchanges": forward,
            "gathering_s": gathering[2:],
            "gather_bytes": sizes,
            "gradient_bytes": [
                sum(p.numel() * p.element_size() for p in engine.module.parameters() if p.requires_grad)
                for engine in (joint.generator, joint.discriminator)
            ],
        }


def exchanged_bytes(state: TrainingState, batch: Batch) -> tuple[list[int], int]:
    """What a rank contributes to each exchange of a step, its report's last, and how many are forward ones."""
    width = next(state.generator.module.parameters()).element_size()
    with counted_exchanges([state.generator.module, state.discriminator.module]) as numbers:
        state.step(batch, 0, 1_000_000)
    return [*(width * count for count in numbers), 8 * (len(METRICS) + FLAGS)], sum(count % 2 for count in numbers)


def _seconds(
    state: TrainingState, number: int, batch: Batch, ranks: Ranks, launching: list[float] | None = None
) -> float:
    """Of a step; what it took the host to launch it is added to `launching`."""
    wait_for(ranks.device)
    begin = time.perf_counter()
    state.step(batch, number, 1_000_000)
    if launching is not None:
        launching.append(time.perf_counter() - begin)
    wait_for(ranks.device)
    return time.perf_counter() - begin


def main() -> None:
    """Measure; rank 0 writes what it found."""
    options, out = Options(**json.loads(sys.argv[1])), Path(sys.argv[2])
    found = measure(options)
    if found["rank"] == 0:
        out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
