"""What z says in a painted Stage-I with rows that are read: `python tests/noise_read.py RUN`.

The share of birds with stray parts, for z that its reader finds in real pictures and for z from N(0, 1), each with the
mean of the text condition and with a condition that is drawn. The numbers of z are listed as the reader uses them.
Then whose colours the parts of a bird have whose z was read off another picture: the sentence's or that picture's.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from stackgan_dist.colour_agreement.birds import find_birds
from stackgan_dist.colour_agreement.colours import painted_colours
from stackgan_dist.colour_agreement.shapes import with_stray_parts
from stackgan_dist.config import from_json
from stackgan_dist.data.pictures import RealPictures
from stackgan_dist.models.reader import Reader
from stackgan_dist.models.stage1 import Stage1Generator
from stackgan_dist.painted.captions import named_colours
from stackgan_dist.painted.species import PARTS
from stackgan_dist.runs.checkpoint import find_newest, from_bytes
from stackgan_dist.runs.folder import find_run
from stackgan_dist.scores.subject import Subject, open_subject
from stackgan_dist.storage.folder import Folder

BATCH, BATCHES = 48, 10
Colours = dict[str, str | None]


def main(run: str) -> None:
    """Read, shuffle, redraw, count."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    subject = open_subject(Subject(run))
    model = subject.trained.config.model
    network = subject.trained.generator(torch.device("cpu")).eval()
    assert isinstance(network, Stage1Generator)
    reader = _reader(run)
    real = RealPictures(subject.captions.captions(), model.image_size, BATCH, 0, BATCH * BATCHES)
    shown = list(real.batches(0, 1))
    pictures = torch.cat([batch.images for batch in shown])
    text = torch.cat([torch.from_numpy(np.stack([c.embedding for c in batch.captions])) for batch in shown])
    n = len(text)
    with torch.no_grad():
        mu, log_sigma = reader(pictures, text)
        sigma = log_sigma.exp()
        used = mu.std(0).argsort(descending=True)[:10]
        spread = (mu - mu.mean(0)) / mu.std(0)
        for what, values in (
            ("deviation of mu", mu.std(0)),
            ("mean sigma", sigma.mean(0)),
            ("kurtosis of mu (two points 1, normal 3)", spread.pow(4).mean(0)),
        ):
            print(f"{what}: {', '.join(f'{value:.2f}' for value in values[used])}")
        noise = torch.randn_like(mu)
        read = mu + sigma * noise
        others = read[torch.randperm(n)]
        single = torch.stack([read[torch.randperm(n), number] for number in range(model.noise_dim)], dim=1)
        drawn = torch.randn(n, 1, model.condition_dim)
        for name, z in (
            ("read off the pictures of these captions", read),
            ("read off other pictures", others),
            ("each number read off another picture", single),
            ("N(0, 1)", noise),
        ):
            for condition, eps in (("its mean", torch.zeros_like(drawn)), ("drawn", drawn)):
                stray = torch.cat(
                    [
                        with_stray_parts(find_birds(network.from_code(*inputs).image))
                        for inputs in zip(text.split(BATCH), z.split(BATCH), eps.split(BATCH), strict=True)
                    ]
                )
                print(f"z {name}, condition {condition}: {stray.float().mean():.1%} of {n} have stray parts")
        sentences = [caption.sentence for batch in shown for caption in batch.captions]
        of_pictures = [colours for batch in shown for colours in painted_colours(find_birds(batch.images))]
        order = torch.randperm(n)
        drawn_birds = [
            colours
            for inputs in zip(text.split(BATCH), read[order].split(BATCH), drawn.split(BATCH), strict=True)
            for colours in painted_colours(find_birds(network.from_code(*inputs).image))
        ]
        _say_whose(sentences, drawn_birds, [of_pictures[number] for number in order.tolist()])


def _say_whose(sentences: list[str], birds: list[Colours], sources: list[Colours]) -> None:
    """Print how often parts of `birds` have the colours of their `sentences`, and of the `sources` of their z."""
    for part in PARTS:
        named, unnamed = [], []
        for sentence, bird, source in zip(sentences, birds, sources, strict=True):
            colours = named_colours(sentence)
            if part not in colours:
                unnamed.append(bird[part] == source[part])
            elif colours[part] != source[part]:
                named.append((bird[part] == colours[part], bird[part] == source[part]))
        of_sentence, of_source = (100 * np.mean(column) for column in zip(*named, strict=True))
        text = f"{part}, where both differ: of the sentence {of_sentence:.1f}%, of z's picture {of_source:.1f}%"
        if unnamed:
            text += f"; where the sentence names none: of z's picture {100 * np.mean(unnamed):.1f}%"
        print(text)


def _reader(run: str) -> Reader:
    """The newest checkpoint's."""
    found = find_newest(find_run(Folder.at(run)).checkpoints, print)
    content = from_bytes(found.data, found.url)
    reader = Reader(from_json(content["config"], run).model, content["data"]["text_dim"])
    weights = content["state"]["generator"]["network"]
    prefix = "reader."
    reader.load_state_dict({name[len(prefix) :]: w for name, w in weights.items() if name.startswith(prefix)})
    return reader.eval()


if __name__ == "__main__":
    main(*sys.argv[1:])
