import dataclasses
import hashlib
import io
import json
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from stackgan_dist.data.index import load_index
from stackgan_dist.data.shard import ShardReader
from stackgan_dist.errors import UserError
from stackgan_dist.pack import __main__ as front_door
from stackgan_dist.pack.balance import REJECTED_NAME
from stackgan_dist.pack.data_set import pack
from stackgan_dist.pack.pool import AbandonedError
from stackgan_dist.pack.recipe import Recipe
from stackgan_dist.pack.shard_writer import Task, pack_shard
from stackgan_dist.pack.sources import SOURCES, Record
from stackgan_dist.pack.sources.painted import PaintedBirds
from stackgan_dist.storage.folder import Folder
from stackgan_dist.text.ngrams import NgramEncoder

PAINTED = Recipe("painted", "painted", "ngrams", sizes=(16, 32), splits=("train",), samples_per_shard=8, seed=1)
PICTURES = 20


class Files:
    """A source of files under a folder, CLASS-NUMBER.jpg."""

    def __init__(self, root: str | None) -> None:
        self._root = Path(root or "")

    def records(self, split: str) -> Sequence[Record]:
        paths = sorted(self._root.glob("*.jpg"))
        return [
            Record(path.stem, (f"a {path.stem} bird",), path.stem.partition("-")[0], source_id=path.name)
            for path in paths
        ]

    def picture(self, record: Record) -> bytes:
        return (self._root / record.source_id).read_bytes()


@pytest.fixture(autouse=True)
def _files_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "files", f"{__name__}:Files")


FILES = Recipe("files", "files", "ngrams", sizes=(16,), splits=("train",), samples_per_shard=8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Twelve pictures of two classes."""
    folder = tmp_path / "root"
    folder.mkdir()
    for number in range(12):
        Image.new("RGB", (40, 30), (20 * number, 0, 0)).save(folder / f"{'red' if number % 2 else 'blue'}-{number}.jpg")
    return folder


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("painted")
    pack(PAINTED, root=None, out=str(out), workers=1, limit=PICTURES)
    return out


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _readers(folder: Path) -> list[ShardReader]:
    index = load_index(str(folder))
    return [ShardReader((folder / shard.name).open("rb"), shard.name, shard.samples) for shard in index.shards]


def test_the_index_describes_the_shards(painted: Path) -> None:
    for size in PAINTED.sizes:
        folder = painted / "train" / str(size)
        index = load_index(str(folder))
        assert (index.name, index.split, index.image_size) == ("painted", "train", size)
        assert (index.text_encoder, index.text_dim, index.captions_per_image) == ("ngrams", NgramEncoder.dim, 10)
        assert index.samples == PICTURES
        assert [shard.samples for shard in index.shards] == [6, 7, 7]  # as few shards as possible, even sizes
        assert sorted(_files(folder)) == ["index.json", *(shard.name for shard in index.shards)]
        for shard in index.shards:
            data = (folder / shard.name).read_bytes()
            assert (shard.bytes, shard.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_samples_are_complete(painted: Path) -> None:
    records = {record.key: record for record in PaintedBirds().records("train")}
    encoder = NgramEncoder()
    seen = []
    for reader in _readers(painted / "train" / "32"):
        for sample, key in enumerate(reader.keys):
            record, meta = records[key], reader.meta(sample)
            seen.append(key)
            assert tuple(meta["captions"]) == record.captions
            assert (meta["class"], meta["id"]) == (record.class_name, record.source_id)
            assert meta["attributes"] == record.attributes
            assert record.box is not None
            np.testing.assert_allclose(np.array(meta["box"]) * 304, record.box, atol=1e-3)
            np.testing.assert_allclose(np.array(meta["keypoints"]["eye"]) * 304, record.keypoints["eye"], atol=1e-3)
            embeddings = reader.embeddings(sample)
            assert embeddings.dtype == np.float16
            np.testing.assert_allclose(embeddings, encoder.encode(record.captions), rtol=1e-3, atol=1e-4)
            image = Image.open(io.BytesIO(reader.jpeg(sample)))
            assert (image.size, image.mode) == ((32, 32), "RGB")
            whole = PaintedBirds().picture(record).resize((32, 32), Image.Resampling.BOX)
            assert np.abs(np.asarray(image, dtype=int) - np.asarray(whole, dtype=int)).mean() < 6
    assert len(set(seen)) == PICTURES
    assert seen != sorted(seen)  # shuffled
    assert seen == [key for reader in _readers(painted / "train" / "16") for key in reader.keys]


def test_webdataset_reads_the_shards(painted: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    folder = painted / "train" / "16"
    urls = [str(folder / shard.name) for shard in load_index(str(folder)).shards]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode("rgb8"))
    assert len(samples) == PICTURES
    for sample in samples:
        assert sample["jpg"].shape == (16, 16, 3)
        assert sample["emb.npy"].shape == (10, NgramEncoder.dim)
        assert len(sample["json"]["captions"]) == 10


def test_any_number_of_workers_writes_the_same_bytes(painted: Path, tmp_path: Path) -> None:
    pack(PAINTED, root=None, out=str(tmp_path), workers=3, limit=PICTURES)
    assert _files(tmp_path) == _files(painted)


def test_what_is_packed_stays_as_it_is(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"

    def go(recipe: Recipe = FILES, **options: bool) -> str:
        pack(recipe, root=str(root), out=str(out), workers=1, **options)
        return capsys.readouterr().out

    assert "packed files train: 12 pictures, 2 shards at 16 px" in go()
    before = _files(out)
    assert "already packed" in go()

    # another size joins: the same samples, and the first is not touched
    written = (out / "train/16/index.json").stat().st_mtime_ns
    assert "2 shards at 8 px" in go(dataclasses.replace(FILES, sizes=(16, 8)))
    assert (out / "train/16/index.json").stat().st_mtime_ns == written
    small, large = (_readers(out / "train" / size) for size in ("8", "16"))
    assert [reader.keys for reader in small] == [reader.keys for reader in large]

    # another data set does not slip in, unless told to
    with pytest.raises(UserError, match=r"train/16 holds another data set \(seed: 0 there, 5 asked for\).*--overwrite"):
        go(dataclasses.replace(FILES, seed=5))
    assert _files(out / "train/16") == _files_under(before, "train/16")
    go(dataclasses.replace(FILES, seed=5), overwrite=True)
    assert load_index(str(out / "train/16")).recipe["seed"] == 5
    go(overwrite=True)
    assert _files(out / "train/16") == _files_under(before, "train/16")

    # a picture more is another data set too
    Image.new("RGB", (40, 30)).save(root / "red-99.jpg")
    with pytest.raises(UserError, match="records: 12 there, 13 asked for"):
        go()
    (root / "red-99.jpg").unlink()

    # a damaged set is not taken for packed; leftovers of an interrupted pack go, and what is no pack's stays
    shard = out / "train/16/shard-000001.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    (out / "train/16/shard-000007.tar").write_bytes(b"left over")
    (out / "train/16/.shard-000001.abc.tar.tmp").write_bytes(b"left over")
    assert "packed files" in go()
    assert (out / "train/16/shard-000007.tar").read_bytes() == b"left over"
    (out / "train/16/shard-000007.tar").unlink()
    assert _files(out / "train/16") == _files_under(before, "train/16")


def _files_under(files: dict[str, bytes], folder: str) -> dict[str, bytes]:
    return {name.removeprefix(f"{folder}/"): data for name, data in files.items() if name.startswith(folder)}


def test_broken_pictures_are_listed_and_left_out(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    whole = (root / "red-3.jpg").read_bytes()
    (root / "red-3.jpg").write_bytes(whole[: len(whole) // 2])
    pack(FILES, root=str(root), out=str(out), workers=2, max_rejects=0.1)
    index = load_index(str(out / "train/16"))
    assert index.samples == 11
    assert "red-3" not in [key for reader in _readers(out / "train/16") for key in reader.keys]
    (entry,) = [json.loads(line) for line in (out / "train" / REJECTED_NAME).read_text().splitlines()]
    assert (entry["key"], entry["id"]) == ("red-3", "red-3.jpg")
    assert "truncated" in entry["reason"].lower()

    (root / "red-3.jpg").write_bytes(whole)  # mended: packed whole, and the list is gone
    pack(FILES, root=str(root), out=str(out), workers=1, overwrite=True)
    assert load_index(str(out / "train/16")).samples == 12
    assert not (out / "train" / REJECTED_NAME).exists()


def test_too_many_broken_pictures_stop_the_pack(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (root / "red-3.jpg").write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"1 of 12 .* cannot be used.*--max-rejects 0\.05(.|\n)*red-3\.jpg: .*identify"):
        pack(FILES, root=str(root), out=str(out), workers=1, max_rejects=0.05)
    assert not (out / "train/16/index.json").exists()
    assert not list(out.rglob("*.tmp"))
    assert "red-3" in (out / "train" / REJECTED_NAME).read_text()


def test_a_shard_needs_two_classes(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"one class only.*Raise --samples-per-shard \(2\)"):
        pack(dataclasses.replace(FILES, samples_per_shard=2), root=str(root), out=str(tmp_path / "out"), workers=1)
    for path in root.glob("blue-*"):
        path.unlink()
    with pytest.raises(UserError, match="6 pictures of the split 'train' are of one class"):
        pack(FILES, root=str(root), out=str(tmp_path / "out"), workers=1)
    assert not (tmp_path / "out").exists()


def test_remote_shards_are_the_same_bytes(painted: Path) -> None:
    source = PaintedBirds()
    records = {record.key: record for record in source.records("train")}
    local = painted / "train" / "16"
    first = load_index(str(local)).shards[0]
    task = Task(
        source,
        tuple(records[key] for key in _readers(local)[0].keys),
        "ngrams",
        (),
        ((16, Folder.at("memory://packed/train/16")),),
        first.name,
    )
    packed = pack_shard(task)
    assert packed.shards == {16: first}
    assert fsspec.filesystem("memory").cat_file(f"/packed/train/16/{first.name}") == (local / first.name).read_bytes()


def test_pictures_are_read_ahead_and_stay_in_order(root: Path, tmp_path: Path) -> None:
    """A store answers each request after a while: four that wait for each other would wait for ever one by one."""
    together = threading.Barrier(4)

    class Slow(Files):
        def picture(self, record: Record) -> bytes:
            together.wait(timeout=20)
            if record.key == "red-5":
                raise OSError("gone")
            return super().picture(record)

    source = Slow(str(root))
    records = tuple(source.records("train"))
    folders = ((16, Folder.at(tmp_path / "slow")),)
    packed = pack_shard(Task(source, records, "ngrams", (), folders, "x.tar"))
    assert [entry["reason"] for entry in packed.rejected] == ["OSError: gone"]
    plain = tuple(record for record in records if record.key != "red-5")
    again = pack_shard(Task(Files(str(root)), plain, "ngrams", (), ((16, Folder.at(tmp_path / "plain")),), "x.tar"))
    assert packed.shards == again.shards


def test_an_abandoned_shard_leaves_nothing(tmp_path: Path) -> None:
    source = PaintedBirds()
    task = Task(
        source, tuple(source.records("train")[:3]), "ngrams", (), ((16, Folder.at(tmp_path)),), "shard-000000.tar"
    )
    with pytest.raises(AbandonedError):
        pack_shard(task, lambda: False)
    assert not list(tmp_path.iterdir())


def test_the_front_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["pack", *arguments])
        front_door.main()

    run("painted", "--out", str(tmp_path), "--sizes", "16", "--splits", "test", "--limit", "4", "--workers", "1")
    assert load_index(str(tmp_path / "test" / "16")).samples == 4
    assert not (tmp_path / "train").exists()
    for arguments, message in {
        ("birds",): "no recipe called 'birds'",
        ("oxford102", "--out", str(tmp_path / "flowers")): "--root",
        ("painted", "--workers", "0"): "at least 1",
    }.items():
        with pytest.raises(SystemExit) as stopped:
            run(*arguments)
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err
