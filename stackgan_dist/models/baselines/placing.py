"""Where the object is, as GAWWN's networks use it: maps moved into a box or out of it, and maps of keypoints."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

GRID = 16  # side of the maps that are placed


def into_box(features: Tensor, box: Tensor) -> Tensor:
    """`features` (N, C, H, W) shrunk into `box` (N, 4), zero around it: what a generator shows at a place.

    A box is (left, top, width, height) in fractions of the side; its width and height are above 0.
    """
    (low, size), (across, breadth) = _vertical(box), _horizontal(box)
    # A place u of the picture shows the place (u - low) / size of the map.
    return _resample(features, (-low / size, 1 / size), (-across / breadth, 1 / breadth))


def out_of_box(features: Tensor, box: Tensor) -> Tensor:
    """What `features` (N, C, H, W) hold in `box` (N, 4), enlarged to (N, C, H, W): what a discriminator looks at."""
    return _resample(features, _vertical(box), _horizontal(box))


def keypoint_maps(points: Tensor) -> Tensor:
    """Keypoints (N, K, 3), each (x, y, visible), as maps (N, K, GRID, GRID): 1 in the cell of a visible one."""
    x, y = ((points[..., axis] * GRID).long().clamp(0, GRID - 1) for axis in (0, 1))
    cells = F.one_hot(y * GRID + x, GRID * GRID).to(points.dtype) * points[..., 2:]
    maps: Tensor = cells.unflatten(2, (GRID, GRID))
    return maps


def any_keypoint(maps: Tensor) -> Tensor:
    """Where there is a keypoint: (N, K, H, W) -> (N, 1, H, W) of 0 and 1."""
    return maps.sum(1, keepdim=True).clamp(0, 1)


def _vertical(box: Tensor) -> tuple[Tensor, Tensor]:
    return box[:, 1], box[:, 3]


def _horizontal(box: Tensor) -> tuple[Tensor, Tensor]:
    return box[:, 0], box[:, 2]


def _resample(features: Tensor, vertical: tuple[Tensor, Tensor], horizontal: tuple[Tensor, Tensor]) -> Tensor:
    """Bilinear sampling at start + size * u for u from 0 to 1, zero outside the map.

    A box has no rotation, so rows and columns are sampled one after the other, by a matrix product each. Unlike
    torch's grid_sample that adds in a fixed order on every device, which resuming bit for bit asks for.
    """
    rows = _weights(*vertical, features.shape[2]).to(features.dtype)
    columns = _weights(*horizontal, features.shape[3]).to(features.dtype)
    return rows[:, None] @ features @ columns[:, None].transpose(2, 3)


def _weights(start: Tensor, size: Tensor, side: int) -> Tensor:
    """(N, side, side): how much each input line contributes to each output line, for starts and sizes (N,)."""
    lines = torch.arange(side, device=start.device, dtype=start.dtype)
    wanted = (start[:, None] + size[:, None] * lines / (side - 1)) * (side - 1)
    return F.relu(1 - (wanted[:, :, None] - lines).abs())
