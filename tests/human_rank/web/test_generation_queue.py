"""The one bounded queue of jobs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from stackgan_dist.errors import UserError
from stackgan_dist.human_rank.web.generation_queue import GenerationQueue, Job, QueueFullError
from stackgan_dist.human_rank.web.limits import Rate
from stackgan_dist.human_rank.web.picture_generator import Prompt, StagedPicture


def _prompt(sentence: str) -> Prompt:
    return Prompt(sentence, None, 0, 1)


async def _finished(job: Job) -> None:
    while job.state in ("waiting", "generating"):
        await asyncio.sleep(0.005)


def test_jobs_come_one_after_the_other_and_the_queue_is_bounded() -> None:
    go = threading.Event()
    begun = []

    def generate(prompt: Prompt) -> Iterator[list[StagedPicture]]:
        go.wait()
        begun.append(prompt.sentence)
        yield [StagedPicture(())]

    async def scenario() -> None:
        queue = GenerationQueue(generate, waiting=2)
        first = queue.submit(_prompt("first"))
        while first.state == "waiting":
            await asyncio.sleep(0.005)
        jobs = [queue.submit(_prompt("second")), queue.submit(_prompt("third"))]
        assert [queue.ahead(job) for job in (first, *jobs)] == [0, 1, 2]
        with pytest.raises(QueueFullError):
            queue.submit(_prompt("fourth"))
        go.set()
        await _finished(jobs[1])
        assert begun == ["first", "second", "third"]
        assert queue.job(first.id) is first
        await _finished(queue.submit(_prompt("fourth")))

    asyncio.run(scenario())


def test_a_job_that_fails_does_not_stop_the_others() -> None:
    def generate(prompt: Prompt) -> Iterator[list[StagedPicture]]:
        if prompt.sentence == "fault":
            raise ZeroDivisionError("a secret of the server")
        if prompt.sentence == "refused":
            raise UserError("say something else")
        yield [StagedPicture(())]

    async def scenario() -> None:
        queue = GenerationQueue(generate, waiting=8)
        jobs = [queue.submit(_prompt(sentence)) for sentence in ("fault", "refused", "fine")]
        for job in jobs:
            await _finished(job)
        assert [job.state for job in jobs] == ["failed", "failed", "done"]
        assert jobs[0].error == "generating failed; the server's log says why"
        assert jobs[1].error == "say something else"

    asyncio.run(scenario())


def test_old_jobs_are_dropped() -> None:
    async def scenario() -> None:
        queue = GenerationQueue(lambda prompt: iter([[StagedPicture(())]]), waiting=8)
        jobs = []
        for number in range(20):
            jobs.append(queue.submit(_prompt(str(number))))
            await _finished(jobs[-1])
        await asyncio.sleep(0.05)
        kept = [job for job in jobs if queue.job(job.id)]
        assert kept == jobs[-16:]

    asyncio.run(scenario())


def test_a_rate_has_bursts_and_refills() -> None:
    now = [0.0]
    rate = Rate(per_s=2, burst=3, clock=lambda: now[0])
    assert [rate.wait_s("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert rate.wait_s("b") == 0
    now[0] = 0.5
    assert [rate.wait_s("a") for _ in range(2)] == [0, 0.5]
    for number in range(10_001):
        rate.wait_s(str(number))
    assert len(rate._buckets) == 10_000
