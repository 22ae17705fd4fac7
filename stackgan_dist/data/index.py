"""`index.json`: what a folder of shards holds (the specification is shards/README.md).

It is written last, so a half-packed folder has none, and it names every shard with its size, digest and sample
count, so nothing truncated or altered can pass for complete. Its own digest is the identity of a run's data.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.errors import UserError
from stackgan_dist.storage.folder import Folder, FolderLike

SCHEMA = 1
INDEX_NAME = "index.json"
STORED_PER_CROPPED = 76 / 64
"""A stored picture is this much larger than the crops that training takes of it."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One tar of a data set."""

    name: str
    """File name inside the data set's folder."""
    bytes: int
    sha256: str
    samples: int


@dataclass(frozen=True)
class Index:
    """The content of `index.json`."""

    name: str
    """Name of the data set, e.g. "oxford102"."""
    split: str
    """"train" or "test"; the splits of a data set share no class where the source has classes."""
    image_size: int
    """Side of the stored square pictures in pixels: 76 for crops of 64, 152 for 128, 304 for 256."""
    text_encoder: str
    """Name of the encoder that made the embeddings (stackgan_dist.text); with a digest, if it is a trained one."""
    text_dim: int
    """Width of an embedding."""
    captions_per_image: int
    """Rows of every KEY.emb.npy."""
    classes: tuple[str, ...]
    """Class names; KEY.json gives the class by its name."""
    samples: int
    """Pictures in all shards."""
    shards: tuple[Shard, ...]
    recipe: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What else decided the content: source, options, seed, samples per shard, digest of the source's records.
    Tells `pack` whether a folder holds what it is asked for."""
    schema: int = SCHEMA

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """The number of each shard's first sample: samples are numbered in the order of the shards."""
        sizes = np.array([shard.samples for shard in self.shards], np.int64)
        first: NDArray[np.int64] = np.cumsum(sizes) - sizes
        return first

    def locate(self, number: int) -> tuple[int, int]:
        """Shard of sample `number`, and which it is in there."""
        shard = int(np.searchsorted(self.first, number, side="right")) - 1
        return shard, number - int(self.first[shard])

    def to_bytes(self) -> bytes:
        """The file's content: stable JSON, so that equal data sets have equal digests."""
        return (json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True) + "\n").encode()

    @property
    def digest(self) -> str:
        """sha256 of the file: changes whenever any byte of any shard does."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def parse_index(data: bytes, where: str) -> Index:
    """Read the content of an index file; UserError naming `where` when it is not one of this schema."""
    try:
        fields = json.loads(data)
        schema = fields["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{where} is not an index of shards ({error}); pack the data set again") from error
    if schema != SCHEMA:
        raise UserError(
            f"{where} has schema {schema}, this version reads schema {SCHEMA}; "
            "pack the data set again or use the version that packed it"
        )
    try:
        shards = tuple(Shard(**shard) for shard in fields.pop("shards"))
        classes = tuple(fields.pop("classes"))
        index = Index(**fields, classes=classes, shards=shards)
    except (TypeError, KeyError) as error:
        raise UserError(f"{where} lacks or misnames a field: {error}; pack the data set again") from error
    total = sum(shard.samples for shard in index.shards)
    if total != index.samples:
        raise UserError(f"{where} says {index.samples} samples but its shards hold {total}; pack it again")
    return index


class NoIndexError(UserError):
    """There is no data set in a folder; says how to make it."""

    def __init__(self, url: str, how_to_make: str) -> None:
        super().__init__(f"no shards at {url} ({INDEX_NAME} is missing). Make them:\n  {how_to_make}")


def load_index(where: FolderLike, *, how_to_make: str = "python -m stackgan_dist.pack --help") -> Index:
    """The index of the data set in the folder `where`.

    Raises NoIndexError when there is none (with `how_to_make`, the command that helps), UserError when it is not
    readable.
    """
    folder = Folder.at(where)
    file = folder.url_of(INDEX_NAME)
    try:
        data = folder.read_settled(INDEX_NAME)
    except (FileNotFoundError, NotADirectoryError):
        raise NoIndexError(folder.url, how_to_make) from None
    except OSError as error:
        raise UserError(f"cannot read {file}: {error}") from error
    return parse_index(data, file)


def stored_size(image_size: int) -> int:
    """Side of the stored pictures for crops of `image_size`: 76 for 64, 152 for 128, 304 for 256."""
    return round(image_size * STORED_PER_CROPPED)


def packed_folders(top: Folder) -> dict[str, Folder]:
    """Name below `top` ("" for itself) -> every folder with an index. Raises UserError when there is none."""
    found = {below: folder for below, folder in top.walk(depth=2) if folder.exists(INDEX_NAME)}
    if not found:
        raise UserError(
            f"there is no {INDEX_NAME} at or below {top}; a set that is not finished has none: pack it first"
        )
    return dict(sorted(found.items()))
