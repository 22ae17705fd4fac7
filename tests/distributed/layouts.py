"""Run by forked ranks: steps of the demo's networks, and what torch had to say about them."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from stackgan_dist.bench.step import TEXT_DIM
from stackgan_dist.data.batch import BatchShape, blank_batch
from stackgan_dist.data.plan import rows_of_rank
from stackgan_dist.distributed.process_group import process_group
from stackgan_dist.presets import preset
from stackgan_dist.train.precision import resolve_precision
from stackgan_dist.train.state import TrainingState
from stackgan_dist.train.to_device import to_device


def main(out: str, *presets: str) -> None:
    """Two steps of each preset at its batch size; every warning is a line of OUT/RANK.txt."""
    torch.set_warn_always(True)  # not once in a process
    with warnings.catch_warnings(record=True) as said, process_group(120) as ranks:
        warnings.simplefilter("always")
        for name in presets:
            config = preset(name)
            precision = resolve_precision("fp32", ranks.device)
            state = TrainingState(config, TEXT_DIM, None, ranks, precision)
            rows = rows_of_rank(config.training.batch_size, ranks.rank, ranks.world_size)
            batch = to_device(blank_batch(rows, BatchShape.of(config), TEXT_DIM), ranks.device)
            for step in range(2):
                state.step(batch, step, 1000)
        lines = [f"{warning.category.__name__}: {warning.message}" for warning in said]
        (Path(out) / f"{ranks.rank}.txt").write_text("\n".join(lines))
