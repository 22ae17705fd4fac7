"""CMMD: the distance of two sets of pictures by a Gaussian kernel between CLIP's embeddings."""

from __future__ import annotations

import torch

from stackgan_dist.distributed.collectives import sum_over_ranks
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.scores.blocks import SharedFeatures
from stackgan_dist.scores.neighbours import squared_distances

_BANDWIDTH = 10.0
_FACTOR = 1_000.0


def gaussian_discrepancy(generated: SharedFeatures, real: SharedFeatures, ranks: Ranks) -> float:
    """1,000 times the squared maximum mean discrepancy with the kernel exp(-|x - y|^2 / 200).

    Jayasumana et al., arXiv 2401.09603, section 4, with the authors' constants and their estimate, which counts the
    kernel of each picture with itself too. The features must have length 1 (SharedFeatures with `unit`). All ranks
    take part.
    """
    sums = torch.zeros(3, dtype=torch.float64)
    for number, (x, y) in enumerate(((generated, generated), (real, real), (generated, real))):
        own = x.own()
        for _, block in y.every():
            for _, rows in own:
                kernel = torch.exp(squared_distances(rows, block) / (-2 * _BANDWIDTH**2))
                sums[number] += kernel.sum().item() / (x.count * y.count)
    sum_over_ranks(sums, ranks)
    within_generated, within_real, across = map(float, sums.tolist())
    return _FACTOR * (within_generated + within_real - 2 * across)
