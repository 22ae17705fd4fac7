"""A set in the device's memory gives the rows of the loader, bit for bit, on any number of ranks."""

from __future__ import annotations

import dataclasses
import shutil
import tarfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from distributed.forked import run_forked

from stackgan_dist.data import device_set
from stackgan_dist.data.batch import Batch, BatchShape
from stackgan_dist.data.cache import ShardCache
from stackgan_dist.data.device_batches import DeviceBatches
from stackgan_dist.data.device_set import DeviceSet, set_bytes
from stackgan_dist.data.index import load_index
from stackgan_dist.data.loader import StepDataset
from stackgan_dist.data.plan import Plan, rows_of_rank
from stackgan_dist.data.text_pool import TextPool, with_pool
from stackgan_dist.distributed.gather import gather_alone
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.errors import UserError
from stackgan_dist.models import Placement
from stackgan_dist.presets import PAINTED_PARTS

SEED, BATCH, STEPS, POOL = 3, 7, 11, 512
ALONE = Ranks(0, 1, torch.device("cpu"), gather_alone)
SHAPE = BatchShape(image_size=64, captions_per_text=4, noise_dim=5, stages=2, condition_dim=4)
SHAPES = {
    "1 caption": dataclasses.replace(SHAPE, captions_per_text=1),
    "3 captions, box, texts between": dataclasses.replace(
        SHAPE, captions_per_text=3, placement=Placement("box"), interpolate=True
    ),
    "4 captions, pool": dataclasses.replace(SHAPE, pool=POOL),
    "10 captions, keypoints": dataclasses.replace(
        SHAPE, captions_per_text=10, placement=Placement("keypoints", PAINTED_PARTS)
    ),
    "10 captions, pool, texts between": dataclasses.replace(SHAPE, captions_per_text=10, pool=POOL, interpolate=True),
}


class Rows:
    """A small set, both ways."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        self.index = load_index(str(folder))

    def open_cache(self) -> ShardCache:
        return ShardCache(str(self.folder), self.index, self.cache, 10**9)

    def pool(self, shape: BatchShape) -> TextPool | None:
        if not shape.pool:
            return None
        return TextPool.read(self.index, self.open_cache(), SEED, shape.captions_per_text)

    def plan(self) -> Plan:
        return Plan([shard.samples for shard in self.index.shards], SEED, BATCH)

    def loaded(self, shape: BatchShape, rows: Sequence[int] = range(BATCH)) -> StepDataset:
        return StepDataset(self.index, self.plan(), self.open_cache(), rows, shape, 4, pool=self.pool(shape))

    def held(self, ranks: Ranks, shape: BatchShape, rows: Sequence[int] = range(BATCH)) -> DeviceBatches:
        data = DeviceSet.read(self.index, self.open_cache, ranks, shape.placement)
        return DeviceBatches(data, self.plan(), rows, shape, self.pool(shape))


@pytest.fixture
def rows(packed: Path, tmp_path: Path) -> Rows:
    return Rows(packed / "train" / "76", tmp_path)


def _assert_same(ours: Batch, theirs: Batch | UserError, pool: TextPool | None = None) -> None:
    assert isinstance(theirs, Batch), theirs
    ours, theirs = (with_pool(batch, pool and pool.on(torch.device("cpu"))) for batch in (ours, theirs))
    for name, tensor in ours._asdict().items():
        other = getattr(theirs, name)
        assert (tensor is None) == (other is None), name
        if tensor is not None:
            assert (tensor.dtype, tensor.shape) == (other.dtype, other.shape), name
            assert torch.equal(tensor, other), name


@pytest.mark.parametrize("name", SHAPES)
def test_rows_are_those_of_the_loader(rows: Rows, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_set, "_BLOCK_BYTES", 150_000)  # a few samples at a time
    shape = SHAPES[name]
    loaded, held = rows.loaded(shape), rows.held(ALONE, shape)
    for step in range(STEPS):  # over the end of the second epoch
        _assert_same(held[step], loaded[step], rows.pool(shape))
        assert held[step].images.is_contiguous()  # as the loader's are: a CPU's convolutions round otherwise


def test_a_rank_has_its_rows(rows: Rows) -> None:
    for world_size in (2, 3):
        for rank in range(world_size):
            mine = rows_of_rank(BATCH, rank, world_size)
            shape = SHAPES["10 captions, pool, texts between"]
            _assert_same(rows.held(ALONE, shape, mine)[2], rows.loaded(shape, mine)[2], rows.pool(shape))


def _rank(folder: str, out: str) -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    rank, world_size = dist.get_rank(), dist.get_world_size()
    device_set._SENT_BYTES = 10_000
    data = Rows(Path(folder), Path(out))
    ranks = Ranks(rank, world_size, torch.device("cpu"), None)
    shape = SHAPES["3 captions, box, texts between"]
    result: str = "same"
    try:
        held = data.held(ranks, shape, rows_of_rank(BATCH, rank, world_size))
        loaded = data.loaded(shape, rows_of_rank(BATCH, rank, world_size))
        for step in range(3):
            _assert_same(held[step], loaded[step])
    except UserError as error:
        result = str(error)
    Path(out, f"rank-{rank}.txt").write_text(result)
    dist.barrier()
    dist.destroy_process_group()


def test_ranks_read_a_share_each_and_have_all_of_it(rows: Rows, tmp_path: Path) -> None:
    run_forked(_rank, 3, str(rows.folder), str(tmp_path), log=tmp_path / "log.txt")
    assert [Path(tmp_path, f"rank-{rank}.txt").read_text() for rank in range(3)] == ["same"] * 3


def test_what_one_rank_cannot_read_all_of_them_say(rows: Rows, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(rows.folder, folder)
    last = folder / rows.index.shards[-1].name
    with tarfile.open(last) as tar:
        offset = next(member.offset_data for member in tar if member.name.endswith(".jpg"))
    with last.open("r+b") as file:
        file.seek(offset)
        file.write(b"no picture")
    run_forked(_rank, 2, str(folder), str(tmp_path), log=tmp_path / "log.txt")
    first, second = (Path(tmp_path, f"rank-{rank}.txt").read_text() for rank in range(2))
    assert first == second
    assert f"{last} has sha256" in first


def test_its_size_is_known_before_it_is_read(rows: Rows) -> None:
    data = DeviceSet.read(rows.index, rows.open_cache, ALONE, None)
    assert set_bytes(rows.index) == data.pixels.nbytes + data.texts.nbytes
