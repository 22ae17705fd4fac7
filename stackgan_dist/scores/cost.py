"""What a set of scores costs, said before it begins: how many pictures, and how long, from a batch that is timed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.scores.judges import Judges
from stackgan_dist.scores.picture_sums import PictureBatch
from stackgan_dist.scores.protocol import ScoreProtocol
from stackgan_dist.scores.real_side import Recipe, is_kept

_WORTH_TIMING = 20
"""Of fewer batches the timed ones would be a large part of the work."""
_MINUTE_S, _HOUR_S = 60, 3_600


def announce(
    what: str,
    samples: int,
    batches: Iterable[PictureBatch],
    batch_size: int,
    recipe: Recipe | None,
    judges: Judges,
    protocol: ScoreProtocol,
    ranks: Ranks,
    folder: str | None,
) -> None:
    """Say on rank 0 what there is to do and about how long it takes; all ranks call it, and each times batches.

    Args:
        what: the kind of pictures that are scored, in the plural.
        samples: how many there are.
        batches: two of them or more, which are made, judged and thrown away.
        batch_size: pictures in a batch of any kind.
        recipe: of the real side; None where it is a statistics file.
        judges: who looks.
        protocol: how much of everything.
        ranks: all of them take part.
        folder: where the real side is kept, if anywhere.
    """
    parts = [(samples, what, batches)]
    known = ""
    if recipe is not None:
        place = "" if folder is None else f" in {folder}"
        if is_kept(recipe, judges, protocol, ranks, folder):
            known = f"; {recipe.real.count:,} real pictures were measured before, which is kept{place}"
        else:
            known = f"; what is measured of real pictures is kept{place}" if place else ""
            parts.append((recipe.real.count, "real pictures", recipe.real.batches(0, 1)))
            if recipe.training is not None:
                parts.append((recipe.training.count, "training pictures", recipe.training.batches(0, 1)))
    text = f"to look at: {', '.join(f'{count:,} {kind}' for count, kind, _ in parts)}{known}"
    if sum(count for count, _, _ in parts) >= _WORTH_TIMING * batch_size:
        seconds = sum(_seconds_of_a_batch(iter(some), judges) * -(-count // batch_size) for count, _, some in parts)
        text += f": about {_duration(seconds / ranks.world_size)} on {ranks.world_size} rank(s)"
    if ranks.is_main:
        print(text, flush=True)


def _seconds_of_a_batch(batches: Iterator[PictureBatch], judges: Judges) -> float:
    """To make a batch and look at it; the first one warms up and is not counted, where there is another."""
    seconds = 0.0
    for _ in range(2):
        begin = time.perf_counter()
        if (batch := next(batches, None)) is not None:
            judges.look(batch.images).features[-1].cpu()  # the device is done then
            seconds = time.perf_counter() - begin
    return seconds


def _duration(seconds: float) -> str:
    if seconds < 1.5 * _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < 1.5 * _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    return f"{seconds / _HOUR_S:.1f} h"
