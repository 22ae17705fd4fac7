"""Oxford-102 flowers (Nilsback and Zisserman 2008) with the ten captions per picture of Reed et al. (CVPR 2016).

Layout under the root:

    imagelabels.mat                            class 1..102 of every picture, from the data set's page
    jpg/image_00001.jpg ...                    the pictures
    text_c10/class_00001/image_06734.txt ...   ten captions, one a line
    cat_to_name.json                           optional: class -> English name

Pictures may be missing: records are made of those that are there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from stackgan_dist.data.sources import Record
from stackgan_dist.errors import UserError

CAPTIONS = 10

TEST_CLASSES = tuple(range(1, 21))
"""The 20 test classes of the zero-shot split 82 / 20 that text-to-image work uses (Reed et al. 2016)."""

_PICTURE = re.compile(r"image_(\d{5})\.jpg")


class Oxford102:
    """The data set as its publishers lay it out.

    Args:
        root: the folder described above.
        test_classes: classes (1..102) of the split "test"; all others are "train".
    """

    def __init__(self, root: str | None, *, test_classes: Sequence[int] = TEST_CLASSES) -> None:
        if root is None:
            raise UserError("oxford102 reads files: add --root DIR with jpg/, text_c10/ and imagelabels.mat in it")
        self._root = Path(root)
        self._test_classes = frozenset(test_classes)
        unknown = sorted(self._test_classes - set(range(1, 103)))
        if unknown:
            raise UserError(f"oxford102: test_classes names {unknown}; the classes are 1 to 102")

    def records(self, split: str) -> Sequence[Record]:
        """The records of `split`, by number of the picture. Raises UserError where the layout is another."""
        if split not in ("train", "test"):
            raise UserError(f'oxford102 has the splits "train" and "test", not {split!r}; change --splits')
        labels = self._labels()
        names = self._class_names()
        present = {int(match[1]) for path in self._folder("jpg") if (match := _PICTURE.fullmatch(path.name))}
        wanted = [n for n, label in enumerate(labels, 1) if (label in self._test_classes) == (split == "test")]
        numbers = [n for n in wanted if n in present]
        if not numbers:
            raise UserError(
                f"{self._root / 'jpg'} holds none of the {len(wanted)} pictures of the split {split!r}; "
                "they are called image_00001.jpg to image_08189.jpg"
            )
        if len(numbers) < len(wanted):
            print(f"oxford102 {split}: {len(wanted) - len(numbers)} of {len(wanted)} pictures are missing from jpg/")
        return [
            Record(
                key=f"image_{number:05d}",
                captions=self._captions(labels[number - 1], number),
                class_name=names[labels[number - 1]],
                source_id=f"jpg/image_{number:05d}.jpg",
            )
            for number in numbers
        ]

    def picture(self, record: Record) -> Image.Image:
        """The photograph."""
        return Image.open(self._root / record.source_id)

    def _folder(self, name: str) -> list[Path]:
        folder = self._root / name
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}; --root must hold jpg/, text_c10/ and imagelabels.mat")
        return list(folder.iterdir())

    def _labels(self) -> list[int]:
        try:
            from scipy.io import loadmat
        except ImportError as error:
            raise UserError("reading imagelabels.mat needs scipy: pip install 'stackgan_dist[oxford102]'") from error
        path = self._root / "imagelabels.mat"
        if not path.is_file():
            raise UserError(f"there is no {path}; it comes with the pictures on the data set's page")
        try:
            labels = loadmat(path)["labels"].ravel().tolist()
        except Exception as error:  # scipy has half a dozen ways to reject a file
            raise UserError(f"{path} is not the label file of Oxford-102: {error!r}") from error
        return [int(label) for label in labels]

    def _class_names(self) -> dict[int, str]:
        path = self._root / "cat_to_name.json"
        if not path.is_file():
            return {number: f"class_{number:05d}" for number in range(1, 103)}
        try:
            english = json.loads(path.read_text(encoding="utf-8"))
            return {number: f"{number:03d}.{english[str(number)]}" for number in range(1, 103)}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} does not give a name to every class from 1 to 102: {error!r}") from error

    def _captions(self, label: int, number: int) -> tuple[str, ...]:
        path = self._root / "text_c10" / f"class_{label:05d}" / f"image_{number:05d}.txt"
        try:
            text = path.read_bytes().decode("utf-8", errors="replace")
        except OSError as error:
            raise UserError(
                f"there are no captions for jpg/image_{number:05d}.jpg: {path}: {error.strerror}; "
                "unpack all of text_c10 under --root"
            ) from error
        captions = [caption for line in text.splitlines() if (caption := _clean(line))]
        if not captions:
            raise UserError(f"{path} holds no caption; unpack it again")
        # A few files have a void line ("{}"): every picture keeps ten by beginning again.
        return tuple(captions[i % len(captions)] for i in range(CAPTIONS))


def _clean(line: str) -> str:
    """The caption in `line` without odd bytes; empty where it holds fewer than two words."""
    caption = " ".join(re.sub(r"[^\x20-\x7e]", " ", line).split())
    return caption if len(re.findall(r"[A-Za-z]+", caption)) >= 2 else ""
