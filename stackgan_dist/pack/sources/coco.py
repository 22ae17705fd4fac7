"""COCO (Lin et al. 2014): photographs of everyday scenes with five or more captions each, and no classes.

Layout under the root, as the archives of cocodataset.org unpack:

    annotations/captions_train2017.json, annotations/captions_val2017.json
    train2017/*.jpg, val2017/*.jpg

The split "test" is val. For the pictures of 2014, which the paper used: --options year=2014.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources import Record
from stackgan_dist.pack.sources.files import Files, is_inside, settle_missing

FOLDERS = {"train": "train", "test": "val"}


class Coco:
    """The data set as its publishers lay it out.

    Args:
        root: URL of the folder described above.
        year: 2014 or 2017; they divide the same pictures differently.
        partial: leave out pictures that are missing instead of rejecting them.
    """

    def __init__(self, root: str | None, *, year: int = 2017, partial: bool = False) -> None:
        self._files = Files(root, "coco", f"annotations/, train{year}/ and val{year}/")
        self._year = year
        self._partial = partial

    def records(self, split: str) -> Sequence[Record]:
        """The records of `split`, by number of the picture. Raises UserError where the layout is another."""
        if split not in FOLDERS:
            raise UserError(f'coco has the splits "train" and "test" (val), not {split!r}; change --splits')
        folder = f"{FOLDERS[split]}{self._year}"
        where = f"annotations/captions_{folder}.json"
        hint = "unpack the annotations under --root, or leave the split out with --splits"
        try:
            content = json.loads(self._files.needed(where, hint))
            names = {int(image["id"]): str(image["file_name"]) for image in content["images"]}
            captions: dict[int, list[tuple[int, str]]] = {number: [] for number in names}
            for entry in content["annotations"]:
                captions[int(entry["image_id"])].append((int(entry["id"]), str(entry["caption"])))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self._files.url(where)} is not a file of COCO captions ({type(error).__name__}: {error}); "
                "download it again"
            ) from error
        present = set(self._files.names(folder))
        records = [_record(number, f"{folder}/{names[number]}", captions[number]) for number in sorted(names)]
        return settle_missing(records, present, partial=self._partial, what=f"coco {split}")

    def picture(self, record: Record) -> bytes:
        """The photograph."""
        return self._files.read(record.source_id)


def _record(number: int, name: str, captions: list[tuple[int, str]]) -> Record:
    made: dict[str, Any] = {
        "key": f"{number:012d}",
        "captions": tuple(" ".join(caption.split()) for _, caption in sorted(captions)),
        "source_id": name,
    }
    return Record(**made, fault="" if is_inside(name) else "its file name leaves the data set's folder")
