"""One bounded queue of jobs and one thread for them: a hundred visitors cannot ask for more than one machine has."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from stackgan_dist.errors import UserError
from stackgan_dist.human_rank.web.picture_generator import Prompt, StagedPicture

State = Literal["waiting", "generating", "done", "failed"]
_KEPT = 16
"""Finished jobs that are kept to be looked at; the oldest go first."""


@dataclass(eq=False)
class Job:
    """Pictures that were asked for."""

    prompt: Prompt
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    state: State = "waiting"
    pictures: list[StagedPicture] = field(default_factory=list)
    """Those generated so far: step by step, `count` of each."""
    error: str | None = None


class QueueFullError(Exception):
    """As many jobs wait as may."""


class GenerationQueue:
    """Does one job after the other in a thread, while the server goes on answering.

    Args:
        generate: makes the pictures of a prompt, in parts.
        waiting: how many jobs may wait.
    """

    def __init__(self, generate: Callable[[Prompt], Iterator[list[StagedPicture]]], waiting: int) -> None:
        self._generate, self._most = generate, waiting
        self._waiting: list[Job] = []
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._task: asyncio.Task[None] | None = None

    def submit(self, prompt: Prompt) -> Job:
        """Queue a job; QueueFullError when as many wait as may."""
        if len(self._waiting) >= self._most:
            raise QueueFullError
        job = Job(prompt)
        self._waiting.append(job)
        self._jobs[job.id] = job
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._work())
        return job

    def job(self, id: str) -> Job | None:
        """The job with this id, while it is kept."""
        return self._jobs.get(id)

    def ahead(self, job: Job) -> int:
        """How many jobs are done before this one begins."""
        return (
            0
            if job.state != "waiting"
            else self._waiting.index(job) + any(other.state == "generating" for other in self._jobs.values())
        )

    async def _work(self) -> None:
        while self._waiting:
            job = self._waiting.pop(0)
            job.state = "generating"
            try:
                await asyncio.to_thread(self._finish, job)
                job.state = "done"
            except UserError as error:
                job.state, job.error = "failed", str(error)
            except Exception:
                logging.getLogger(__name__).exception("generating failed")
                job.state, job.error = "failed", "generating failed; the server's log says why"
            finished = [other.id for other in self._jobs.values() if other.state in ("done", "failed")]
            for id in finished[:-_KEPT]:
                del self._jobs[id]

    def _finish(self, job: Job) -> None:
        for part in self._generate(job.prompt):
            job.pictures += part
