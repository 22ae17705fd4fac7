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
from stackgan_dist.engines.moments import load_adam

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


def _loaded(network: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, list[nn.Parameter]]:
    """An Adam over `network` after so many steps."""
    parameters = list(network.parameters())
    adam = torch.optim.Adam(parameters, 1e-3, fused=True)
    for step in range(steps):
        for number, parameter in enumerate(parameters):
            parameter.grad = torch.full_like(parameter, step + number + 1.0)
        adam.step()
    return adam, parameters


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("steps", [0, 1])
def test_moments_take_the_strides_of_their_parameters(layout: torch.memory_format, steps: int) -> None:
    written, _ = _loaded(_network(), 2)
    adam, parameters = _loaded(_network().to(memory_format=layout), steps)  # type: ignore[call-overload]
    load_adam(adam, parameters, written.state_dict())
    for number, parameter in enumerate(parameters):
        for name in ("exp_avg", "exp_avg_sq"):
            found = adam.state[parameter][name]
            assert found.stride() == parameter.stride()
            assert torch.equal(found, written.state_dict()["state"][number][name])
        assert adam.state[parameter]["step"] == 2


def test_moments_that_are_there_keep_their_addresses_and_rates_are_not_read() -> None:
    written, _ = _loaded(_network(), 2)
    adam, parameters = _loaded(_network(), 1)
    adam.param_groups[0]["lr"] = 0.5
    before = [value.data_ptr() for parameter in parameters for value in adam.state[parameter].values()]
    load_adam(adam, parameters, written.state_dict())
    assert [value.data_ptr() for parameter in parameters for value in adam.state[parameter].values()] == before
    assert adam.param_groups[0]["lr"] == 0.5


def test_a_state_without_moments_is_that_before_the_first_step() -> None:
    fresh, _ = _loaded(_network(), 0)
    adam, parameters = _loaded(_network(), 2)
    load_adam(adam, parameters, fresh.state_dict())
    assert all(not value.any() for parameter in parameters for value in adam.state[parameter].values())
