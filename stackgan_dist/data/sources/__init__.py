"""Where pictures and captions come from: one small module per data set behind one protocol.

A source lists light-weight records (so that millions fit in memory and can be shuffled) and opens the picture
of one record when a packing process asks for it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from stackgan_dist.errors import UserError


@dataclass(frozen=True)
class Record:
    """One captioned picture of a source, without its pixels."""

    key: str
    """Unique within the data set; letters, digits, '-' and '_' only (it becomes a file name in the tar)."""
    captions: tuple[str, ...]
    """Captions in English, at least one."""
    class_name: str
    """Matching-aware training takes wrong texts from another class; a set without classes gives the key."""
    source_id: str = ""
    """What the source itself calls the picture (a path, an id): for people who trace a sample back."""
    box: tuple[float, float, float, float] | None = None
    """Bounding box (left, top, width, height) in pixels of the source's picture."""
    keypoints: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Visible part locations (x, y) in pixels of the source's picture."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Ground truth about the picture where the source knows it, e.g. {"belly": "yellow"}."""


class Source(Protocol):
    """A data set as its publisher lays it out. Must be picklable: packing processes open pictures in parallel."""

    def records(self, split: str) -> Sequence[Record]:
        """All records of `split` ("train" or "test"), in a fixed order.

        Raises UserError when the layout under the root is not the expected one, naming what is missing.
        """
        ...

    def picture(self, record: Record) -> Image.Image:
        """The full picture of one record, as the source has it (any mode, any size)."""
        ...


SOURCES = {
    "painted": "stackgan_dist.data.sources.painted:PaintedBirds",
    "oxford102": "stackgan_dist.data.sources.oxford102:Oxford102",
}
"""Name in a recipe -> "module:class"; the class is called with the root folder and the recipe's [options]."""


def open_source(name: str, root: str | None, options: Mapping[str, Any]) -> Source:
    """Build the source called `name`; UserError when there is none or its options do not fit."""
    if name not in SOURCES:
        raise UserError(f"unknown source {name!r}; known sources: {', '.join(SOURCES)}")
    module, _, attribute = SOURCES[name].partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)(root, **options)
    except TypeError as error:
        raise UserError(f"source {name!r} does not take these options: {error}") from error
