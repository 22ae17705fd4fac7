"""A file of words for each picture: beside it, or in a folder of such files that is laid out like the pictures'."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

from stackgan_dist.pack.sources.captions.entry import CAPTION_COLUMNS, Entry, given_captions, kind, one_line
from stackgan_dist.pack.sources.files import Files
from stackgan_dist.pack.sources.names import Names

ENDINGS = (".txt", ".TXT", ".caption", ".json")
"""Of files of words, in the order in which they are looked for."""


class PictureTexts:
    """The text file of each picture.

    cats/tom.txt is that of cats/tom.jpg. Files that lie in folders without pictures are found by the end of their path:
    text/001.Albatross/a.txt is that of images/001.Albatross/a.jpg, if it is the text of no other picture as well.
    """

    def __init__(self, files: Iterable[str], pictures: Iterable[str]) -> None:
        names = list(files)
        self._present = Names(names)
        self._apart = _apart(names, list(pictures))

    def of(self, picture: str) -> str | None:
        """The name of the text file of `picture`, None where there is none."""
        stem = str(PurePosixPath(picture).with_suffix(""))
        for ending in ENDINGS:
            if found := self._present.find(stem + ending):
                return found
        return self._apart.get(picture)


def _apart(files: list[str], pictures: list[str]) -> dict[str, str]:
    """Picture -> the only text of its name in the folders that hold no picture."""
    with_pictures = {str(PurePosixPath(picture).parent) for picture in pictures}
    texts: dict[str, list[PurePosixPath]] = {}
    for name in files:
        path = PurePosixPath(name)
        if path.suffix in ENDINGS and str(path.parent) not in with_pictures and len(path.parts) > 1:
            texts.setdefault(path.stem, []).append(path)
    found: dict[str, str] = {}
    for picture in pictures if texts else ():
        path = PurePosixPath(picture)
        candidates = texts.get(path.stem, [])
        best = max((_shared(path, text) for text in candidates), default=0)
        likeliest = [text for text in candidates if _shared(path, text) == best]
        if len(likeliest) == 1:
            found[picture] = str(likeliest[0])
    claims = Counter(found.values())
    return {picture: text for picture, text in found.items() if claims[text] == 1}


def _shared(one: PurePosixPath, other: PurePosixPath) -> int:
    """How many folders, counted from the files upwards, two paths have in common."""
    count = 0
    for here, there in zip(reversed(one.parts[:-1]), reversed(other.parts[:-1]), strict=False):
        if here != there:
            break
        count += 1
    return count


def read_text(files: Files, picture: str, name: str | None) -> Entry:
    """The entry of `picture` by its text file `name`: a caption on each line, or what a JSON object says."""
    if name is None:
        return Entry(picture, (), fault=f"there are no captions {PurePosixPath(picture).with_suffix('.txt')}")
    try:
        text = files.read(name).decode("utf-8-sig")
    except UnicodeDecodeError:
        return Entry(picture, (), fault=f"{name} is not UTF-8")
    if not name.endswith(".json"):
        return Entry(picture, tuple(caption for line in text.splitlines() if (caption := one_line(line))))
    try:
        content = json.loads(text)
        if not isinstance(content, dict):
            raise TypeError(f"it is {kind(content)}, not an object")
        return Entry(picture, given_captions(content))
    except (ValueError, TypeError, RecursionError) as error:
        return Entry(picture, (), fault=f"{name}: {error}; {', '.join(CAPTION_COLUMNS)} are read")
