"""Where the batches of a run come from: a set in the memory of the device, or the loader. The rows are the same."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from stackgan_dist.config import Config, DataConfig
from stackgan_dist.data.batch import Batch, BatchShape, blank_batch
from stackgan_dist.data.dataset import PackedSet
from stackgan_dist.data.device_batches import DeviceBatches
from stackgan_dist.data.device_set import DeviceSet, set_bytes
from stackgan_dist.data.loader import StepDataset, batches_under_way, in_time, make_loader
from stackgan_dist.data.loader_processes import StartMethod, start_method, start_server
from stackgan_dist.data.plan import Plan, rows_of_rank
from stackgan_dist.data.shared_memory import note_little_memory
from stackgan_dist.data.text_pool import with_pool
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.distributed.stop import StopRequest
from stackgan_dist.errors import UserError
from stackgan_dist.train.to_device import batches_on

_CUDA_GB = 4.0
"""Of --data.device-gb where it is not given: CUB and Oxford-102 at 304 pixels fit, and leave most of a device free."""


class Feed:
    """A rank's batches, on its device; every rank has to make one at the same time.

    Args:
        config: the run.
        data: its set.
        plan: which sample each row takes.
        ranks: who takes part.
        stop: whether this rank was asked to stop.

    Raises:
        UserError: the set cannot be read.
    """

    rows: range
    """Of the global batch: this rank's."""
    shape: BatchShape
    """What a step wants."""
    blank: Batch
    """A batch without content, in the host's memory, to rehearse a step with."""

    def __init__(self, config: Config, data: PackedSet, plan: Plan, ranks: Ranks, stop: StopRequest) -> None:
        self._config, self._ranks, self._stop = config, ranks, stop
        self.rows = rows_of_rank(config.training.batch_size, ranks.rank, ranks.world_size)
        self.shape = BatchShape.of(config)
        self.blank = blank_batch(self.rows, self.shape, data.index.text_dim)
        self._gb = set_bytes(data.index) / 1e9
        self._limit_gb = device_gb(config.data, ranks.device)
        self._on_device: DeviceBatches | None = None
        self._dataset: StepDataset | None = None
        pool = data.text_pool(config.training)
        self._reserve = None if pool is None else pool.on(ranks.device)
        if self._gb <= self._limit_gb:
            held = DeviceSet.read(data.index, data.cache, ranks, self.shape.placement)
            self._on_device = DeviceBatches(held, plan, self.rows, self.shape, pool)
        else:
            self._method: StartMethod = start_method(ranks.device) if config.data.workers else "fork"
            if self._method == "forkserver":
                start_server()
            self._dataset = StepDataset(
                data.index, plan, data.cache(), self.rows, self.shape, config.data.lookahead_steps,
                int(config.data.memory_gb * 1e9), pool=pool,
            )  # fmt: skip

    def __str__(self) -> str:
        if self._on_device is not None:
            return f"the set is in the memory of the device ({self._gb:.2g} GB of --data.device-gb {self._limit_gb:g})"
        workers = self._config.data.workers
        text = f"batches come from {workers} loader process{'es' if workers > 1 else ''} on each rank"
        if not workers:
            text = "batches are loaded in the rank itself"
        if self._limit_gb:
            text += f": the set takes {self._gb:.2g} GB, more than --data.device-gb {self._limit_gb:g}"
        return text

    def batches(self, first_step: int, last_step: int) -> Iterator[Batch | UserError]:
        """Those of the steps [first_step, last_step), in order; a UserError in place of one that cannot be made."""
        for batch in self._without_pools(first_step, last_step):
            yield batch if isinstance(batch, UserError) else with_pool(batch, self._reserve)

    def _without_pools(self, first_step: int, last_step: int) -> Iterator[Batch | UserError]:
        device, data = self._ranks.device, self._config.data
        if self._on_device is not None:
            for step in range(first_step, last_step):
                try:
                    yield self._on_device[step]
                except UserError as error:
                    yield error
            return
        assert self._dataset is not None
        if data.workers:
            sent = self.blank._replace(pool=None)  # which comes as a few numbers
            batch_bytes = sum(tensor.nbytes for tensor in sent if tensor is not None)
            note_little_memory(batches_under_way(data.workers) * batch_bytes)
        loader = make_loader(self._dataset, first_step, last_step, data.workers, self._method)
        # Alone, a rank that waits for data may stop; with peers it has to take the step that they are in.
        coming = in_time(
            loader, self._config.run.timeout_s, lambda: self._stop.raised, may_stop=not self._ranks.distributed
        )
        yield from batches_on(device, coming)


def device_gb(data: DataConfig, device: torch.device) -> float:
    """Gigabytes of the device's memory that a set may take."""
    if data.device_gb is not None:
        return data.device_gb
    return _CUDA_GB if device.type == "cuda" else 0.0
