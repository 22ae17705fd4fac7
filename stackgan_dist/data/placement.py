"""Where the object of a picture is, for models conditioned on it: boxes and keypoints that move with crop and flip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.errors import UserError
from stackgan_dist.models.config import Placement

SMALLEST = 1 / 16
"""Least width and height of a box, as a fraction of the side: a cell of the maps that are placed. A crop may cut off
all of a box at the rim."""

_WHOLE = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class View:
    """The part of a stored square that is seen, and whether it is mirrored; all in fractions of the square's side."""

    left: float
    top: float
    side: float
    flipped: bool = False

    @classmethod
    def of_crop(cls, crop: NDArray[np.int64], size: int, stored: int, flipped: bool) -> View:
        """The crop of `size` pixels whose left and top are `crop`, (2,), in a square of `stored` pixels."""
        return cls(float(crop[0] / stored), float(crop[1] / stored), size / stored, flipped)

    @classmethod
    def centre(cls, side: float) -> View:
        """The middle of the square."""
        return cls((1 - side) / 2, (1 - side) / 2, side)


def place_in_view(meta: Mapping[str, Any], placement: Placement, view: View) -> NDArray[np.float32]:
    """What a KEY.json says about the place, in fractions of the view; its shape is `placement.shape`.

    A picture without a box has the whole picture for one, and one without keypoints none that is visible: single
    pictures of a set may lack theirs (`check_places` refuses sets that have none at all).
    """
    if placement.kind == "box":
        return _box(meta.get("box", _WHOLE), view)
    return _keypoints(meta.get("keypoints", {}), placement.names, view)


def check_places(metas: Sequence[Mapping[str, Any]], placement: Placement, where: str) -> None:
    """UserError naming `where` unless some of these KEY.json have what `placement` needs."""
    if placement.kind == "box":
        if not any("box" in meta for meta in metas):
            raise UserError(
                f"{where}: none of its pictures has a box, which this model needs; take a data set that has boxes "
                "(painted, cub), or another --model.family"
            )
        return
    found = sorted({name for meta in metas for name in meta.get("keypoints", {})})
    if not set(found) & set(placement.names):
        has = f"has the keypoints {', '.join(found)}" if found else "has no keypoints"
        raise UserError(
            f"{where} {has}, the model needs one or more of {', '.join(placement.names)}; name those of the data "
            "set with --model.keypoints, or take one that has them (painted, cub)"
        )


def _box(box: Sequence[float], view: View) -> NDArray[np.float32]:
    left, top, width, height = box
    low, high = np.array([left, top]), np.array([left + width, top + height])
    low, high = ((corner - (view.left, view.top)) / view.side for corner in (low, high))
    if view.flipped:
        low[0], high[0] = 1 - high[0], 1 - low[0]
    low = np.clip(low, 0, 1 - SMALLEST)
    high = np.clip(high, low + SMALLEST, 1)
    return np.concatenate([low, high - low]).astype(np.float32)


def _keypoints(found: Mapping[str, Sequence[float]], names: Sequence[str], view: View) -> NDArray[np.float32]:
    """(len(names), 3); what the view does not show is not visible."""
    points = np.zeros((len(names), 3), np.float32)
    for number, name in enumerate(names):
        # The mirror image of a left wing is a right wing.
        point = found.get(_mirrored(name) if view.flipped else name)
        if point is None:
            continue
        x, y = (point[0] - view.left) / view.side, (point[1] - view.top) / view.side
        if 0 <= x <= 1 and 0 <= y <= 1:
            points[number] = (1 - x if view.flipped else x, y, 1)
    return points


def _mirrored(name: str) -> str:
    side, blank, part = name.partition(" ")
    return {"left": "right", "right": "left"}.get(side, side) + blank + part


Place = Sequence[float] | Mapping[str, Sequence[float]]
"""Where someone wants the object: (left, top, width, height) of its box, or the (x, y) of some of its keypoints by
their names, all in fractions of the picture's side."""


def place_from(place: Place, placement: Placement, name: str, shown: str) -> NDArray[np.float32]:
    """`place` as the model takes it, of shape `placement.shape`.

    Raises UserError where it is not what the model needs; it says that `name` is `shown`.
    """
    if isinstance(place, Mapping):
        unknown = sorted(set(place) - set(placement.names)) if placement.kind == "keypoints" else []
        if unknown:
            raise UserError(f"{name} names {unknown[0]!r}; this model knows {', '.join(placement.names)}")
        numbers = [number for point in place.values() for number in point]
        fits = placement.kind == "keypoints" and place and all(len(point) == 2 for point in place.values())
    else:
        numbers = list(place)
        fits = placement.kind == "box" and len(numbers) == 4 and numbers[2] > 0 and numbers[3] > 0
    if not fits or not all(0 <= number <= 1 for number in numbers):
        raise _no_place(name, shown, placement)
    meta = {"keypoints": place} if isinstance(place, Mapping) else {"box": numbers}
    return place_in_view(meta, placement, View(0.0, 0.0, 1.0))


def place_from_words(words: Sequence[str], placement: Placement) -> NDArray[np.float32]:
    """A place from a command line: `LEFT TOP WIDTH HEIGHT`, or `NAME=X,Y ...`, in fractions of the picture.

    Raises UserError for what is not one.
    """
    place: Place
    shown = repr(" ".join(words))
    try:
        if placement.kind == "keypoints":
            pairs = [word.split("=") for word in words]
            place = {name: [float(number) for number in point.split(",")] for name, point in pairs}
        else:
            place = [float(word) for word in words]
    except ValueError:
        raise _no_place("--place", shown, placement) from None
    return place_from(place, placement, "--place", shown)


def _no_place(name: str, shown: str, placement: Placement) -> UserError:
    wanted = "LEFT TOP WIDTH HEIGHT" if placement.kind == "box" else "NAME=X,Y for some of its keypoints"
    return UserError(f"{name} is {shown}; this model needs {wanted}, in fractions of the side (0 to 1)")
