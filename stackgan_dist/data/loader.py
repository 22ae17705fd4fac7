"""The rows of a rank, step by step: plan -> shard cache -> decode -> crop and flip -> batch.

A batch is a pure function of (seed, step, rows), so the loader is a map from step to batch: any number of workers
gives the same batches, and resuming means asking for a later step.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _BaseDataLoaderIter

from stackgan_dist.data.assemble import BatchPictures, BatchTexts
from stackgan_dist.data.batch import Batch, BatchShape
from stackgan_dist.data.cache import Prefetcher, ShardCache
from stackgan_dist.data.decoded import SampleDecoder
from stackgan_dist.data.index import Index
from stackgan_dist.data.kept import SampleStore
from stackgan_dist.data.loader_processes import StartMethod, begin_process, start_server
from stackgan_dist.data.placement import check_places
from stackgan_dist.data.plan import Plan
from stackgan_dist.data.planned_rows import PlannedRows
from stackgan_dist.data.shard import OpenShards, ShardReader
from stackgan_dist.data.shared_memory import describe_shared_memory
from stackgan_dist.data.text_pool import TextPool
from stackgan_dist.errors import RankError, UserError, first_line
from stackgan_dist.models.config import Placement

_SHARDS_OPEN = 64
"""At least so many are kept open, where a set has them: opening one reads all its headers."""
_AHEAD = 4
"""Batches that each loader process makes before they are asked for."""
_DEATHS = ("exited unexpectedly", "is killed by signal")
"""How torch's DataLoader says that one of its processes is gone: seen by the one who waits, or by a handler."""
_CUT_OFF = (EOFError, ConnectionError, FileNotFoundError)
"""What a rank meets where a process is gone after it announced a batch and before it handed over its memory."""
_LOOK_S = 1.0
"""How often a rank that waits for a batch looks whether it is to stop."""
_STOPPING_S = 10.0
"""How long it waits once it is."""


class StepDataset(Dataset["Batch | UserError"]):
    """`dataset[step]` is the batch of `rows` at `step`, or the UserError that kept it from being made.

    Errors are returned, since raising one in a loader process would bury its message in tracebacks. Files are opened
    lazily, hence in the process that reads them: open connections must not cross a fork.
    """

    def __init__(
        self,
        index: Index,
        plan: Plan,
        cache: ShardCache,
        rows: Sequence[int],
        shape: BatchShape,
        lookahead: int,
        memory_bytes: int = 0,
        decoder: SampleDecoder | None = None,
        pool: TextPool | None = None,
    ) -> None:
        self._index = index
        self._plan = plan
        self._cache = cache
        self._rows = rows
        self._shape = shape
        self._lookahead = lookahead
        self._draws = None if pool is None else pool.draws  # a process that is no fork is sent all that is here
        # Each row walks a lane of its own, so as many shards are in use as there are rows.
        self._shards = OpenShards(index, cache, keep=max(len(rows) + 1, _SHARDS_OPEN))
        self._with_places: set[str] = set()  # shards that are known to have what the model is told
        self._prefetcher: Prefetcher | None = None
        self._decoder = decoder or SampleDecoder(index)
        self._store = SampleStore(index, memory_bytes)

    def __getitem__(self, step: int) -> Batch | UserError:
        try:
            return self._make(step)
        except UserError as error:
            return error

    def _make(self, step: int) -> Batch:
        self._look_ahead(step)
        shape, index = self._shape, self._index
        planned = PlannedRows(index, self._plan, shape, step, self._rows)
        firsts = index.first[planned.samples[:, 0]]
        numbers = firsts + planned.samples[:, 1]
        pictures = BatchPictures(
            self._decoder, self._store, shape.image_size, planned.crops, planned.flips, numbers
        )  # fmt: skip
        texts = BatchTexts(index, self._decoder, self._store, planned)
        places_seen = np.empty((len(numbers), *shape.placement.shape), np.float32) if shape.placement else None
        classes = [""] * len(numbers)
        self._shards.close_removed()
        # Shard by shard, so that a cache of hardly any shards fetches each of them once a step.
        first = firsts.tolist()
        for n in np.argsort(planned.samples[:, 0], kind="stable").tolist():
            number, sample = planned.places[n]
            reader = self._shards[number]
            pictures.read(n, reader, sample)
            texts.read(n, reader, first[n])
            classes[n] = reader.classes.names[sample]
            if places_seen is not None and shape.placement is not None:
                self._check_places(reader, shape.placement)
                places_seen[n] = planned.place(n, reader.meta(sample), shape.placement)
        images = pictures.seen()
        text, wrong_text = texts.means()
        z, eps = planned.noise()
        pool_captions, excluded = self._drawn_pool(step, classes)
        return Batch(
            images=torch.from_numpy(images),
            text=text,
            wrong_text=wrong_text,
            z=torch.from_numpy(z),
            eps=torch.from_numpy(eps),
            samples=torch.from_numpy(planned.samples),
            place=None if places_seen is None else torch.from_numpy(planned.with_partners(places_seen)),
            excluded=excluded,
            pool_captions=pool_captions,
        )

    def _look_ahead(self, step: int) -> None:
        if self._cache.is_local:
            return
        if self._prefetcher is None:
            self._prefetcher = Prefetcher(self._cache)
        self._prefetcher.want(self._plan.shards_ahead(step, self._lookahead, self._rows))

    def _drawn_pool(self, step: int, classes: Sequence[str]) -> tuple[Tensor | None, Tensor | None]:
        """See Batch.pool_captions and Batch.excluded, for rows of these classes."""
        if self._draws is None:
            return None, None
        chosen = self._draws.choose(step, self._shape.pool)
        return torch.from_numpy(chosen.captions), torch.from_numpy(self._draws.excluded(classes, chosen.classes))

    def _check_places(self, reader: ShardReader, placement: Placement) -> None:
        """UserError where a shard that is read for the first time lacks what the model is told."""
        if reader.name not in self._with_places:
            check_places([reader.meta(number) for number in range(len(reader.keys))], placement, reader.name)
            self._with_places.add(reader.name)


class BatchLoader(DataLoader[Batch | UserError]):
    """torch's loader, without its handler of the signal SIGCHLD.

    That handler, which stays for the process's life, raises the error of a loader process's death wherever the rank is
    just then: amid an exchange with others, or a checkpoint. Whoever waits for a batch looks for the dead anyway.
    """

    def __iter__(self) -> _BaseDataLoaderIter:
        handler = signal.getsignal(signal.SIGCHLD)
        try:
            return super().__iter__()
        finally:
            # Only Python's main thread may set one, and torch does so only there; one of C code cannot be put back.
            if threading.current_thread() is threading.main_thread() and handler is not None:
                signal.signal(signal.SIGCHLD, handler)


def make_loader(
    dataset: StepDataset, first_step: int, last_step: int, workers: int, method: StartMethod = "fork"
) -> DataLoader[Batch | UserError]:
    """Batches of the steps [first_step, last_step) in order, made by `workers` processes (0: in this one).

    `method` says how these are started. They share the decoded samples either way.
    """
    if workers and method == "forkserver":
        start_server()
    return BatchLoader(
        dataset,
        batch_size=None,  # the dataset already makes whole batches
        sampler=range(first_step, last_step),
        num_workers=workers,
        prefetch_factor=_AHEAD if workers else None,
        multiprocessing_context=method if workers else None,
        worker_init_fn=begin_process,
    )


def batches_under_way(workers: int) -> int:
    """How many may be in shared memory at once: what is made ahead, and one that the rank reads."""
    return workers * _AHEAD + 1


def in_time(
    loader: DataLoader[Batch | UserError], timeout_s: float, is_stopping: Callable[[], bool], *, may_stop: bool = False
) -> Iterator[Batch | UserError]:
    """The batches of `loader`; a RankError where one does not come, however the loader's processes have ended.

    Args:
        loader: what `make_loader` returned.
        timeout_s: the longest wait for a batch.
        is_stopping: whether this rank has been asked to stop; then the wait ends after a few seconds.
        may_stop: whether the batches may end there, rather than in an error.
    """
    if loader.num_workers:
        loader.timeout = _LOOK_S
    iterator = iter(loader)
    since, asked_s = time.monotonic(), math.inf
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except (RuntimeError, *_CUT_OFF) as error:
            waited_s = time.monotonic() - since
            if _tells_a_death(error, loader.num_workers):
                raise RankError(
                    f"a loader process is gone ({first_line(error)}): it was killed, perhaps because memory ran out "
                    f"({describe_shared_memory()}); give it more, lower --data.memory-gb, or load in the rank "
                    "itself (--data.workers 0), then start again: the run resumes"
                ) from error
            if "timed out" not in str(error):
                raise
            asked_s = min(asked_s, waited_s if is_stopping() else math.inf)
            if may_stop and asked_s < math.inf:
                return
            if waited_s > min(timeout_s, asked_s + _STOPPING_S):
                raise RankError(
                    f"no batch came from the loader's processes for {waited_s:.0f} s ({describe_shared_memory()}); "
                    "look at what they print above, try --data.workers 0, or give them longer with --run.timeout-s"
                ) from error
            continue
        yield batch
        since, asked_s = time.monotonic(), math.inf


def _tells_a_death(error: Exception, workers: int) -> bool:
    """Whether `error`, met while waiting for a batch, says that one of the loader's processes is gone."""
    if isinstance(error, RuntimeError):
        return any(form in str(error) for form in _DEATHS)
    return workers > 0 and "Caught " not in str(error)  # which torch says of what is raised in such a process
