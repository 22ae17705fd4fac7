"""Where is the bird? The pose in which an image shows a painted bird, for judges of its colours and its shape.

The search knows the painted birds' anatomy but no caption: it looks for the pose in which every part has one colour and
the surroundings look like a background.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from stackgan_dist.painted import anatomy, drawing
from stackgan_dist.painted.species import BEAK_SHAPES, PALETTE, PARTS, SCALES, VARIATION

VISIBLE = 64 / 76
"""The side of a training crop as a fraction of the picture's side (64 of 76 px, or 256 of 304)."""

_SIZE_PX = 64
_STEP_PX = 2  # between neighbouring positions of the pose search; it runs at half the size, so there it is one
_MARGIN_PX = 8  # the bird's middle may be this far from the image's middle: crop and shift together reach 7.5
_CHUNK = 32  # images at a time, which bounds the memory of the search
COLOURS = tuple(PALETTE)
_SHADED = 0.93  # the painter's light from above leaves a belly this bright
_LEGS_FROM = 0.20  # in the bird's own coordinates; below it there are legs, twigs and shadows
_TOLERANCE = 0.11  # in Oklab: the nearest pairs of the palette are about twice as far apart


@dataclass(frozen=True)
class _Bank:
    """Masks of all poses; T templates (facing, scale, tilt), 9 x 9 positions."""

    parts: Tensor
    """(1024, P * 5): the parts in all P = T * 81 poses at 32 x 32 px, coverage in [0, 1]."""
    surroundings: Tensor
    """(1024, P): what is not bird, likewise."""
    certain: Tensor
    """(T, 6, 80, 80), bool, at 64 px with a margin: pixels that are certainly inside a part, and those away from it."""


class Birds(NamedTuple):
    """What was found in N images, at 64 x 64 px."""

    distances: Tensor
    """(N, 11, 64, 64): each pixel's squared distance from each colour of the palette, in its order, and last from the
    backgrounds; 1 is far."""
    cores: Tensor
    """(N, 5, 64, 64), bool: pixels that are certainly inside a part, in the order of PARTS."""
    away: Tensor
    """(N, 64, 64), bool: pixels above the legs that no bird in this pose covers, whatever its beak."""


def find_birds(images: Tensor) -> Birds:
    """The best pose of a bird in every image, whether there is one or not.

    `images`: (N, 3, S, S), uint8 in [0, 255] or floating point in [-1, 1], S at least 64; larger ones are averaged
    down to 64. The view is that of a training crop, 64/76 of the picture. Raises ValueError for another shape.
    """
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[2:]) < _SIZE_PX:
        raise ValueError(f"images of shape (N, 3, S, S) with S >= {_SIZE_PX} are needed, got {tuple(images.shape)}")
    found = [_find(_distances(chunk)) for chunk in images.split(_CHUNK)]
    return Birds(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _find(distances: Tensor) -> Birds:
    bank = _bank(distances.device)
    n, poses = len(distances), bank.surroundings.shape[1]
    fit = 1 - distances.clamp(max=2)  # in [-1, 1]: a stray pixel must not decide about a pose
    coarse = F.avg_pool2d(fit, 2).flatten(2)
    colours = (coarse[:, :-1].flatten(0, 1) @ bank.parts).view(n, len(COLOURS), poses, len(PARTS))
    score = colours.amax(dim=1).sum(dim=2) + coarse[:, -1] @ bank.surroundings
    best = score.argmax(dim=1)

    windows = bank.certain.unfold(2, _SIZE_PX, _STEP_PX).unfold(3, _SIZE_PX, _STEP_PX)
    positions = windows.shape[2] * windows.shape[3]
    position = best % positions
    certain = windows[best // positions, :, position // windows.shape[3], position % windows.shape[3]]
    return Birds(distances, certain[:, :-1], certain[:, -1])


def _distances(images: Tensor) -> Tensor:
    """(n, 11, 64, 64): each pixel's squared distance from each colour, and last from the backgrounds; 1 is far."""
    rgb = images.float() / 255 if images.dtype == torch.uint8 else (images.float() + 1) / 2
    pixels = _oklab(F.adaptive_avg_pool2d(rgb.clamp(0, 1), _SIZE_PX))
    reference, owner = _references(images.device)
    squared = (pixels[:, None] - reference[None, :, :, None, None]).square().sum(dim=2)
    nearest = torch.stack([squared[:, owner == k].amin(dim=1) for k in range(len(COLOURS) + 1)], dim=1)
    return nearest / _TOLERANCE**2


@lru_cache(maxsize=2)
def _bank(device: torch.device) -> _Bank:
    """Rendered from the painter's own outlines; some 60 MB, built once in about a second."""
    tilts = (-0.6 * VARIATION["tilt"], 0.0, 0.6 * VARIATION["tilt"])
    small, large = SCALES["small"] / VISIBLE, SCALES["large"] / VISIBLE
    templates = [
        _template(facing, scale, tilt)
        for facing in (1, -1)
        for scale in (small, (small + large) / 2, large)
        for tilt in tilts
    ]
    masks = torch.from_numpy(np.stack([shares for shares, _ in templates])).to(device)
    away = torch.from_numpy(np.stack([away for _, away in templates])).to(device)
    half = _SIZE_PX // 2
    windows = F.avg_pool2d(masks, 2).unfold(2, half, 1).unfold(3, half, 1)  # (T, 6, 9, 9, 32, 32)
    matrix = windows.permute(4, 5, 0, 2, 3, 1).reshape(half * half, -1, len(PARTS) + 1)
    return _Bank(
        parts=matrix[..., :-1].flatten(1).contiguous(),
        surroundings=matrix[..., -1].contiguous(),
        certain=torch.cat([masks[:, :-1] > 0.95, away[:, None]], dim=1),
    )


def _template(facing: int, scale: float, tilt: float) -> tuple[np.ndarray, np.ndarray]:
    """A pose around the middle: what its regions cover, and what is away from them.

    (6, 80, 80) float32: the coverage of the five parts, and of what is surely not bird. (80, 80) bool: see Birds.away.
    """
    side, fine = _SIZE_PX + 2 * _MARGIN_PX, 4
    canvas_px = _SIZE_PX * fine
    middle = side / 2 / _SIZE_PX
    pose = anatomy.Pose(facing=facing, scale=scale, x=middle, y=middle, tilt=tilt)

    def filled(*shapes: np.ndarray, widen: int = 0) -> np.ndarray:
        image = Image.new("L", (side * fine, side * fine))
        brush = ImageDraw.Draw(image)
        for shape in shapes:
            points = [(x, y) for x, y in pose.place(shape, canvas_px).tolist()]
            brush.polygon(points, fill=255)
            if widen:
                brush.line([*points, points[0]], fill=255, width=widen, joint="curve")
        return np.asarray(image, np.float32) / 255

    outlines = [anatomy.outlines(shape) for shape in BEAK_SHAPES]
    shapes = outlines[0]
    angle = np.linspace(0, 2 * np.pi, 24)
    eye = np.array(anatomy.EYE) + 1.3 * anatomy.EYE_RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    wing, crown, belly = filled(shapes["wing"]), filled(shapes["crown"]), filled(shapes["belly"])
    head = filled(shapes["body"])
    # The judge does not know the beak's shape, so it looks where every beak is, in front of the head.
    beak = np.minimum.reduce([filled(outline["beak"]) for outline in outlines])
    bare = (1 - wing) * (1 - crown) * (1 - beak)
    back = np.maximum(head, filled(shapes["tail"])) * bare * (1 - belly) * (1 - filled(eye))
    below = filled(*anatomy.legs(), widen=3 * fine)
    every_outline = [shape for outline in outlines for shape in outline.values()]
    bird = filled(*every_outline, widen=2 * fine)
    regions = {
        "back": back,
        "wing": wing,
        "belly": belly * (1 - wing),
        "crown": crown,
        "beak": beak,
        "surroundings": (1 - bird) * (1 - below),
    }
    stacked = np.stack([regions[name] for name in (*PARTS, "surroundings")])
    stacked = np.concatenate([stacked, filled(*every_outline, widen=4 * fine)[None]])
    shares: np.ndarray = stacked.reshape(len(stacked), side, fine, side, fine).mean((2, 4), dtype=np.float32)
    legs_from = pose.place(np.array([[0.0, _LEGS_FROM]]), _SIZE_PX)[0, 1]
    return shares[:-1], (shares[-1] < 0.01) & (np.arange(side) < legs_from)[:, None]


@lru_cache(maxsize=2)
def _references(device: torch.device) -> tuple[Tensor, Tensor]:
    """Oklab (R, 3) of what pixels are compared with, and the colour (0..9) or background (10) each belongs to."""
    backgrounds = sorted({colour for scene in drawing.SCENES.values() for colour in scene})
    lit = torch.tensor([*PALETTE.values()], dtype=torch.float32)
    rgb = torch.cat([lit, _SHADED * lit, torch.tensor(backgrounds, dtype=torch.float32)]) / 255
    owner = torch.tensor([*range(len(lit)), *range(len(lit)), *[len(lit)] * len(backgrounds)])
    return _oklab(rgb[:, :, None, None]).flatten(1).to(device), owner.to(device)


def _oklab(rgb: Tensor) -> Tensor:
    """sRGB (N, 3, H, W) in [0, 1] -> Oklab, where distances are about as large as they look (Ottosson, 2020)."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055).pow(2.4))
    to_lms = linear.new_tensor(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = linear.new_tensor(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    lms = torch.einsum("ij,njhw->nihw", to_lms, linear).clamp(min=0).pow(1 / 3)
    return torch.einsum("ij,njhw->nihw", to_lab, lms)
