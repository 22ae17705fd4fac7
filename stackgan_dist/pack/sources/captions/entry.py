"""What is known of one picture, from the fields that a file of captions has for it.

What is not understood costs its picture and no other. What is not a text is never made one: null is taken as not
given, everything else is named with its type.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stackgan_dist.pack.sources.splits import SPLIT_OF, SPLITS

FILE_COLUMNS = (
    "file", "file_name", "image", "image_name", "image_file", "image_file_name", "image_path", "img", "img_name",
    "img_path", "file_path", "path", "picture", "photo", "image_id",
)  # fmt: skip
"""Where the name of the picture is looked for, in this order; case, blanks, "-" and "_" do not count."""
CAPTION_COLUMNS = ("captions", "caption", "text")
"""Where captions are looked for in a JSON file of one picture, in this order."""
MORE_CAPTION_COLUMNS = (
    *CAPTION_COLUMNS, "texts", "sentence", "sentences", "comment", "comments", "description", "descriptions", "prompt",
    "raw_caption", "image_caption", "caption_text", "alt_text",
)  # fmt: skip
"""The same, in a file of the captions of many."""
_ALONE = tuple((name,) for name in CAPTION_COLUMNS)
_NUMBERED = re.compile(r"(caption|text|sentence|comment|description)s?\d+")
_RAW = ("raw", "caption", "text")
"""The text of a caption that is an object; that of Karpathy's files has its words beside it."""


@dataclass(frozen=True)
class Entry:
    """What is known of one picture."""

    file: str
    """Its name, as given; where none is, the line's own place."""
    captions: tuple[str, ...]
    class_name: str = ""
    split: str = ""
    """"" where none is given."""
    fault: str = ""
    where: str = ""
    """The captions file that says it, beside which the picture may lie."""

    @property
    def folder(self) -> str:
        """The one that the captions file lies in, "" for the root."""
        return folder_of(self.where)


@dataclass(frozen=True)
class Columns:
    """Which columns (or fields) of a captions file are read; those that are "" or () are found by their names."""

    file: str = ""
    captions: tuple[str, ...] = ()
    class_name: str = ""
    split: str = ""

    def of_file(self, names: Iterable[str]) -> list[str]:
        """Those among `names` that may hold the name of the picture, the likeliest first."""
        return _among(names, (self.file,) if self.file else FILE_COLUMNS)

    def of_captions(self, names: Iterable[str]) -> list[list[str]]:
        """Groups of those that may hold its captions, the likeliest first: caption_1, caption_2 ... are one group."""
        known = list(names)
        if self.captions:
            asked = _among(known, self.captions)
            return [asked] if asked else []
        plain = [[name] for name in _among(known, MORE_CAPTION_COLUMNS)]
        numbered = [name for name in known if _NUMBERED.fullmatch(canonical(name))]
        return [*plain, numbered] if numbered else plain

    def of_class(self, names: Iterable[str]) -> list[str]:
        """The one that holds its class."""
        return _among(names, (self.class_name or "class",))

    def of_split(self, names: Iterable[str]) -> list[str]:
        """The one that holds its split."""
        return _among(names, (self.split or "split",))

    def fit(self, names: Sequence[str]) -> bool:
        """Whether pictures and captions can be found among `names`."""
        return bool(self.of_file(names) and self.of_captions(names))

    def unread(self, names: Sequence[str]) -> list[str]:
        """Those among `names` that are not read."""
        captions = next(iter(self.of_captions(names)), [])
        read = {*self.of_file(names)[:1], *captions, *self.of_class(names), *self.of_split(names)}
        return [name for name in names if name not in read]


def listed(value: str | Sequence[str]) -> tuple[str, ...]:
    """What an option that takes one name or several was given."""
    return (value,) if isinstance(value, str) else tuple(value)


def folder_of(name: str) -> str:
    """The folder that a file called `name` lies in, "" for the root."""
    return name.rpartition("/")[0]


@functools.lru_cache(4096)
def canonical(name: str) -> str:
    """The name of a column as it is compared: "File Name", "file_name" and "fileName" are one."""
    return re.sub(r"[\s_-]+", "", name).casefold()


def _among(names: Iterable[str], wanted: Sequence[str]) -> list[str]:
    there: dict[str, str] = {}
    for name in names:
        there.setdefault(canonical(name), name)
    return [there[canonical(each)] for each in wanted if canonical(each) in there]


def understood(fields: object, place: str, columns: Columns) -> Entry:
    """The entry that `fields` give, or one that says why what stands at `place` cannot be understood."""
    try:
        if not isinstance(fields, dict):
            raise TypeError(f"it is {kind(fields)}, not an object")
        file = next((text for name in columns.of_file(fields) if (text := given_text(fields, name))), "")
        if not file:
            raise ValueError("it names no file")
    except (ValueError, TypeError) as error:
        return not_understood(place, error)
    try:
        captions = given_captions(fields, columns.of_captions(fields))
        class_name = next((given_name(fields, name) for name in columns.of_class(fields)), "")
        split = next((given_text(fields, name) for name in columns.of_split(fields)), "")
    except TypeError as error:
        return Entry(file, (), fault=f"{place}: {error}")
    if split and split.lower() not in SPLIT_OF:
        return Entry(file, captions, fault=f"the split is {split!r}; {', '.join(SPLITS)} are known")
    return Entry(file, captions, class_name, SPLIT_OF.get(split.lower(), ""))


def not_understood(place: str, error: Exception) -> Entry:
    """The entry of what stands at `place`, where `error` came of reading it."""
    return Entry(place, (), fault=f"the line is not understood: {type(error).__name__}: {error}")


def merged(first: Entry, second: Entry) -> Entry:
    """Two entries about the same picture."""
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
        first.where,
    )


def given_captions(fields: Mapping[str, Any], groups: Sequence[Sequence[str]] = _ALONE) -> tuple[str, ...]:
    """The captions among the fields of a JSON object, one line each; none where they are null or empty.

    Args:
        fields: the object.
        groups: fields that hold captions together; the first group that holds any counts.

    Raises TypeError, which names the type, for one that is not a text.
    """
    for group in groups:
        found = tuple(caption for name in group for caption in _captions_in(fields, name))
        if found:
            return found
    return ()


def _captions_in(fields: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = fields.get(name)
    items = value if isinstance(value, list) else [value]
    captions = []
    for item in items:
        text = item
        if isinstance(item, dict) and isinstance(value, list):
            text = next((item[key] for key in _RAW if item.get(key) is not None), item)
        if text is not None and not isinstance(text, str):
            raise TypeError(f'"{name}" holds {kind(text)}; a caption must be a text')
        captions.append(one_line(text or ""))
    return tuple(filter(None, captions))


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
