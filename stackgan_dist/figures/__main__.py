"""The figures of a run: `python -m stackgan_dist.figures runs/demo`.

Stage-I beside Stage-II; one sentence with many noises; from one sentence to another; one word changed; the training
pictures nearest to what is generated. Writes a PNG for each and index.html with all of them, into a folder of this
call's own.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import tyro

from stackgan_dist.cli.doors import front_door, parse_options
from stackgan_dist.config import DataConfig
from stackgan_dist.data.dataset import open_packed
from stackgan_dist.data.pictures import RealPictures
from stackgan_dist.devices import default_device, usable_device
from stackgan_dist.errors import UserError
from stackgan_dist.figures.figures import (
    Figure,
    Painter,
    Sentence,
    changed_word,
    interpolation,
    noises,
    stages,
    variants_of,
    with_colour_to_choose,
)
from stackgan_dist.figures.nearest import nearest_training
from stackgan_dist.figures.page import page
from stackgan_dist.generation.generate import first_captions
from stackgan_dist.generation.grid import to_png
from stackgan_dist.ranges import Range, Seed
from stackgan_dist.runs.trained import Trained, load_discriminator, load_trained
from stackgan_dist.storage.folder import Folder
from stackgan_dist.storage.output_folder import check_output, check_replaced, output_folder

_WORDS = 5
_BATCH = 64
_PAGE, _TITLE = "index.html", "Figures of"
_FILES = frozenset({"stages.png", "noises.png", "interpolation.png", "word.png", "nearest.png", _PAGE})
"""What a call writes."""


@dataclass(frozen=True)
class Options:
    """What to show."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The run that generates: its folder, a folder with the runs of both stages (the last stage is taken), or a
    checkpoint. It may be given as --run RUN as well."""
    sentences: tuple[str, ...] = ()
    """The sentences to show, two or more, each in quotes. By default they are captions of the data set."""
    words: str | None = None
    """A sentence with one word to change, as "a {red,blue} bird". By default the first colour in a sentence changes."""
    without_ca: str | None = None
    """A run of the same data without conditioning augmentation, for the figure of many noises."""
    data: str | None = None
    """The packed data set. The default is the run's own."""
    split: str = "test"
    """The split that captions are taken from, preferably one that was not trained on."""
    texts: Annotated[int, Range(at_least=2)] = 4
    """The number of sentences to take from the data set."""
    count: Annotated[int, Range(at_least=2)] = 6
    """The number of pictures in a row."""
    training_pictures: Annotated[int, Range(at_least=1)] | None = None
    """The nearest training pictures are searched among this many. The default is all of them."""
    seed: Seed = 0
    """The seed of sentences and noises; another one gives others."""
    out: str | None = None
    """The folder or URL to write to, empty or new. The default is a new one in the run, such as
    figures/0001-step-42000-ema."""
    overwrite: bool = False
    """Replace the figures that an earlier call wrote to --out; other files there stay, and an index.html of anything
    else is refused."""
    weights: Literal["ema", "raw"] = "ema"
    """ema takes the generator's moving average, raw its weights as they were at the last step."""
    device: str = default_device()
    """The device to generate on, such as cpu or cuda:1."""


@front_door
def main() -> None:
    """Parse, load, make each figure, write."""
    options = parse_options(Options, "figures", __doc__, run_first=True)
    if len(options.sentences) == 1:
        raise UserError("--sentences has 1 sentence, it needs 2 or more: a figure goes from one to another")
    out = None if options.out is None else Folder.at(options.out)
    check_output(out, overwrite=options.overwrite)
    if out is not None and options.overwrite:
        check_replaced(out, [_PAGE] if out.exists(_PAGE) else [], f"<title>{_TITLE} ".encode(), "figures")
    trained = load_trained(options.run, print, raw=options.weights == "raw")
    device = usable_device(options.device)
    painter = Painter(trained.generator(device), trained.config.model, options.seed)
    sentences = _sentences(options, trained)

    figures, missing = [], []
    if trained.config.model.stage == 2:
        figures.append(stages(painter, sentences, (options.count + 1) // 2))
    else:
        missing.append("Stage-I beside Stage-II is not shown: this is a Stage-I run.")
    figures.append(noises(painter, sentences[0], options.count, _without_ca(options, trained, device)))
    figures.append(interpolation(painter, sentences[0], sentences[1], options.count, rows=3))
    try:
        figures.append(changed_word(painter, _variants(options, trained, sentences), options.count))
    except UserError as error:
        if options.words:
            raise
        missing.append(f"One word changed is not shown: {error}.")
    if trained.discriminator_weights:
        figures.append(_nearest(options, trained, painter, sentences, device))
    else:
        missing.append("The nearest training pictures are not shown: an exported generator has no discriminator.")

    facts = {
        "checkpoint": f"{trained.checkpoint}, {options.weights} weights",
        "image size": f"{trained.config.model.image_size} px",
        "sentences": "given" if options.sentences else f"captions of the split {options.split!r}",
        "seed": str(options.seed),
    }
    with output_folder(
        out,
        trained.folder.root / "figures",
        f"step {trained.step} {options.weights}",
        _FILES.__contains__,
        overwrite=options.overwrite,
    ) as folder:
        for figure in figures:
            folder.write(f"{figure.name}.png", to_png(figure.picture, {"title": figure.title, **facts}))
        folder.write(_PAGE, page(f"{_TITLE} {options.run}", facts, figures, missing).encode())
    print(f"{len(figures)} figures by {trained.checkpoint}; all of them: {folder.url_of(_PAGE)}")
    for reason in missing:
        print(f"  {reason}")


def _sentences(options: Options, trained: Trained) -> list[Sentence]:
    """The sentences given, or captions of different pictures."""
    if options.sentences:
        text = trained.encoder().encode(options.sentences)
        return [Sentence(words, embedding) for words, embedding in zip(options.sentences, text, strict=True)]
    captions = open_packed(_data(options, trained), trained.config.model.image_size, options.split).captions()
    chosen = first_captions(captions, options.texts, options.seed)
    return [Sentence(caption.sentence, caption.embedding) for caption in chosen]


def _data(options: Options, trained: Trained) -> DataConfig:
    data = trained.config.data
    return dataclasses.replace(data, url=options.data or data.url)


def _without_ca(options: Options, trained: Trained, device: torch.device) -> Painter | None:
    if options.without_ca is None:
        return None
    other = load_trained(options.without_ca, print, raw=options.weights == "raw")
    if other.config.model.conditioning_augmentation:
        raise UserError(
            f"--without-ca {options.without_ca} was trained with conditioning augmentation; train one with "
            "--model.no-conditioning-augmentation"
        )
    if not other.data.reads_texts_of(trained.data):
        raise UserError(f"--without-ca {options.without_ca} reads texts of {other.data.text_encoder}, not of the same")
    return Painter(other.generator(device), other.config.model, options.seed)


def _variants(options: Options, trained: Trained, sentences: list[Sentence]) -> list[Sentence]:
    """A sentence with one word changed; UserError when there is no word to change or no encoder for it."""
    patterns = [with_colour_to_choose(sentence.words, _WORDS) for sentence in sentences]
    pattern = options.words or next((found for found in patterns if found), None)
    if pattern is None:
        raise UserError('no sentence names a colour; give one with --words "a {red,blue} bird"')
    variants = variants_of(pattern)
    if len(variants) < 2:
        raise UserError(f'--words {pattern!r} has no choice of words; write it as "a {{red,blue}} bird"')
    text = trained.encoder().encode(variants)
    return [Sentence(words, embedding) for words, embedding in zip(variants, text, strict=True)]


def _nearest(
    options: Options, trained: Trained, painter: Painter, sentences: list[Sentence], device: torch.device
) -> Figure:
    """The figure of the nearest training pictures, by the run's own discriminator."""
    size, data = trained.config.model.image_size, _data(options, trained)
    discriminator = load_discriminator(trained, device)
    training = RealPictures(open_packed(data, size).captions(), size, _BATCH, options.seed, options.training_pictures)
    unseen = RealPictures(open_packed(data, size, options.split).captions(), size, _BATCH, options.seed, _BATCH)
    return nearest_training(
        painter,
        sentences,
        lambda: (batch.images for batch in training.batches(0, 1)),
        torch.cat([batch.images for batch in unseen.batches(0, 1)]),
        lambda images: discriminator.features(images.to(device)).flatten(1).cpu(),
    )


if __name__ == "__main__":
    main()
