"""What batch norm over ranks exchanges in a step, counted from the layers: the same on any device and any ranks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def counted_exchanges(networks: Iterable[nn.Module]) -> Iterator[list[int]]:
    """A list that gets, in their order, the numbers that a rank contributes to each exchange of a step taken inside.

    A layer with C channels sends its rows' count, means and deviations forward, 2 C + 1 numbers, and two sums for each
    channel backward, 2 C, where gradients reach its input.
    """
    found: list[int] = []

    def forward(layer: _BatchNorm, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not layer.training:
            return
        found.append(2 * layer.num_features + 1)
        if inputs[0].requires_grad:
            output.register_hook(lambda _: found.append(2 * layer.num_features))

    hooks: list[Any] = [
        layer.register_forward_hook(forward)
        for network in networks
        for layer in network.modules()
        if isinstance(layer, _BatchNorm)
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
