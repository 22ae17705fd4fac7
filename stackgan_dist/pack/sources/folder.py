"""Anyone's pictures: a folder, and their captions in one of three forms.

    cats/tom.jpg, cats/tom.txt    beside each picture a text file of its name, a caption a line
    captions.jsonl                {"file": "cats/tom.jpg", "captions": ["a grey cat", ...]}, one picture a line
    captions.csv                  a table with the columns file and caption, one caption a line

`captions.jsonl` may also say "caption" or "text" for a single one (a string or a list) and "file_name" for the file,
and give a "class" and a "split" ("train" or "test"); so may the table.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources import Record
from stackgan_dist.pack.sources.files import Files, is_inside

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
SPLITS = ("train", "test")
Classes = Literal["auto", "folders", "none"]


@dataclass(frozen=True)
class _Entry:
    """What is known of one picture."""

    file: str
    captions: tuple[str, ...]
    class_name: str = ""
    split: str = ""
    fault: str = ""


class Folder:
    """A folder of pictures.

    Args:
        root: its URL.
        captions: the captions file, relative to the root; by default captions.jsonl or captions.csv where there is
            one, and text files beside the pictures otherwise.
        classes: "auto": the captions file's, if it gives any; "folders": the name of the folder that a picture is in;
            "none".
        test_fraction: share of the pictures that make the split "test", chosen by a hash of their names, so that it
            stays the same when pictures are added. A "split" in the captions file, or folders train/ and test/
            under the root, decide instead where they exist.
        partial: leave out captions whose picture is missing instead of rejecting them.
    """

    def __init__(
        self,
        root: str | None,
        *,
        captions: str | None = None,
        classes: Classes = "auto",
        test_fraction: float = 0.1,
        partial: bool = False,
    ) -> None:
        self._files = Files(root, "folder", "pictures and their captions")
        if classes not in get_args(Classes):
            raise UserError(f"folder: classes is {classes!r}; choose one of {', '.join(get_args(Classes))}")
        if not 0.0 <= test_fraction < 1.0:
            raise UserError(f"folder: test_fraction is {test_fraction}; it must be at least 0 and below 1")
        self._captions = captions
        self._classes = classes
        self._test_fraction = test_fraction
        self._partial = partial

    def records(self, split: str) -> Sequence[Record]:
        """The records of `split`, by name. Raises UserError where nothing is found, naming what was looked for."""
        if split not in SPLITS:
            raise UserError(f'folder has the splits "train" and "test", not {split!r}; change --splits')
        names = self._files.names()
        present = set(names)
        pictures = [name for name in names if name.lower().endswith(PICTURES) and not _is_hidden(name)]
        if not pictures:
            raise UserError(f"{self._files.root} holds no pictures ({', '.join(PICTURES)}); check --root")
        entries = self._entries(pictures, present)
        has_split = any(entry.split for entry in entries)
        has_folders = all(any(name.startswith(f"{folder}/") for name in pictures) for folder in SPLITS)
        records = []
        for entry in entries:
            belongs = entry.split if has_split else entry.file.partition("/")[0] if has_folders else ""
            if not belongs:
                belongs = "test" if _fraction(entry.file) < self._test_fraction else "train"
            missing = not entry.fault and entry.file not in present
            if belongs == split and not (missing and self._partial):
                records.append(self._record(entry, missing))
        return records

    def picture(self, record: Record) -> bytes:
        """The file's bytes."""
        return self._files.read(record.source_id)

    def _record(self, entry: _Entry, missing: bool) -> Record:
        class_name = entry.class_name if self._classes == "auto" else ""
        if self._classes == "folders":
            class_name = PurePosixPath(entry.file).parent.name
        return Record(
            key=key_of(entry.file),
            captions=entry.captions,
            class_name=class_name,
            source_id=entry.file,
            fault=entry.fault or ("the picture is missing" if missing else ""),
        )

    def _entries(self, pictures: Sequence[str], present: set[str]) -> list[_Entry]:
        chosen = self._captions or next((name for name in ("captions.jsonl", "captions.csv") if name in present), None)
        if chosen is None:
            entries = [self._beside(name, present) for name in pictures]
            if all(entry.fault for entry in entries):
                raise UserError(
                    f"{self._files.root} holds {len(pictures)} pictures but no captions: neither captions.jsonl nor "
                    f"captions.csv, nor text files beside the pictures (the first: {entries[0].fault})"
                )
            return entries
        text = _decoded(self._files.needed(chosen, "name it with --options captions=FILE"))
        if text is None:
            raise UserError(f"{self._files.url(chosen)} is not UTF-8; convert it, e.g. with iconv -t UTF-8")
        rows = (
            _json_lines(text, chosen) if chosen.endswith((".jsonl", ".json")) else _table(text, self._files.url(chosen))
        )
        # A table has a row for each caption: those of a picture are gathered.
        merged: dict[str, _Entry] = {}
        for row in rows:
            known = merged.get(row.file)
            if known is not None and chosen.endswith(".csv"):
                row = _Entry(row.file, known.captions + row.captions, known.class_name, known.split, known.fault)
            elif known is not None:
                row = _Entry(
                    row.file, known.captions, known.class_name, known.split, "the file has two lines of captions"
                )
            merged[row.file] = row
        return [merged[file] for file in sorted(merged)]

    def _beside(self, picture: str, present: set[str]) -> _Entry:
        name = f"{PurePosixPath(picture).with_suffix('')}.txt"
        if name not in present:
            return _Entry(picture, (), fault=f"there are no captions {name}")
        text = _decoded(self._files.read(name))
        if text is None:
            return _Entry(picture, (), fault=f"{name} is not UTF-8")
        return _Entry(picture, tuple(caption for line in text.splitlines() if (caption := one_line(line))))


def one_line(text: str) -> str:
    """`text` with every run of white space as one blank."""
    return " ".join(text.split())


def key_of(name: str) -> str:
    """A key for the file `name`: readable, and different for different names."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", PurePosixPath(name).stem)[:60]
    return f"{readable}-{blake2b(name.encode('utf-8', 'surrogatepass'), digest_size=6).hexdigest()}"


def _fraction(name: str) -> float:
    """A number in [0, 1) that hangs on `name` alone."""
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=6).digest()) / 2**48


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _decoded(data: bytes) -> str | None:
    """`data` as UTF-8 text, a byte order mark taken off; None when it is not."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def _json_lines(text: str, where: str) -> Iterator[_Entry]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield _entry(json.loads(line), where)
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                yield _Entry(
                    f"{where}:{number}", (), fault=f"the line is not understood: {type(error).__name__}: {error}"
                )


def _table(text: str, where: str) -> Iterator[_Entry]:
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    if not {"file", "file_name"} & set(rows.fieldnames or ()) or not {"caption", "text"} & set(rows.fieldnames or ()):
        raise UserError(f"{where} has the columns {rows.fieldnames}; it needs file and caption (perhaps class, split)")
    try:
        for row in rows:
            yield _entry({key: value for key, value in row.items() if key and value}, where)
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}, line {rows.line_num}: {type(error).__name__}: {error}") from error


def _entry(row: dict[str, Any], where: str) -> _Entry:
    file = row["file"] if "file" in row else row["file_name"]
    given: Any = next((row[name] for name in ("captions", "caption", "text") if name in row), [])
    captions = [given] if isinstance(given, str) else given
    if not isinstance(file, str) or not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
        raise TypeError('"file" must be a string, "captions" a list of strings')
    split = str(row.get("split", ""))
    fault = ""
    if not is_inside(file):
        fault = f"the file name, given in {where}, leaves the folder"
    elif split not in ("", *SPLITS):
        fault = f"the split is {split!r}; train and test are known"
    normal = str(PurePosixPath(file)) if not fault else file
    lines = tuple(caption for text in captions if (caption := one_line(text)))
    return _Entry(normal, lines, str(row.get("class", "")), split if split in SPLITS else "", fault)
