"""A checkpoint whose moments lie channels last, as CUDA writes them, goes on elsewhere as if they did not."""

from __future__ import annotations

import copy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from distributed.forked import run_forked
from torch import Tensor, nn

from stackgan_dist.distributed.gather import gather_alone
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.engines import Engine
from stackgan_dist.engines.ddp import DDPEngine
from stackgan_dist.engines.deepspeed import DeepSpeedEngine
from stackgan_dist.engines.moments import laid_out

STEPS = 3


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Flatten(), nn.Linear(4 * 36, 1))


def _engine(kind: str) -> Engine:
    ranks = Ranks(0, 1, torch.device("cpu"), gather_alone)
    if kind == "ddp":
        return DDPEngine(_network(), ranks, (0.5, 0.999), scale_loss=False)
    content = {"zero_optimization": {"stage": int(kind[-1])}}
    return DeepSpeedEngine(_network(), ranks, (0.5, 0.999), content, rows=5, autocast_to=None, timeout_s=60)


def _train(engine: Engine, steps: range) -> None:
    for step in steps:
        pictures = torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        engine.update(engine(pictures).square().mean(), 1e-2)


def _channels_last(state: dict[str, Any]) -> dict[str, Any]:
    state = copy.deepcopy(state)
    for entries in state["optimizer"]["state"].values():
        for name, value in entries.items():
            if isinstance(value, Tensor) and value.dim() == 4:
                entries[name] = value.contiguous(memory_format=torch.channels_last)
    return state


def _compare(kind: str) -> None:
    unbroken = _engine(kind)
    _train(unbroken, range(STEPS))
    state = _channels_last(unbroken.state_dict())
    resumed = _engine(kind)
    resumed.load_state_dict(state)
    for engine in (unbroken, resumed):
        _train(engine, range(STEPS, 2 * STEPS))
    for name, expected in unbroken.module.state_dict().items():
        assert torch.equal(resumed.module.state_dict()[name], expected), name


def test_under_ddp() -> None:
    _compare("ddp")


def _rank(kind: str) -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    _compare(kind)
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", ["zero0", "zero1"])
def test_under_deepspeed(tmp_path: Path, kind: str) -> None:
    run_forked(_rank, 1, kind, log=tmp_path / "log", timeout_s=120)


def test_a_tensor_takes_the_strides_of_its_parameter_and_keeps_its_values() -> None:
    value = torch.randn(2, 3, 4, 5)
    parameter = torch.empty(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    found = laid_out(value, parameter)
    assert found.stride() == parameter.stride()
    assert torch.equal(found, value)
    assert laid_out(step := torch.tensor(3.0), parameter) is step
