"""Do painted birds have the colours of their captions? `torchrun -m stackgan_dist.colour_agreement runs/demo`.

Painted birds are data whose truth is known, so the agreement of text and picture is counted, not judged. Chance is
one in ten colours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
import tyro

from stackgan_dist.data.sources.painted.species import PALETTE, PARTS
from stackgan_dist.distributed.process_group import process_group
from stackgan_dist.errors import UserError, front_door
from stackgan_dist.evaluation.colour_agreement import agreement
from stackgan_dist.evaluation.job import (
    Subject,
    append_score,
    check_counts,
    one_thread_per_rank,
    open_subject,
    parse_options,
    sum_over_ranks,
    with_progress,
)


@dataclass(frozen=True)
class Options:
    """What to measure."""

    subject: Annotated[Subject, tyro.conf.arg(name="")]
    samples: int = 1_000
    """Pictures to draw."""


@front_door
def main() -> None:
    """Parse, validate, connect, draw and judge, add up, report."""
    options = parse_options(Options, "stackgan_dist.colour_agreement", __doc__)
    check_counts(options.samples, options.subject.batch_size)
    subject = open_subject(options.subject)
    if subject.captions.index.name != "painted":
        raise UserError(
            f"{subject.captions.url} is {subject.captions.index.name!r}; only painted birds have known colours: "
            "score other data with stackgan_dist.inception_score"
        )

    with process_group(options.subject.timeout_s) as ranks:
        one_thread_per_rank(ranks)
        counts = torch.zeros(len(PARTS), 2, dtype=torch.float64)
        drawn = subject.drawing(options.samples, ranks).batches(ranks.rank, ranks.world_size)
        for batch in with_progress(drawn, "colour agreement", options.samples, ranks):
            found = agreement(batch.images, [caption.sentence for caption in batch.captions])
            counts += torch.tensor([found.get(part, (0, 0)) for part in PARTS], dtype=torch.float64)
        sum_over_ranks(counts, ranks)

        if ranks.is_main:
            shares = {part: right / asked for part, (right, asked) in zip(PARTS, counts.tolist(), strict=True) if asked}
            row = {"score": "colour agreement", "samples": options.samples, **shares, **subject.describe()}
            file = append_score(subject.trained.folder.url, row)
            parts = ", ".join(f"{part} {share:.1%}" for part, share in shares.items())
            print(
                f"Colour agreement of {options.samples:,} samples: {parts} (chance {1 / len(PALETTE):.0%})\n"
                f"  of {subject.trained.checkpoint}, captions of {subject.captions.url}\n  recorded in {file}"
            )


if __name__ == "__main__":
    main()
