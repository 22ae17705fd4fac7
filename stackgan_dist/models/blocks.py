"""The layers that StackGAN's networks are built of, and how their weights start.

No convolution has a bias: batch normalisation follows all of them but the first and the last.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

from stackgan_dist.models.config import RecipeName
from stackgan_dist.models.upsampling import UpsampleConv

L = TypeVar("L", bound=nn.Linear | nn.Conv2d)

LEAKY_SLOPE = 0.2


def relu() -> nn.Module:
    """The generators' activation. In place: what it follows is needed by nobody else, and memory is what costs time."""
    return nn.ReLU(inplace=True)


def leaky_relu() -> nn.Module:
    """The discriminators' activation, in place as the generators' is."""
    return nn.LeakyReLU(LEAKY_SLOPE, inplace=True)


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the side (kernel 1 or 3) or, with kernel 4 and stride 2, halves it."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, bias=False)


def normalised(convolution: nn.Conv2d, *activation: nn.Module) -> nn.Sequential:
    """Convolution, batch normalisation and, where one is given, an activation."""
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), *activation)


def upsample(inputs: int, outputs: int) -> nn.Sequential:
    """The paper's up-sampling block: (N, inputs, H, W) -> (N, outputs, 2H, 2W)."""
    return normalised(UpsampleConv(inputs, outputs), relu())


def to_image(inputs: int) -> nn.Sequential:
    """The last layer of a generator that is already at full size: (N, inputs, S, S) -> (N, 3, S, S) in [-1, 1]."""
    return nn.Sequential(conv(inputs, 3, 3), nn.Tanh())


class Residual(nn.Module):
    """activation(x + body(x)), all of one shape."""

    def __init__(self, body: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """From (N, C, H, W) to the same shape."""
        y: Tensor = self.activation(x + self.body(x))
        return y


def bottleneck(channels: int, activation: nn.Module) -> Residual:
    """1x1 to a quarter of the channels, 3x3, and 3x3 back (the authors' TensorFlow code, after GAN-INT-CLS)."""
    quarter = channels // 4
    body = nn.Sequential(
        normalised(conv(channels, quarter, 1), activation),
        normalised(conv(quarter, quarter, 3), activation),
        normalised(conv(quarter, channels, 3)),
    )
    return Residual(body, activation)


def residual(channels: int) -> Residual:
    """Two 3x3 convolutions: the residual block of the Stage-II generator."""
    body = nn.Sequential(normalised(conv(channels, channels, 3), relu()), normalised(conv(channels, channels, 3)))
    return Residual(body, relu())


def tile(vector: Tensor, features: Tensor) -> Tensor:
    """Append `vector` (N, D) to `features` (N, C, H, W) at every place: (N, C + D, H, W), laid out as `features`."""
    tiled = vector[:, :, None, None].expand(-1, -1, *features.shape[2:])
    if _is_channels_last(features):  # else what is joined would lie as neither of them, and be copied back
        tiled = tiled.contiguous(memory_format=torch.channels_last)
    return torch.cat([features, tiled], dim=1)


def layout_of(network: nn.Module) -> torch.memory_format:
    """How the kernels of `network` lie in memory, and so what its convolutions want pictures to lie like."""
    kernels = (weight for weight in network.parameters() if weight.dim() == 4)
    return torch.channels_last if any(map(_is_channels_last, kernels)) else torch.contiguous_format


def _is_channels_last(tensor: Tensor) -> bool:
    return not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """The context of a computation that half precision is too coarse for; autocast knows no meta device."""
    has_autocast = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if has_autocast else nullcontext()


def initialise(network: nn.Module, recipe: RecipeName) -> None:
    """Start the weights as the authors do, from torch's global random numbers: the caller seeds them.

    Convolutions N(0, 0.02), in the `paper` recipe cut off at two standard deviations (TensorFlow's truncated
    normal); fully connected layers N(0, 0.02) with bias 0; batch normalisation N(1, 0.02) with shift 0.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and recipe == "paper":
            nn.init.trunc_normal_(layer.weight, std=0.02, a=-0.04, b=0.04)
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.normal_(layer.weight, std=0.02)
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(layer.weight, mean=1.0, std=0.02)
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)


def initialise_by_inputs(layer: L, gain: float) -> L:
    """Start `layer` with bias 0 and weights N(0, gain / sqrt(inputs of an output)), from torch's global random numbers.

    Returns it.
    """
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
