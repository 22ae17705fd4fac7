"""Generate pictures of new sentences: `python -m stackgan_dist.generate runs/demo "a small red bird ..." ...`.

Writes one PNG per picture, and a grid of all of them with Stage-I beside Stage-II, into a folder of this call's own.
Each file says in its text chunks what was generated, and by which checkpoint.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from PIL import Image

from stackgan_dist.api.text_to_image import TextToImage, check_sentences
from stackgan_dist.cli.doors import front_door, parse_options
from stackgan_dist.data.placement import place_from_words
from stackgan_dist.devices import usable_device
from stackgan_dist.errors import UserError
from stackgan_dist.generation.fonts import without_letters
from stackgan_dist.generation.grid import labelled_grid, to_pictures, to_png
from stackgan_dist.models import ModelConfig
from stackgan_dist.ranges import Range, Seed
from stackgan_dist.runs.trained import load_trained
from stackgan_dist.storage.folder import Folder
from stackgan_dist.storage.output_folder import output_folder

_SMALLEST_CELL = 128
_FILES = re.compile(r"(\d{3,}-\d{3,}(-stage1)?|grid)\.png")
"""What a call writes."""


@dataclass(frozen=True)
class Options:
    """What to generate."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The run that generates: its folder, a folder with the runs of both stages (the last stage is taken), or a
    checkpoint. It may be given as --run RUN as well."""
    sentences: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="SENTENCE ...")]
    """The sentences, each in quotes."""
    place: tuple[str, ...] = ()
    """For a model that is conditioned on where the object is (GAWWN): LEFT TOP WIDTH HEIGHT of its box, or NAME=X,Y of
    some of its keypoints, in fractions of the picture's side."""
    count: Annotated[int, Range(at_least=1)] = 4
    """The number of pictures of each sentence; they differ by their noise."""
    seed: Seed = 0
    """The seed of the noise; another one gives other pictures."""
    out: str | None = None
    """The folder or URL for the pictures, empty or new. The default is a new one in the run, such as
    generated/0001-a-red-bird."""
    overwrite: bool = False
    """Replace the pictures that an earlier call wrote to --out; other files there stay."""
    encoder: str | None = None
    """The run's text encoder, such as hf:FOLDER, where it is not found by itself."""
    weights: Literal["ema", "raw"] = "ema"
    """ema takes the generator's moving average, raw its weights as they were at the last step."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """The device to generate on, such as cpu or cuda:1."""


@front_door
def main() -> None:
    """Parse, load, generate, write."""
    options = parse_options(Options, "generate", __doc__, run_first=True)
    if not options.sentences:
        raise UserError(
            f"there is nothing to generate; give one or more sentences behind the run, here {options.run!r}, e.g. "
            'stackgan generate runs/demo "a small red bird"'
        )
    check_sentences(options.sentences)
    trained = load_trained(options.run, print, raw=options.weights == "raw")
    place = _place(trained.config.model, options.place)
    generator = TextToImage(
        trained, usable_device(options.device), options.encoder, lambda line: print(f"note: {line}")
    )
    texts = generator.encode(options.sentences)
    with output_folder(
        None if options.out is None else Folder.at(options.out),
        trained.folder.root / "generated",
        options.sentences[0],
        lambda name: _FILES.fullmatch(name) is not None,
        overwrite=options.overwrite,
    ) as folder:
        _write_pictures(options, generator, texts, place, folder)


def _write_pictures(
    options: Options,
    generator: TextToImage,
    texts: NDArray[np.float32],
    place: NDArray[np.float32] | None,
    out: Folder,
) -> None:
    """Every picture of every sentence, whose embeddings are `texts` (n, dim), then the grid, into `out`."""
    origin = {"seed": str(options.seed), "checkpoint": generator.checkpoint, "weights": options.weights}

    def save(picture: Image.Image, name: str, about: dict[str, str]) -> None:
        try:
            out.write(name, to_png(picture, {**about, **origin}))
        except OSError as error:
            raise UserError(f"cannot write to {out}: {error.strerror}; give another folder with --out") from error

    rows = []
    for number, (sentence, text) in enumerate(zip(options.sentences, texts, strict=True)):
        images = generator.stages(text, count=options.count, seed=options.seed, place=place)
        finals = to_pictures(images.image)
        lows = [] if images.low_resolution is None else to_pictures(images.low_resolution)
        for end, pictures in (("", finals), ("-stage1", lows)):
            for picture_number, picture in enumerate(pictures):
                about = {"sentence": sentence, "number": str(picture_number)}
                save(picture, f"{number:03d}-{picture_number:03d}{end}.png", about)
        rows.append([picture for pair in zip(lows, finals, strict=True) for picture in pair] if lows else finals)

    title = generator.config.model.title.replace("stage", "Stage")
    headings = ["Stage-I", title] * options.count if lows else [title] * options.count
    cell = max(_SMALLEST_CELL, generator.image_size)
    grid = labelled_grid(rows, options.sentences, headings, cell, together=2 if lows else 1)
    save(grid, "grid.png", {"sentence": "\n".join(options.sentences)})
    if letters := without_letters(options.sentences):
        print(f"note: no font of this machine has {letters!r}, so the grid shows boxes; the pictures are not concerned")
    print(
        f"{len(rows) * options.count} pictures of {generator.image_size} px generated by "
        f"{generator.checkpoint} ({options.weights}); all of them: {out.url_of('grid.png')}"
    )


def _place(model: ModelConfig, words: tuple[str, ...]) -> NDArray[np.float32] | None:
    """What --place says, for models that take it; UserError where it does not fit the model."""
    if model.placement is None:
        if words:
            raise UserError(f"--place is for models that are conditioned on where the object is; {model.title} is not")
        return None
    return place_from_words(words, model.placement)


if __name__ == "__main__":
    main()
