"""KID, the Kernel Inception Distance: an unbiased distance of two sets of pictures that few pictures suffice for.

The cubic kernel's sums would have features^3 terms, so unlike those of FID they are not kept: the distance is taken
over consecutive blocks of sample numbers, as many as asked for, and memory is bounded by them. Pure arithmetic,
nothing distributed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from stackgan_dist.errors import UserError


@dataclass(frozen=True)
class KernelDistance:
    """Squared maximum mean discrepancy with the kernel (x.y / width + 1)^3 (Binkowski et al., arXiv 1801.01401).

    Unbiased, so that equal distributions give 0 on average and now and then less.
    """

    mean: float
    """Mean over the blocks."""
    std: float
    """Population standard deviation over the blocks; NaN for one block, which has none."""
    block: int
    """Pictures of either side in a block."""
    per_block: tuple[float, ...]

    @classmethod
    def of_blocks(cls, distances: Tensor, block: int) -> KernelDistance:
        """From the distances (blocks,) of the single blocks; UserError if one is not finite."""
        if not distances.isfinite().all():
            raise UserError(
                "some pictures have NaN or Inf among their features, so there is no KID: look at the pictures, try an "
                "earlier checkpoint"
            )
        std = distances.std(correction=0).item() if len(distances) > 1 else math.nan
        return cls(distances.mean().item(), std, block, tuple(distances.tolist()))


class FirstFeatures:
    """The features of the first samples of a set, held by whoever made them: memory does not grow with the samples.

    Args:
        count: samples kept, those numbered 0 to count - 1.
        width: of a feature vector.
    """

    def __init__(self, count: int, width: int) -> None:
        self.count, self.width = count, width
        self._kept: list[tuple[Tensor, Tensor]] = []

    def add(self, numbers: Tensor, features: Tensor) -> None:
        """Keep what belongs to the first samples of `features` (N, width) of the samples `numbers` (N,)."""
        kept = (numbers < self.count).cpu()
        if kept.any():
            self._kept.append((numbers.cpu()[kept], features.detach().float().cpu()[kept]))

    def rows(self, begin: int, end: int) -> Tensor:
        """(end - begin, width), float64: the features that are here, zeros elsewhere. Ranks' add up."""
        block = torch.zeros(end - begin, self.width, dtype=torch.float64)
        for numbers, features in self._kept:
            inside = (numbers >= begin) & (numbers < end)
            block[numbers[inside] - begin] = features[inside].double()
        return block


def squared_discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased estimate (a scalar, float64) from features x (M, width) and y (N, width), M and N at least 2."""
    (m, n), width = (len(x), len(y)), x.shape[1]
    xx, yy, xy = (((a @ b.T) / width + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    within = (xx.sum() - xx.trace()) / (m * (m - 1)) + (yy.sum() - yy.trace()) / (n * (n - 1))
    return within - 2 * xy.mean()
