"""How sharp pictures are: how steep their outlines, how smooth everything else. Pure arithmetic.

One figure would not do: noise makes steps between pixels as outlines do. Flat painting has few steep steps and is
smooth elsewhere; blur lowers the first figure, noise raises the second. A picture is as sharp as real ones where both
are like theirs.
"""

from __future__ import annotations

import torch
from torch import Tensor

OUTLINES = 0.05
"""The steepest share of all steps counts as outlines."""


def steepness(images: Tensor) -> Tensor:
    """Mean steps between neighbouring pixels, (N, 2) in % of the full range of grey: outlines, and everything else.

    `images` (N, 3, S, S) in [-1, 1]. A step is the length of the gradient of the mean of red, green and blue.
    """
    grey = (images.double().clamp(-1, 1).mean(1) + 1) / 2
    across = grey[:, :-1, 1:] - grey[:, :-1, :-1]
    down = grey[:, 1:, :-1] - grey[:, :-1, :-1]
    steps = torch.hypot(across, down).flatten(1).sort(1, descending=True).values
    outlines = round(OUTLINES * steps.shape[1])
    return 100 * torch.stack([steps[:, :outlines].mean(1), steps[:, outlines:].mean(1)], 1)
