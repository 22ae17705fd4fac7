"""Do painted birds have the colours of their captions? `torchrun -m stackgan_dist.colour_agreement runs/demo`.

Painted birds are data whose truth is known, so the agreement of text and picture is counted, not judged. Chance is
one in ten colours. Measured beside it, also of real pictures: the share of birds with stray parts, such as a second
head; how sharp the pictures are, by the steps between neighbouring pixels along outlines and elsewhere, which is also
measured of the enlarged Stage-I images that Stage-II started from; and how different the pictures of one sentence are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import tyro
from torch import Tensor
from torch.nn import functional as F

from stackgan_dist.cli.doors import front_door, parse_options
from stackgan_dist.colour_agreement.birds import Birds, find_birds
from stackgan_dist.colour_agreement.colours import agreement
from stackgan_dist.colour_agreement.shapes import with_stray_parts
from stackgan_dist.colour_agreement.sharpness import steepness
from stackgan_dist.data.pictures import RealPictures
from stackgan_dist.distributed.collectives import one_thread_per_rank, sum_over_ranks, with_progress
from stackgan_dist.distributed.process_group import Ranks, process_group
from stackgan_dist.errors import UserError
from stackgan_dist.generation.generate import GeneratedBatch
from stackgan_dist.overlap import made_ahead
from stackgan_dist.painted.species import PALETTE, PARTS
from stackgan_dist.ranges import Range
from stackgan_dist.runs.score_rows import append_score
from stackgan_dist.scores.diversity import diversity_of_generated, diversity_of_real
from stackgan_dist.scores.subject import Subject, open_subject


@dataclass(frozen=True)
class Options:
    """What to measure."""

    subject: Annotated[Subject, tyro.conf.arg(name="")]
    samples: Annotated[int, Range(at_least=1)] = 1_000
    """The number of pictures to generate."""
    diversity_sentences: Annotated[int, Range(at_least=1)] = 50
    """The number of sentences whose pictures are compared with each other, and of groups of real pictures."""
    diversity_pictures: Annotated[int, Range(at_least=2)] = 8
    """The number of pictures of each of these sentences, and of each group."""


@front_door
def main() -> None:
    """Parse, validate, connect, generate and judge, add up, report."""
    options = parse_options(Options, "colour_agreement", __doc__, run_first=True)
    subject = open_subject(options.subject)
    if subject.captions.index.name != "painted":
        raise UserError(
            f"{subject.captions.url} is {subject.captions.index.name!r}; only painted birds have known colours: "
            "score other data with stackgan_dist.inception_score"
        )

    with process_group(options.subject.timeout_s) as ranks:
        one_thread_per_rank(ranks)
        found = _Found(subject.trained.config.model.image_size)
        pictures = subject.generated(options.samples, ranks)
        batches = made_ahead(pictures.batches(ranks.rank, ranks.world_size), ranks.device)
        for batch in with_progress(batches, "colour agreement", options.samples, ranks):
            found.add_generated(batch)
        settings = options.subject
        real = RealPictures(
            subject.captions.captions(), found.image_size, settings.batch_size, settings.seed, options.samples
        )
        for shown in real.batches(ranks.rank, ranks.world_size):
            found.add_real(shown.images)
        found.add_up(ranks)
        asked = options.diversity_sentences, options.diversity_pictures
        diversity, real_diversity = (
            measure(subject, *asked, ranks).mean for measure in (diversity_of_generated, diversity_of_real)
        )

        if ranks.is_main:
            row = {
                "score": "colour agreement",
                "samples": options.samples,
                **found.shares,
                **{f"stray parts of {name}": share for name, share in found.stray_shares.items()},
                **{f"steps of {name}": pair for name, pair in found.sharpness.items()},
                "diversity": diversity,
                "diversity of real": real_diversity,
                **subject.describe(),
            }
            file = append_score(subject.trained.folder.root, row)
            parts = ", ".join(f"{part} {share:.1%}" for part, share in found.shares.items())
            stray = ", ".join(f"{name} {share:.1%}" for name, share in found.stray_shares.items())
            steep = ", ".join(
                f"{name} {outlines:.1f} / {rest:.2f}" for name, (outlines, rest) in found.sharpness.items()
            )
            print(
                f"Colour agreement of {options.samples:,} samples: {parts} (chance {1 / len(PALETTE):.0%})\n"
                f"Birds with stray parts, such as a second head: {stray}\n"
                f"Steps between pixels, % of black to white, along outlines / elsewhere: {steep}\n"
                f"Diversity of the pictures of one sentence, deviation of a pixel in [-1, 1]: {diversity:.3f}"
                + ("" if real_diversity is None else f", of real pictures of one class {real_diversity:.3f}")
                + f"\n  of {subject.trained.checkpoint}, captions of {subject.captions.url}\n  recorded in {file}"
            )


class _Found:
    """What the judges say of the pictures that they were shown, added up.

    Args:
        image_size: the side of the pictures.
    """

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size
        self._parts = torch.zeros(len(PARTS), 2, dtype=torch.float64)
        """Of every part: right, asked."""
        self._stray = {name: torch.zeros(2, dtype=torch.float64) for name in ("generated", "real")}
        """With stray parts, all."""
        names = ("generated", "Stage-I enlarged", "real")
        self._steps = {name: torch.zeros(3, dtype=torch.float64) for name in names}
        """Along outlines, elsewhere, pictures."""

    def add_generated(self, batch: GeneratedBatch) -> None:
        """Generated pictures, and the Stage-I images that they started from."""
        birds = find_birds(batch.images)
        found = agreement(birds, [caption.sentence for caption in batch.captions])
        self._parts += torch.tensor([found.get(part, (0, 0)) for part in PARTS], dtype=torch.float64)
        self._add("generated", batch.images, birds)
        if batch.low_resolution is not None:
            size = (self.image_size, self.image_size)
            self._add("Stage-I enlarged", F.interpolate(batch.low_resolution, size, mode="bicubic"))

    def add_real(self, images: Tensor) -> None:
        """Real pictures."""
        self._add("real", images, find_birds(images))

    def _add(self, name: str, images: Tensor, birds: Birds | None = None) -> None:
        steps = steepness(images).cpu()
        self._steps[name] += torch.tensor([*steps.sum(0).tolist(), len(steps)], dtype=torch.float64)
        if birds is not None:
            stray = with_stray_parts(birds)
            self._stray[name] += torch.tensor([stray.sum().item(), len(stray)], dtype=torch.float64)

    def add_up(self, ranks: Ranks) -> None:
        """Make it what all ranks were shown."""
        for sums in (self._parts, *self._steps.values(), *self._stray.values()):
            sum_over_ranks(sums, ranks)

    @property
    def shares(self) -> dict[str, float]:
        """Part -> share of the captions that name its colour whose pictures have it."""
        return {part: right / asked for part, (right, asked) in zip(PARTS, self._parts.tolist(), strict=True) if asked}

    @property
    def stray_shares(self) -> dict[str, float]:
        """Pictures -> share of them with stray parts."""
        return {name: stray / shown for name, (stray, shown) in _listed(self._stray) if shown}

    @property
    def sharpness(self) -> dict[str, list[float]]:
        """Pictures -> steps along outlines and elsewhere, in % of black to white."""
        return {name: [edge / shown, rest / shown] for name, (edge, rest, shown) in _listed(self._steps) if shown}


def _listed(sums: dict[str, Tensor]) -> list[tuple[str, list[float]]]:
    return [(name, values.tolist()) for name, values in sums.items()]


if __name__ == "__main__":
    main()
