"""The moving average of the generator, which generates better pictures than the generator of any one step."""

from __future__ import annotations

import copy

import torch
from torch import nn

_RAMP_UP = 0.05
"""While a run is young, the half-life is at most this share of the images seen, so that the average keeps up."""


class MovingAverage:
    """Exponential moving average of a network's weights and batch statistics.

    Args:
        network: what to average; its device and type are kept.
        half_life_images: images after which a weight's contribution is halved; 0 follows the network exactly.
    """

    def __init__(self, network: nn.Module, half_life_images: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        """The averaged network, ready to generate."""
        self._half_life_images = half_life_images

    @torch.no_grad()
    def update(self, network: nn.Module, images_seen: int, batch_size: int) -> None:
        """Take in `network` after `images_seen` images, the last `batch_size` of them since the last call."""
        half_life = min(self._half_life_images, _RAMP_UP * images_seen)
        decay = 0.5 ** (batch_size / half_life) if half_life > 0 else 0.0
        averaged = self.network.state_dict(keep_vars=True)
        moving: list[torch.Tensor] = []
        targets: list[torch.Tensor] = []
        for name, value in network.state_dict(keep_vars=True).items():
            if value.is_floating_point():
                moving.append(averaged[name])
                targets.append(value)
            else:  # batch norm's counters
                averaged[name].copy_(value)
        torch._foreach_lerp_(moving, targets, 1.0 - decay)
