"""What was meant, where a name is nearly one that is known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question that names the nearest of `known`, with the blank before it; "" where none is near."""
    same = {name.replace("_", "-").lower(): name for name in known}
    near = difflib.get_close_matches(word.replace("_", "-").lower(), same, n=1)
    return f" Did you mean {same[near[0]]}?" if near else ""
