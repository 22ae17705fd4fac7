"""CUB-200-2011 birds (Wah et al. 2011) with the ten captions per picture of Reed et al. (CVPR 2016).

Layout under the root, as the two archives unpack; each folder may also lie in `birds/`, and the captions in
`text/`, as AttnGAN and DF-GAN have them:

    CUB_200_2011/images/001.Black_footed_Albatross/*.jpg
    CUB_200_2011/{images,bounding_boxes}.txt, perhaps parts/{parts,part_locs}.txt
    text_c10/001.Black_footed_Albatross/*.txt         ten captions, one a line
    train/filenames.pickle, test/filenames.pickle     the class-disjoint split of the StackGAN data release

A picture is cropped around its bird as the authors' code does: a square about the centre of the bounding box, one and
a half times its longer side, clipped to the picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources import Record
from stackgan_dist.pack.sources.account import Account
from stackgan_dist.pack.sources.files import Files, settle_missing
from stackgan_dist.pack.sources.names import is_inside
from stackgan_dist.pack.sources.published import embeddings_from_pickle, embeddings_from_t7, read_names
from stackgan_dist.pack.sources.text_c10 import read_captions

HALF_SIDE_PER_BOX = 0.75
"""Half the side of the crop over the longer side of the box (StackGAN's preprocessing; the paper's words differ)."""

_ALSO = {"text_c10": ("text_c10", "text")}
"""Folder -> what it may be called."""
Box = tuple[float, float, float, float]


class Cub:
    """The data set as its publishers lay it out.

    Args:
        root: URL of the folder described above.
        crop: crop around the bird.
        partial: leave out pictures that are missing instead of rejecting them.
        embeddings: published embeddings, for text_encoder = "published": the name of the pickle beside filenames.pickle
            ("char-CNN-RNN-embeddings.pickle"), or a folder of CLASS/PICTURE.t7.
    """

    def __init__(
        self, root: str | None, *, crop: bool = True, partial: bool = False, embeddings: str | None = None
    ) -> None:
        self._files = Files(root, "cub", "CUB_200_2011/, text_c10/, train/ and test/")
        self._crop = crop
        self._partial = partial
        self._embeddings = embeddings
        self._present: dict[str, int] = {}
        """Split -> how many of its pictures are there."""
        self._places: dict[str, str] = {}

    def records(self, split: str) -> Sequence[Record]:
        """The records of `split`, in the order of filenames.pickle. Raises UserError where the layout is another."""
        if split not in ("train", "test"):
            raise UserError(f'cub has the splits "train" and "test", not {split!r}; change --splits')
        names = self._names(split)
        boxes = self._by_picture("bounding_boxes.txt")
        numbers = {name.removesuffix(".jpg"): number for number, name in self._table("images.txt")}
        unknown = sorted(set(names) - set(numbers))
        if unknown:
            raise UserError(
                f"{split}/filenames.pickle names {unknown[0]!r}, images.txt does not; are both of this data set?"
            )
        keypoints = self._keypoints()
        without = [name for name in names if numbers[name] not in boxes]
        if without:
            raise UserError(f"CUB_200_2011/bounding_boxes.txt gives no box of {without[0]!r}; unpack it again")
        records = [self._record(name, boxes[numbers[name]], keypoints.get(numbers[name], {})) for name in names]
        there = self._files.names(self._within("CUB_200_2011/images"))
        settled = settle_missing(records, there, partial=self._partial, what=f"cub {split}")
        self._present[split] = sum(record.present for record in settled)
        return settled

    def account(self, splits: Sequence[str]) -> Account:
        """Of the files in CUB_200_2011/images/; see AccountingSource."""
        present = {split: self._present[split] for split in splits}
        account = self._files.tree(self._within("CUB_200_2011/images")).account(present, "the lists of file names")
        if not self._has_parts():
            account.note("There is no CUB_200_2011/parts: the pictures have no keypoints, which GAWWN alone needs.")
        return account

    def picture(self, record: Record) -> bytes:
        """The photograph."""
        return self._files.read(record.source_id)

    def embeddings(self, split: str, records: Sequence[Record]) -> list[NDArray[np.float16]]:
        """See EmbeddedSource."""
        if self._embeddings is None:
            raise UserError("which published embeddings? e.g. --options embeddings=char-CNN-RNN-embeddings.pickle")
        names = [_name(record) for record in records]
        if self._embeddings.endswith(".pickle"):
            by_name = embeddings_from_pickle(
                self._files, self._within(f"{split}/{self._embeddings}"), self._names(split)
            )
            return [by_name[name] for name in names]
        return embeddings_from_t7(self._files, [f"{self._embeddings}/{name}.t7" for name in names])

    def _record(self, name: str, box: Box, keypoints: dict[str, tuple[float, float]]) -> Record:
        captions, fault = read_captions(self._files, self._within(f"text_c10/{name}.txt"))
        return Record(
            key=name.rsplit("/", 1)[-1],
            captions=captions,
            class_name=name.partition("/")[0],
            source_id=self._within(f"CUB_200_2011/images/{name}.jpg"),
            crop=_around(box) if self._crop else None,
            box=box,
            keypoints=keypoints,
            fault=fault,
        )

    def _within(self, name: str) -> str:
        """`name`, or where it lies in birds/ or in a folder of another name."""
        folder, _, rest = name.partition("/")
        if folder not in self._places:
            may_be = [f"{above}{called}" for called in _ALSO.get(folder, (folder,)) for above in ("", "birds/")]
            self._places[folder] = next(filter(self._files.has, may_be), folder)
        return f"{self._places[folder]}/{rest}"

    def _has_parts(self) -> bool:
        return self._files.has(self._within("CUB_200_2011/parts"))

    def _names(self, split: str) -> list[str]:
        name = self._within(f"{split}/filenames.pickle")
        names = read_names(self._files, name)
        strange = [entry for entry in names if not is_inside(entry) or entry.count("/") != 1]
        if strange:
            raise UserError(f"{self._files.url(name)} names the picture {strange[0]!r}; CLASS/PICTURE was expected")
        return names

    def _by_picture(self, name: str) -> dict[str, Box]:
        boxes = {}
        for number, values in self._table(name):
            try:
                left, top, width, height = map(float, values.split())
            except ValueError as error:
                raise UserError(f"CUB_200_2011/{name}: picture {number} has the box {values!r}: {error}") from error
            boxes[number] = (left, top, width, height)
        return boxes

    def _keypoints(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Number of the picture -> name of the part -> (x, y), the visible ones; none without such tables."""
        if not self._has_parts():
            return {}
        parts = dict(self._table("parts/parts.txt"))
        found: dict[str, dict[str, tuple[float, float]]] = {}
        for number, values in self._table("parts/part_locs.txt"):
            try:
                part, x, y, visible = values.split()
                if visible == "1":
                    found.setdefault(number, {})[parts[part]] = (float(x), float(y))
            except (ValueError, KeyError) as error:
                raise UserError(
                    f"CUB_200_2011/parts/part_locs.txt says {values!r} of picture {number}: {error!r}; unpack it again"
                ) from error
        return found

    def _table(self, name: str) -> list[tuple[str, str]]:
        """The lines of a metadata file, each cut after its first word."""
        where = self._within(f"CUB_200_2011/{name}")
        lines = self._files.needed(where).decode("utf-8", errors="replace").splitlines()
        pairs = [line.strip().partition(" ") for line in lines if line.strip()]
        if not pairs or not all(rest for _, _, rest in pairs):
            raise UserError(f"{self._files.url(where)} is not a table of CUB-200-2011; unpack it again")
        return [(first, rest) for first, _, rest in pairs]


def _name(record: Record) -> str:
    return f"{record.class_name}/{record.key}"


def _around(box: Box) -> Box:
    """The authors' crop (left, top, right, bottom), in whole pixels like theirs."""
    left, top, width, height = box
    x, y = int((2 * left + width) / 2), int((2 * top + height) / 2)
    half = int(max(width, height) * HALF_SIDE_PER_BOX)
    return x - half, y - half, x + half, y + half
