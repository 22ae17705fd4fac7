"""Painted birds: a captioned data set that needs no download, because it is drawn while it is packed.

Its birds have named colours for five parts, so that what a text-to-image model should show is known exactly and
`stackgan_dist.colour_agreement.colours` can say whether it did. Every picture is a pure function of (seed, its
number): it does not matter which process draws it, or when.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources import Record
from stackgan_dist.painted import anatomy, captions, drawing
from stackgan_dist.painted.species import (
    BACKGROUNDS,
    PALETTE,
    SCALES,
    TEST_SPECIES,
    TRAIN_SPECIES,
    VARIATION,
    Species,
    all_species,
)
from stackgan_dist.randomness import permutation, uniform

_POSE, _COLOURS, _SCENE = 0xB1, 0xB2, 0xB3  # streams of hashes


class PaintedBirds:
    """The source: 240 species (200 train, 40 test), 304 x 304 px RGB, ten captions per picture."""

    def __init__(self, root: str | None = None, *, seed: int = 0, pictures: int = 2880) -> None:
        """`pictures` counts both splits; every species gets an equal share (or one more than another).

        Raises UserError for a root folder (there is nothing to read), a negative seed, or fewer pictures than
        species.
        """
        if root:
            raise UserError(f"painted birds are drawn, not read, but the root folder is {root!r}; leave it out")
        species = all_species(seed)
        if pictures < len(species):
            raise UserError(
                f"painted birds: pictures is {pictures}, but there are {len(species)} species; "
                f"ask for at least one picture of each (pictures = {len(species)})"
            )
        self._seed = seed
        self._pictures = pictures

    def records(self, split: str) -> Sequence[Record]:
        """The pictures of `split`, species after species; a test species is never seen in training."""
        if split not in ("train", "test"):
            raise UserError(f"painted birds have the splits train and test; {split!r} was asked for")
        chosen = (
            all_species(self._seed)[:TRAIN_SPECIES] if split == "train" else all_species(self._seed)[-TEST_SPECIES:]
        )
        species_count = TRAIN_SPECIES + TEST_SPECIES
        return [
            self._record(number)
            for species in chosen
            for number in range(species.number, self._pictures, species_count)
        ]

    def picture(self, record: Record) -> Image.Image:
        """The painting, RGB, 304 x 304 px."""
        number = _number(record)
        if number >= self._pictures:
            raise UserError(f"painted birds: {record.key} is not among these {self._pictures} pictures")
        species = self._species(number)
        return drawing.paint(
            drawing.Painting(
                pose=self._pose(number),
                colours=self._colours(species, number),
                beak_shape=species.beak_shape,
                background=self._background(number),
                chance=uniform(_SCENE, self._seed, number, range(16)).tolist(),
            )
        )

    def _record(self, number: int) -> Record:
        species, pose, background = self._species(number), self._pose(number), self._background(number)
        return Record(
            key=f"painted-{number:06d}",
            captions=captions.captions(species, background, self._seed, number),
            class_name=species.name,
            source_id=f"painted birds, seed {self._seed}, picture {number}",
            box=anatomy.box(pose, species.beak_shape, drawing.PICTURE_PX),
            keypoints=anatomy.keypoints(pose, species.beak_shape, drawing.PICTURE_PX),
            attributes={
                **species.colours,
                "beak_shape": species.beak_shape,
                "size": species.size,
                "background": background,
                "facing": "right" if pose.facing > 0 else "left",
            },
        )

    def _species(self, number: int) -> Species:
        species = all_species(self._seed)
        return species[number % len(species)]

    def _background(self, number: int) -> str:
        """Every five pictures of a species have the five backgrounds in a hashed order."""
        species_number, turn = number % (TRAIN_SPECIES + TEST_SPECIES), number // (TRAIN_SPECIES + TEST_SPECIES)
        count = len(BACKGROUNDS)
        return BACKGROUNDS[permutation(count, _SCENE, self._seed, species_number, turn // count)[turn % count]]

    def _pose(self, number: int) -> anatomy.Pose:
        chance = uniform(_POSE, self._seed, number, range(5))
        scale, x, y, tilt = (2 * chance[:4] - 1).tolist()
        return anatomy.Pose(
            facing=1 if chance[4] < 0.5 else -1,
            scale=SCALES[self._species(number).size] * (1 + VARIATION["scale"] * scale),
            x=0.5 + VARIATION["shift"] * x,
            y=0.52 + VARIATION["shift"] * y,
            tilt=VARIATION["tilt"] * tilt,
        )

    def _colours(self, species: Species, number: int) -> dict[str, drawing.Colour]:
        varied: dict[str, drawing.Colour] = {}
        for i, (part, name) in enumerate(species.colours.items()):
            chance = (2 * uniform(_COLOURS, self._seed, number, i, range(4)) - 1).tolist()
            level = 1 + VARIATION["level"] * chance[0]
            red, green, blue = (
                min(255, max(0, round(value * level + VARIATION["channel"] * shift)))
                for value, shift in zip(PALETTE[name], chance[1:], strict=True)
            )
            varied[part] = (red, green, blue)
        return varied


def _number(record: Record) -> int:
    prefix, _, digits = record.key.partition("-")
    if prefix != "painted" or not digits.isdecimal():
        raise UserError(f"painted birds: {record.key!r} is not the key of a painted bird (painted-000000)")
    return int(digits)
