"""Parquet files with the pictures inside, as Hugging Face's datasets have them: a row for each picture.

The root is a folder on any fsspec URL, of `*.parquet`. A file's split is a folder above it or a word of its name:
data/train-00000-of-00002.parquet, default/test/0000.parquet. Where all are for training, rows are divided by a hash.

The picture is a column of bytes, or of `{"bytes": ..., "path": ...}`; captions are found as in a captions file
(captions/entry.py). A class is a column "class", or the one that Hugging Face's features call a ClassLabel, whose names
are taken.

Pictures are compressed with their neighbours, so there is no range to read one by: those of a file are written beside
the listing when it is read, and lie there until the set is packed.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources import Record
from stackgan_dist.pack.sources.account import Account
from stackgan_dist.pack.sources.captions.entry import Columns, given_captions, given_name, listed
from stackgan_dist.pack.sources.captions.parquet import opened, rows_of
from stackgan_dist.pack.sources.containers import Containers, Found
from stackgan_dist.pack.sources.files import Files
from stackgan_dist.pack.sources.fit import Fit
from stackgan_dist.pack.sources.names import PARQUET, key_of
from stackgan_dist.pack.sources.splits import SPLIT_OF, decided_by, split_in_words

_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class _Layout:
    """Which columns of a file are read."""

    image: str
    captions: list[list[str]]
    """Groups of them; the first that holds any counts."""
    class_name: str
    """ "" where there is none."""
    class_names: Sequence[str]
    """Of the class numbers; empty where they have no names."""
    unread: list[str]

    @property
    def columns(self) -> list[str]:
        """All of them."""
        return [*dict.fromkeys([self.image, *itertools.chain(*self.captions), *filter(None, [self.class_name])])]


class ParquetPictures(Containers):
    """Parquet files of pictures with captions.

    Args:
        root: URL of the folder that they are in.
        image_column: the column that holds the pictures, where there are several.
        caption_column: the one that holds the captions, or a list of those that hold one each, where they are not found
            by their names.
        class_column: the one that holds the class, where it is not found.
        test_fraction: share of the ROWS that make the split "test", chosen by a hash of their places, where no file is
            one of test or validation.
        fit: "crop": the central square is kept; "pad": the whole picture, with white beside it.
    """

    source = "parquet"
    thing = "parquet files"
    endings = PARQUET

    def __init__(
        self,
        root: str | None,
        *,
        image_column: str = "",
        caption_column: str | Sequence[str] = (),
        class_column: str = "",
        test_fraction: float = 0.1,
        fit: Fit = "crop",
    ) -> None:
        super().__init__(Files(root, self.source, "*.parquet"), test_fraction, fit)
        self._columns = Columns(image_column, listed(caption_column), class_column)

    def _splits(self, names: Sequence[str], account: Account) -> Mapping[str, str | None]:
        return decided_by({name: _split_in(name) for name in names}, account) or dict.fromkeys(names)

    def _unpacked_ending(self, name: str) -> str:
        return ".pictures"

    def _read_as(self) -> Sequence[Any]:
        return [self._columns.file, *self._columns.captions, self._columns.class_name]

    def _scan(self, name: str) -> Found:
        """See Containers: the pictures are written one behind the other."""
        records: list[Record] = []
        unread: list[str] = []

        def write(pictures: BinaryIO) -> None:
            records.clear()  # a store may have to be asked again
            at = 0
            for number, (picture, fields, layout) in enumerate(self._rows(name)):
                records.append(_record(name, number, picture, at, fields, layout))
                unread[:] = layout.unread
                pictures.write(picture)
                at += len(picture)

        folder, file = self._place(name)
        folder.write_file(file, write)
        note = (
            f"{name} has columns that are not read: {', '.join(unread)}. If one of them is a class: --options "
            "class_column=NAME."
        )
        return Found(records, Counter(), [note] if unread else [])

    def _rows(self, name: str) -> Iterator[tuple[bytes, dict[str, Any], _Layout]]:
        """(picture, the other columns that are read, the file's layout) of each row; b"" where it has no picture."""
        where = self._files.url(name)
        with self._files.folder.local_copy(name) as path, opened(path, where) as file:
            layout = self._layout(file.schema_arrow, where)
            for fields in rows_of(file, where, layout.columns, _ROWS_AT_ONCE):
                held = fields.pop(layout.image)
                yield (held.get("bytes") if isinstance(held, dict) else held) or b"", fields, layout

    def _layout(self, schema: Any, where: str) -> _Layout:
        names = [str(name) for name in schema.names]
        holding = [name for name in names if _holds_pictures(schema.field(name).type)]
        images = [name for name in (self._columns.of_file(holding) or holding) if name in holding]
        groups = self._columns.of_captions(names)
        labels = _class_labels(schema.metadata or {})
        classes = self._columns.of_class(names) or ([] if self._columns.class_name else [*labels][:1])
        if not images or not groups:
            lacks = "column with the pictures themselves" if not images else "column of captions"
            raise UserError(
                f"{where} has no {lacks} that is known; its columns are {', '.join(names)}; choose with --options "
                "image_column=NAME caption_column=NAME. Files that only name their pictures are for the recipe folder"
            )
        class_name = classes[0] if classes else ""
        read = {images[0], *itertools.chain(*groups), class_name}
        return _Layout(
            images[0], groups, class_name, labels.get(class_name, ()), [name for name in names if name not in read]
        )


def _record(name: str, number: int, picture: bytes, at: int, fields: Mapping[str, Any], layout: _Layout) -> Record:
    place = f"{name}/{number:08d}"
    captions: tuple[str, ...] = ()
    class_name = fault = ""
    try:
        captions = given_captions(fields, layout.captions)
        if layout.class_name:
            value = fields.get(layout.class_name)
            if isinstance(value, int) and 0 <= value < len(layout.class_names):
                class_name = layout.class_names[value]
            else:
                class_name = given_name(fields, layout.class_name)
    except TypeError as error:
        fault = f"row {number}: {error}"
    return Record(
        key=key_of(place),
        captions=captions,
        class_name=class_name,
        source_id=place,
        extent=(name, at, len(picture)),
        fault=fault or ("" if picture else "the row has no picture"),
        present=bool(picture),
    )


def _holds_pictures(kind: Any) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return any(kind.field(n).name == "bytes" for n in range(kind.num_fields))
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _class_labels(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Column -> names of its numbers, of the columns that Hugging Face's features call a ClassLabel."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {
            str(name): [str(each) for each in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _split_in(name: str) -> str:
    """The split that the nearest folder above is called after, or a word of the name; "" for none."""
    *folders, base = PurePosixPath(name).parts
    by_folder = next((SPLIT_OF[folder.lower()] for folder in reversed(folders) if folder.lower() in SPLIT_OF), "")
    return by_folder or split_in_words(base)
