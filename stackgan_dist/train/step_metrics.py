"""What a step measured, over all ranks, read by the host without keeping the device waiting.

On CUDA the host runs ahead of the device, and reading a number makes it wait until the device has caught up. So a
report is read one step late there: while the device works on step t + 1, the host looks at step t. Whoever is about to
save or show something asks for all of them first. On CPUs a report is there at once and nothing is late.

Every rank reads the same reports at the same steps, so all of them stop alike.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from stackgan_dist.distributed.process_group import Event, Ranks, wait_for
from stackgan_dist.runs.keeper import ALL, May
from stackgan_dist.runs.metrics import Metric, metrics_of
from stackgan_dist.runs.stragglers import RankNumbers
from stackgan_dist.train.step import StepReport

METRICS = metrics_of(StepReport)
"""Of every run, by name; runs with more terms in their losses have more."""
FLAGS = 2
"""Numbers that a report carries beside the metrics: whether to stop, and what may be done after the step."""


@dataclass(frozen=True)
class Agreed:
    """One step's report, the same on every rank."""

    step: int
    """Its number, from 0."""
    means: dict[str, float]
    """Of the run's metrics over the global batch."""
    stop: bool
    """Whether any rank had been asked to stop when it took the step."""
    may: May = ALL
    """What rank 0 lets be done after it."""
    of_ranks: tuple[RankNumbers, ...] = ()
    """What each rank measured by itself, in their order, where they were asked for it."""


class Reports:
    """Takes in the ranks' reports and gives back what they agree on.

    Args:
        ranks: who takes part; every one of them has to make the same calls.
        weight: this rank's rows over those of the global batch.
        late: how many of the newest reports may stay unread; the default is 1 on CUDA and 0 on CPUs.
        metrics: what the run's reports hold.
    """

    def __init__(
        self, ranks: Ranks, weight: float, late: int | None = None, metrics: Mapping[str, Metric] = METRICS
    ) -> None:
        self._ranks, self._weight, self._names = ranks, weight, tuple(metrics)
        self._late = (1 if ranks.device.type == "cuda" else 0) if late is None else late
        self._unread: deque[tuple[int, Tensor, Event | None]] = deque()

    def put(self, step: int, report: StepReport, *, stop: bool, may: May = ALL, own: RankNumbers | None = None) -> None:
        """Add up what the ranks have of `step`, by one collective.

        It also carries their requests to `stop`, what rank 0 says `may` be done after the step, and what this rank
        measured by itself, its `own`, in a place of its own; that is given by all or by none.
        """
        said = (float(stop), float(may if self._ranks.is_main else 0))
        assert len(said) == FLAGS
        values = torch.stack([getattr(report, name).double() for name in self._names]) * self._weight
        flags = [torch.full_like(values[:1], value) for value in said]
        message = torch.cat([values, *flags, *self._in_place(own, values)])
        if self._ranks.gather is not None:
            message = self._ranks.gather(message).sum(0)
        self._unread.append((step, *_copied(message)))

    def _in_place(self, own: RankNumbers | None, like: Tensor) -> list[Tensor]:
        """(ranks x numbers,) with `own` in this rank's place: the sum over ranks has everybody's."""
        if own is None:
            return []
        places = torch.zeros(self._ranks.world_size, len(own), dtype=like.dtype, pin_memory=like.is_cuda)
        places[self._ranks.rank] = torch.tensor(own, dtype=like.dtype)
        return [places.flatten().to(like.device, non_blocking=True)]

    def read(self, *, everything: bool = False) -> list[Agreed]:
        """The reports that are due, oldest first: all but the newest, or `everything`.

        A request to stop makes everything due, since the step that was taken meanwhile is going to be saved.
        """
        agreed: list[Agreed] = []
        while len(self._unread) > (0 if everything or any(one.stop for one in agreed) else self._late):
            step, message, copied = self._unread.popleft()
            if copied is not None:
                wait_for(copied, self._ranks.timeout_s)
            values = message.tolist()
            n = len(self._names)
            means, (stop, may), numbers = values[:n], values[n : n + 2], iter(values[n + 2 :])
            of_ranks = tuple(map(RankNumbers._make, zip(*[numbers] * len(RankNumbers._fields), strict=True)))
            named = dict(zip(self._names, means, strict=True))
            agreed.append(Agreed(step, named, stop > 0, May(round(may)), of_ranks))
        return agreed


def _copied(message: Tensor) -> tuple[Tensor, Event | None]:
    """`message` in host memory, and when it is there; at once on a CPU."""
    if not message.is_cuda:
        return message, None
    host = torch.empty_like(message, device="cpu", pin_memory=True).copy_(message, non_blocking=True)
    return host, torch.cuda.current_stream(message.device).record_event()
