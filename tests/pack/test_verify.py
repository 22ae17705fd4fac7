"""`pack verify` names whatever is wrong with a packed set."""

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stackgan_dist.data.index import load_index
from stackgan_dist.errors import UserError
from stackgan_dist.pack import verify as module
from stackgan_dist.pack.data_set import pack
from stackgan_dist.pack.recipe import Recipe
from stackgan_dist.pack.verify import verify, verify_shard

FEW = {"pictures": 240}
"""Listing thousands takes longer than packing twenty."""

RECIPE = Recipe("painted", "painted", "ngrams", sizes=(16, 8), splits=("train",), samples_per_shard=5, options=FEW)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed")
    pack(RECIPE, root=None, out=str(out), workers=1, limit=15)
    return out


@pytest.fixture
def copy(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    def run_tasks(work: object, tasks: list[module._Task], *_: object) -> object:
        return ((number, verify_shard(task)) for number, task in enumerate(tasks))

    monkeypatch.setattr(module, "run_tasks", run_tasks)
    return Path(shutil.copytree(packed, tmp_path / "copy"))


def test_a_good_set_has_no_faults(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verify(str(packed), 2)
    out = capsys.readouterr().out
    assert "verified train/16: 3 shards, 15 pictures" in out
    assert "verified train/8: 3 shards, 15 pictures" in out
    verify(str(packed / "train/16"), 1)
    with pytest.raises(UserError, match=r"no index\.json at or below"):
        verify(str(packed / "train/16/nothing"), 1)


def _faults(copy: Path, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(UserError, match="faults; they are listed above"):
        verify(str(copy), 1)
    return capsys.readouterr().out


def test_files(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copy / "train/16"
    one, two, three = (folder / shard.name for shard in load_index(str(folder)).shards)
    data = one.read_bytes()
    one.write_bytes(data[: len(data) // 2])
    altered = bytearray(two.read_bytes())
    altered[-2000] ^= 1
    two.write_bytes(altered)
    three.unlink()
    (folder / "shard-000009.tar").write_bytes(b"")
    out = _faults(copy, capsys)
    assert f"{one.name}: truncated: {len(data) // 2} bytes, the index says {len(data)}" in out
    assert f"{one.name}: unreadable after" in out
    assert f"{two.name}: altered: its sha256 is" in out
    assert f"{three.name}: missing" in out
    assert "shard-000009.tar: it is not in the index" in out
    assert "hold different samples" in out  # than the other size, whose shards are whole
    assert "train/8/" not in out.replace("verified train/8", "")


def _rewrite(folder: Path, change: Callable[[dict[str, bytes]], None]) -> str:
    """Apply `change` to the members of the first shard, and put its new digest into the index."""
    index = json.loads((folder / "index.json").read_text())
    path = folder / index["shards"][0]["name"]
    with tarfile.open(path) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    change(members)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    data = path.read_bytes()
    index["shards"][0].update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (folder / "index.json").write_text(json.dumps(index))
    return next(iter(members)).partition(".")[0]


def _jpeg(size: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size)).save(buffer, "JPEG")
    return buffer.getvalue()


def _array(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _meta(**changes: object) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps({**json.loads(data), **changes}).encode()


@pytest.mark.parametrize(
    ("extension", "change", "fault"),
    [
        ("jpg", lambda data: data[: len(data) // 2], "its picture cannot be decoded"),
        ("jpg", lambda data: _jpeg(17), "its picture is 17 x 17 RGB, not 16 px RGB"),
        ("emb.npy", lambda data: data[:-1], "its embeddings cannot be read"),
        ("emb.npy", lambda data: _array(np.zeros((3, 256), np.float16)), r"its embeddings are float16 (3, 256), not"),
        ("emb.npy", lambda data: _array(np.full((10, 256), np.nan, np.float16)), "its embeddings are not finite"),
        ("emb.npy", lambda data: _array(np.array([{}])), "its embeddings cannot be read"),
        ("json", lambda data: data[:-1], "its JSON cannot be read"),
        ("json", _meta(captions=["a"]), "it has 1 captions, not 10"),
        ("json", _meta(**{"class": "dodo"}), "its class 'dodo' is not in the index"),
        ("json", None, "has no .json"),
    ],
)
def test_samples(
    copy: Path,
    capsys: pytest.CaptureFixture[str],
    extension: str,
    change: Callable[[bytes], bytes] | None,
    fault: str,
) -> None:
    def damage(members: dict[str, bytes]) -> None:
        name = next(name for name in members if name.endswith(f".{extension}"))
        if change is None:
            del members[name]
        else:
            members[name] = change(members[name])

    key = _rewrite(copy / "train/16", damage)
    assert f"shard-000000.tar: {key}: {fault}" in _faults(copy, capsys)


def test_duplicates(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = copy / "train/16/shard-000001.tar"
    with tarfile.open(other) as tar:
        name = tar.getmembers()[0].name.partition(".")[0]

    def rename(members: dict[str, bytes]) -> None:
        old = next(iter(members)).partition(".")[0]
        for member in [member for member in members if member.startswith(old)]:
            members[member.replace(old, name)] = members.pop(member)

    _rewrite(copy / "train/16", rename)
    assert f"shard-000001.tar: the sample {name} is in shard-000000.tar too" in _faults(copy, capsys)
