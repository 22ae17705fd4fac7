"""Oxford-102 flowers (Nilsback and Zisserman 2008) with the ten captions per picture of Reed et al. (CVPR 2016).

Layout under the root:

    imagelabels.mat                            class 1..102 of every picture, from the data set's page
    jpg/image_00001.jpg ...                    the pictures
    text_c10/class_00001/image_06734.txt ...   ten captions, one a line
    cat_to_name.json                           optional: class -> English name
    train/filenames.pickle, test/...           only for published embeddings: their order (jpg/image_00001, ...)
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources import Record
from stackgan_dist.pack.sources.account import Account
from stackgan_dist.pack.sources.files import Files, settle_missing
from stackgan_dist.pack.sources.published import embeddings_from_pickle, embeddings_from_t7, read_names
from stackgan_dist.pack.sources.text_c10 import read_captions

TEST_CLASSES = tuple(range(1, 21))
"""The 20 test classes of the zero-shot split 82 / 20 that text-to-image work uses (Reed et al. 2016)."""


class Oxford102:
    """The data set as its publishers lay it out.

    Args:
        root: URL of the folder described above.
        test_classes: classes (1..102) of the split "test"; all others are "train".
        partial: leave out pictures that are missing instead of rejecting them.
        embeddings: published embeddings, for text_encoder = "published": the name of the pickle beside filenames.pickle
            ("char-CNN-RNN-embeddings.pickle"), or a folder of class_00001/image_06734.t7.
    """

    def __init__(
        self,
        root: str | None,
        *,
        test_classes: Sequence[int] = TEST_CLASSES,
        partial: bool = False,
        embeddings: str | None = None,
    ) -> None:
        self._files = Files(root, "oxford102", "jpg/, text_c10/ and imagelabels.mat")
        self._test_classes = frozenset(test_classes)
        unknown = sorted(self._test_classes - set(range(1, 103)))
        if unknown:
            raise UserError(f"oxford102: test_classes names {unknown}; the classes are 1 to 102")
        self._partial = partial
        self._embeddings = embeddings
        self._present: dict[str, int] = {}
        """Split -> how many of its pictures are there."""

    def records(self, split: str) -> Sequence[Record]:
        """The records of `split`, by number of the picture. Raises UserError where the layout is another."""
        if split not in ("train", "test"):
            raise UserError(f'oxford102 has the splits "train" and "test", not {split!r}; change --splits')
        labels = self._labels()
        names = self._class_names()
        records = []
        for number, label in enumerate(labels, 1):
            if (label in self._test_classes) == (split == "test"):
                captions, fault = read_captions(self._files, f"text_c10/class_{label:05d}/image_{number:05d}.txt")
                records.append(
                    Record(
                        key=f"image_{number:05d}",
                        captions=captions,
                        class_name=names[label],
                        source_id=f"jpg/image_{number:05d}.jpg",
                        fault=fault,
                    )
                )
        there = self._files.names("jpg")
        settled = settle_missing(records, there, partial=self._partial, what=f"oxford102 {split}")
        self._present[split] = sum(record.present for record in settled)
        return settled

    def account(self, splits: Sequence[str]) -> Account:
        """Of the files in jpg/; see AccountingSource."""
        return self._files.tree("jpg").account({split: self._present[split] for split in splits}, "the labels")

    def picture(self, record: Record) -> bytes:
        """The photograph."""
        return self._files.read(record.source_id)

    def embeddings(self, split: str, records: Sequence[Record]) -> list[NDArray[np.float16]]:
        """See EmbeddedSource."""
        if self._embeddings is None:
            raise UserError("which published embeddings? e.g. --options embeddings=char-CNN-RNN-embeddings.pickle")
        if self._embeddings.endswith(".pickle"):
            order = read_names(self._files, f"{split}/filenames.pickle")
            by_name = embeddings_from_pickle(self._files, f"{split}/{self._embeddings}", order)
            return [by_name[f"jpg/{record.key}"] for record in records]
        labels = self._labels()
        numbers = [int(record.key.removeprefix("image_")) for record in records]
        names = [f"{self._embeddings}/class_{labels[n - 1]:05d}/image_{n:05d}.t7" for n in numbers]
        return embeddings_from_t7(self._files, names)

    def _labels(self) -> list[int]:
        try:
            from scipy.io import loadmat
        except ImportError as error:
            raise UserError("reading imagelabels.mat needs scipy: pip install 'stackgan_dist[oxford102]'") from error
        data = self._files.needed("imagelabels.mat", "it comes with the pictures on the data set's page")
        try:
            labels = loadmat(io.BytesIO(data))["labels"].ravel().tolist()
        except Exception as error:  # scipy has half a dozen ways to reject a file
            where = self._files.url("imagelabels.mat")
            raise UserError(f"{where} is not the label file of Oxford-102: {error!r}") from error
        return [int(label) for label in labels]

    def _class_names(self) -> dict[int, str]:
        if not self._files.has("cat_to_name.json"):
            return {number: f"class_{number:05d}" for number in range(1, 103)}
        try:
            english = json.loads(self._files.read("cat_to_name.json"))
            return {number: f"{number:03d}.{english[str(number)]}" for number in range(1, 103)}
        except (ValueError, KeyError, TypeError) as error:
            path = self._files.url("cat_to_name.json")
            raise UserError(f"{path} does not give a name to every class from 1 to 102: {error!r}") from error
