"""Pictures in files, whoever made them: a folder, or WebDataset tars, on any URL, as a score sees them.

They are listed and decoded as `pack` does it: upright, sRGB, what is transparent on white, and nothing unpacked or run.
A picture that cannot be decoded ends the score, since a set without it is another set.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from stackgan_dist.data.cache_folder import default_cache_folder
from stackgan_dist.errors import UserError
from stackgan_dist.generation.names import GRID, besides
from stackgan_dist.pack.pictures import ENDINGS, PictureError, load_picture
from stackgan_dist.pack.sources import Record, Source
from stackgan_dist.pack.sources.files import Files
from stackgan_dist.pack.sources.folder import PictureFolder
from stackgan_dist.pack.sources.names import TARS, is_hidden, key_of
from stackgan_dist.pack.sources.splits import SPLITS
from stackgan_dist.pack.sources.webdataset import WebDatasetTars, tars_of
from stackgan_dist.randomness import Stream, permutation
from stackgan_dist.storage.folder import Folder
from stackgan_dist.storage.output_folder import check_whole

Read = Callable[[Record], bytes | Image.Image]
Fit = Literal["crop", "squash"]


@dataclass(frozen=True)
class Words:
    """What is said of a picture."""

    sentence: str

    @property
    def class_name(self) -> str:
        """What a wrong sentence does not share with it: itself, where nothing else is known."""
        return self.sentence


@dataclass(frozen=True)
class FileBatch:
    """Some numbered pictures."""

    numbers: Tensor
    """(n,), int64."""
    images: Tensor | list[Tensor]
    """(n, 3, S, S) in [-1, 1]; several (3, H, W) where their sizes differ."""
    captions: list[Words] | None
    """One of each picture's, by the captions file; None without one."""


class PictureFiles:
    """Numbered pictures of a folder or of tars, dealt out to ranks in whole batches.

    Args:
        where: the folder's URL, or that of tars, perhaps with their numbers in braces.
        captions: name of a captions file in the folder; pictures that it does not name are left out. None: none is
            read. Tars have their captions inside, and take "inside".
        batch_size: pictures in a batch.
        seed: chooses their order, so that the first ones are a sample of all.
        fit: what becomes of pictures that are not square: the central square, or all of it squeezed into one.
        count: at most so many.

    Raises UserError when there are no pictures, or captions are asked for and missing.
    """

    def __init__(
        self,
        where: str,
        captions: str | None,
        batch_size: int,
        seed: int,
        fit: Fit,
        count: int | None = None,
    ) -> None:
        self.where, self._batch_size, self._fit, self.has_captions = where, batch_size, fit, captions is not None
        self._read, records, pictures = _listed(where, captions)
        usable = [record for record in records if not record.fault and (record.captions or captions is None)]
        self.left_out = pictures - len(usable)
        """Pictures that are there and not used: without caption where captions are asked for, or at fault."""
        if not usable:
            fault = next((record.fault for record in records if record.fault), "none has a caption")
            raise UserError(f"{where} holds {pictures} pictures, none of which can be scored ({fault})")
        usable.sort(key=lambda record: record.source_id)
        order = permutation(len(usable), seed, Stream.SCORE_REAL)[:count].tolist()
        self._records = [usable[number] for number in order]
        self.count = len(self._records)

    @property
    def digest(self) -> str:
        """Of what is listed: names, captions, and the files' sizes and times."""
        folder = Folder.at(tars_of(self.where)[0] if self.where.lower().endswith(TARS) else self.where)
        marks: dict[str, list[str]] = {}
        listed = []
        for record in sorted(self._records, key=lambda r: r.source_id):
            file = record.source_id if record.extent is None else record.extent[0]
            if file not in marks:
                marks[file] = folder.marks(file)
            listed.append([record.source_id, record.extent, marks[file], record.captions if self.has_captions else ()])
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()

    @property
    def sentences(self) -> list[str]:
        """All different sentences, in the order of the pictures; none without captions."""
        return [*dict.fromkeys(record.captions[0] for record in self._records)] if self.has_captions else []

    def of_one_sentence(self, sentences: int, pictures: int) -> list[list[int]]:
        """The numbers of two to `pictures` pictures of each of the first sentences that have so many."""
        groups: dict[str, list[int]] = {}
        for number, record in enumerate(self._records if self.has_captions else ()):
            groups.setdefault(record.captions[0], []).append(number)
        return [group[:pictures] for group in groups.values() if len(group) > 1][:sentences]

    def images(self, numbers: Sequence[int]) -> Tensor:
        """(n, 3, S, S) in [-1, 1] of these pictures, all resized to the first one's size where they differ."""
        images = [self._image(self._records[number]) for number in numbers]
        height, width = images[0].shape[1:]
        return torch.cat(
            [
                image[None]
                if image.shape[1:] == (height, width)
                else F.interpolate(image[None], (height, width), mode="bilinear", antialias=True)
                for image in images
            ]
        )

    def side(self) -> int:
        """Of the square of the first picture, in pixels."""
        return int(self._image(self._records[0]).shape[1])

    def batches(self, rank: int, world_size: int) -> Iterator[FileBatch]:
        """The batches of one rank."""
        for begin in range(rank * self._batch_size, self.count, world_size * self._batch_size):
            some = self._records[begin : begin + self._batch_size]
            images = [self._image(record) for record in some]
            alike = len({image.shape for image in images}) == 1
            words = [Words(record.captions[0]) for record in some] if self.has_captions else None
            yield FileBatch(torch.arange(begin, begin + len(some)), torch.stack(images) if alike else images, words)

    def _image(self, record: Record) -> Tensor:
        """(3, H, W) in [-1, 1]."""
        try:
            picture = load_picture(self._read(record))
        except (PictureError, OSError) as error:
            raise UserError(
                f"{record.source_id} in {self.where} cannot be used ({error}); repair or remove it"
            ) from error
        if self._fit == "crop" and picture.width != picture.height:
            side = min(picture.size)
            left, top = (picture.width - side) // 2, (picture.height - side) // 2
            picture = picture.crop((left, top, left + side, top + side))
        pixels = torch.from_numpy(np.array(picture, dtype=np.uint8))
        return pixels.permute(2, 0, 1).float() / 127.5 - 1


def _listed(where: str, captions: str | None) -> tuple[Read, list[Record], int]:
    """What reads a picture, the pictures whatever split they are in, and how many there are in all."""
    files = None if where.lower().endswith(TARS) else Files(where, "scores", "pictures or tars")
    names = [] if files is None else files.names()
    check_whole(where, names)
    pictures = [name for name in names if name.lower().endswith(ENDINGS) and not is_hidden(name)]
    if other := besides(names):
        raise UserError(
            f"{where} is what `generate` wrote, and has {other[0]} beside the pictures of its sentences: move {GRID} "
            "and *-stage1.png away, they would be scored as pictures"
        )
    if files is None or not pictures:
        tars = WebDatasetTars(where, test_fraction=0.0)
        tars.keep_listing(str(default_cache_folder().parent / "listings"))
        records = _of_all_splits(tars)
        return tars.picture, records, len(records)
    if captions is not None:
        folder = PictureFolder(where, captions=captions, test_fraction=0.0)
        return folder.picture, _of_all_splits(folder), len(pictures)
    return (
        lambda record: files.read(record.source_id),
        [Record(key_of(name), (), source_id=name) for name in pictures],
        len(pictures),
    )


def _of_all_splits(source: Source) -> list[Record]:
    found = {record.source_id: record for split in SPLITS for record in source.records(split) if record.present}
    return list(found.values())
