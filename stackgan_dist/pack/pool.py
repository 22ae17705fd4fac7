"""The packing processes: a shard each at a time, progress on the screen, a prompt end when something goes wrong."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from typing import TypeVar

from tqdm import tqdm

from stackgan_dist.errors import UserError
from stackgan_dist.interruption import end_with_parent
from stackgan_dist.progress import ProgressLine

T = TypeVar("T")
R = TypeVar("R")

OnPicture = Callable[[], bool]
"""Called after every picture; when it answers False, the work is to be abandoned."""


class AbandonedError(Exception):
    """The parent has given up; there is no result."""


_POLL_S = 0.25


def run_tasks(
    work: Callable[[T, OnPicture], R], tasks: Sequence[T], pictures: int, workers: int, title: str
) -> Iterator[tuple[int, R]]:
    """Do `work` for all `tasks`; yields (number of the task, its result) as they finish, in any order.

    `work` is a function of a module, and tasks can be pickled; `pictures` are in all tasks together.

    When the caller stops iterating, or a task fails, what is under way is abandoned within a picture.

    Raises:
        UserError: a task's own, or a process was killed.
    """
    context = multiprocessing.get_context("spawn")  # fsspec's threads do not survive a fork
    done = context.Value("Q", 0)
    stop = context.Event()
    progress = _Progress(pictures, title)
    executor = ProcessPoolExecutor(
        max_workers=min(workers, len(tasks)), mp_context=context, initializer=_start_worker, initargs=(done, stop)
    )
    try:
        pending: dict[Future[R], int] = {executor.submit(_work, work, task): n for n, task in enumerate(tasks)}
        while pending:
            finished, _ = wait(pending, timeout=_POLL_S, return_when=FIRST_COMPLETED)
            progress.show(done.value)
            for future in finished:
                yield pending.pop(future), future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a packing process was killed, most likely for lack of memory; lower --workers or --samples-per-shard"
        ) from error
    finally:
        stop.set()
        executor.shutdown(cancel_futures=True)
        progress.close()


class _Worker:
    """What a packing process shares with its parent; such things can only be inherited, not sent with a task."""

    done: Synchronized[int]
    stop: Event


def _start_worker(done: Synchronized[int], stop: Event) -> None:
    _Worker.done, _Worker.stop = done, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches everybody; the parent decides
    end_with_parent()


def _work(work: Callable[[T, OnPicture], R], task: T) -> R:
    return work(task, _count_picture)


def _count_picture() -> bool:
    with _Worker.done.get_lock():
        _Worker.done.value += 1
    return not _Worker.stop.is_set()


class _Progress:
    """A bar on a terminal, a plain line every few seconds elsewhere (a Slurm log is no terminal)."""

    def __init__(self, total: int, title: str) -> None:
        self._line = ProgressLine(title, total, "pictures")
        self._bar = tqdm(total=total, desc=title, unit="img") if sys.stderr.isatty() else None

    def show(self, done: int) -> None:
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
        else:
            self._line.show(done, sys.stderr)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
