"""One batch is made while another is measured: never more, in order, and errors arrive."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import torch

from stackgan_dist import overlap
from stackgan_dist.errors import UserError
from stackgan_dist.machine import cores_of_this_rank
from stackgan_dist.overlap import made_ahead

CPU = torch.device("cpu")
SOON_S = 20.0


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "cores_of_this_rank", lambda: 2)


@dataclass(eq=False)
class Made:
    number: int


class Maker:
    """Makes numbered batches; knows how many it has begun, in which threads, and which of them are still alive."""

    def __init__(self, count: int, fails_at: int | None = None) -> None:
        self.begun = [threading.Event() for _ in range(count + 1)]
        self.threads: set[threading.Thread] = set()
        self.alive: weakref.WeakSet[Made] = weakref.WeakSet()
        self._count, self._fails_at = count, fails_at

    def batches(self) -> Iterator[Made]:
        for number in range(self._count):
            self.begun[number].set()
            self.threads.add(threading.current_thread())
            if number == self._fails_at:
                raise UserError(f"batch {number} is damaged")
            batch = Made(number)
            self.alive.add(batch)
            yield batch
            del batch


def _left() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("made-ahead")]


def test_the_next_is_made_while_one_is_measured_and_no_more_than_that() -> None:
    maker = Maker(6)
    seen = []
    for batch in made_ahead(maker.batches(), CPU):
        following = batch.number + 1
        if following < 6:
            assert maker.begun[following].wait(SOON_S), f"{following} waits for {batch.number} to be measured"
        if following + 1 < 6:
            assert not maker.begun[following + 1].wait(0.02), f"{following + 1} is made already"
        assert len(maker.alive) <= 3  # this one, the next, and what the loop has not let go of yet
        seen.append(batch.number)
    assert seen == list(range(6))
    assert not _left()


def test_an_error_arrives_in_its_place_and_the_thread_is_gone() -> None:
    maker = Maker(6, fails_at=3)
    made = made_ahead(maker.batches(), CPU)
    assert [next(made).number for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match="batch 3 is damaged"):
        next(made)
    assert not _left()
    assert threading.main_thread() not in maker.threads


def test_a_loop_that_is_left_leaves_no_thread() -> None:
    maker = Maker(6)

    def measure() -> None:
        for _ in made_ahead(maker.batches(), CPU):
            raise RuntimeError("the classifier failed")

    with pytest.raises(RuntimeError, match="the classifier failed"):
        measure()
    assert not _left()
    assert not maker.begun[2].is_set()


def test_nothing_to_make_is_nothing() -> None:
    assert list(made_ahead(Maker(0).batches(), CPU)) == []
    assert not _left()


def test_a_rank_with_one_core_takes_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "cores_of_this_rank", lambda: 1)
    maker = Maker(3)
    for batch in made_ahead(maker.batches(), CPU):
        assert not maker.begun[batch.number + 1].is_set()
    assert maker.threads == {threading.main_thread()}


def test_ranks_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert cores_of_this_rank() == 8
    for ranks, cores in ((1, 8), (3, 2), (8, 1), (16, 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
        assert cores_of_this_rank() == cores


def test_the_thread_that_makes_is_on_the_rank_s_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread begins on the first one."""
    device, current = torch.device("cuda", 3), []

    class Stream:
        making = None

        def __init__(self, _: torch.device) -> None:
            pass

        def mark(self) -> None:
            return None

    monkeypatch.setattr(overlap, "_Stream", Stream)
    monkeypatch.setattr(overlap, "hand_over", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "set_device", lambda to: current.append((threading.current_thread(), to)))
    maker = Maker(2)
    assert [batch.number for batch in made_ahead(maker.batches(), device)] == [0, 1]
    ((thread, to),) = current
    assert maker.threads == {thread}
    assert to == device
