"""The moving average of the generator, which generates better pictures than the generator of any one step."""

from __future__ import annotations

import copy

import torch
from torch import nn

_RAMP_UP = 0.05
"""While a run is young, the half-life is at most this share of the images seen, so that the average keeps up."""


class MovingAverage:
    """Exponential moving average of a network's weights and batch statistics; a copy of what has no mean.

    Args:
        network: what to average; its device and type are kept.
        half_life_images: images after which a weight's contribution is halved; 0 follows the network exactly.
    """

    def __init__(self, network: nn.Module, half_life_images: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        """The averaged network, ready to generate."""
        self._half_life_images = half_life_images
        self._pairs: _Pairs | None = None

    @torch.no_grad()
    def update(self, network: nn.Module, images_seen: int, batch_size: int) -> None:
        """Take in `network` after `images_seen` images, the last `batch_size` of them since the last call."""
        half_life = min(self._half_life_images, _RAMP_UP * images_seen)
        decay = 0.5 ** (batch_size / half_life) if half_life > 0 else 0.0
        if self._pairs is None or self._pairs.network is not network:
            self._pairs = _Pairs(network, self.network)
        torch._foreach_lerp_(self._pairs.averaged, self._pairs.followed, 1.0 - decay)
        if self._pairs.copied:
            torch._foreach_copy_(self._pairs.copies, self._pairs.copied)


class _Pairs:
    """What a network has, and its average of it: kept, since walking through both takes as long as the average itself.

    Training changes all of these tensors in place.
    """

    def __init__(self, network: nn.Module, average: nn.Module) -> None:
        self.network = network
        ours, theirs = average.state_dict(keep_vars=True), network.state_dict(keep_vars=True)
        # Batch norm's counters, and rows of which there is no mean.
        copied = {name for name, value in theirs.items() if not value.is_floating_point()} | {
            f"{path}.{name}".lstrip(".")
            for path, module in network.named_modules()
            for name in getattr(module, "not_averaged", ())
        }
        moving = [name for name in theirs if name not in copied]
        self.averaged, self.followed = [ours[name] for name in moving], [theirs[name] for name in moving]
        self.copies, self.copied = ([of[name] for name in theirs if name in copied] for of in (ours, theirs))
