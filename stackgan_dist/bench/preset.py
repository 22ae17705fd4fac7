"""What each preset asks of a GPU: memory that was counted, GPU-hours and a batch that are estimates until measured.

Operations, weights and what the backward pass keeps are counted by taking a step of the preset on tensors without data
(train/costs.py). GPU-hours suppose a share of the device's peak, and the samples of the published data sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from stackgan_dist.bench.machine import describe_machine
from stackgan_dist.bench.report import Report, Table
from stackgan_dist.bench.step import TEXT_DIM
from stackgan_dist.models import ModelConfig
from stackgan_dist.presets import PRESETS, preset
from stackgan_dist.ranges import Range, check_fields
from stackgan_dist.train.costs import step_cost

SAMPLES = {"painted": 2_400, "oxford102": 7_034, "cub": 8_855, "coco": 82_783}
"""Training pictures of each data set; own pictures count as Oxford-102."""
_WORKSPACE = 1.25
"""Supposed: what kernels, the allocator's gaps and CUDA itself take, as a factor on what was counted."""


@dataclass(frozen=True)
class Options:
    """Which presets, and what device is supposed."""

    names: tuple[str, ...] = ()
    """The presets to count. The default is all."""
    peak_tflops: Annotated[float, Range(above=0)] = 989.0
    """The peak of the device in TFLOP/s, of bf16 without sparsity; an H100 SXM has 989, an A100 312."""
    utilisation: Annotated[float, Range(above=0, at_most=1)] = 0.2
    """The share of the peak that a step is supposed to reach (the `MFU` of a run's status line)."""
    memory_gb: Annotated[float, Range(above=0)] = 80.0
    """The memory of the device, for the suggested batch."""
    json: str | None = None
    """Also write the table to this file."""


def run(options: Options) -> Report:
    """Count every preset."""
    check_fields(options)
    rows = [_row(name, options) for name in options.names or tuple(PRESETS)]
    device = f"{options.utilisation:.0%} of {options.peak_tflops:,.0f} TFLOP/s"
    notes = [
        "Counted: GFLOP of a step of the whole batch, forward and backward; state (weights, gradients, Adam's moments,",
        "moving average) and what the backward pass keeps, of the whole batch on one GPU, both in float32; bf16 keeps",
        f"less. Estimated until measured: GPU-hours at {device}, which small steps do not reach;",
        f"rows, the most on one GPU of {options.memory_gb:g} GB if kernels and gaps take {_WORKSPACE - 1:.0%} more "
        "than was counted.",
        f"Several GPUs share the preset's batch. Texts of {TEXT_DIM:,} numbers are supposed for all.",
    ]
    return Report(describe_machine(), [Table("what a preset takes", rows, notes)])


def _row(name: str, options: Options) -> dict[str, object]:
    config = preset(name)
    training = config.training
    cost = step_cost(config, TEXT_DIM, _stage1(name), range(training.batch_size), "cuda")
    samples = SAMPLES.get(config.data.url.rpartition("/")[2], SAMPLES["oxford102"])
    steps = training.epochs * (samples // training.batch_size)
    per_row = cost.saved_bytes / training.batch_size
    rows = int((options.memory_gb * 1e9 / _WORKSPACE - cost.state_bytes) / per_row)
    return {
        "preset": name,
        "batch": training.batch_size,
        "parameters M": cost.parameters / 1e6,
        "GFLOP a step": cost.flop / 1e9,
        "state GB": cost.state_bytes / 1e9,
        "kept GB": cost.saved_bytes / 1e9,
        "steps": steps,
        "GPU-hours (est.)": steps * cost.flop / (options.peak_tflops * 1e12 * options.utilisation) / 3600,
        "rows (est.)": rows,
    }


def _stage1(name: str) -> ModelConfig | None:
    """What the frozen Stage-I inside a Stage-II preset is made of."""
    first = PRESETS[name].config.stage1
    if first is None:
        return None
    return next(each.config.model for each in PRESETS.values() if f"runs/{each.config.run.name}" == first)
