"""The figures by which the paper argues (arXiv 1612.03242, section 4), as sheets of pictures.

In each only one thing changes: the stage, the noise, the sentence, a word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stackgan_dist.generation.generate import between, generate_pictures
from stackgan_dist.generation.grid import labelled_grid, to_pictures
from stackgan_dist.models import Generator, ModelConfig

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black", "brown")
_CHOICE = re.compile(r"\{([^{}]*)\}")
_SMALLEST_CELL = 96


class Sentence(NamedTuple):
    """A sentence and its embedding (dim,)."""

    words: str
    embedding: NDArray[np.float32]


class Figure(NamedTuple):
    """One sheet, with what it shows."""

    name: str
    """Of its file, without the ending."""
    title: str
    explanation: str
    picture: Image.Image


@dataclass(frozen=True)
class Painter:
    """Pictures by one generator. Noise is chosen by number: equal numbers are equal noise in every figure."""

    generator: Generator
    model: ModelConfig
    seed: int

    @property
    def cell(self) -> int:
        """Side of a picture on a sheet."""
        return max(_SMALLEST_CELL, self.model.image_size)

    def pictures(
        self, text: Sequence[NDArray[np.float32]], numbers: Sequence[int], *, draw_condition: bool = True
    ) -> tuple[list[Image.Image], list[Image.Image]]:
        """(final pictures, Stage-I pictures below them, empty for a Stage-I run) of texts with noises `numbers`."""
        fakes = generate_pictures(
            self.generator, self.model, np.stack(text), numbers, self.seed, draw_condition=draw_condition
        )
        return to_pictures(fakes.image), [] if fakes.low_resolution is None else to_pictures(fakes.low_resolution)


def stages(painter: Painter, sentences: Sequence[Sentence], count: int) -> Figure:
    """Stage-I beside what Stage-II made of it; only for Stage-II runs."""
    rows = []
    for sentence in sentences:
        final, low = painter.pictures([sentence.embedding] * count, range(count))
        rows.append([picture for pair in zip(low, final, strict=True) for picture in pair])
    return Figure(
        "stages",
        "Stage-I beside Stage-II",
        "Each pair has the same sentence and the same noise: Stage-II starts from the picture to its left.",
        labelled_grid(rows, [s.words for s in sentences], ["Stage-I", "Stage-II"] * count, painter.cell, together=2),
    )


def noises(painter: Painter, sentence: Sentence, count: int, without_ca: Painter | None) -> Figure:
    """One sentence, many noises: all that varies, z alone, a run without conditioning augmentation."""
    text = [sentence.embedding] * count
    rows = {
        f"{sentence.words}: z and condition drawn": painter.pictures(text, range(count))[0],
        "z drawn, condition at its mean": painter.pictures(text, range(count), draw_condition=False)[0],
    }
    if without_ca is not None:
        rows["the run without conditioning augmentation"] = without_ca.pictures(text, range(count))[0]
    return Figure(
        "noises",
        "One sentence, many noises",
        "Every column has the same z. The first row also draws the text condition anew for each picture, as in "
        "training; the second takes the mean of its distribution.",
        labelled_grid(list(rows.values()), list(rows), [f"noise {n}" for n in range(count)], painter.cell),
    )


def interpolation(painter: Painter, first: Sentence, last: Sentence, count: int, rows: int) -> Figure:
    """From one sentence to another with the same noise: embeddings on the straight line between them."""
    text = list(between(first.embedding, last.embedding, count))
    # The condition is not drawn: a path that jitters would say nothing about the space between the sentences.
    sheets = [painter.pictures(text, [noise] * count, draw_condition=False)[0] for noise in range(rows)]
    labels = [f"from: {first.words}", f"to: {last.words}", *[""] * rows][:rows]
    return Figure(
        "interpolation",
        "From one sentence to another",
        f"From “{first.words}” to “{last.words}”. Every row has one noise; the embedding moves on a straight line.",
        labelled_grid(sheets, labels, [f"{w:.0%}" for w in np.linspace(0, 1, count)], painter.cell),
    )


def changed_word(painter: Painter, variants: Sequence[Sentence], count: int) -> Figure:
    """The same noise with one word of the sentence changed: what that word decides."""
    rows = [painter.pictures([s.embedding] * count, range(count), draw_condition=False)[0] for s in variants]
    return Figure(
        "word",
        "One word changed",
        "Every column has the same noise; from row to row one word changes. What stays the same in a column is what "
        "the noise decides.",
        labelled_grid(rows, [s.words for s in variants], [f"noise {n}" for n in range(count)], painter.cell),
    )


def variants_of(pattern: str) -> list[str]:
    """The sentences of a pattern: "a {red,blue} bird" gives two, a pattern without a choice gives itself."""
    choice = _CHOICE.search(pattern)
    if choice is None:
        return [pattern]
    return [pattern[: choice.start()] + word.strip() + pattern[choice.end() :] for word in choice[1].split(",")]


def with_colour_to_choose(words: str, most: int) -> str | None:
    """`words` with its first colour replaced by a choice of `most` colours, its own first; None without a colour."""
    found = re.search(rf"\b({'|'.join(COLOURS)})\b", words)
    if found is None:
        return None
    choice = [found[1], *(colour for colour in COLOURS if colour != found[1])][:most]
    return f"{words[: found.start()]}{{{','.join(choice)}}}{words[found.end() :]}"
