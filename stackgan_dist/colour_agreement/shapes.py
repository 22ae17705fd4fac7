"""Has the bird one head and one tail? A judge for images of painted birds.

Colours do not tell: a bird whose parts are all right may have a second head, a second tail or a crown in the air. What
lies away from the bird that was found (birds.py) and looks like no background is such a part.
"""

from __future__ import annotations

from torch import Tensor

from stackgan_dist.colour_agreement.birds import Birds

_FAR = 2.0  # from the backgrounds, of 1 that is far: clouds, hills and their edges are nearer
_STRAY_PX = 12  # of 4,096; of 1,000 real paintings none has more


def with_stray_parts(birds: Birds) -> Tensor:
    """(N,) bool: whether there is something beside the bird that belongs to no bird and no background."""
    stray: Tensor = (birds.distances[:, -1] > _FAR) & birds.away
    return stray.sum((1, 2)) > _STRAY_PX
