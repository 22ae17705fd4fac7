"""Where pictures and captions come from: one small module per data set behind one protocol.

A source lists light-weight records (so that millions fit in memory and can be shuffled) and reads the picture of one
record when a packing process asks for it. A new one is a class with two methods, and a line in SOURCES; a user's own is
given by its importable name (docs/extending.md).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stackgan_dist.errors import UserError
from stackgan_dist.importable import is_importable, known_part, make_part
from stackgan_dist.near_names import did_you_mean
from stackgan_dist.pack.sources.account import Account


@dataclass(frozen=True)
class Record:
    """One captioned picture of a source, without its pixels."""

    key: str
    """Unique within the data set; letters, digits, '-' and '_' only (it becomes a file name in the tar)."""
    captions: tuple[str, ...]
    """Captions, in the source's order."""
    class_name: str = ""
    """Matching-aware training takes wrong texts from another class; "" where a set has no classes: every picture is
    then a class of its own."""
    source_id: str = ""
    """What the source itself calls the picture (a path, an id): for people who trace a sample back."""
    crop: tuple[float, float, float, float] | None = None
    """What of the picture is kept, (left, top, right, bottom) in its pixels, clipped to it and squeezed into a square
    where it is not one. None: the central square, or all of it."""
    pad: bool = False
    """Whether all of it is kept where there is no `crop`, with white beside it that makes it a square."""
    box: tuple[float, float, float, float] | None = None
    """Bounding box (left, top, width, height) in pixels of the source's picture."""
    keypoints: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Visible part locations (x, y) in pixels of the source's picture."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Ground truth about the picture where the source knows it, e.g. {"belly": "yellow"}."""
    extent: tuple[str, int, int] | None = None
    """(file, offset, bytes) of the encoded picture, for a source that keeps many pictures in a file."""
    fault: str = ""
    """Why the picture cannot be used, where the source has found that already; it is rejected with this reason."""
    present: bool = True
    """Whether it stands for a picture that the source has found; not where that is missing, or another record's too."""


class Source(Protocol):
    """A data set as its publisher lays it out. Must be picklable: packing processes open pictures in parallel."""

    def records(self, split: str) -> Sequence[Record]:
        """All records of `split` ("train", "test" or "val"), in a fixed order, the faulty ones among them.

        Raises UserError when the layout under the root is not the expected one, naming what is missing.
        """
        ...

    def picture(self, record: Record) -> bytes | Image.Image:
        """The full picture of one record: the bytes of its file, or what was drawn. May raise OSError.

        Called by several threads at once.
        """
        ...


@runtime_checkable
class EmbeddedSource(Source, Protocol):
    """A source whose publisher gives the embeddings of the captions too."""

    def embeddings(self, split: str, records: Sequence[Record]) -> list[NDArray[np.float16]]:
        """The published embeddings of `records`, each (captions, dim), in the order of their captions.

        Raises UserError where there are none, or they are of other pictures.
        """
        ...


@runtime_checkable
class AccountingSource(Source, Protocol):
    """A source that can account for everything under its root, not only for the pictures that it lists."""

    def account(self, splits: Sequence[str]) -> Account:
        """What was found, once the records of `splits` are listed."""
        ...


@runtime_checkable
class KeepingSource(Source, Protocol):
    """A source whose listing is costly, and can be kept beside what is packed until that is complete."""

    def keep_listing(self, folder: str) -> None:
        """Keep it in `folder`, a URL, and take from there what lies there already."""
        ...


SOURCES = {
    "painted": "stackgan_dist.pack.sources.painted:PaintedBirds",
    "oxford102": "stackgan_dist.pack.sources.oxford102:Oxford102",
    "cub": "stackgan_dist.pack.sources.cub:Cub",
    "coco": "stackgan_dist.pack.sources.coco:Coco",
    "folder": "stackgan_dist.pack.sources.folder:PictureFolder",
    "parquet": "stackgan_dist.pack.sources.parquet:ParquetPictures",
    "webdataset": "stackgan_dist.pack.sources.webdataset:WebDatasetTars",
}
"""Name in a recipe -> "module:class"; the class is called with the root (a folder's URL) and the recipe's [options]."""

CLASS_DISJOINT = ("painted", "cub", "oxford102")
"""Sources whose splits share no class."""


def open_source(name: str, root: str | None, options: Mapping[str, Any]) -> Source:
    """Build the source called `name`, or a user's own; UserError when there is none or its options do not fit."""
    if name not in SOURCES:
        if is_importable(name):
            own: Source = make_part(name, Source, "the source", root, **options)
            return own
        raise UserError(
            f"unknown source {name!r}; known sources: {', '.join(SOURCES)}, and your own as MODULE:CLASS "
            "(docs/extending.md)"
        )
    made = known_part(SOURCES[name])
    known = [*inspect.signature(made).parameters][1:]  # behind the root
    for option in options:
        if option not in known:
            raise UserError(
                f"{name} has no option {option!r}.{did_you_mean(option, known)} Its --options are {', '.join(known)}"
            )
    try:
        source: Source = made(root, **options)
    except TypeError as error:
        given = ", ".join(f"{option}={value!r}" for option, value in options.items())
        raise UserError(
            f"{name} does not take the options {given}; one of them is of another type ({error}), see shards/README.md"
        ) from error
    return source
