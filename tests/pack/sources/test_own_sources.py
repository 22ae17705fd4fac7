"""A folder of one's own pictures, and shards of other people."""

import csv
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from stackgan_dist.errors import UserError
from stackgan_dist.pack.pictures import load_picture
from stackgan_dist.pack.sources import Record
from stackgan_dist.pack.sources.folder import PictureFolder
from stackgan_dist.pack.sources.webdataset import WebDatasetTars


def _picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (200, 0, 0)).save(path)


def _by_id(records: Sequence[Record]) -> dict[str, Record]:
    return {record.source_id: record for record in records}


def test_text_files_beside_the_pictures(tmp_path: Path) -> None:
    for name in ("cats/tom.jpg", "cats/kit.PNG", "dogs/tom.jpg", "dogs/rex.jpg", "dogs/bad.jpg", ".cache/x.jpg"):
        _picture(tmp_path / name)
    (tmp_path / "cats/tom.txt").write_bytes("\ufeffa grey  cat\r\n\r\nقطة رمادية 🐈\n".encode())
    (tmp_path / "cats/kit.txt").write_text("")
    (tmp_path / "dogs/tom.txt").write_text("a dog")
    (tmp_path / "dogs/bad.txt").write_bytes(b"caf\xe9")
    found = _by_id(PictureFolder(str(tmp_path), test_fraction=0.0).records("train"))
    assert sorted(found) == ["cats/kit.PNG", "cats/tom.jpg", "dogs/bad.jpg", "dogs/rex.jpg", "dogs/tom.jpg"]
    assert found["cats/tom.jpg"].captions == ("a grey cat", "قطة رمادية 🐈")
    assert found["cats/kit.PNG"].captions == ()  # rejected by the listing, with its reason
    assert found["dogs/bad.jpg"].fault == "dogs/bad.txt is not UTF-8"
    assert found["dogs/rex.jpg"].fault == "there are no captions dogs/rex.txt"
    assert len({record.key for record in found.values()}) == 5
    assert {record.class_name for record in found.values()} == {""}
    assert load_picture(PictureFolder(str(tmp_path)).picture(found["dogs/tom.jpg"])).size == (6, 4)
    folders = _by_id(PictureFolder(str(tmp_path), classes="folders", test_fraction=0.0).records("train"))
    assert (folders["dogs/tom.jpg"].class_name, folders["cats/tom.jpg"].class_name) == ("dogs", "cats")


def test_a_captions_file(tmp_path: Path) -> None:
    for number in range(4):
        _picture(tmp_path / f"{number}.jpg")
    rows = [
        {"file": "0.jpg", "captions": ["one", "two"], "class": "red"},
        {"file_name": "./1.jpg", "text": "three", "split": "test"},
        {"file": "../../etc/passwd", "caption": "x"},
        {"file": "/etc/passwd", "caption": "x"},
        {"file": "gone.jpg", "caption": "x"},
        {"file": "2.jpg", "caption": "x", "split": "validation"},
        {"file": "3.jpg", "caption": "x"},
        {"file": "3.jpg", "caption": "again"},
        {"file": 5, "caption": "x"},
    ]
    lines = [json.dumps(row) for row in rows] + ["{broken", ""]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    without_split = [line for line in lines if '"split"' not in line]
    (tmp_path / "mine.jsonl").write_text("\n".join(without_split))
    assert [record.source_id for record in PictureFolder(str(tmp_path)).records("test")] == ["1.jpg", "3.jpg"]
    found = _by_id(PictureFolder(str(tmp_path), captions="mine.jsonl", test_fraction=0.0).records("train"))
    assert (found["0.jpg"].captions, found["0.jpg"].class_name) == (("one", "two"), "red")
    for name in ("../../etc/passwd", "/etc/passwd"):
        assert found[name].fault == "the file name, given in mine.jsonl, leaves the folder"
    assert found["gone.jpg"].fault == "the picture is missing"
    assert (found["3.jpg"].captions, found["3.jpg"].fault) == (("x", "again"), "")
    assert "not understood" in found["mine.jsonl:7"].fault
    assert "not understood" in found["mine.jsonl:8"].fault
    partial = _by_id(
        PictureFolder(str(tmp_path), captions="mine.jsonl", test_fraction=0.0, partial=True).records("train")
    )
    assert "gone.jpg" not in partial
    (tmp_path / "captions.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"captions\.jsonl is not UTF-8"):
        PictureFolder(str(tmp_path)).records("train")


def test_a_table_of_captions(tmp_path: Path) -> None:
    _picture(tmp_path / "a.jpg")
    with (tmp_path / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "caption"], ["a.jpg", 'a "red", wide\nthing'], ["a.jpg", "second"]])
    (record,) = PictureFolder(str(tmp_path), test_fraction=0.0).records("train")
    assert record.captions == ('a "red", wide thing', "second")
    (tmp_path / "captions.csv").write_text("picture,words\n")
    with pytest.raises(UserError, match=r"picture, words \(parted by commas\)"):
        PictureFolder(str(tmp_path)).records("train")


def test_splits_stay_when_pictures_are_added(tmp_path: Path) -> None:
    def test_names() -> set[str]:
        return {record.source_id for record in PictureFolder(str(tmp_path), test_fraction=0.3).records("test")}

    def add(numbers: range) -> None:
        for number in numbers:
            (tmp_path / f"{number}.jpg").write_bytes(b"")
            (tmp_path / f"{number}.txt").write_text("a thing")

    add(range(100))
    before = test_names()
    assert 15 < len(before) < 45
    add(range(100, 200))
    assert before == {name for name in test_names() if int(name.removesuffix(".jpg")) < 100}
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "x.jpg").write_bytes(b"")
        (tmp_path / split / "x.txt").write_text("a thing")
    assert test_names() == {"test/x.jpg"}


def test_a_folder_without_anything(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no pictures"):
        PictureFolder(str(tmp_path)).records("train")
    _picture(tmp_path / "a.jpg")
    with pytest.raises(UserError, match=r"1 pictures but no captions(.|\n)*a\.txt"):
        PictureFolder(str(tmp_path)).records("train")
    for options in ({"classes": "maybe"}, {"test_fraction": 1.0}):
        with pytest.raises(UserError, match=next(iter(options))):
            PictureFolder(str(tmp_path), **options)


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (0, 0, 200)).save(buffer, "JPEG")
    return buffer.getvalue()


def _tar(path: Path, members: Sequence[tuple[str, bytes | tarfile.TarInfo]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                tar.addfile(content)
            else:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def _link(target: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo()
    member.type, member.linkname = kind, target
    return member


def test_foreign_tars(tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(_jpeg())
    root = tmp_path / "tars"
    _tar(
        root / "00000.tar",
        [
            ("000.jpg", _jpeg()),
            ("000.txt", "eine rote Vögelin\nzwei".encode()),
            ("000.json", json.dumps({"caption": None, "class": "bird", "width": 6}).encode()),
            ("001.png", _jpeg()),
            ("001.json", json.dumps({"captions": ["a", "b"]}).encode()),
            ("002.json", b"{}"),
            ("003.jpg", _jpeg()),
            ("004.jpg", _jpeg()),
            ("004.txt", b"\xff"),
            ("005.jpg", _link(str(secret), tarfile.SYMTYPE)),
            ("005.txt", b"a link"),
            ("../../006.jpg", _jpeg()),
            ("../../006.txt", b"a traversal"),
            ("/etc/007.jpg", _jpeg()),
            ("008.jpg", _link("000.jpg", tarfile.LNKTYPE)),
            ("009.jpg", _link("", tarfile.FIFOTYPE)),
            ("010.jpg", _jpeg()),
            ("010.jpeg", _jpeg()),
        ],
    )
    _tar(root / "00001.tar", [("000.jpg", _jpeg()), ("000.txt", b"the same key")])
    before = set(tmp_path.rglob("*"))
    source = WebDatasetTars(str(root), test_fraction=0.0)
    found = _by_id(source.records("train"))
    first = found["00000.tar/000.jpg"]
    assert first.captions == ("eine rote Vögelin", "zwei")
    assert first.class_name == "bird"
    assert source.picture(first) == _jpeg()
    assert found["00000.tar/001.png"].captions == ("a", "b")
    faults = {name: record.fault for name, record in found.items() if record.fault}
    for name, reason in {
        "00000.tar/002": "no picture",
        "00000.tar/004.jpg": "not UTF-8",
        "00000.tar/005": "a link or a device",
        "00000.tar/../../006": "leaves the archive",
        "00000.tar//etc/007": "leaves the archive",
        "00000.tar/008": "a link or a device",
        "00000.tar/009": "a link or a device",
        "00000.tar/010.jpg": "a second picture",
    }.items():
        assert reason in faults.pop(name), name
    assert not faults
    assert found["00000.tar/003.jpg"].captions == ()
    assert found["00001.tar/000.jpg"].key == first.key  # a duplicate id: the listing rejects the second
    assert set(tmp_path.rglob("*")) == before  # nothing is unpacked


def test_tars_cut_short_or_packed(tmp_path: Path) -> None:
    whole = tmp_path / "whole.tar"
    _tar(whole, [(f"{number}.jpg", _jpeg()) for number in range(3)])
    data = whole.read_bytes()
    member = 512 + -(-len(_jpeg()) // 512) * 512
    for end in (member, member + 100, member + 600, 2 * member + 512):  # between members is the silent one
        whole.write_bytes(data[:end])
        with pytest.raises(UserError, match=r"whole\.tar is cut short"):
            WebDatasetTars(str(tmp_path)).records("train")


def test_splits_of_tars(tmp_path: Path) -> None:
    for number in range(5):
        _tar(tmp_path / f"{number}.tar", [(f"{number}.jpg", _jpeg())])
    ids = {split: [r.source_id for r in WebDatasetTars(str(tmp_path)).records(split)] for split in ("train", "test")}
    assert ids == {"train": [f"{n}.tar/{n}.jpg" for n in range(4)], "test": ["4.tar/4.jpg"]}
    for split in ("train", "test"):
        _tar(tmp_path / split / "x.tar", [("x.jpg", _jpeg())])
    for split in ("train", "test"):
        assert [r.source_id for r in WebDatasetTars(str(tmp_path)).records(split)] == [f"{split}/x.tar/x.jpg"]
    assert not WebDatasetTars(str(tmp_path / "train")).records("test")  # a single tar is for training
