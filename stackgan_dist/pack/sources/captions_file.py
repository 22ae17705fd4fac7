"""A file of captions for a folder of pictures: a JSON object on each line, or a CSV table with a caption on each.

A line that is not understood costs its picture and no other. What is not a text is never made one: null is taken as
not given, everything else is named with its type.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources.files import is_inside
from stackgan_dist.pack.sources.splits import SPLIT_OF, SPLITS

FILE_COLUMNS = ("file", "file_name")
CAPTION_COLUMNS = ("captions", "caption", "text")
"""Where captions are looked for, in this order."""


@dataclass(frozen=True)
class Entry:
    """What is known of one picture."""

    file: str
    """Its name; of a line that names none, the line's own place."""
    captions: tuple[str, ...]
    class_name: str = ""
    split: str = ""
    """"" where none is given."""
    fault: str = ""


def read_json_lines(text: str, where: str) -> Iterator[Entry]:
    """The lines of a JSONL file called `where`; one that is not understood has a fault."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _understood(lambda line=line: json.loads(line), f"{where}:{number}", where)


def read_table(text: str, where: str) -> Iterator[Entry]:
    """The rows of a CSV table called `where`; one that is not understood has a fault.

    Raises UserError without the needed columns, and where quotes are not closed: what follows cannot be told apart.
    """
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = [column.strip() for column in rows.fieldnames or ()]
        rows.fieldnames = columns
        if not {*FILE_COLUMNS} & {*columns} or not {*CAPTION_COLUMNS} & {*columns}:
            raise UserError(f"{where} has the columns {columns}; it needs file and caption (perhaps class, split)")
        twice = sorted({column for column in columns if columns.count(column) > 1})
        if twice:
            raise UserError(f"{where} has the column {twice[0]!r} twice; give each caption of a picture its own row")
        for row in rows:
            place = f"{where}, line {rows.line_num}"
            surplus = len(row.pop(None, ()))  # DictReader's key for them
            given = {column: value for column, value in row.items() if value}
            entry = _understood(lambda given=given: given, place, where)
            if surplus:
                fault = f"{place}: {surplus} column{'s' * (surplus > 1)} too many; quote the caption"
                entry = Entry(entry.file, entry.captions, entry.class_name, entry.split, fault)
            yield entry
    except csv.Error as error:
        raise UserError(f"{where}, line {rows.line_num}: {error}; close the quotes, or double those inside") from error


def merged(first: Entry, second: Entry) -> Entry:
    """Two rows of a table about the same picture."""
    fault = first.fault or second.fault
    for name, one, other in (("class", first.class_name, second.class_name), ("split", first.split, second.split)):
        if one and other and one != other:
            fault = fault or f"its rows give it the {name} {one!r} and {other!r}"
    return Entry(
        first.file,
        first.captions + second.captions,
        first.class_name or second.class_name,
        first.split or second.split,
        fault,
    )


def _understood(read: Any, place: str, where: str) -> Entry:
    """The entry that `read()` gives the fields of, or one that says why it cannot be understood."""
    try:
        fields = read()
        if not isinstance(fields, dict):
            raise TypeError(f"it is {kind(fields)}, not an object")
        file = next((text for name in FILE_COLUMNS if (text := given_text(fields, name))), "")
        if not file:
            raise ValueError("it names no file")
    except (ValueError, TypeError, RecursionError) as error:
        return Entry(place, (), fault=f"the line is not understood: {type(error).__name__}: {error}")
    if not is_inside(file):
        return Entry(file, (), fault=f"the file name, given in {where}, leaves the folder")
    file = str(PurePosixPath(file))
    try:
        captions = given_captions(fields)
        class_name, split = given_name(fields, "class"), given_text(fields, "split")
    except TypeError as error:
        return Entry(file, (), fault=f"{place}: {error}")
    if split and split.lower() not in SPLIT_OF:
        return Entry(file, captions, fault=f"the split is {split!r}; {', '.join(SPLITS)} are known")
    return Entry(file, captions, class_name, SPLIT_OF.get(split.lower(), ""))


def given_captions(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """The captions among the fields of a JSON object, one line each; none where they are null or empty.

    Raises TypeError, which names the type, for one that is not a text.
    """
    for name in CAPTION_COLUMNS:
        value = fields.get(name)
        if value is None:
            continue
        items = value if isinstance(value, list) else [value]
        for item in items:
            if item is not None and not isinstance(item, str):
                raise TypeError(f'"{name}" holds {kind(item)}; a caption must be a text')
        lines = tuple(caption for item in items if item is not None and (caption := one_line(item)))
        if lines:
            return lines
    return ()


def given_text(fields: Mapping[str, Any], name: str) -> str:
    """The text `name` among the fields of a JSON object, "" where it is null; TypeError for anything else."""
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise TypeError(f'"{name}" is {kind(value)}; a text was expected')
    return value or ""


def given_name(fields: Mapping[str, Any], name: str) -> str:
    """As `given_text`, of a name that may also be a whole number, such as a class or an id."""
    value = fields.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:d}"
    return one_line(given_text(fields, name))


def kind(value: object) -> str:
    """What JSON calls the type of `value`."""
    kinds = {dict: "an object", list: "a list", bool: "true or false", type(None): "null", str: "a text"}
    return kinds.get(type(value), "a number")


def one_line(text: str) -> str:
    """`text` with every run of white space as one blank."""
    return " ".join(text.split())
