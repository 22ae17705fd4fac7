"""Fonts for the words in pictures: Pillow's own, or one of this machine that has the letters of another script."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_FOLDERS = ("~/.local/share/fonts", "~/.fonts", "/usr/local/share/fonts", "/usr/share/fonts", "/Library/Fonts")
_ENDINGS = (".ttf", ".otf", ".ttc")
_PREFERRED = ("notosans-regular", "notosanscjk-regular", "dejavusans.", "liberationsans-regular", "regular")
"""What is in the names of plain, upright fonts, the widest first."""
_MOST = 400
"""Fonts that are looked into."""
_ANY_SIZE = 12
_NO_LETTER = "\U0010fffd"
"""A code point that no font has: it looks like every missing one."""


def font_for(text: str, size: int) -> Font:
    """A font of `size` pixels that has the letters of `text`, or as many of them as any has.

    Pillow's own, which is the same on every machine, wherever it has them all.
    """
    needed = frozenset(text) - {" ", "\n"}
    best, most = None, -1
    for font in _fonts(size):
        there = sum(_has(font, letter) for letter in needed)
        if there > most:
            best, most = font, there
        if there == len(needed):
            break
    assert best is not None
    return best


def without_letters(texts: Iterable[str]) -> str:
    """The letters of `texts`, sorted, that the fonts of this machine do not have."""
    fonts = {text: font_for(text, _ANY_SIZE) for text in texts}
    return "".join(sorted({letter for text, font in fonts.items() for letter in text if not _has(font, letter)}))


def wrapped(text: str, font: Font, width: float, most_lines: int) -> str:
    """`text` in lines of at most `width` pixels; broken between words, and inside one that is too long."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    if len(lines) > most_lines:
        kept = lines[most_lines - 1]
        while kept and font.getlength(f"{kept} ...") > width:
            kept = kept[:-1]
        lines = [*lines[: most_lines - 1], f"{kept.rstrip()} ..."]
    return "\n".join(lines)


def _fonts(size: int) -> Iterator[Font]:
    yield _own(size)
    for path in _of_this_machine():
        if (font := _opened(path, size)) is not None:
            yield font


@functools.cache
def _own(size: int) -> Font:
    return ImageFont.load_default(size)


@functools.cache
def _opened(path: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(path, size)
    except (OSError, ValueError):  # damaged, or of bitmaps of another size
        return None


@functools.cache
def _of_this_machine() -> Sequence[str]:
    """The paths of its fonts, plain ones first."""
    found = [
        os.path.join(folder, name)  # noqa: PTH118
        for top in _FOLDERS
        for folder, _, names in os.walk(Path(top).expanduser())
        for name in names
        if name.lower().endswith(_ENDINGS)
    ]

    def rank(path: str) -> tuple[int, str]:
        name = Path(path).name.lower()
        return next((number for number, part in enumerate(_PREFERRED) if part in name), len(_PREFERRED)), path

    return sorted(found, key=rank)[:_MOST]


@functools.lru_cache(8192)
def _has(font: Font, letter: str) -> bool:
    return letter.isspace() or bytes(font.getmask(letter)) != bytes(font.getmask(_NO_LETTER))
