"""The names of the files that `generate` writes, and what in such a folder is no picture of a sentence's own."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

GRID: Final = "grid.png"
"""All pictures of a call."""
SENTENCE: Final = "sentence"
"""The text of a PNG that says what it was generated from."""
_STAGE1 = "-stage1"
_WRITTEN = re.compile(rf"(\d{{3,}}-\d{{3,}}({_STAGE1})?|grid)\.png")


def picture_name(sentence: int, number: int, *, stage1: bool = False) -> str:
    """Of picture `number` of a sentence, both counted from 0; with `stage1` of what Stage-II started from."""
    return f"{sentence:03d}-{number:03d}{_STAGE1 if stage1 else ''}.png"


def is_written(name: str) -> bool:
    """Whether a call of `generate` may have written a file of this name."""
    return _WRITTEN.fullmatch(name) is not None


def besides(names: Collection[str]) -> list[str]:
    """Of the `names` in a folder: the grid and Stage-I's pictures, where `generate` has written them; else none."""
    if picture_name(0, 0) not in names:
        return []
    return [name for name in names if is_written(name) and (name == GRID or name.endswith(f"{_STAGE1}.png"))]
