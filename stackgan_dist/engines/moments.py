"""Adam's moments, read in whatever layout they were written.

A CUDA run keeps convolutions channels last, and so its checkpoint has their moments; a CPU run keeps them contiguous.
torch's fused Adam walks raw memory: on CPUs moments of other strides than their weight's meet the wrong weights without
a word, and on CUDA the first step raises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def load_adam(optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], state: Mapping[str, Any]) -> None:
    """Put back what `optimizer.state_dict()` returned, each moment laid out as its parameter.

    Args:
        optimizer: Adam over `parameters`, in this order.
        parameters: what it trains.
        state: its state dict, of a process on any device.
    """
    moments = {
        number: {name: laid_out(value, parameters[number]) for name, value in entries.items()}
        for number, entries in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": moments})


def laid_out(value: Any, parameter: Tensor) -> Any:
    """`value` with the strides of `parameter`, where it is a tensor of its shape; else as it is."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape or value.stride() == parameter.stride():
        return value
    return torch.empty_strided(value.shape, parameter.stride(), dtype=value.dtype, device=value.device).copy_(value)
