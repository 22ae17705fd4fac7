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
from torch.nn import functional as F

from stackgan_dist.cli.doors import front_door, parse_options
from stackgan_dist.data.pictures import RealPictures
from stackgan_dist.distributed.collectives import one_thread_per_rank, sum_over_ranks, with_progress
from stackgan_dist.distributed.process_group import process_group
from stackgan_dist.errors import UserError
from stackgan_dist.overlap import made_ahead
from stackgan_dist.painted.species import PALETTE, PARTS
from stackgan_dist.ranges import Range
from stackgan_dist.runs.score_rows import append_score
from stackgan_dist.scores.birds import find_birds
from stackgan_dist.scores.colours import agreement
from stackgan_dist.scores.diversity import diversity_of_generated, diversity_of_real
from stackgan_dist.scores.shapes import with_stray_parts
from stackgan_dist.scores.sharpness import steepness
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
        counts = torch.zeros(len(PARTS), 2, dtype=torch.float64)
        size = subject.trained.config.model.image_size
        steps = {name: torch.zeros(3, dtype=torch.float64) for name in ("drawn", "Stage-I enlarged", "real")}
        stray = {name: torch.zeros(2, dtype=torch.float64) for name in ("drawn", "real")}
        pictures = subject.generated(options.samples, ranks)
        batches = made_ahead(pictures.batches(ranks.rank, ranks.world_size), ranks.device)
        for batch in with_progress(batches, "colour agreement", options.samples, ranks):
            birds = find_birds(batch.images)
            found = agreement(birds, [caption.sentence for caption in batch.captions])
            counts += torch.tensor([found.get(part, (0, 0)) for part in PARTS], dtype=torch.float64)
            _count(stray["drawn"], with_stray_parts(birds))
            _add(steps["drawn"], batch.images)
            if batch.low_resolution is not None:
                _add(steps["Stage-I enlarged"], F.interpolate(batch.low_resolution, (size, size), mode="bicubic"))
        settings = options.subject
        real = RealPictures(subject.captions.captions(), size, settings.batch_size, settings.seed, options.samples)
        for shown in real.batches(ranks.rank, ranks.world_size):
            _add(steps["real"], shown.images)
            _count(stray["real"], with_stray_parts(find_birds(shown.images)))
        for sums in (counts, *steps.values(), *stray.values()):
            sum_over_ranks(sums, ranks)
        asked = options.diversity_sentences, options.diversity_pictures
        diversity, real_diversity = (
            measure(subject, *asked, ranks).mean for measure in (diversity_of_generated, diversity_of_real)
        )

        if ranks.is_main:
            shares = {part: right / asked for part, (right, asked) in zip(PARTS, counts.tolist(), strict=True) if asked}
            sharpness = {name: (s[:2] / s[2]).tolist() for name, s in steps.items() if s[2]}
            strays = {name: (s[0] / s[1]).item() for name, s in stray.items() if s[1]}
            row = {
                "score": "colour agreement",
                "samples": options.samples,
                **shares,
                **{f"stray parts of {name}": share for name, share in strays.items()},
                **{f"steps of {name}": pair for name, pair in sharpness.items()},
                "diversity": diversity,
                "diversity of real": real_diversity,
                **subject.describe(),
            }
            file = append_score(subject.trained.folder.root, row)
            parts = ", ".join(f"{part} {share:.1%}" for part, share in shares.items())
            odd = ", ".join(f"{name} {share:.1%}" for name, share in strays.items())
            steep = ", ".join(f"{name} {outlines:.1f} / {rest:.2f}" for name, (outlines, rest) in sharpness.items())
            print(
                f"Colour agreement of {options.samples:,} samples: {parts} (chance {1 / len(PALETTE):.0%})\n"
                f"Birds with stray parts, such as a second head: {odd}\n"
                f"Steps between pixels, % of black to white, along outlines / elsewhere: {steep}\n"
                f"Diversity of the pictures of one sentence, deviation of a pixel in [-1, 1]: {diversity:.3f}"
                + ("" if real_diversity is None else f", of real pictures of one class {real_diversity:.3f}")
                + f"\n  of {subject.trained.checkpoint}, captions of {subject.captions.url}\n  recorded in {file}"
            )


def _count(sums: torch.Tensor, which: torch.Tensor) -> None:
    """Add how many of `which` (N,) there are, and their number, to `sums` (2,)."""
    sums += torch.tensor([which.sum().item(), len(which)], dtype=torch.float64)


def _add(steps: torch.Tensor, images: torch.Tensor) -> None:
    """Add what `steepness` says of `images`, and their number, to `steps` (3,)."""
    found = steepness(images).cpu()
    steps += torch.tensor([*found.sum(0).tolist(), len(found)], dtype=torch.float64)


if __name__ == "__main__":
    main()
