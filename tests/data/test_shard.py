"""Random access to a shard: the same samples as webdataset reads, and nothing damaged passes for whole."""

from __future__ import annotations

import io
import json
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset

from stackgan_dist.data.index import load_index
from stackgan_dist.data.shard import ShardReader
from stackgan_dist.errors import UserError

SAMPLES = 7


@pytest.fixture
def shard(packed: Path) -> Path:
    """A shard of SAMPLES pictures."""
    folder = packed / "train" / "76"
    first = load_index(str(folder)).shards[0]
    assert first.samples == SAMPLES
    return folder / first.name


def _reader(path: Path, samples: int = SAMPLES) -> ShardReader:
    return ShardReader(path.open("rb"), path.name, samples)


def _tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return path


def _members(path: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(path) as tar:
        return [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]


def test_random_access_gives_what_webdataset_gives(shard: Path) -> None:
    reader = _reader(shard)
    theirs = list(webdataset.WebDataset(str(shard), shardshuffle=False))
    assert [sample["__key__"] for sample in theirs] == reader.keys
    order = [*range(SAMPLES), *range(SAMPLES)]
    random.Random(0).shuffle(order)
    for sample in order:
        assert reader.jpeg(sample) == theirs[sample]["jpg"]
        assert reader.meta(sample) == json.loads(theirs[sample]["json"])
        np.testing.assert_array_equal(reader.embeddings(sample), np.load(io.BytesIO(theirs[sample]["emb.npy"])))


def test_a_wrong_text_comes_from_another_class(tmp_path: Path) -> None:
    classes = ["a", "b", "a", "c", "a"]
    path = _tar(tmp_path / "s.tar", [(f"{n}.json", json.dumps({"class": c}).encode()) for n, c in enumerate(classes)])
    reader = _reader(path, len(classes))
    for sample, name in enumerate(classes):
        others = [n for n, other in enumerate(classes) if other != name]
        assert [reader.classes.other(sample, (k + 0.5) / len(others)) for k in range(len(others))] == others


def test_without_classes_every_sample_is_its_own(tmp_path: Path) -> None:
    reader = _reader(_tar(tmp_path / "s.tar", [(f"{n}.json", b"{}") for n in range(3)]), 3)
    assert [reader.classes.other(1, point) for point in (1e-9, 0.49, 0.51, 1 - 1e-9)] == [0, 0, 2, 2]


def test_a_single_class_is_a_user_error(tmp_path: Path) -> None:
    path = _tar(tmp_path / "s.tar", [(f"{n}.json", b'{"class": "a"}') for n in range(3)])
    with pytest.raises(UserError, match=r"s\.tar holds a single class.*--samples-per-shard"):
        _reader(path, 3).classes.other(0, 0.5)


def test_a_missing_member_is_named_with_those_there_are(shard: Path, tmp_path: Path) -> None:
    key = _reader(shard).keys[2]
    path = _tar(tmp_path / "s.tar", [(name, data) for name, data in _members(shard) if name != f"{key}.jpg"])
    reader = _reader(path)
    reader.jpeg(1)
    with pytest.raises(UserError, match=rf"s\.tar: sample {key} has no \.jpg, only emb\.npy, json"):
        reader.jpeg(2)


def test_a_wrong_count_is_refused(shard: Path) -> None:
    with pytest.raises(UserError, match=f"holds {SAMPLES} samples, its index says {SAMPLES + 1}"):
        _reader(shard, SAMPLES + 1)


@pytest.mark.parametrize("where", ["between members", "in a header", "in the data"])
def test_a_truncated_tar_is_refused(shard: Path, tmp_path: Path, where: str) -> None:
    with tarfile.open(shard) as tar:
        last = tar.getmembers()[-3]
    cut = {
        "between members": last.offset,
        "in a header": last.offset + 100,
        "in the data": last.offset_data + last.size // 2,
    }[where]
    path = tmp_path / "cut.tar"
    path.write_bytes(shard.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"cut\.tar (holds|is not a readable tar)"):
        _reader(path)


def test_what_is_no_tar_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.tar"
    path.write_bytes(b"<html>404 Not Found</html>" * 100)
    with pytest.raises(UserError, match=r"page\.tar is not a readable tar.*pack the set again"):
        _reader(path)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=str)
def test_tars_of_any_form_are_read_as_tarfile_reads_them(tmp_path: Path, form: int) -> None:
    path = tmp_path / "s.tar"
    long = "" if form == tarfile.USTAR_FORMAT else "x" * 120
    names = ["0.jpg", "0.json", f"1{long}.jpg", f"1{long}.json", "folder/2.jpg", "folder/2.json", "3.jpg", "3.json"]
    with tarfile.open(path, "w", format=form) as tar:
        for name in names:
            if name == "folder/2.jpg":
                folder = tarfile.TarInfo("folder")
                folder.type = tarfile.DIRTYPE
                tar.addfile(folder)
            header = tarfile.TarInfo(name)
            header.size = len(name) + 2
            tar.addfile(
                header, io.BytesIO(f'"{name}"'.encode().replace(b'"' + name.encode(), b"{}" + b" " * len(name)))
            )
    reader = _reader(path, 4)
    assert [f"{key}.{extension}" for key in reader.keys for extension in ("jpg", "json")] == names
    with tarfile.open(path) as tar:
        for sample, key in enumerate(reader.keys):
            assert reader.jpeg(sample) == tar.extractfile(f"{key}.jpg").read()  # type: ignore[union-attr]


def test_embeddings_need_not_share_a_header(tmp_path: Path) -> None:
    arrays = [
        np.arange(6, dtype=np.float16).reshape(2, 3),
        np.arange(8, dtype=np.float16).reshape(2, 4),
        np.asfortranarray(np.arange(6, dtype=np.float16).reshape(2, 3)),
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.arange(6, 12, dtype=np.float16).reshape(2, 3),
    ]
    members = []
    for number, array in enumerate(arrays):
        data = io.BytesIO()
        np.save(data, array)
        members += [(f"{number}.json", b"{}"), (f"{number}.emb.npy", data.getvalue())]
    reader = _reader(_tar(tmp_path / "s.tar", members), len(arrays))
    for sample in [0, 4, 1, 2, 0, 3, 4, 2]:
        np.testing.assert_array_equal(reader.embeddings(sample), arrays[sample])
        assert reader.embeddings(sample).dtype == arrays[sample].dtype


def test_closing_closes_the_file(shard: Path) -> None:
    file = shard.open("rb")
    ShardReader(file, "s", SAMPLES).close()
    assert file.closed
