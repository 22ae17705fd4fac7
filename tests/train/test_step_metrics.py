"""What ranks agree on, how late it is read, and what reaches the device."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stackgan_dist.data.batch import Batch
from stackgan_dist.distributed.gather import gather_alone
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.errors import UserError
from stackgan_dist.runs.keeper import May
from stackgan_dist.runs.stragglers import RankNumbers
from stackgan_dist.train.step import StepReport
from stackgan_dist.train.step_metrics import METRICS, Reports
from stackgan_dist.train.to_device import batches_on, to_device

ALONE = Ranks(0, 1, torch.device("cpu"), gather_alone)


def _report(value: float) -> StepReport:
    return StepReport(*(torch.tensor(value + n) for n in range(len(METRICS))))


def _steps(reports: Reports, *, everything: bool = False) -> list[int]:
    return [agreed.step for agreed in reports.read(everything=everything)]


def test_on_a_cpu_nothing_is_late() -> None:
    reports = Reports(ALONE, 1.0)
    for step in range(3):
        reports.put(step, _report(step), stop=False)
        (agreed,) = reports.read()
        assert agreed.step == step
        assert agreed.means == {name: float(step + n) for n, name in enumerate(METRICS)}


def test_late_reports_keep_the_newest_back() -> None:
    reports = Reports(ALONE, 1.0, late=1)
    read = []
    for step in range(3):
        reports.put(step, _report(step), stop=False)
        read.append(_steps(reports))
    assert read == [[], [0], [1]]
    assert _steps(reports, everything=True) == [2]
    assert _steps(reports, everything=True) == []


def test_a_stop_makes_the_step_after_it_due() -> None:
    reports = Reports(ALONE, 1.0, late=1)
    reports.put(0, _report(0), stop=True)
    assert _steps(reports) == []
    reports.put(1, _report(1), stop=False)
    agreed = reports.read()
    assert [(one.step, one.stop) for one in agreed] == [(0, True), (1, False)]


def test_ranks_add_up_and_any_of_them_stops() -> None:
    """This rank has 3 of 4 rows; the other one has 10 everywhere and wants to stop."""

    def gather(part: Tensor) -> Tensor:
        other = torch.full_like(part, 10 * 0.25)
        other[-2:] = torch.tensor([1, 0])
        return torch.stack([part, other])

    reports = Reports(Ranks(0, 2, torch.device("cpu"), gather), 0.75)
    reports.put(7, _report(2), stop=False, may=May.SAVE | May.SHOW)
    (agreed,) = reports.read()
    assert agreed.stop
    assert agreed.may == May.SAVE | May.SHOW
    assert agreed.means["discriminator_loss"] == pytest.approx(0.75 * 2 + 2.5, rel=1e-12)


def test_what_each_rank_measured_by_itself_travels_along() -> None:
    """This is rank 1 of 3; the means and the stop flag are what they are without it."""
    others = {0: RankNumbers(0.5, 1e-3, 4e9), 2: RankNumbers(0.0, 3e-3, 6e9)}
    own = RankNumbers(0.25, 2e-3, 5e9)

    def gather(part: Tensor) -> Tensor:
        parts = [part]
        for rank, numbers in others.items():
            other = torch.zeros(len(METRICS) + 2 + 9, dtype=part.dtype)
            other[len(METRICS) + 2 + 3 * rank :][:3] = torch.tensor(numbers, dtype=part.dtype)
            parts.append(other)
        return torch.stack(parts)

    reports = Reports(Ranks(1, 3, torch.device("cpu"), gather), 1.0)
    reports.put(0, _report(2), stop=False, own=own)
    (agreed,) = reports.read()
    assert agreed.of_ranks == (others[0], own, others[2])
    assert agreed.means == {name: float(2 + n) for n, name in enumerate(METRICS)}
    assert not agreed.stop
    alone = Reports(ALONE, 1.0)
    alone.put(0, _report(2), stop=False)
    assert alone.read()[0].of_ranks == ()


def test_sums_over_ranks_are_made_in_float64() -> None:
    report = _report(0)
    report.kl = torch.tensor(1 + 2**-40, dtype=torch.float64)
    reports = Reports(ALONE, 1.0)
    reports.put(0, report, stop=False)
    (agreed,) = reports.read()
    assert agreed.means["kl"] == 1 + 2**-40


def test_batches_and_errors_come_in_order() -> None:
    batch = Batch(*(torch.zeros(1) for _ in range(6)))
    error = UserError("broken")
    first, second = batches_on(torch.device("cpu"), [batch, error])
    assert isinstance(first, Batch)
    assert first.place is None
    assert second is error


def test_other_ranks_do_not_say_what_may_be_done() -> None:
    reports = Reports(Ranks(1, 2, torch.device("cpu"), gather_alone), 0.5)
    reports.put(0, _report(0), stop=False, may=May.SAVE)
    (agreed,) = reports.read()
    assert agreed.may == May(0)


def test_a_batch_reaches_a_device_by_one_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that keeps shapes and no numbers stands for CUDA."""
    copies: list[int] = []
    move = Tensor.to

    def counted(self: Tensor, *args: object, **options: object) -> Tensor:
        copies.append(self.nbytes)
        return move(self, *args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Tensor, "to", counted)
    batch = Batch(
        torch.zeros(2, 3, 4, 4, dtype=torch.uint8), *(torch.zeros(2, n) for n in (5, 5, 7)), torch.zeros(2, 1, 3),
        torch.zeros(2, 2, dtype=torch.int64), excluded=torch.zeros(2, 4, dtype=torch.bool),
    )  # fmt: skip
    found = to_device(batch, torch.device("meta"))
    assert len(copies) == 1
    for ours, theirs in zip(found, batch, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert (ours.device.type, ours.shape, ours.dtype) == ("meta", theirs.shape, theirs.dtype)
