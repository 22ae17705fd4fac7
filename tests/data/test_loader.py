"""A rank's rows: a pure function of (seed, step, rows), whoever computes them, and true to the packed pictures."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import pickle
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image

from stackgan_dist import randomness
from stackgan_dist.data.batch import Batch, BatchShape
from stackgan_dist.data.cache import ShardCache
from stackgan_dist.data.index import Index, load_index, stored_size
from stackgan_dist.data.loader import StepDataset, make_loader
from stackgan_dist.data.plan import Plan
from stackgan_dist.data.rows import RowDraws
from stackgan_dist.data.shard import ShardReader
from stackgan_dist.errors import UserError
from stackgan_dist.models import Placement
from stackgan_dist.presets import PAINTED_PARTS
from stackgan_dist.randomness import Stream

SHAPE = BatchShape(
    image_size=64, captions_per_text=3, noise_dim=5, stages=2, condition_dim=4, placement=Placement("box")
)
BATCH = 7
SEED = 3


def _dataset(
    folder: Path, rows: Sequence[int] = range(BATCH), shape: BatchShape = SHAPE, memory_bytes: int = 0
) -> StepDataset:
    index = load_index(str(folder))
    plan = Plan([shard.samples for shard in index.shards], SEED, BATCH)
    cache = ShardCache(str(folder), index, folder / "cache", 10**9)
    return StepDataset(index, plan, cache, rows, shape, lookahead=4, memory_bytes=memory_bytes)


def _batch(dataset: StepDataset, step: int) -> Batch:
    batch = dataset[step]
    assert isinstance(batch, Batch), batch
    return batch


def _tensors(batch: Batch) -> dict[str, torch.Tensor]:
    """What a batch of SHAPE has: all but the pool of texts, which test_text_pool.py is about."""
    present = {name: tensor for name, tensor in batch._asdict().items() if tensor is not None}
    assert present.keys() == set(Batch._fields) - {"pool", "excluded", "pool_captions"}
    return present


def _assert_same(ours: Batch, theirs: Batch) -> None:
    for name, tensor in _tensors(ours).items():
        assert torch.equal(tensor, _tensors(theirs)[name]), name


def _drawn(step: int, rows: Sequence[int]) -> RowDraws:
    return RowDraws(SEED, step, rows, list(Stream))


def _captions(stream: Stream, step: int, row: int) -> list[int]:
    ((chosen,),) = _drawn(step, [row]).captions((stream,), 10, 3)
    return chosen.tolist()


@pytest.fixture
def folder(packed: Path) -> Path:
    return packed / "train" / "76"


class Reference:
    """The definition of a row, without any of the loader's shortcuts."""

    def __init__(self, folder: Path) -> None:
        self.index = load_index(str(folder))
        self.readers = [
            ShardReader((folder / shard.name).open("rb"), shard.name, shard.samples) for shard in self.index.shards
        ]

    def picture(self, shard: int, sample: int) -> Image.Image:
        return Image.open(io.BytesIO(self.readers[shard].jpeg(sample)))

    def text(self, shard: int, sample: int, chosen: Sequence[int]) -> np.ndarray:
        return self.readers[shard].embeddings(sample)[list(chosen)].astype(np.float64).mean(axis=0)


def test_crops_and_flips_are_those_of_pillow(folder: Path) -> None:
    reference, dataset = Reference(folder), _dataset(folder)
    seen = set()
    for step in range(5):
        batch = _batch(dataset, step)
        assert (batch.images.shape, batch.images.dtype) == ((BATCH, 3, 64, 64), torch.uint8)
        crops, flips = _drawn(step, range(BATCH)).crops_and_flips(76 - 64)
        for row, (shard, sample) in enumerate(batch.samples.tolist()):
            left, top = crops[row].tolist()
            expected = reference.picture(shard, sample).crop((left, top, left + 64, top + 64))
            if flips[row]:
                expected = expected.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            np.testing.assert_array_equal(batch.images[row].permute(1, 2, 0).numpy(), np.asarray(expected))
            seen.add((bool(flips[row]), left != top))
    assert len(seen) >= 3  # both kinds of flips, and crops that would show left and top interchanged


def test_crops_reach_every_corner() -> None:
    crops = np.concatenate([_drawn(step, range(64)).crops_and_flips(12)[0] for step in range(20)])
    assert (crops.min(axis=0).tolist(), crops.max(axis=0).tolist()) == ([0, 0], [12, 12])
    assert abs(np.corrcoef(crops.T)[0, 1]) < 0.1


def test_texts_are_means_of_distinct_captions_of_the_picture(folder: Path) -> None:
    reference, dataset = Reference(folder), _dataset(folder)
    for step in range(3):
        batch = _batch(dataset, step)
        for row, (shard, sample) in enumerate(batch.samples.tolist()):
            chosen = _captions(Stream.CAPTION, step, row)
            assert len(set(chosen)) == 3
            np.testing.assert_allclose(batch.text[row], reference.text(shard, sample, chosen), rtol=1e-5, atol=1e-6)


def test_texts_between_two_belong_to_odd_rows_whoever_has_them(folder: Path) -> None:
    reference = Reference(folder)
    shape = dataclasses.replace(SHAPE, interpolate=True)
    whole = [_batch(_dataset(folder, shape=shape), step) for step in range(3)]
    plain = [_batch(_dataset(folder), step) for step in range(3)]
    for step, (batch, without) in enumerate(zip(whole, plain, strict=True)):
        odd = [1, 3, 5]
        assert [len(part) for part in (batch.images, batch.text, batch.z, batch.eps)] == [7, 10, 10, 10]
        for ours, theirs in zip(batch[:5], without[:5], strict=True):
            assert torch.equal(ours[:BATCH], theirs)  # the rows themselves are not touched
        for row, text in zip(odd, batch.text[BATCH:], strict=True):
            shard = int(batch.samples[row, 0])
            (point,) = _drawn(step, [row]).points(Stream.PARTNER_SAMPLE)
            partner = randomness.pick(point, len(reference.readers[shard].keys))
            chosen = _captions(Stream.PARTNER_CAPTION, step, row)
            expected = (batch.text[row].numpy() + reference.text(shard, partner, chosen)) / 2
            np.testing.assert_allclose(text, expected, rtol=1e-5, atol=1e-6)
    for rows in (range(0, 2), range(2, 5), range(3, 4), range(4, 5)):
        mine = _batch(_dataset(folder, rows, shape), 2)
        more = [BATCH + row // 2 for row in rows if row % 2]
        for ours, all_rows in ((mine.text, whole[2].text), (mine.z, whole[2].z), (mine.eps, whole[2].eps)):
            assert torch.equal(ours, all_rows[[*rows, *more]])
    texts = torch.cat([batch.z[BATCH:] for batch in whole])
    assert len(texts.unique(dim=0)) == len(texts)


def test_partners_are_of_every_class() -> None:
    partners = [
        randomness.pick(point, 8)
        for step in range(50)
        for point in _drawn(step, range(4)).points(Stream.PARTNER_SAMPLE)
    ]
    assert set(partners) == set(range(8))


@pytest.mark.parametrize("interpolate", [False, True])
def test_places_follow_the_pixels(packed: Path, interpolate: bool) -> None:
    """A keypoint is moved like the picture: it has the crop's pixel under it that the stored picture has there."""
    folder = packed / "train" / "152"
    reference = Reference(folder)
    shape = dataclasses.replace(
        SHAPE, image_size=128, interpolate=interpolate, placement=Placement("keypoints", PAINTED_PARTS)
    )
    batch = _batch(_dataset(folder, shape=shape), 1)
    assert batch.place is not None
    assert batch.place.shape == (10 if interpolate else 7, 10, 3)
    if interpolate:
        assert torch.equal(batch.place[BATCH:], batch.place[[1, 3, 5]])
    seen = 0
    for row, (shard, sample) in enumerate(batch.samples.tolist()):
        stored = np.asarray(reference.picture(shard, sample))
        points = reference.readers[shard].meta(sample)["keypoints"]
        for name, (x, y, visible) in zip(PAINTED_PARTS, batch.place[row].tolist(), strict=True):
            column, line = (min(int(fraction * 128), 127) for fraction in (x, y))
            if visible:
                # To a pixel: the mirror image of a pixel's left edge is its right edge.
                there = stored[
                    int(points[name][1] * 152), max(int(points[name][0] * 152) - 1, 0) : int(points[name][0] * 152) + 2
                ]
                assert (np.abs(there.astype(int) - batch.images[row, :, line, column].numpy()).max(axis=1) == 0).any()
                seen += 1
    assert seen > 40


def test_a_set_without_places_is_refused(packed: Path, tmp_path: Path) -> None:
    folder = packed / "train" / "152"
    shape = dataclasses.replace(SHAPE, image_size=128, placement=Placement("keypoints", ("left wing",)))
    error = _dataset(folder, shape=shape)[0]
    assert isinstance(error, UserError)
    assert "has the keypoints back, beak" in str(error)
    assert "--model.keypoints" in str(error)


def test_wrong_texts_are_of_another_class(folder: Path) -> None:
    reference, dataset = Reference(folder), _dataset(folder)
    for step in range(5):
        batch = _batch(dataset, step)
        for row, (shard, sample) in enumerate(batch.samples.tolist()):
            reader = reference.readers[shard]
            chosen = _captions(Stream.WRONG_CAPTION, step, row)
            matches = [
                other
                for other in range(len(reader.keys))
                if np.allclose(batch.wrong_text[row], reference.text(shard, other, chosen), rtol=1e-5, atol=1e-6)
            ]
            assert matches
            assert all(reader.meta(other)["class"] != reader.meta(sample)["class"] for other in matches)


def test_shapes_and_noise(folder: Path) -> None:
    batch = _batch(_dataset(folder), 2)
    assert batch.text.shape == batch.wrong_text.shape == (BATCH, 256)
    assert (batch.z.shape, batch.eps.shape) == ((BATCH, 5), (BATCH, 2, 4))
    assert {t.dtype for t in (batch.text, batch.wrong_text, batch.z, batch.eps)} == {torch.float32}
    assert len(torch.cat([batch.z.flatten(), batch.eps.flatten()]).unique()) == BATCH * (5 + 2 * 4)


def test_rows_are_those_of_the_plan_and_an_epoch_repeats_nothing(folder: Path) -> None:
    dataset = _dataset(folder)
    plan = Plan([shard.samples for shard in load_index(str(folder)).shards], SEED, BATCH)
    for epoch in range(2):
        consumed = []
        for step in range(epoch * 5, epoch * 5 + 5):
            places = [tuple(place) for place in _batch(dataset, step).samples.tolist()]
            assert places == plan.locate(step, range(BATCH))
            consumed += places
        assert len(set(consumed)) == len(consumed) == 35


def test_ranks_divide_the_rows_of_one_batch(folder: Path) -> None:
    whole = _batch(_dataset(folder), 6)
    parts = [_batch(_dataset(folder, rows), 6) for rows in (range(2), range(2, 4), range(4, 7))]
    for field, tensor in _tensors(whole).items():
        assert torch.equal(tensor, torch.cat([getattr(part, field) for part in parts])), field


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_batches(folder: Path, workers: int) -> None:
    here = [_batch(_dataset(folder), step) for step in range(3, 9)]
    there = list(make_loader(_dataset(folder), 3, 9, workers))
    assert len(there) == len(here)
    for ours, theirs in zip(here, there, strict=True):
        assert isinstance(theirs, Batch)
        _assert_same(ours, theirs)


def _memory_for(folder: Path, *, pictures: bool) -> int:
    """Bytes that the embeddings of a set take, with or without its pictures."""
    index = load_index(str(folder))
    return index.samples * (index.captions_per_image * index.text_dim * 2 + pictures * 3 * index.image_size**2)


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("pictures", [False, True])
@pytest.mark.parametrize("interpolate", [False, True])
def test_batches_are_the_same_from_memory(folder: Path, workers: int, pictures: bool, interpolate: bool) -> None:
    """Bit for bit, in the epoch that fills the store and in two that use it."""
    shape = dataclasses.replace(SHAPE, interpolate=interpolate)
    rows = range(2, BATCH)
    from_files = [_batch(_dataset(folder, rows, shape), step) for step in range(15)]
    kept = _dataset(folder, rows, shape, _memory_for(folder, pictures=pictures))
    for ours, theirs in zip(from_files, make_loader(kept, 0, 15, workers), strict=True):
        assert isinstance(theirs, Batch)
        _assert_same(ours, theirs)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_in_memory_is_decoded_once(folder: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    decoded = torch.zeros(1, dtype=torch.int64).share_memory_()
    decode = simplejpeg.decode_jpeg

    def counting(*arguments: object, **options: object) -> object:
        decoded.add_(1)
        return decode(*arguments, **options)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", counting)
    once = 40 * max(1, workers)  # workers that miss the same picture at the same moment each decode it
    for enough, expected in ((_memory_for(folder, pictures=True), once), (_memory_for(folder, pictures=True) - 1, 175)):
        decoded.zero_()
        dataset = _dataset(folder, memory_bytes=enough)
        assert len(list(make_loader(dataset, 0, 25, workers))) == 25
        # 5 of 40 samples are left over in an epoch, and may come in a later one or never.
        assert 35 <= decoded.item() <= expected
        assert (decoded.item() > once) == (expected > once)


def test_a_data_set_that_is_pickled_by_itself_fills_a_store_of_its_own(folder: Path) -> None:
    dataset = _dataset(folder, memory_bytes=_memory_for(folder, pictures=True))
    elsewhere = pickle.loads(pickle.dumps(dataset))  # before it has opened files, and not at a process's start
    first = _batch(dataset, 0)
    assert dataset._store.pictures is not None
    assert elsewhere._store.pictures is not None
    assert dataset._store.pictures.content.any()
    assert not elsewhere._store.pictures.content.any()
    _assert_same(first, _batch(elsewhere, 0))


def test_a_step_does_not_depend_on_the_steps_before(folder: Path) -> None:
    dataset = _dataset(folder)
    for step in (11, 0, 4):
        _batch(dataset, step)
    _assert_same(_batch(dataset, 7), _batch(_dataset(folder), 7))


def _damaged(folder: Path, out: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """A copy of a set whose members went through `change`, with an index that knows nothing of it but digests."""
    shutil.copytree(folder, out)
    index = load_index(str(folder))
    shards = []
    for shard in index.shards:
        with tarfile.open(folder / shard.name) as source, tarfile.open(out / shard.name, "w") as target:
            for member in source:
                data = change(member.name, source.extractfile(member).read())  # type: ignore[union-attr]
                member.size = len(data)
                target.addfile(member, io.BytesIO(data))
        content = (out / shard.name).read_bytes()
        shards.append(dataclasses.replace(shard, bytes=len(content), sha256=hashlib.sha256(content).hexdigest()))
    _write_index(out, dataclasses.replace(index, shards=tuple(shards)))
    return out


def _write_index(folder: Path, index: Index) -> None:
    (folder / "index.json").write_bytes(index.to_bytes())


def _small_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (60, 70)).save(buffer, "jpeg")
    return buffer.getvalue()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:300], r"the picture of painted-\d+ cannot be decoded"),
        (lambda data: _small_jpeg(), r"the picture of painted-\d+ is 60x70, its index says 76x76; pack the set again"),
    ],
)
def test_damaged_pictures_come_back_as_user_errors(
    folder: Path, tmp_path: Path, damage: Callable[[bytes], bytes], message: str, workers: int
) -> None:
    broken = _damaged(folder, tmp_path / "set", lambda name, data: damage(data) if name.endswith("jpg") else data)
    found = list(make_loader(_dataset(broken), 0, 2, workers))
    assert len(found) == 2
    for error in found:
        assert isinstance(error, UserError)
        with pytest.raises(UserError, match=message):
            raise error


def _saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("pictures", [None, False])
def test_embeddings_in_another_layout_are_read_as_well(folder: Path, tmp_path: Path, pictures: bool | None) -> None:
    def changed(name: str, data: bytes) -> bytes:
        if not name.endswith("emb.npy"):
            return data
        array = np.load(io.BytesIO(data))
        # as many bytes in another order, or twice as many
        return _saved(np.asfortranarray(array) if name.endswith("0.emb.npy") else array.astype(np.float32))

    other = _damaged(folder, tmp_path / "set", changed)
    memory = 0 if pictures is None else _memory_for(folder, pictures=pictures)
    for step in range(3):
        _assert_same(_batch(_dataset(other, memory_bytes=memory), step), _batch(_dataset(folder), step))


def test_embeddings_of_another_shape_come_back_as_user_errors(folder: Path, tmp_path: Path) -> None:
    shorter = lambda name, data: _saved(np.load(io.BytesIO(data))[:, :-1]) if name.endswith("npy") else data  # noqa: E731
    error = _dataset(_damaged(folder, tmp_path / "set", shorter))[0]
    assert isinstance(error, UserError)
    assert "the embeddings of painted-" in str(error)
    assert "its index says (10, 256); pack the set again" in str(error)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_missing_shard_is_met_where_it_is_needed(folder: Path, tmp_path: Path, workers: int) -> None:
    shutil.copytree(folder, tmp_path / "set")
    index = load_index(str(folder))
    plan = Plan([shard.samples for shard in index.shards], SEED, BATCH)
    needed = [plan.locate(step, [4])[0][0] for step in range(5)]
    missing = needed[-1]
    assert 0 < needed.index(missing) < 5
    (tmp_path / "set" / index.shards[missing].name).unlink()
    loader = make_loader(_dataset(tmp_path / "set", [4]), 0, 5, workers)
    for shard, batch in zip(needed, loader, strict=True):
        assert isinstance(batch, UserError) == (shard == missing)
        assert isinstance(batch, Batch) or index.shards[missing].name in str(batch)


@pytest.mark.parametrize(("image_size", "stored"), [(64, 76), (128, 152), (256, 304)])
def test_stored_pictures_are_76_for_64(image_size: int, stored: int) -> None:
    assert stored_size(image_size) == stored
