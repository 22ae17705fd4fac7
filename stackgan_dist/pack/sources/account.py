"""What a source found under its root, so that nothing of it is left out in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

_MOST_NAMES = 3
_MOST_ENDINGS = 8


@dataclass
class Account:
    """Everything a source found: the pictures of its splits, and the rest by what it is.

    `found` is counted where names are listed, the others where each is judged; they add up, or something was lost.
    """

    found: int
    thing: str = "files"
    """What is counted."""
    pictures: Counter[str] = field(default_factory=Counter)
    """Split -> how many of them are pictures of its records."""
    others: Counter[str] = field(default_factory=Counter)
    """What each of the rest is, e.g. "of the ending .heic, which is not read" -> how many."""
    notes: list[str] = field(default_factory=list)
    """What else a user should know, in whole sentences."""

    def __add__(self, other: Account) -> Account:
        """Of both, which are about different things."""
        return Account(
            self.found + other.found,
            self.thing,
            self.pictures + other.pictures,
            self.others + other.others,
            [*self.notes, *other.notes],
        )

    def note(self, sentence: str) -> None:
        """Add a sentence, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)


def of_ending(name: str) -> str:
    """What the balance calls a file that is not read because of its ending."""
    ending = PurePosixPath(name).suffix.lower()
    return f"of the ending {ending}, which is not read" if ending else "without an ending, which are not read"


def endings_of(names: Iterable[str]) -> str:
    """How many of them have which ending, the commonest first, for a message."""
    endings = Counter(PurePosixPath(name).suffix.lower() or "no ending" for name in names).most_common()
    more = ["..."] if len(endings) > _MOST_ENDINGS else []
    return ", ".join([f"{count} {ending}" for ending, count in endings[:_MOST_ENDINGS]] + more) or "no files"


def some_names(names: Iterable[str]) -> str:
    """The first few names, for a message."""
    every = list(names)
    more = f" and {len(every) - _MOST_NAMES} more" if len(every) > _MOST_NAMES else ""
    return f"{', '.join(map(printable, every[:_MOST_NAMES]))}{more}"


def printable(text: str) -> str:
    """`text` with what is not Unicode (a file name in Latin-1) as escapes, so that it can be printed."""
    return text.encode("utf-8", "backslashreplace").decode()
