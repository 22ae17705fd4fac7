"""The painter: one bird in one pose on a soft background, with Pillow.

Drawn at twice the size and averaged down, which is the cheapest good anti-aliasing. Everything that varies comes
in as an argument, so the same painting always gives the same pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from stackgan_dist.painted import anatomy
from stackgan_dist.painted.anatomy import Pose

PICTURE_PX = 304
_SUPERSAMPLING = 2
_CANVAS_PX = PICTURE_PX * _SUPERSAMPLING
_SCENE_PX = 76  # backgrounds are out of focus: painted small, blurred, and enlarged

Colour = tuple[int, int, int]

_LEGS: Colour = (96, 90, 92)
SCENES: dict[str, tuple[Colour, Colour, Colour]] = {
    # upper end and lower end of the sky, ground
    "sky": ((160, 187, 206), (202, 214, 220), (190, 204, 212)),
    "meadow": ((190, 206, 204), (208, 217, 202), (168, 184, 150)),
    "branch": ((182, 196, 184), (204, 212, 198), (196, 206, 190)),
    "sand": ((196, 205, 206), (213, 208, 195), (202, 190, 166)),
    "dusk": ((172, 168, 190), (214, 196, 192), (160, 156, 172)),
}


@dataclass(frozen=True)
class Painting:
    """Everything that decides the pixels of one picture."""

    pose: Pose
    colours: Mapping[str, Colour]
    """sRGB for back, wing, belly, crown and beak."""
    beak_shape: str
    background: str
    chance: Sequence[float]
    """16 numbers in (0, 1): the background's details."""


def paint(painting: Painting) -> Image.Image:
    """The picture, RGB, 304 x 304 px."""
    canvas = _scene(painting).resize((_CANVAS_PX, _CANVAS_PX), Image.Resampling.BILINEAR)
    brush = ImageDraw.Draw(canvas, "RGBA")
    _perch(brush, painting)
    _bird(brush, painting)
    return _lit(canvas.reduce(_SUPERSAMPLING), painting)


def _scene(painting: Painting) -> Image.Image:
    """The blurred background, (76, 76): a sky, a ground and a few soft blots."""
    upper, lower, ground = (np.array(colour, np.float32) for colour in SCENES[painting.background])
    chance = painting.chance
    light = 8.0 * (chance[0] - 0.5)
    down = np.linspace(0, 1, _SCENE_PX, dtype=np.float32)[:, None]
    sky = upper + (lower - upper) * down + light
    rows = np.broadcast_to(sky[:, None], (_SCENE_PX, _SCENE_PX, 3))
    scene = Image.fromarray(rows.astype(np.uint8))
    brush = ImageDraw.Draw(scene, "RGBA")
    pale = (255, 255, 255, 50)
    if painting.background in ("sky", "dusk", "sand"):
        for i in range(3):
            x, y = chance[1 + 2 * i] * _SCENE_PX, (0.05 + 0.4 * chance[2 + 2 * i]) * _SCENE_PX
            brush.ellipse((x - 16, y - 4, x + 16, y + 4), fill=pale)
    else:
        for i in range(4):
            x, y, r = chance[1 + 2 * i] * _SCENE_PX, chance[2 + 2 * i] * _SCENE_PX * 0.8, 5 + 6 * chance[9 + i]
            brush.ellipse((x - r, y - r, x + r, y + r), fill=pale)
    if painting.background in ("meadow", "sand", "dusk"):
        horizon = (0.74 + 0.08 * chance[13]) * _SCENE_PX
        rise = (chance[14] - 0.5) * 8
        earth = tuple(int(value) for value in ground + light)
        hill = [(-4, horizon - rise), (_SCENE_PX / 2, horizon - 2), (_SCENE_PX + 4, horizon + rise)]
        brush.polygon([*hill, (_SCENE_PX + 4, _SCENE_PX + 4), (-4, _SCENE_PX + 4)], fill=earth)
    return scene.filter(ImageFilter.GaussianBlur(1.5))


def _perch(brush: ImageDraw.ImageDraw, painting: Painting) -> None:
    """What the bird stands on: a twig, or its own shadow on the ground."""
    feet = painting.pose.place(np.array(anatomy.FEET), _CANVAS_PX)
    x, y = feet.mean(axis=0)
    unit = painting.pose.scale * _CANVAS_PX
    if painting.background in ("branch", "sky"):
        slope = 0.05 * (painting.chance[15] - 0.5)
        reach = 1.2 * _CANVAS_PX
        wood = (140, 130, 122) if painting.background == "branch" else (128, 130, 136)
        width = int(unit * (0.06 if painting.background == "branch" else 0.03))
        ends = [(x - reach, y + width / 2 + slope * reach), (x + reach, y + width / 2 - slope * reach)]
        brush.line(ends, fill=wood, width=width)
        if painting.background == "branch":
            light = [(px, py - width * 0.28) for px, py in ends]
            brush.line(light, fill=(172, 162, 152), width=max(2, width // 4))
    else:
        brush.ellipse((x - 0.34 * unit, y - 0.02 * unit, x + 0.3 * unit, y + 0.04 * unit), fill=(60, 60, 60, 60))


def _bird(brush: ImageDraw.ImageDraw, painting: Painting) -> None:
    pose, colours = painting.pose, painting.colours
    shapes = {name: pose.place(points, _CANVAS_PX) for name, points in anatomy.outlines(painting.beak_shape).items()}
    unit = pose.scale * _CANVAS_PX
    pen = max(2, round(unit * 0.009))

    for leg in anatomy.legs():
        hip, foot = pose.place(leg, _CANVAS_PX)
        brush.line([tuple(hip), tuple(foot)], fill=_LEGS, width=round(unit * 0.022))
        toe = foot + np.array([pose.facing * 0.05, 0.0]) * unit
        brush.line([tuple(foot), tuple(toe)], fill=_LEGS, width=round(unit * 0.02))

    fills = {"tail": "back", "body": "back", "belly": "belly", "crown": "crown", "wing": "wing", "beak": "beak"}
    for name, part in fills.items():
        colour = colours[part]
        points = _as_list(shapes[name])
        if name == "wing":
            brush.polygon(_as_list(shapes[name] + np.array([0.0, 0.018 * unit])), fill=(0, 0, 0, 24))
        brush.polygon(points, fill=colour)
        brush.line([*points, points[0]], fill=_edge(colour), width=pen)
        if name == "wing":
            _feathers(brush, pose, colour, pen)
        if name == "tail":
            _tail_lines(brush, pose, colour, pen)
    _eye(brush, pose, unit)


def _feathers(brush: ImageDraw.ImageDraw, pose: Pose, colour: Colour, pen: int) -> None:
    """Three arcs across the wing, so that it reads as one."""
    t = np.linspace(0, 1, 7)[:, None]
    for start, middle, end in (
        ((0.02, 0.125), (-0.08, 0.085), (-0.14, 0.02)),
        ((-0.08, 0.145), (-0.15, 0.11), (-0.20, 0.04)),
        ((-0.18, 0.14), (-0.23, 0.115), (-0.27, 0.065)),
    ):
        arc = (1 - t) ** 2 * np.array(start) + 2 * t * (1 - t) * np.array(middle) + t**2 * np.array(end)
        brush.line(_as_list(pose.place(arc, _CANVAS_PX)), fill=_edge(colour), width=pen)


def _tail_lines(brush: ImageDraw.ImageDraw, pose: Pose, colour: Colour, pen: int) -> None:
    for start, end in (((-0.34, 0.050), (-0.475, 0.032)), ((-0.34, 0.095), (-0.485, 0.080))):
        line = pose.place(np.array([start, end]), _CANVAS_PX)
        brush.line(_as_list(line), fill=_edge(colour), width=pen)


def _eye(brush: ImageDraw.ImageDraw, pose: Pose, unit: float) -> None:
    (x, y), r = pose.place(np.array([anatomy.EYE]), _CANVAS_PX)[0], anatomy.EYE_RADIUS * unit
    brush.ellipse((x - r, y - r, x + r, y + r), fill=(250, 250, 248), outline=(40, 40, 44), width=2)
    p = 0.62 * r
    brush.ellipse((x - p, y - p, x + p, y + p), fill=(24, 22, 26))
    g, d = 0.22 * r, 0.25 * r
    brush.ellipse((x + d - g, y - d - g, x + d + g, y - d + g), fill=(255, 255, 255))


def _lit(picture: Image.Image, painting: Painting) -> Image.Image:
    """Light from above: the bird's upper side a little brighter, its lower side a little darker."""
    mask = Image.new("L", picture.size)
    brush = ImageDraw.Draw(mask)
    shapes = anatomy.outlines(painting.beak_shape)
    for name in ("tail", "body", "crown", "beak"):
        brush.polygon(_as_list(painting.pose.place(shapes[name], PICTURE_PX)), fill=255)
    down = (np.arange(PICTURE_PX, dtype=np.float32) / PICTURE_PX - painting.pose.y) / painting.pose.scale
    gain = np.clip(1.02 - 0.24 * down, 0.92, 1.10)[:, None] - 1
    bird = np.asarray(mask, np.float32) / 255
    pixels = np.asarray(picture, np.float32) * (1 + gain * bird)[:, :, None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _edge(colour: Colour) -> Colour:
    """The pen for a part: darker than its fill, or lighter where the fill is nearly black."""
    if max(colour) < 60:
        return (52, 52, 60)
    red, green, blue = (int(value * 0.86) for value in colour)
    return (red, green, blue)


def _as_list(points: NDArray[np.float64]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points.tolist()]
