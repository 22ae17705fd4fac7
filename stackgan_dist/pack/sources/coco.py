"""COCO (Lin et al. 2014): photographs of everyday scenes with five or more captions each, and no classes.

Layout under the root, as the archives of cocodataset.org unpack:

    annotations/captions_train2017.json, annotations/captions_val2017.json
    train2017/*.jpg, val2017/*.jpg

The split "test" is val. For the pictures of 2014, which the paper used: --options year=2014. People's own sets in this
format have ids that are texts, folders in file names, and damaged entries: a bad annotation costs its picture alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources import Record
from stackgan_dist.pack.sources.account import Account, some_names
from stackgan_dist.pack.sources.captions.entry import given_name, given_text, kind, one_line
from stackgan_dist.pack.sources.files import Files, settle_missing
from stackgan_dist.pack.sources.fit import Fit, check_fit
from stackgan_dist.pack.sources.names import Names, is_inside, key_of

FOLDERS = {"train": "train", "test": "val"}
_DIGITS = 12
"""Of COCO's own ids in file names."""


class Coco:
    """The data set as its publishers lay it out.

    Args:
        root: URL of the folder described above.
        year: 2014 or 2017; they divide the same pictures differently.
        partial: leave out pictures that are missing instead of rejecting them.
        fit: "crop": the central square is kept; "pad": the whole picture, with white beside it.
    """

    def __init__(self, root: str | None, *, year: int = 2017, partial: bool = False, fit: Fit = "crop") -> None:
        self._files = Files(root, "coco", f"annotations/, train{year}/ and val{year}/")
        self._year = year
        check_fit("coco", fit)
        self._fit = fit
        self._partial = partial
        self._accounts: dict[str, Account] = {}

    def records(self, split: str) -> Sequence[Record]:
        """The records of `split`, by number of the picture. Raises UserError where the layout is another."""
        if split not in FOLDERS:
            raise UserError(f'coco has the splits "train" and "test" (val), not {split!r}; change --splits')
        folder = f"{FOLDERS[split]}{self._year}"
        where = f"annotations/captions_{folder}.json"
        images, annotations = self._content(where)
        tree = self._files.tree(folder)
        there = Names(tree.files)
        captions: dict[str, list[tuple[tuple[int, str, int], str]]] = {}
        faults: dict[str, str] = {}
        for number, annotation in enumerate(annotations):
            _read_annotation(annotation, number, captions, faults)
        records, pad = [], self._fit == "pad"
        for number, image in enumerate(images):
            try:
                name, picture = _read_image(image)
            except (TypeError, ValueError) as error:
                place = f"{where}, image {number}"
                records.append(Record(key_of(place), (), source_id=place, pad=pad, fault=str(error), present=False))
                continue
            said = tuple(caption for _, caption in sorted(captions.pop(name, ())))
            records.append(_record(name, _place(picture, folder, there), said, faults.pop(name, ""), pad))
        records.sort(key=lambda record: record.key)
        settled = settle_missing(records, tree.files, partial=self._partial, what=f"coco {split}")
        account = tree.account({split: sum(record.present for record in settled)}, f"the annotations of {split}")
        if unknown := sorted({*captions, *faults}):
            account.note(
                f"{where} has annotations of {len(unknown)} images that it does not list: {some_names(unknown)}."
            )
        self._accounts[split] = account
        return settled

    def account(self, splits: Sequence[str]) -> Account:
        """Of the files in the folders of `splits`; see AccountingSource."""
        first, *others = (self._accounts[split] for split in splits)
        return sum(others, first)

    def picture(self, record: Record) -> bytes:
        """The photograph."""
        return self._files.read(record.source_id)

    def _content(self, where: str) -> tuple[list[Any], list[Any]]:
        """The images and annotations of the file `where`."""
        hint = "unpack the annotations under --root, or leave the split out with --splits"
        try:
            content = json.loads(self._files.needed(where, hint))
            images, annotations = content["images"], content["annotations"]
            if not isinstance(images, list) or not isinstance(annotations, list):
                raise TypeError("images and annotations must be lists")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f"{self._files.url(where)} is not a file of COCO captions ({type(error).__name__}: {error}); "
                "download it again"
            ) from error
        return images, annotations


def _read_image(image: object) -> tuple[str, str]:
    """(id, file name) of an entry of "images"."""
    if not isinstance(image, dict):
        raise TypeError(f"it is {kind(image)}, not an object")
    name, picture = given_name(image, "id"), given_text(image, "file_name")
    if not name or not picture:
        raise ValueError("it has no id, or no file_name")
    return name, picture


def _read_annotation(
    annotation: object,
    number: int,
    captions: dict[str, list[tuple[tuple[int, str, int], str]]],
    faults: dict[str, str],
) -> None:
    """Add its caption to those of its image, in the order of the annotations' ids, or the image's fault."""
    image = ""
    try:
        if not isinstance(annotation, dict):
            raise TypeError(f"it is {kind(annotation)}, not an object")
        if not (image := given_name(annotation, "image_id")):
            raise ValueError("it has no image_id")
        caption = one_line(given_text(annotation, "caption"))
        if not caption:
            raise ValueError("it has no caption")
        captions.setdefault(image, []).append(((*_order(given_name(annotation, "id")), number), caption))
    except (TypeError, ValueError) as error:
        faults.setdefault(image or "(no image_id)", f"annotation {number}: {error}")


def _order(name: str) -> tuple[int, str]:
    """Numbers come as numbers, before texts."""
    return (int(name), "") if name.isdecimal() and name.isascii() else (10**_DIGITS, name)


def _place(picture: str, folder: str, there: Names) -> str:
    """The name under the root of the file called `picture`: as in the folder of the split, or as from the root."""
    for name in (f"{folder}/{picture}", picture):
        if is_inside(picture) and (found := there.find(name)):
            return found
    return f"{folder}/{picture}"


def _record(name: str, place: str, captions: tuple[str, ...], fault: str, pad: bool) -> Record:
    key = name.zfill(_DIGITS) if name.isdecimal() and name.isascii() and len(name) <= _DIGITS else key_of(name)
    return Record(
        key=key,
        captions=captions,
        source_id=place,
        pad=pad,
        fault=fault if is_inside(place) else "its file name leaves the data set's folder",
    )
