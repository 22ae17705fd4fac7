"""The captions files under a root: found by what is in them, whatever they are called."""

from __future__ import annotations

import dataclasses
import itertools
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TextIO

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources.account import some_names
from stackgan_dist.pack.sources.captions.entry import Columns, Entry, folder_of
from stackgan_dist.pack.sources.captions.objects import read_json, read_json_lines
from stackgan_dist.pack.sources.captions.parquet import columns_of, read_parquet
from stackgan_dist.pack.sources.captions.table import SEPARATORS, Form, cells, first_line, form_of, read_table
from stackgan_dist.pack.sources.files import Files
from stackgan_dist.pack.sources.names import AmbiguousNameError, PictureNames, is_hidden
from stackgan_dist.pack.sources.splits import decides, split_in_words, split_of

FIRST = ("captions.jsonl", "captions.csv")
"""Looked for directly under the root, before anything else."""
_JSON_LINES = (".jsonl", ".ndjson")
_TABLES = (".csv", ".tsv", ".psv", ".tab", ".token", ".txt")
_ENDINGS = (*_JSON_LINES, ".json", ".parquet", *_TABLES)
_MOST_TRIED = 32
"""Files that are looked into; people's folders hold a few."""
_MOST_SHOWN, _MOST_FIELDS = 3, 8
_HEAD = 4096
"""Characters of a JSON file that a message is made of."""
_JUDGED = 100
"""Entries of a file that must name a picture that is there, if it is about these pictures."""


@dataclass(frozen=True)
class CaptionsFile:
    """A file with the captions of many pictures."""

    name: str
    split: str = ""
    """The split that its pictures belong to, by its name; "" where that says nothing."""


class CaptionsFiles:
    """Those under a root.

    Args:
        files: what is under it.
        columns: the columns that the user has named.
        pictures: those that are there.
    """

    def __init__(self, files: Files, columns: Columns, pictures: PictureNames) -> None:
        self._files = files
        self._columns = columns
        self._pictures = pictures
        self._headers: dict[str, list[str]] = {}
        """Name of a table or parquet file that was read -> its columns; a store would send it once more for them."""

    def found(self, names: Sequence[str]) -> list[CaptionsFile]:
        """Those among `names` that name pictures and their captions: one, or one for each split or folder.

        Raises UserError where several do, and none of them is more likely than another.
        """
        candidates = _candidates(names)
        fitting = [name for name in candidates[:_MOST_TRIED] if self._fits(name)]
        if len({PurePosixPath(name).name for name in fitting}) <= 1:  # one, or metadata.csv in each of some folders
            return [CaptionsFile(name, split) for name, split in chosen_splits(fitting, split_of).items()]
        splits = {name: split_in(name) for name in fitting}
        if all(splits.values()) and len({*splits.values()}) == len(fitting):
            return [CaptionsFile(name, split) for name, split in splits.items()]
        raise UserError(
            f"{self._files.root} has several files of captions: {some_names(fitting)}; choose with "
            f"--options captions={shlex.quote(fitting[0])}"
        )

    def read(self, file: CaptionsFile) -> Iterator[Entry]:
        """Its entries. Raises UserError for what is not understood as a whole."""
        for entry in self._entries(file.name):
            yield dataclasses.replace(entry, where=file.name, split=entry.split or file.split)

    def columns(self, file: CaptionsFile) -> list[str]:
        """The names of its columns, where it is a table or parquet file with them that was read."""
        return self._headers.get(file.name, [])

    def looked_like(self, names: Sequence[str]) -> list[str]:
        """What the first of the files among `names` that may hold captions look like, a line each, for a message."""
        return [self._look(name) for name in _candidates(names)[:_MOST_SHOWN]]

    def _entries(self, name: str) -> Iterator[Entry]:
        if name.lower().endswith(".parquet"):
            self._check_there(name)
            with self._files.folder.local_copy(name) as path:
                self._headers[name] = columns_of(path, name)
                yield from read_parquet(path, name, self._columns)
            return
        with self._opened(name) as text:
            yield from self._text_entries(name, text)

    def _text_entries(self, name: str, text: TextIO) -> Iterator[Entry]:
        if name.lower().endswith(".json"):
            yield from read_json(text.read(), name, self._columns)
        elif name.lower().endswith(_JSON_LINES):
            first = text.readline()
            rest = itertools.chain([first], text)
            if first.lstrip().startswith("["):  # a list that is called .jsonl
                yield from read_json("".join(rest), name, self._columns)
            else:
                yield from read_json_lines(rest, name, self._columns)
        else:
            head: list[str] = []
            first = first_line(head.append(line) or line for line in text)  # type: ignore[func-returns-value]
            form = self._form(name, first)
            if form is None:
                raise UserError(self._look(name))
            self._headers[name] = list(form.columns) if form.has_header else []
            yield from read_table(itertools.chain(head, text), form, name, self._columns)

    def _is_picture(self, name: str, folder: str) -> bool:
        """Whether a captions file in `folder` may mean a picture, or several, by `name`."""
        try:
            return (self._pictures.exact(name, folder) or self._pictures.like(name, folder)) is not None
        except AmbiguousNameError:
            return True

    def _form(self, name: str, first: str) -> Form | None:
        folder = folder_of(name)
        return form_of(first, self._columns, lambda called: self._is_picture(called, folder))

    def _fits(self, name: str) -> bool:
        """Whether the file called `name` is one of captions, of pictures that are there."""
        try:
            entries = itertools.islice(self.read(CaptionsFile(name)), _JUDGED)
            return any(entry.captions and self._is_picture(entry.file, entry.folder) for entry in entries)
        except UserError:
            return False

    def _look(self, name: str) -> str:
        """What the file called `name` holds, and the option that would read it."""
        if name.lower().endswith(".parquet"):
            try:
                with self._files.folder.local_copy(name) as path:
                    names = columns_of(path, name)
            except UserError as error:
                return str(error)
            return f"{name} has the columns {', '.join(names)}{self._option(name, names, [])}"
        try:
            with self._opened(name) as text:
                if name.lower().endswith((*_JSON_LINES, ".json")):
                    head = text.read(_HEAD)
                    fields = [*dict.fromkeys(re.findall(r'"([^"\\]+)"\s*:', head))][:_MOST_FIELDS]
                    return f"{name} begins with {head[:80].strip()!r}{self._option(name, fields, [])}"
                head, second = first_line(text), first_line(text)
        except UserError as error:
            return str(error)
        parts = max(SEPARATORS, key=lambda separator: len(cells(head, separator)))
        names, row = cells(head, parts), cells(second, parts)
        if len(names) < 2:
            return f"{name} begins with {head[:80]!r}, which is no table"
        return (
            f"{name} has the columns {', '.join(names)} (parted by {SEPARATORS[parts]}) and the first row {row}"
            f"{self._option(name, names, row)}"
        )

    def _option(self, name: str, names: Sequence[str], row: Sequence[str]) -> str:
        """What would read the file: by the names of its columns, or the cells that name a picture and say most."""
        by_cell = {column: row[number] if number < len(row) else "" for number, column in enumerate(names)}
        files = self._columns.of_file(names) or [
            column for column, cell in by_cell.items() if cell and self._is_picture(cell, folder_of(name))
        ]
        others = [column for column in by_cell if column not in files[:1]]
        groups = self._columns.of_captions(names) or [sorted(others, key=lambda column: -len(by_cell[column]))]
        file, caption = (next(iter(found), "NAME") for found in (files, groups[0]))
        return (
            f"; choose its columns with --options captions={shlex.quote(name)} file_column={shlex.quote(file)} "
            f"caption_column={shlex.quote(caption)}"
        )

    def _check_there(self, name: str) -> None:
        if not self._files.has(name):
            raise UserError(f"there is no {self._files.url(name)}; name it with --options captions=FILE")

    @contextmanager
    def _opened(self, name: str) -> Iterator[TextIO]:
        """The text in the file `name`, line by line. Raises UserError where it is not there, or no text in UTF-8."""
        self._check_there(name)
        try:
            with (
                self._files.folder.local_copy(name) as path,
                path.open(encoding="utf-8-sig", newline="") as text,
            ):
                yield text
        except UnicodeDecodeError as error:
            raise UserError(f"{self._files.url(name)} is not UTF-8; convert it, e.g. with iconv -t UTF-8") from error


def _candidates(names: Sequence[str]) -> list[str]:
    """Those that may be captions files, the likeliest first."""
    found = [name for name in names if name.lower().endswith(_ENDINGS) and not is_hidden(name)]
    written = [name for name in found if "lemma" not in name.lower()]  # beside Flickr's captions as they were written
    return sorted(written, key=lambda name: (PurePosixPath(name).stem.lower() != "metadata", name.count("/"), name))


def chosen_splits(names: Sequence[str], split: Callable[[str], str]) -> dict[str, str]:
    """Name of each captions file -> the `split` of its pictures, "" for all where that would leave none to test on."""
    found = {name: split(name) for name in names}
    return found if decides(found.values()) else dict.fromkeys(found, "")


def split_in(name: str) -> str:
    """The split that a captions file's top folder is called after, or a word of its name: captions_train.json."""
    return split_of(name) or split_in_words(PurePosixPath(name).stem)
