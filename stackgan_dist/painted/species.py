"""What a painted bird can look like: the palette, the backgrounds, and 240 species with balanced attributes.

A species is a combination of attributes. There are many species with few pictures each, so that a generator has to
learn what "a yellow belly" is and cannot get by with memorised combinations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

import numpy as np

from stackgan_dist.errors import UserError
from stackgan_dist.randomness import permutation, uniform

PARTS = ("back", "wing", "belly", "crown", "beak")
"""The coloured parts. "back" is the main colour: back, neck, side of the head, tail."""

PALETTE: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "red": (212, 24, 36),
        "orange": (255, 132, 0),
        "yellow": (255, 226, 20),
        "green": (28, 150, 50),
        "blue": (30, 90, 232),
        "purple": (122, 36, 178),
        "pink": (255, 128, 196),
        "brown": (122, 70, 30),
        "black": (26, 26, 32),
        "white": (252, 252, 250),
    }
)
"""sRGB of the ten colours: far from each other and from the backgrounds, all of which are light and greyish."""

SCALES = {"small": 0.66, "large": 0.75}
"""Sides of the picture per unit of the bird, before the variation."""
VARIATION = {"scale": 0.03, "shift": 0.02, "tilt": 0.07, "level": 0.05, "channel": 5.0}
"""Half-widths of what varies from picture to picture: scale (a fraction), shift (sides of the picture), tilt
(radians), the brightness of a colour (a fraction), and each of its channels (levels of 255)."""

BEAK_SHAPES = ("short", "long", "hooked")
SIZES = ("small", "large")
BACKGROUNDS = ("sky", "meadow", "branch", "sand", "dusk")

LIKE_THE_BACK = {"belly": 0.6, "wing": 0.3, "crown": 0.3}
"""Share of the species in which a part has the colour of the back, as with most real birds: the main colour shows."""

TRAIN_SPECIES = 200
TEST_SPECIES = 40

_STREAM = 0x5EC1E5  # keeps these hashes apart from everybody else's


@dataclass(frozen=True)
class Species:
    """One class of the data set: a colour for every part, the shape of the beak and the size."""

    number: int
    colours: Mapping[str, str]
    """Part -> name in the palette."""
    beak_shape: str
    size: str

    @property
    def name(self) -> str:
        """E.g. "018.large_blue_back_white_wing_yellow_belly_red_crown_short_orange_beak"."""
        *parts, beak = (f"{self.colours[part]}_{part}" for part in PARTS)
        return f"{self.number + 1:03d}.{self.size}_{'_'.join(parts)}_{self.beak_shape}_{beak}"


@lru_cache(maxsize=4)
def all_species(seed: int) -> tuple[Species, ...]:
    """The 240 species of `seed`; the first 200 are for training, the other 40 for the test.

    Every ten species in a row use each colour exactly once for the back and the beak, and, but for the parts that are
    like the back, for the others; every six use each beak shape and size.
    """
    if not 0 <= seed < 2**63:
        raise UserError(f"painted birds: seed is {seed}; it must be a non-negative integer below 2**63")
    species: list[Species] = []
    names = tuple(PALETTE)
    for block in range((TRAIN_SPECIES + TEST_SPECIES) // len(names)):
        columns = {"back": permutation(len(names), _STREAM, seed, block, 0)}
        for number, part in enumerate(PARTS[1:], start=1):
            columns[part] = _permutation_apart_from(columns["back"], seed, block, number)
        for row in range(len(names)):
            index = block * len(names) + row
            shape = permutation(6, _STREAM, seed, index // 6, 99)[index % 6]
            beak_shape, size = BEAK_SHAPES[shape % 3], SIZES[shape // 3]
            different = {part: names[columns[part][row]] for part in PARTS}
            alike = {
                part: different["back"]
                for number, (part, share) in enumerate(LIKE_THE_BACK.items())
                if uniform(_STREAM, seed, index, number, 77) < share
            }
            colours = {**different, **alike}
            # Two species that come out the same would make one class of two, or a test class of a training class.
            if any((one.colours, one.beak_shape, one.size) == (colours, beak_shape, size) for one in species):
                colours = different
            species.append(Species(index, colours, beak_shape, size))
    return tuple(species)


def _permutation_apart_from(back: np.ndarray, seed: int, block: int, part: int) -> np.ndarray:
    """The first hashed permutation that nowhere agrees with `back` (more than one in three does not)."""
    attempt = 0
    while True:
        candidate = permutation(len(back), _STREAM, seed, block, part, attempt)
        if not (candidate == back).any():
            return candidate
        attempt += 1
