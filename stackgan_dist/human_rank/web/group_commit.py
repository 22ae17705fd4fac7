"""Many votes, one write to the disk: what arrives while a commit is under way goes into the next one together.

A disk that syncs a hundred times a second would else serve a hundred votes a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from stackgan_dist.human_rank.study.rating import InvalidRankingError, OutOfTurnError, UnknownRaterError
from stackgan_dist.human_rank.study.votes import Votes

T = TypeVar("T")
_Work = tuple[Callable[[], Any], "asyncio.Future[Any]"]
_REFUSALS = (UnknownRaterError, OutOfTurnError, InvalidRankingError)


class GroupCommit:
    """Runs work on the votes in transactions, one at a time, in the order of arrival."""

    def __init__(self, votes: Votes) -> None:
        self._votes = votes
        self._waiting: list[_Work] = []
        self._task: asyncio.Task[None] | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or refuses, once all that it wrote is on the disk.

        Another exception than a refusal takes back the transaction, and everyone in it gets the exception.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._commit_all())
        return await future

    async def _commit_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                outcomes = await asyncio.to_thread(self._commit, [work for work, _ in batch])
            except Exception as error:
                outcomes = [(None, error)] * len(batch)
            for (_, future), (result, fault) in zip(batch, outcomes, strict=True):
                if future.done():  # its client has gone
                    continue
                if fault is None:
                    future.set_result(result)
                else:
                    future.set_exception(fault)

    def _commit(self, batch: list[Callable[[], Any]]) -> list[tuple[Any, Exception | None]]:
        outcomes: list[tuple[Any, Exception | None]] = []
        with self._votes.transaction():
            for work in batch:
                try:
                    outcomes.append((work(), None))
                except _REFUSALS as refusal:  # raised before anything was written
                    outcomes.append((None, refusal))
        return outcomes
