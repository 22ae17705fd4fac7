"""Trainings in this process, without loader and run: states, batches of noise, steps, and what they are compared by."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from context import Context
from distributed import tiny

from stackgan_dist.config import Config
from stackgan_dist.data.batch import Batch, BatchShape, blank_batch
from stackgan_dist.distributed.gather import gather_alone
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.models import ModelConfig, build_generator
from stackgan_dist.runs.checkpoint import to_host
from stackgan_dist.train.precision import resolve_precision
from stackgan_dist.train.state import TrainingState
from stackgan_dist.train.to_device import to_device

TEXT_DIM = 16

FAMILIES = {
    "paper": tiny.tiny_model(),
    "terms": tiny.tiny_model(text_every_layer=True, noise_as_read=True),
    "pytorch": tiny.tiny_model(recipe="pytorch"),
    "stage2": tiny.tiny_model(stage=2, image_size=128, text_every_layer=True, stage1_skip=True, stage1_coarse=8),
    **tiny.BASELINES,
}


def config_of(model: ModelConfig, precision: Any, **training: Any) -> Config:
    config = tiny.tiny_config("unused", Path("unused"), "run", model=model, precision=precision)
    # A rate that float32, which the fused Adam on CUDA takes it for, holds as exactly as float64, halved too.
    training = {"capture": "off", "learning_rate": 2**-12, **training}
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **training))


def rows_of(context: Context) -> int:
    return 4 if context.tiny else 64


def wide(context: Context, stage: int) -> ModelConfig:
    if context.tiny:
        return FAMILIES["paper" if stage == 1 else "stage2"]
    return ModelConfig(stage=stage, image_size=64 if stage == 1 else 256)  # type: ignore[arg-type]


def ranks_of(device: torch.device) -> Ranks:
    return Ranks(0, 1, device, gather_alone if device.type == "cpu" else None)


def fresh_state(config: Config, device: torch.device) -> TrainingState:
    """A fresh one, rehearsed."""
    stage1 = None
    if config.model.stage == 2:
        inside = dataclasses.replace(config.model, stage=1, image_size=64, stage1_skip=False, stage1_coarse=None)
        torch.manual_seed(1)
        stage1 = inside, build_generator(inside, TEXT_DIM).state_dict()
    precision = resolve_precision(config.training.precision, device)
    state = TrainingState(config, TEXT_DIM, stage1, ranks_of(device), precision)
    rows = range(config.training.batch_size)
    state.rehearse(to_device(blank_batch(rows, BatchShape.of(config), TEXT_DIM), device))
    return state


def batch_of_noise(config: Config, number: int, device: torch.device) -> Batch:
    """Rows of noise, the same on any device.

    Texts have both signs: of numbers that are all positive a unit may be on in every row, and the batch norm behind it
    takes its bias out, which then has no gradient but rounding.
    """
    random = torch.Generator().manual_seed(number)

    def filled(name: str, part: torch.Tensor | None) -> torch.Tensor | None:
        if part is None or part.dtype in (torch.int64, torch.bool):
            return part
        if part.dtype == torch.uint8:
            return torch.randint(0, 256, part.shape, generator=random, dtype=torch.uint8)
        if name == "place":  # which has to lie within the picture
            return torch.rand(part.shape, generator=random) / 2 + 0.25
        return torch.randn(part.shape, generator=random)

    blank = blank_batch(range(config.training.batch_size), BatchShape.of(config), TEXT_DIM)
    return to_device(Batch(**{name: filled(name, part) for name, part in blank._asdict().items()}), device)


def take(state: TrainingState, config: Config, steps: range, device: torch.device, steps_per_epoch: int = 1000) -> None:
    for number in steps:
        state.step(batch_of_noise(config, number, device), number, steps_per_epoch)


def comparable(state: TrainingState) -> dict[str, Any]:
    """What a checkpoint would hold, flat, as tests/distributed/tiny.py compares it."""
    content, idle = to_host(state.state_dict()), {}
    for kind, engine in (("generator", state.generator), ("discriminator", state.discriminator)):
        trained = [name for name, parameter in engine.module.named_parameters() if parameter.requires_grad]
        tiny._name_entries(content[kind]["optimizer"], trained)
        content[kind]["optimizer"].pop("param_groups")  # rates, and what kind of Adam the device has
        idle[f"/{kind}"] = tiny.idle_biases(engine.module) | tiny.biases_idle_at_times(engine.module)
    return dict(tiny.flat(content, ""), idle=idle)


def same_bits(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    try:
        tiny.assert_equal(ours, theirs)
    except AssertionError:
        return False
    return True
