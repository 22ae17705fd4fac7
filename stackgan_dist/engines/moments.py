"""Adam's moments, read in place and in whatever layout they were written.

A CUDA run keeps convolutions channels last, and so its checkpoint has their moments; a CPU run keeps them contiguous.
torch's fused Adam walks raw memory: on CPUs moments of other strides than their weight's meet the wrong weights without
a word, and on CUDA the first step raises. So each is copied into one that is laid out as its parameter; one that is
there already keeps its address, which a captured step goes on reading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq")


@torch.no_grad()
def load_adam(optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], state: Mapping[str, Any]) -> None:
    """Put back the moments that `optimizer.state_dict()` returned; rates and the like stay those of this process.

    Args:
        optimizer: a fused Adam over `parameters`, in this order.
        parameters: what it trains.
        state: its state dict, of a process on any device. Parameters that are not in it have not been trained yet.
    """
    for number, parameter in enumerate(parameters):
        saved: Mapping[str, Tensor] | None = state["state"].get(number)
        if saved is None and parameter not in optimizer.state:
            continue
        own = optimizer.state[parameter]
        if not own:
            own |= _fresh(parameter)
        for name, value in own.items():
            if saved is None:
                value.zero_()
            else:
                value.copy_(saved[name])


def with_plain_rate(state: dict[str, Any]) -> dict[str, Any]:
    """The state dict of an Adam, whose learning rate may be a tensor, with numbers for it."""
    groups = [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]
    return {**state, "param_groups": groups}


def _fresh(parameter: Tensor) -> dict[str, Tensor]:
    """What a fused Adam has of a parameter before its first step."""
    step = torch.zeros((), dtype=torch.float32, device=parameter.device)
    return {"step": step, **{name: torch.zeros_like(parameter) for name in MOMENTS}}
