"""What people might say about a painted bird: a small grammar of English, and its inverse.

Colour and part always stand next to each other, as an attribute ("white wings") or as a predicate ("its wings
are white"). Every caption names the colour of the back, most name several other parts, and the ten captions of a
picture name everything between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from stackgan_dist.painted.species import BEAK_SHAPES, PALETTE, PARTS, SIZES, Species
from stackgan_dist.randomness import uniform

CAPTIONS_PER_PICTURE = 10

_NOUNS: Mapping[str, tuple[str, ...]] = {
    # the usual word first: it is drawn half of the time or more
    "back": ("back", "body"),
    "wing": ("wings",),
    "belly": ("belly", "breast"),
    "crown": ("crown", "cap"),
    "beak": ("beak", "bill"),
}
_PLURAL = frozenset({"wings"})
_PLACES = {
    "sky": ("on a wire", "in front of the sky"),
    "meadow": ("in a meadow", "on the grass"),
    "branch": ("on a branch", "on a twig"),
    "sand": ("on the sand", "in the dunes"),
    "dusk": ("at dusk", "in the evening light"),
}
_MENTIONED = (4, 3, 3, 3, 2, 2, 2, 2, 2, 1)
"""Parts named beside the back, for the ten captions of a picture before they are shuffled; the 4 covers all."""

_STREAM = 0xCA9710  # keeps these hashes apart from everybody else's
_ROLLS = 32  # more than any caption needs


class _Dice:
    """The choices of one caption, made from numbers in (0, 1) that were drawn for it."""

    def __init__(self, numbers: Iterable[float]) -> None:
        self._numbers = iter(numbers)

    def roll(self, sides: int) -> int:
        return int(next(self._numbers) * sides)

    def choice(self, options: Sequence[str]) -> str:
        return options[self.roll(len(options))]

    def order(self, n: int) -> list[int]:
        keys = [next(self._numbers) for _ in range(n)]
        return sorted(range(n), key=keys.__getitem__)


def captions(species: Species, background: str, seed: int, picture: int) -> tuple[str, ...]:
    """The ten captions of one picture: lower case, without a full stop, in a hashed order."""
    rows = np.arange(CAPTIONS_PER_PICTURE + 1)[:, None]
    first, *others = uniform(_STREAM, seed, picture, rows, np.arange(_ROLLS)).tolist()
    order = _Dice(first).order(CAPTIONS_PER_PICTURE)
    return tuple(
        _caption(species, background, _MENTIONED[slot], _Dice(numbers))
        for slot, numbers in zip(order, others, strict=True)
    )


def named_colours(caption: str) -> dict[str, str]:
    """The colours that a caption asks for: {part: colour}, parts and colours as in `species`.

    Understands every caption of the grammar above, and other English in which a colour stands before its part
    ("a blue bird with a short orange beak") or follows it ("its wings are white"). What is not named is not in
    the answer.
    """
    text = " ".join(re.findall(r"[a-z]+", caption.lower()))
    found: dict[str, str] = {}
    for match in _MENTION.finditer(text):
        colour, noun = match["before"] or match["after"], match["noun"] or match["subject"]
        found.setdefault(_PART_OF[noun], colour)
    return found


_PART_OF = {
    "bird": "back", "birds": "back", "back": "back", "body": "back",
    "wing": "wing", "wings": "wing",
    "belly": "belly", "breast": "belly",
    "crown": "crown", "cap": "crown",
    "beak": "beak", "bill": "beak",
}  # fmt: skip
_COLOUR_WORD = "|".join(PALETTE)
_NOUN_WORD = "|".join(sorted(_PART_OF, key=len, reverse=True))
_SHAPE_WORD = "|".join((*BEAK_SHAPES, *SIZES))
_MENTION = re.compile(
    rf"\b(?P<before>{_COLOUR_WORD}) (?:(?:{_SHAPE_WORD}) )*(?P<noun>{_NOUN_WORD})\b"
    rf"|\b(?P<subject>{_NOUN_WORD})(?: of (?:this|the|a) bird)?(?: that| which)? (?:is|are)"
    rf"(?: (?:{_SHAPE_WORD}|and))* (?P<after>{_COLOUR_WORD})\b"
)


def _caption(species: Species, background: str, mentioned: int, dice: _Dice) -> str:
    others = PARTS[1:]
    parts = [others[i] for i in dice.order(len(others))[:mentioned]]
    everything = mentioned == len(others)
    size = f"{species.size} " if everything or dice.roll(5) < 2 else ""
    place = f" {dice.choice(_PLACES[background])}" if dice.roll(4) == 0 else ""
    back = species.colours["back"]
    bird = f"{_article(size + back)} {size}{back} bird"
    said = [_noun_phrase(species, part, everything, dice) for part in parts]
    template = dice.roll(6)
    if template == 0:
        return f"this {size}{back} bird{place} has {_listed(said)}"
    if template == 1:
        main = _noun_phrase(species, "back", everything, dice)
        phrases = [main, *said] if dice.roll(2) else [*said, main]
        return f"a {size}bird{place} with {_listed(phrases)}"
    # A predicate has no room for the beak's shape, which the caption that covers everything must not lose.
    if template == 2 and not everything:
        return f"{bird}{place} {_listed([f'whose {_predicate(species, part, dice)}' for part in parts])}"
    if template == 3 and not everything and len(parts) > 1:
        last = _predicate(species, parts[-1], dice)
        return f"this {size}bird is {back}, with {_listed(said[:-1])}, and its {last}"
    comma = "," if place else ""
    return f"{bird}{place}{comma} with {_listed(said)}"


def _noun_phrase(species: Species, part: str, shape: bool, dice: _Dice) -> str:
    noun = _noun(part, dice)
    words = species.colours[part]
    if part == "beak" and (shape or dice.roll(2)):
        words = f"{species.beak_shape} {words}"
    return f"{words} {noun}" if noun in _PLURAL else f"{_article(words)} {words} {noun}"


def _predicate(species: Species, part: str, dice: _Dice) -> str:
    noun = _noun(part, dice)
    return f"{noun} {'are' if noun in _PLURAL else 'is'} {species.colours[part]}"


def _noun(part: str, dice: _Dice) -> str:
    usual, *rare = _NOUNS[part]
    return dice.choice(rare) if rare and dice.roll(3) == 0 else usual


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


def _listed(phrases: Sequence[str]) -> str:
    """Phrases as a list in a sentence: "x", "x and y" or "x, y and z"."""
    *first, last = phrases
    return f"{', '.join(first)} and {last}" if first else last
