"""Inception-v3 (Szegedy et al., arXiv 1512.00567), the classifier behind the Inception Score and FID.

Written as a table of the published layers. Names and shapes of the state dict are those of torchvision's
`inception_v3`, so that its weights, and the conversions of TensorFlow's that follow it, load as they are.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pooling = Literal["torchvision", "tensorflow", "fid"]
"""What the poolings inside the blocks do at the border; no weights depend on it.

torchvision: averages count the zeros of the padding. tensorflow: they do not, as in TF slim. fid: as tensorflow, and
the last block takes maxima, as in the graph of 2015-12-05 that FID and improved-gan's Inception Score are defined on.
"""


class InceptionOutput(NamedTuple):
    """What Inception-v3 says about N pictures."""

    logits: Tensor
    """(N, classes)"""
    features: Tensor
    """(N, 2048): the last block, averaged over positions ("pool3")."""
    auxiliary: Tensor | None
    """(N, classes): logits of the side head, in training only."""


class Layer(NamedTuple):
    """One row of the tables below. Stride 1 keeps the size, stride 2 has no padding."""

    name: str
    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


Step = Layer | tuple[Layer, Layer] | nn.Module
Branch = tuple[Step, ...]
"""Steps in sequence; a pair of layers runs side by side and is concatenated; a module is a pooling."""


class ConvBN(nn.Module):
    """Convolution without bias, batch normalisation (eps 1e-3), ReLU."""

    def __init__(
        self, channels: int, width: int, kernel: tuple[int, int], stride: int = 1, padding: tuple[int, int] = (0, 0)
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """From (N, channels, H, W) to (N, width, H', W')."""
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """An Inception block: branches over the same input, concatenated."""

    out_channels: int

    def __init__(self, channels: int, branches: tuple[Branch, ...]) -> None:
        super().__init__()
        self._plan: list[list[tuple[str, ...]]] = []
        self.out_channels = 0
        for branch in branches:
            width = channels
            plan: list[tuple[str, ...]] = []
            for step in branch:
                if isinstance(step, nn.Module):
                    self.pool = step
                    plan.append(("pool",))
                    continue
                layers = (step,) if isinstance(step, Layer) else step
                for layer in layers:
                    same = (layer.kernel[0] // 2, layer.kernel[1] // 2) if layer.stride == 1 else (0, 0)
                    self.add_module(layer.name, ConvBN(width, layer.width, layer.kernel, layer.stride, same))
                plan.append(tuple(layer.name for layer in layers))
                width = sum(layer.width for layer in layers)
            self._plan.append(plan)
            self.out_channels += width

    def forward(self, x: Tensor) -> Tensor:
        """From (N, channels, H, W) to (N, out_channels, H', W'); blocks B and D halve the sides."""
        outputs = []
        for branch in self._plan:
            y = x
            for names in branch:
                parts = [self.get_submodule(name)(y) for name in names]
                y = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
            outputs.append(y)
        return torch.cat(outputs, dim=1)


def _block_a(pool: nn.Module, pool_width: int) -> tuple[Branch, ...]:
    """Figure 5 of the paper: 5x5 beside two 3x3."""
    return (
        (Layer("branch1x1", 64),),
        (Layer("branch5x5_1", 48), Layer("branch5x5_2", 64, (5, 5))),
        (
            Layer("branch3x3dbl_1", 64),
            Layer("branch3x3dbl_2", 96, (3, 3)),
            Layer("branch3x3dbl_3", 96, (3, 3)),
        ),
        (pool, Layer("branch_pool", pool_width)),
    )


def _block_b() -> tuple[Branch, ...]:
    """Figure 10: from 35x35 to 17x17."""
    return (
        (Layer("branch3x3", 384, (3, 3), 2),),
        (
            Layer("branch3x3dbl_1", 64),
            Layer("branch3x3dbl_2", 96, (3, 3)),
            Layer("branch3x3dbl_3", 96, (3, 3), 2),
        ),
        (nn.MaxPool2d(3, 2),),
    )


def _block_c(pool: nn.Module, width: int) -> tuple[Branch, ...]:
    """Figure 6: 7x7 as 1x7 and 7x1."""
    return (
        (Layer("branch1x1", 192),),
        (
            Layer("branch7x7_1", width),
            Layer("branch7x7_2", width, (1, 7)),
            Layer("branch7x7_3", 192, (7, 1)),
        ),
        (
            Layer("branch7x7dbl_1", width),
            Layer("branch7x7dbl_2", width, (7, 1)),
            Layer("branch7x7dbl_3", width, (1, 7)),
            Layer("branch7x7dbl_4", width, (7, 1)),
            Layer("branch7x7dbl_5", 192, (1, 7)),
        ),
        (pool, Layer("branch_pool", 192)),
    )


def _block_d() -> tuple[Branch, ...]:
    """From 17x17 to 8x8."""
    return (
        (Layer("branch3x3_1", 192), Layer("branch3x3_2", 320, (3, 3), 2)),
        (
            Layer("branch7x7x3_1", 192),
            Layer("branch7x7x3_2", 192, (1, 7)),
            Layer("branch7x7x3_3", 192, (7, 1)),
            Layer("branch7x7x3_4", 192, (3, 3), 2),
        ),
        (nn.MaxPool2d(3, 2),),
    )


def _block_e(pool: nn.Module) -> tuple[Branch, ...]:
    """Figure 7: expanded filter banks."""
    return (
        (Layer("branch1x1", 320),),
        (
            Layer("branch3x3_1", 384),
            (Layer("branch3x3_2a", 384, (1, 3)), Layer("branch3x3_2b", 384, (3, 1))),
        ),
        (
            Layer("branch3x3dbl_1", 448),
            Layer("branch3x3dbl_2", 384, (3, 3)),
            (Layer("branch3x3dbl_3a", 384, (1, 3)), Layer("branch3x3dbl_3b", 384, (3, 1))),
        ),
        (pool, Layer("branch_pool", 192)),
    )


class AuxiliaryHead(nn.Module):
    """The side head on the 17x17 grid; it steadies training and says nothing afterwards."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.conv0 = ConvBN(channels, 128, (1, 1))
        self.conv1 = ConvBN(128, 768, (5, 5))
        self.fc = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        """From (N, 768, H, W), H and W at least 17, to logits (N, classes)."""
        y = self.conv1(self.conv0(F.avg_pool2d(x, 5, 3)))
        logits: Tensor = self.fc(y.mean(dim=(2, 3)))
        return logits


class InceptionV3(nn.Module):
    """Pictures (N, 3, S, S) in [-1, 1], S >= 75 and made for 299, to logits and 2048 features.

    torchvision's own wrapper takes pictures normalised by ImageNet's mean and deviation and, with `transform_input`,
    turns them back into [-1, 1], the range of the TensorFlow weights that it ships: here that range comes in directly.
    """

    def __init__(self, classes: int = 1000, auxiliary_head: bool = True, pooling: Pooling = "torchvision") -> None:
        super().__init__()
        average = nn.AvgPool2d(3, 1, 1, count_include_pad=pooling == "torchvision")
        last = nn.MaxPool2d(3, 1, 1) if pooling == "fid" else average
        self.Conv2d_1a_3x3 = ConvBN(3, 32, (3, 3), stride=2)
        self.Conv2d_2a_3x3 = ConvBN(32, 32, (3, 3))
        self.Conv2d_2b_3x3 = ConvBN(32, 64, (3, 3), padding=(1, 1))
        self.Conv2d_3b_1x1 = ConvBN(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = ConvBN(80, 192, (3, 3))
        self.Mixed_5b = Mixed(192, _block_a(average, 32))
        self.Mixed_5c = Mixed(256, _block_a(average, 64))
        self.Mixed_5d = Mixed(288, _block_a(average, 64))
        self.Mixed_6a = Mixed(288, _block_b())
        self.Mixed_6b = Mixed(768, _block_c(average, 128))
        self.Mixed_6c = Mixed(768, _block_c(average, 160))
        self.Mixed_6d = Mixed(768, _block_c(average, 160))
        self.Mixed_6e = Mixed(768, _block_c(average, 192))
        self.AuxLogits = AuxiliaryHead(768, classes) if auxiliary_head else None
        self.Mixed_7a = Mixed(768, _block_d())
        self.Mixed_7b = Mixed(1280, _block_e(average))
        self.Mixed_7c = Mixed(2048, _block_e(last))
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(2048, classes)

    def forward(self, images: Tensor) -> InceptionOutput:
        """(N, 3, S, S) in [-1, 1] -> logits, features and, in training, the side head's logits."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(images)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        auxiliary = self.AuxLogits(x) if self.AuxLogits is not None and self.training else None
        features = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean(dim=(2, 3))
        return InceptionOutput(self.fc(self.dropout(features)), features, auxiliary)
