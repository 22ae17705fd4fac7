"""Tables of captions, a row for each: columns parted by commas, semicolons, tabs or pipes, a header or none.

    image,caption                                    Flickr8k and most others; quotes as in every CSV
    image_name| comment_number| comment              Flickr30k
    1000268201_693b08cb0e.jpg#0<TAB>A child ...      Flickr8k's token files: no header, the number of the caption

What parts the columns is found by trying: the header, or the first picture's name, must make sense.
"""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources.captions.entry import Columns, Entry, understood

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes"}
"""What may part columns -> what to call it."""
_EXCEL = re.compile(r"sep=(.)\s*")
"""The first line of tables that Excel writes."""
_NUMBER_OF_CAPTION = re.compile(r"#\d+$")


@dataclass(frozen=True)
class Form:
    """How a table is laid out."""

    separator: str
    columns: tuple[str, ...]
    """The names in its header; of a table without one, what its columns are."""
    has_header: bool = True
    blank_after: bool = False
    """Whether a blank follows what parts the columns."""


def form_of(first: str, columns: Columns, is_picture: Callable[[str], bool]) -> Form | None:
    """The layout of the table whose first line with words is `first`; None where it is no table of captions.

    Args:
        first: that line.
        columns: which columns are wanted.
        is_picture: whether a picture of this name is there.
    """
    for separator in SEPARATORS:
        form = Form(separator, tuple(cells(first, separator)), blank_after=f"{separator} " in first)
        if columns.fit(form.columns):
            return form
    for separator in SEPARATORS:
        name, *rest = cells(first, separator)
        # Words, and no list of pictures and numbers.
        if (
            rest
            and " " in rest[0]
            and (len(rest) == 1 or separator in ",;")
            and is_picture(_NUMBER_OF_CAPTION.sub("", name))
        ):
            return Form(separator, ("file", "caption"), has_header=False)
    return None


def cells(line: str, separator: str) -> list[str]:
    """The cells of one line, without white space around them; no quotes are left open here."""
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]


def first_line(lines: Iterable[str]) -> str:
    """The first of them that has words, and is not Excel's remark on its separator."""
    return next((line.rstrip("\r\n") for line in lines if line.strip() and not _EXCEL.fullmatch(line)), "")


def read_table(lines: Iterable[str], form: Form, where: str, columns: Columns) -> Iterator[Entry]:
    """The rows of the table called `where`; one that is not understood has a fault.

    Args:
        lines: its lines, with their ends.
        form: its layout.
        where: its name, for messages.
        columns: which columns are wanted.

    Raises UserError for a column that comes twice, and where quotes are not closed: what follows cannot be told apart.
    """
    twice = sorted({column for column in form.columns if form.columns.count(column) > 1 and column})
    if twice:
        raise UserError(f"{where} has the column {twice[0]!r} twice; give each caption of a picture its own row")
    if form.separator == "\t" and not form.has_header:
        yield from _plain_lines(lines, where)
        return
    rows = csv.reader(lines, delimiter=form.separator, skipinitialspace=form.blank_after, strict=True)
    wanted = Columns() if not form.has_header else columns
    try:
        header_is_to_come = form.has_header
        for row in rows:
            if not any(cell.strip() for cell in row) or (
                rows.line_num == 1 and _EXCEL.fullmatch(form.separator.join(row))
            ):
                continue
            if header_is_to_come:
                header_is_to_come = False
                continue
            if not form.has_header:
                row[0] = _NUMBER_OF_CAPTION.sub("", row[0])
            given = {column: cell.strip() for column, cell in zip(form.columns, row, strict=False) if cell.strip()}
            place = f"{where}, line {rows.line_num}"
            entry = understood(given, place, wanted)
            if (surplus := len(row) - len(form.columns)) > 0:
                fault = f"{place}: {surplus} column{'s' * (surplus > 1)} too many; quote the caption"
                entry = dataclasses.replace(entry, fault=fault)
            yield entry
    except csv.Error as error:
        raise UserError(f"{where}, line {rows.line_num}: {error}; close the quotes, or double those inside") from error


def _plain_lines(lines: Iterable[str], where: str) -> Iterator[Entry]:
    """Of a file without quotes: the name up to the first tab, and the caption behind it."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            name, _, caption = line.rstrip("\r\n").partition("\t")
            fields = {"file": _NUMBER_OF_CAPTION.sub("", name.strip()), "caption": caption}
            yield understood(fields, f"{where}, line {number}", Columns())
