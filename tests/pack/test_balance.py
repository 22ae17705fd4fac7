"""Every pack ends with a balance: of a folder that holds one of everything, each file is in it, once."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stackgan_dist.data.index import load_index
from stackgan_dist.errors import UserError
from stackgan_dist.pack.balance import BALANCE_NAME, Ledger
from stackgan_dist.pack.data_set import pack
from stackgan_dist.pack.recipe import Recipe
from stackgan_dist.pack.sources.coco import Coco
from stackgan_dist.pack.sources.folder import PictureFolder
from stackgan_dist.pack.verify import verify

RECIPE = Recipe("own", "folder", "ngrams", sizes=(16,))
SIDE = 24


def jpeg(colour: tuple[int, int, int] = (200, 0, 0), **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), colour).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def put(root: Path, name: str | bytes, data: bytes, caption: str | None = None) -> None:
    path = os.path.join(os.fsencode(root), os.fsencode(name))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(os.fsdecode(path)).write_bytes(data)
    if caption is not None:
        Path(os.fsdecode(os.path.splitext(path)[0] + b".txt")).write_text(caption)


def fill(root: Path) -> None:
    """A folder with text files beside the pictures that holds one of everything."""
    for number in range(6):
        put(root, f"train/cats/{number}.jpg", jpeg(), f"a cat {number}\nthe same cat")
        put(root, f"test/{number}.jpg", jpeg(), f"a test cat {number}")
    put(root, "val/0.jpg", jpeg(), "of the validation set")
    put(root, "elsewhere/0.jpg", jpeg(), "in no split")
    for ending, kind in ((".jfif", "JPEG"), (".jpe", "JPEG"), (".AVIF", "AVIF")):
        buffer = io.BytesIO()
        Image.new("RGB", (SIDE, SIDE)).save(buffer, kind)
        put(root, f"train/read{ending}", buffer.getvalue(), "a rare ending")
    for name in ("a.heic", "b.HEIC", "c.svg", "Thumbs.db", "README"):
        put(root, f"train/{name}", b"anything")
    put(root, "train/without.jpg", jpeg())
    put(root, "train/orphan.txt", b"no picture")
    put(root, "train/many.jpg", jpeg(), "\n".join(f"caption {number}" for number in range(14)))
    put(root, b"train/caf\xe9.jpg", jpeg(), "a name in Latin-1")
    put(root, "train/e\u0301te\u0301.jpg", jpeg())
    put(root, "train/été.txt", b"a name of a Mac")
    put(root, "train/tiny.png", _png(1, 1), "one pixel")
    put(root, "train/strip.png", _png(3000, 2), "a strip")
    put(root, "train/broken.jpg", jpeg()[:-20], "cut short")
    put(root, ".DS_Store", b"hidden")
    outside = root.parent / "other disk"
    put(outside, "linked.jpg", jpeg(), "in a linked folder")
    (root / "train/linked").symlink_to(outside)
    (root / "train/loop").symlink_to(root)
    (root / "train/nowhere").symlink_to(root / "gone")
    (root / "train/itself").symlink_to("itself")
    os.mkfifo(root / "train/pipe.jpg")


def _png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def count(root: Path) -> int:
    """Everything in a folder that is not itself a folder, counted by other means than those of the package."""
    total = 0
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        total += len(files) + sum(count(Path(folder, name)) if name == "linked" else 1 for name in links)
    return total


def ledgers(out: Path) -> dict[str, tuple[int, dict[str, int]]]:
    content = json.loads((out / BALANCE_NAME).read_text())
    return {one["thing"]: (one["found"], one["lines"]) for one in content["ledgers"]}


def test_one_of_everything_adds_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    root.mkdir()
    fill(root)
    pack(RECIPE, root=str(root), out=str(out), workers=2, max_rejects=0.5)
    printed = capsys.readouterr().out
    found, lines = ledgers(out)["files"]
    assert found == count(root) == sum(lines.values())
    assert lines == {
        "packed as train": 6 + 3 + 1 + 1 + 1,  # cats, rare endings, many captions, the Mac's, the linked one
        "packed as test": 6,
        "rejected from train: there are no captions NAME.txt": 1,
        "rejected from train: its file name is not UTF-8; rename it": 1,
        "rejected from train: it is N x N; its shorter side must be at least N pixels": 2,
        "rejected from train: OSError: image file is truncated (N bytes not processed)": 1,
        "in the split val, which --splits does not name": 1,
        "pictures in no split: outside the folders train/, test/ and val/": 1,
        "with captions": 6 + 6 + 2 + 1 + 6 + 1,  # the three rare endings share one
        "texts without a picture of their name": 1,
        "hidden: their names, or their folders', begin with a dot": 1,
        "of the ending .heic, which is not read": 2,
        "of the ending .svg, which is not read": 1,
        "of the ending .db, which is not read": 1,
        "without an ending, which are not read": 1,
        "links to a folder that is read already": 1,
        "broken links": 2,
        "pipes, sockets or devices": 1,
    }
    for what, number in lines.items():
        assert f"{number:>9,} {what}" in printed
    found, lines = ledgers(out)["captions"]
    assert found == sum(lines.values()) == 12 + 3 + 14 + 1 + 1 + 1 + 3 + 6
    assert lines["dropped from train: more than 10 of a picture (captions_per_image)"] == 4

    # what is packed already ends with the same balance, also without its list of rejected pictures
    before = (out / BALANCE_NAME).read_bytes()
    pack(RECIPE, root=str(root), out=str(out), workers=1, max_rejects=0.5)
    assert "already packed" in capsys.readouterr().out
    assert (out / BALANCE_NAME).read_bytes() == before
    (out / "train/rejected.jsonl").unlink()
    pack(RECIPE, root=str(root), out=str(out), workers=1, max_rejects=0.5)
    assert ledgers(out)["files"][1]["rejected by an earlier pack, which rejected.jsonl no longer lists (train)"] == 5

    # and verify has one of what lies there
    capsys.readouterr()
    verify(str(out), 1)
    printed = capsys.readouterr().out
    assert f"balance of {out}: 5 files\n        1 balance.json\n        2 indices\n        2 shards\n" in printed
    assert f"balance of {out}: 18 pictures\n       18 whole" in printed


def test_captions_for_some_of_the_pictures(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number in range(40):
        put(root, f"{number}.jpg", jpeg())
    rows = [{"file": f"{number}.jpg", "caption": f"number {number}"} for number in range(6)]
    (root / "captions.jsonl").write_text("\n".join(map(json.dumps, [*rows, {"file": "gone.jpg", "caption": "x"}])))
    (root / "captions.csv").write_text("file,caption\n")
    pack(RECIPE, root=str(root), out=str(tmp_path / "out"), workers=1, max_rejects=0.5)
    found, lines = ledgers(tmp_path / "out")["files"]
    assert found == 42 == sum(lines.values())
    assert lines["pictures without caption: captions.jsonl does not name them"] == 34
    assert lines["captions.csv, which is not read beside captions.jsonl"] == 1
    assert lines["packed as train"] + lines["packed as test"] == 6
    (found, (what,)) = ledgers(tmp_path / "out")["rejected that stand for no picture"]
    assert found == 1
    assert what.endswith(": the picture is missing")
    source = PictureFolder(str(root), partial=True)
    assert "gone.jpg" not in [record.source_id for split in ("train", "test") for record in source.records(split)]
    assert source.account(["train"]).notes == [
        "1 pictures that captions.jsonl names are missing, and were left out (partial)."
    ]


def test_pictures_that_are_enlarged_are_said(few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(few, "large.png", _png(40, 40), "a large one")
    recipe = Recipe("own", "folder", "ngrams", sizes=(16, 32), splits=("train",), options={"test_fraction": 0.0})
    pack(recipe, root=str(few), out=str(tmp_path / "out"), workers=1)
    printed = capsys.readouterr().out
    assert "own train: 4 pictures are smaller than 32 px and were enlarged" in printed
    assert "smaller than 16 px" not in printed


def test_limits_and_splits_that_were_not_asked_for(tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    for number in range(9):
        for split in ("train", "test"):
            put(root, f"{split}/{number}.jpg", jpeg(), f"{split} {number}")
    recipe = Recipe("own", "folder", "ngrams", sizes=(16,), splits=("train",))
    pack(recipe, root=str(root), out=str(out), workers=1, limit=5)
    found, lines = ledgers(out)["files"]
    assert found == 36 == sum(lines.values())
    assert lines == {
        "packed as train": 5,
        "beyond --limit in train": 4,
        "in the split test, which --splits does not name": 9,
        "with captions": 18,
    }


class _Losing(PictureFolder):
    """Finds a picture more than it accounts for."""

    def account(self, splits: Sequence[str]) -> Any:
        account = super().account(splits)
        account.found += 1
        return account


class _Hasty(PictureFolder):
    """Lists a picture less than a moment later."""

    def records(self, split: str) -> Any:
        return super().records(split)[1:]


@pytest.fixture
def few(tmp_path: Path) -> Path:
    for number in range(4):
        put(tmp_path / "few", f"{number}.jpg", jpeg(), f"number {number}")
    return tmp_path / "few"


@pytest.mark.parametrize(
    ("source", "message"),
    [(_Losing, r"9 files were found, 8 are accounted for"), (_Hasty, "3 pictures were listed, 4 a")],
)
def test_what_does_not_add_up_is_an_error(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: type, message: str
) -> None:
    monkeypatch.setattr(f"{PictureFolder.__module__}.PictureFolder", source)
    recipe = Recipe("own", "folder", "ngrams", sizes=(16,), splits=("train",), options={"test_fraction": 0.0})
    with pytest.raises(UserError, match=message):
        pack(recipe, root=str(few), out=str(tmp_path / "out"), workers=1)
    Ledger("files", 3, {"a": 1, "b": 2}).check()


@pytest.mark.parametrize("pictures", [2, 4, 8, 16, 24])
def test_few_pictures_are_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str], pictures: int) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    for number in range(pictures):
        put(root, f"{number}.jpg", jpeg(), f"number {number}")
    pack(RECIPE, root=str(root), out=str(out), workers=1)
    train = load_index(str(out / "train/16")).samples
    if pictures < 4:  # two classes are needed in each split, and without classes a picture is one
        assert train == pictures
        assert "own has no pictures of the split test; it is packed without" in capsys.readouterr().out
    else:
        assert train == pictures - 2
        assert load_index(str(out / "test/16")).samples == 2


def test_classes_of_few_pictures_are_in_both_splits_or_in_train(tmp_path: Path) -> None:
    for number in range(8):
        put(tmp_path, f"{'cat' if number < 4 else 'dog'}/{number}.jpg", b"", f"number {number}")
    source = PictureFolder(str(tmp_path), classes="folders")
    for split in ("train", "test"):
        assert {record.class_name for record in source.records(split)} == {"cat", "dog"}
    for number in range(5, 8):
        (tmp_path / f"dog/{number}.jpg").unlink()
    assert len(source.records("train")) == 5  # one dog is too few for two splits
    assert not source.records("test")


def _coco(root: Path, images: list[Any], annotations: list[Any]) -> Coco:
    (root / "annotations").mkdir(exist_ok=True)
    content = {"images": images, "annotations": annotations}
    (root / "annotations/captions_train2017.json").write_text(json.dumps(content))
    return Coco(str(root))


def test_one_bad_annotation_of_coco_costs_one_picture(tmp_path: Path) -> None:
    for name in ("1.jpg", "2.jpg", "deep/3.jpg", "x.jpg", "e\u0301.jpg", "unnamed.jpg"):
        put(tmp_path / "train2017", name, jpeg())
    images = [
        {"id": "1", "file_name": "1.jpg"},
        {"id": 2, "file_name": "train2017/2.jpg"},
        {"id": 3, "file_name": "deep/3.jpg"},
        {"id": "x-7", "file_name": "x.jpg"},
        {"id": "é", "file_name": "é.jpg"},
        {"id": None, "file_name": "5.jpg"},
        {"id": ["6"], "file_name": "6.jpg"},
        {"id": 7, "file_name": {"a": 1}},
        "8",
    ]
    annotations = [
        {"image_id": 1, "id": "b", "caption": "second"},
        {"image_id": "1", "id": 1, "caption": "first"},
        {"image_id": "2", "caption": "no id"},
        {"image_id": 3, "id": 3, "caption": None},
        {"image_id": 3, "id": 4, "caption": "three"},
        {"image_id": "x-7", "id": 5, "caption": "x"},
        {"image_id": "é", "id": 6, "caption": "accent"},
        {"image_id": 99, "id": 7, "caption": "of an absent image"},
        {"id": 8, "caption": "of none"},
        7,
    ]
    source = _coco(tmp_path, images, annotations)
    records = {record.source_id: record for record in source.records("train")}
    assert records["train2017/1.jpg"].captions == ("first", "second")
    assert records["train2017/1.jpg"].key == "000000000001"
    assert records["train2017/2.jpg"].captions == ("no id",)
    assert records["train2017/deep/3.jpg"].fault == "annotation 3: it has no caption"
    assert records["train2017/x.jpg"].captions == ("x",)
    assert records["train2017/e\u0301.jpg"].captions == ("accent",)
    faults = {name.rpartition(" ")[2]: record.fault for name, record in records.items() if "image " in name}
    assert faults == {
        "5": "it has no id, or no file_name",
        "6": '"id" is a list; a text was expected',
        "7": '"file_name" is an object; a text was expected',
        "8": "it is a text, not an object",
    }
    account = source.account(["train"])
    assert account.found == 6
    assert account.pictures["train"] == 5
    assert account.others == {"that the annotations of train do not name, in the splits packed here": 1}
    (note,) = account.notes
    assert "annotations of 2 images that it does not list: (no image_id), 99" in note
    with pytest.raises(UserError, match="is not a file of COCO captions"):
        _coco(tmp_path, images, {}).records("train")  # type: ignore[arg-type]


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def test_tars_of_everything_add_up(tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    root.mkdir()
    for name, mode in (("0.tar", "w"), ("1.tar.gz", "w:gz"), ("2.TAR", "w"), ("3.tgz", "w:gz"), ("4.tar.xz", "w:xz")):
        with tarfile.open(root / name, mode) as tar:  # type: ignore[call-overload]
            for number in range(3):
                key = f"Mr. Smith, v{name[0]}.{number} final"
                _add(tar, f"{key}.jpg", jpeg())
                _add(tar, f"{key}.txt", f"number {number}\nof {name}".encode())
    with tarfile.open(root / "5.tar", "w") as tar:
        _add(tar, "s0.input.jpg", jpeg())
        _add(tar, "three.jpg", jpeg())
        _add(tar, "three.txt", b"one\ntwo\nthree")
        _add(tar, "three.json", json.dumps({"caption": "one\ntwo\nthree", "class": None}).encode())
        _add(tar, "three.seg.png", b"a mask")
        _add(tar, "three.emb.npy", b"numbers")
        _add(tar, "._three.jpg", b"a Mac's")
        _add(tar, "s0.txt", b"its words come late")
        _add(tar, "alone.json", b"{}")
        _add(tar, "listed.jpg", jpeg())
        _add(tar, "listed.json", json.dumps({"caption": ["a", None, "b"], "class": ["x"]}).encode())
        _add(tar, "folder/README", b"words")
    (root / "00000_stats.json").write_text("{}")
    (root / "00000.parquet").write_bytes(b"")
    recipe = Recipe("own", "webdataset", "ngrams", sizes=(16,), options={"test_fraction": 0.2})
    pack(recipe, root=str(root), out=str(out), workers=1, max_rejects=0.5)
    found, lines = ledgers(out)["files, those in the tars among them"]
    assert found == sum(lines.values()) == 8 + 5 * 6 + 12
    assert lines == {
        "packed as train": 15,
        "packed as test": 2,
        'rejected from test: listed.json: "class" is a list; a text was expected': 1,
        "tars": 6,
        "with words: .txt, .json or .cls": 15 + 5,
        "of the ending .seg.png, beside a sample's own": 1,
        "of the ending .npy, which is not read": 1,
        "hidden: their names begin with a dot": 1,
        "without an ending, which are not read": 1,
        "of the ending .json, which is not read": 1,
        "of the ending .parquet, which is not read": 1,
    }
    assert ledgers(out)["rejected that stand for no picture"][1] == {"in test: the sample has no picture": 1}
    assert load_index(str(out / "test/16")).captions_per_image == 1  # the JSON gives three lines as one caption
    assert not (out / ".pack-listing").exists()
