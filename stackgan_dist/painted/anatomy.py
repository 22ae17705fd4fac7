"""The bird's shape: the outline of every part, and where a pose puts it in the picture.

One bird is described once, in its own coordinates; a pose moves it into a picture by a similarity. The painter
fills these outlines and the judge of colour agreement takes its masks from them, so the two cannot drift apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]

# Own coordinates: the bird faces right, y points down, the origin is the middle of the bird and 1 is about its
# length from the tail's tip to the tip of a short beak.
_BODY = (
    (0.372, -0.190), (0.352, -0.300), (0.245, -0.385), (0.095, -0.365), (-0.005, -0.270), (-0.075, -0.165),
    (-0.190, -0.085), (-0.300, 0.010), (-0.330, 0.090), (-0.240, 0.185), (-0.090, 0.275), (0.085, 0.300),
    (0.250, 0.225), (0.335, 0.080), (0.350, -0.050), (0.360, -0.120),
)  # fmt: skip
_VENT, _THROAT = 9, 14  # control points of the body between which the belly follows its outline
_BELLY_INNER = ((0.255, 0.030), (0.160, 0.120), (0.030, 0.165), (-0.110, 0.165))
_CROWN = (
    (0.362, -0.275), (0.330, -0.350), (0.225, -0.415), (0.095, -0.450), (-0.020, -0.455), (0.030, -0.385),
    (0.020, -0.310), (0.115, -0.280), (0.220, -0.285), (0.300, -0.275),
)  # fmt: skip
_TAIL = (
    (-0.180, 0.010), (-0.290, 0.020), (-0.390, 0.005), (-0.480, -0.020), (-0.510, 0.125), (-0.400, 0.165),
    (-0.240, 0.160),
)  # fmt: skip
_WING = (
    (0.120, -0.005), (0.060, -0.075), (-0.045, -0.055), (-0.180, 0.005), (-0.335, 0.085), (-0.205, 0.115),
    (-0.070, 0.130), (0.050, 0.085),
)  # fmt: skip
_BEAKS = {
    "short": ((0.345, -0.265), (0.435, -0.235), (0.520, -0.175), (0.440, -0.140), (0.335, -0.115)),
    "long": ((0.345, -0.265), (0.455, -0.230), (0.615, -0.172), (0.455, -0.140), (0.335, -0.115)),
    "hooked": (
        (0.345, -0.280), (0.435, -0.275), (0.500, -0.210), (0.495, -0.090), (0.450, -0.140), (0.335, -0.115),
    ),
}  # fmt: skip
EYE = (0.262, -0.205)
EYE_RADIUS = 0.036
FEET = ((0.020, 0.395), (0.120, 0.395))
_HIPS = ((-0.020, 0.240), (0.080, 0.250))

_KEYPOINTS: dict[str, tuple[float, float]] = {
    "crown": (0.200, -0.340),
    "eye": EYE,
    "neck": (0.110, -0.130),
    "breast": (0.290, 0.020),
    "belly": (0.110, 0.200),
    "wing": (-0.070, 0.060),
    "back": (-0.150, -0.085),
    "tail": (-0.430, 0.080),
    "feet": (0.070, 0.395),
}
_BEAK_TIP = {"short": (0.520, -0.175), "long": (0.615, -0.172), "hooked": (0.495, -0.090)}


@dataclass(frozen=True)
class Pose:
    """A similarity from the bird's own coordinates to a picture whose sides are 1."""

    facing: int
    """+1: the bird looks to the right, -1: to the left."""
    scale: float
    """Sides of the picture per unit of the bird."""
    x: float
    """Middle of the bird, from the picture's left side."""
    y: float
    """Middle of the bird, from the picture's upper side."""
    tilt: float
    """Radians by which the head is raised."""

    def place(self, points: Points, picture_px: float) -> Points:
        """Points (n, 2) of the bird -> points (n, 2) of a picture of `picture_px` pixels."""
        cos, sin = math.cos(self.tilt), math.sin(self.tilt)
        x = cos * points[:, 0] + sin * points[:, 1]
        y = cos * points[:, 1] - sin * points[:, 0]
        placed = np.stack([self.x + self.facing * self.scale * x, self.y + self.scale * y], axis=1)
        return placed * picture_px


@lru_cache(maxsize=8)
def outlines(beak_shape: str) -> Mapping[str, Points]:
    """Closed outlines (n, 2) in the bird's own coordinates, in the order of painting.

    Keys: tail, body, belly, crown, wing, beak. Later ones cover earlier ones.
    """
    body = _spline(_BODY)
    at = len(body) // len(_BODY)
    outer = body[_VENT * at : _THROAT * at + 1]
    belly = np.concatenate([outer, _open_spline(_BELLY_INNER, outer[-1], outer[0])])
    return MappingProxyType(
        {
            "tail": _spline(_TAIL),
            "body": body,
            "belly": belly,
            "crown": _spline(_CROWN),
            "wing": _spline(_WING),
            "beak": _spline(_BEAKS[beak_shape], tension=0.25),
        }
    )


def legs() -> tuple[Points, Points]:
    """The two legs as lines (2, 2) from the hip to the foot, in the bird's own coordinates."""
    first, second = (np.array([hip, foot]) for hip, foot in zip(_HIPS, FEET, strict=True))
    return first, second


def keypoints(pose: Pose, beak_shape: str, picture_px: float) -> dict[str, tuple[float, float]]:
    """The parts' locations (x, y) in pixels of the picture; "beak" is its tip."""
    named = _KEYPOINTS | {"beak": _BEAK_TIP[beak_shape]}
    placed = pose.place(np.array(list(named.values())), picture_px)
    return {name: (float(x), float(y)) for name, (x, y) in zip(named, placed, strict=True)}


def box(pose: Pose, beak_shape: str, picture_px: float) -> tuple[float, float, float, float]:
    """Bounding box (left, top, width, height) of the bird in pixels of the picture, feet included."""
    points = np.concatenate([*outlines(beak_shape).values(), np.array(FEET)])
    placed = pose.place(points, picture_px)
    low, high = placed.min(axis=0), placed.max(axis=0)
    return (float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1]))


def _spline(control: tuple[tuple[float, float], ...], tension: float = 0.5, steps: int = 8) -> Points:
    """A closed cardinal spline through the control points, `steps` points for each; 0.5 is Catmull and Rom's."""
    points = np.array(control)
    t = (np.arange(steps) / steps)[:, None]
    pieces = []
    for i in range(len(points)):
        before, start, end, after = (points[(i + k) % len(points)] for k in (-1, 0, 1, 2))
        pieces.append(_hermite(t, start, end, tension * (end - before), tension * (after - start)))
    return np.concatenate(pieces)


def _open_spline(control: tuple[tuple[float, float], ...], start: Points, end: Points) -> Points:
    """A spline from `start` through the control points to `end`, both excluded."""
    points = np.concatenate([start[None], np.array(control), end[None]])
    padded = np.concatenate([points[:1], points, points[-1:]])
    t = (np.arange(8) / 8)[:, None]
    pieces = [
        _hermite(t, padded[i], padded[i + 1], 0.5 * (padded[i + 1] - padded[i - 1]), 0.5 * (padded[i + 2] - padded[i]))
        for i in range(1, len(padded) - 2)
    ]
    return np.concatenate(pieces)[1:]


def _hermite(t: Points, start: Points, end: Points, leaving: Points, arriving: Points) -> Points:
    return (
        (2 * t**3 - 3 * t**2 + 1) * start
        + (t**3 - 2 * t**2 + t) * leaving
        + (3 * t**2 - 2 * t**3) * end
        + (t**3 - t**2) * arriving
    )
