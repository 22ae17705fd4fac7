"""`pack verify` names whatever is wrong with a packed set."""

import dataclasses
import hashlib
import io
import json
import re
import shlex
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stackgan_dist.cli.doors import command_main
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


def _pack_split(out: Path, split: str, **changes: object) -> None:
    recipe = dataclasses.replace(RECIPE, sizes=(16,), splits=(split,), **changes)  # type: ignore[arg-type]
    pack(recipe, root=None, out=str(out), workers=1, limit=15)


def _mending(out: str) -> list[str]:
    return re.findall(r"^  python -m stackgan_dist\.(pack .*)$", out, re.MULTILINE)


def test_splits_of_another_making_are_named_with_what_mends_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a set"
    _pack_split(out, "train")
    _pack_split(out, "test", text_encoder="minilm", name="other")
    capsys.readouterr()
    printed = _faults(out, capsys)
    assert "train/16 and test/16 differ in the text encoder: 'ngrams' and 'minilm'" in printed
    assert "train/16 and test/16 differ in the width of the embeddings: 256 and 384" in printed
    assert "train/16 and test/16 differ in the name: 'painted' and 'other'" in printed
    (command,) = set(_mending(printed))
    assert "--overwrite" in command
    monkeypatch.setattr("sys.argv", [*shlex.split(command), "--limit", "15", "--workers", "1"])
    command_main("pack")()
    verify(str(out), 1)


def test_splits_that_share_pictures_or_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    _pack_split(out, "train")
    shutil.copytree(out / "train", out / "test")
    path = out / "test/16/index.json"
    path.write_text(path.read_text().replace('"split": "train"', '"split": "test"'))
    capsys.readouterr()
    printed = _faults(out, capsys)
    assert "15 pictures are in train and in test: painted-" in printed
    assert re.search(r"train and test share \d+ of \d+ classes: .*but the splits of painted share none", printed)

    root = tmp_path / "root"
    for number in range(40):
        (root / f"kind{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16)).save(root / f"kind{number % 2}/{number}.jpg")
        (root / f"kind{number % 2}/{number}.txt").write_text("a thing\n" * (1 + number % 2))
    own = Recipe("own", "folder", "ngrams", sizes=(16,), options={"classes": "folders"})
    pack(own, root=str(root), out=str(tmp_path / "own"), workers=1)
    options = {"classes": "folders", "partial": True}
    other = dataclasses.replace(own, splits=("test",), captions_per_image=1, options=options)
    pack(other, root=str(root), out=str(tmp_path / "own"), workers=1, overwrite=True)
    capsys.readouterr()
    verify(str(tmp_path / "own"), 1)  # what may be meant so is said, and is no fault
    printed = capsys.readouterr().out
    assert "train and test share 2 of 2 classes: kind0, kind1" in printed
    assert "hold 2 and 1 captions of each picture" in printed
    assert "were packed with the options {'classes': 'folders'} and {'classes': 'folders', 'partial': True}" in printed


def test_a_balance_of_what_lies_there(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copy / "train/16/shard-000009.tar").write_bytes(b"")
    (copy / "train/16/notes.txt").write_text("mine")
    (copy / "train/8/shard-000000.tar").unlink()
    _rewrite(copy / "train/16", lambda members: members.pop(next(iter(members))) and None)
    printed = _faults(copy, capsys)
    lines = {"balance.json": 1, "indices": 2, "others, which pack does not write": 1, "shards": 5}
    lines |= {"tars that no index lists": 1}
    said = "".join(f"{count:>9,} {what}\n" for what, count in lines.items())
    assert f"balance of {copy}: 10 files\n{said}" in printed
    lines = {"whole": 24, "with a fault": 1, "missing": 5}
    said = "".join(f"{count:>9,} {what}\n" for what, count in lines.items())
    assert f"balance of {copy}: 30 pictures\n{said}" in printed
