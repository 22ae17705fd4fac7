"""Did the bird get the colours that its caption asked for? A judge for images of painted birds.

It knows no caption when it finds a bird (birds.py) and reads the colour of every part there. So it favours no answer,
and an image without a bird agrees with its caption by chance: 1 in 10 for each part, or less.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from stackgan_dist.colour_agreement.birds import COLOURS, Birds
from stackgan_dist.painted.captions import named_colours
from stackgan_dist.painted.species import PARTS


def agreement(birds: Birds, captions: Sequence[str]) -> dict[str, tuple[int, int]]:
    """For every part: how many images have the colour that their caption asked for, and how many captions asked.

    A part that was asked for in the colour of the back does not count: chance is one in ten for every part.

    One caption for each image. Counts of several calls, or ranks, may be added up.
    Raises ValueError when the numbers of images and captions differ.
    """
    if len(birds.distances) != len(captions):
        raise ValueError(
            f"{len(birds.distances)} images but {len(captions)} captions; one caption for each image is needed"
        )
    counts = dict.fromkeys(PARTS, (0, 0))
    for painted, caption in zip(painted_colours(birds), captions, strict=True):
        named = named_colours(caption)
        for part, colour in named.items():
            if part != "back" and colour == named.get("back"):
                continue  # a bird of one colour would be right here without having read about the part
            right, asked = counts[part]
            counts[part] = (right + (painted[part] == colour), asked + 1)
    return counts


def painted_colours(birds: Birds) -> list[dict[str, str | None]]:
    """The colour of every part in every image, or None where the background shows instead."""
    names = [*COLOURS, None]
    nearest = (-birds.distances).softmax(dim=1)
    read = torch.einsum("ncyx,npyx->npc", nearest, birds.cores.to(nearest.dtype)).argmax(dim=2)
    return [{part: names[colour] for part, colour in zip(PARTS, row, strict=True)} for row in read.tolist()]
