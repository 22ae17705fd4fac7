"""Tars of others: their keys, their braces, their compression."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources.tar_members import keys_of
from stackgan_dist.pack.sources.webdataset import WebDatasetTars

NAMES = {
    "a/000.jpg": "a/000",
    "a/000.txt": "a/000",
    "Mr. Smith, v0.0 final.jpg": "Mr. Smith, v0.0 final",
    "Mr. Smith, v0.0 final.json": "Mr. Smith, v0.0 final",
    "Mr. Smith, v0.1 final.JPG": "Mr. Smith, v0.1 final",
    "s0.input.jpg": "s0",
    "s0.txt": "s0",
    "s1.jpg": "s1",
    "s1.caption.txt": "s1",
    "s2.jpg": "s2",
    "s2.json": "s2",
    "s2.seg.png": "s2",
    "v1.2.jpg": "v1.2",
    "alone.input.jpg": "alone.input",
    "www.site.com_1.webp": "www.site.com_1",
}


def test_keys_end_at_known_endings() -> None:
    outside = ["s0.emb.npy", "._s0.jpg", "README", ".jpg", "s0.jpg/"]
    keys = keys_of([*NAMES, *outside])
    assert {name: key for name, (key, _) in keys.items()} == NAMES
    assert keys["s0.input.jpg"] == ("s0", "input.jpg")
    assert keys["Mr. Smith, v0.1 final.JPG"] == ("Mr. Smith, v0.1 final", "jpg")


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "JPEG")
    return buffer.getvalue()


def _tar(path: Path, members: dict[str, bytes], mode: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def test_the_json_decides_what_a_caption_is(tmp_path: Path) -> None:
    three = "one\ntwo\nthree"
    _tar(
        tmp_path / "0.tar",
        {
            "a.txt": three.encode(),
            "a.jpg": _jpeg(),
            "a.json": json.dumps({"caption": three}).encode(),
            "b.jpg": _jpeg(),
            "b.txt": three.encode(),
            "b.json": json.dumps({"caption": None, "class": None}).encode(),
            "c.jpg": _jpeg(),
            "c.json": json.dumps({"caption": 7}).encode(),
            "d.jpg": _jpeg(),
            "d.json": b"[1]",
            "e.jpg": _jpeg(),
            "e.JPG": _jpeg(),
            "e.txt": b"twice",
        },
    )
    found = {record.source_id[-5:]: record for record in WebDatasetTars(str(tmp_path)).records("train")}
    assert found["a.jpg"].captions == ("one two three",)
    assert (found["b.jpg"].captions, found["b.jpg"].class_name) == (("one", "two", "three"), "")
    assert found["c.jpg"].fault == 'c.json: "caption" holds a number; a caption must be a text'
    assert found["d.jpg"].fault == "d.json: it is a list, not an object"
    assert found["e.jpg"].fault == "e.JPG comes twice"


@pytest.mark.parametrize(
    ("name", "mode"), [("0.tar.gz", "w:gz"), ("0.TGZ", "w:gz"), ("0.tar.bz2", "w:bz2"), ("0.tar.xz", "w:xz")]
)
def test_compressed_tars_are_read(tmp_path: Path, name: str, mode: str) -> None:
    root = tmp_path / "root"
    _tar(root / name, {"a.jpg": _jpeg(), "a.txt": b"a thing"}, mode)
    for out in (str(tmp_path / "kept"), "memory://kept"):
        source = WebDatasetTars(str(root))
        source.keep_listing(out)
        (record,) = source.records("train")
        assert (record.captions, source.picture(record)) == (("a thing",), _jpeg())
    assert sorted(path.name for path in root.iterdir()) == [name]
    again = WebDatasetTars(str(root))
    again.keep_listing(out)
    assert again.records("train") == [record]  # from what was kept
    assert again.picture(record) == _jpeg()
    for damaged in ((root / name).read_bytes()[:-30], b"no such thing"):
        (root / name).write_bytes(damaged)
        with pytest.raises(UserError, match="is cut short or not"):
            again.records("train")


def test_braces_name_tars(tmp_path: Path) -> None:
    for number in range(4):
        _tar(tmp_path / f"set/{number:05d}.tar", {f"{number}.jpg": _jpeg(), f"{number}.txt": b"a thing"})
    source = WebDatasetTars(f"{tmp_path}/set/{{00000..00002}}.tar", test_fraction=0.0)
    assert [record.source_id for record in source.records("train")] == [f"{n:05d}.tar/{n}.jpg" for n in range(3)]
    assert source.picture(source.records("train")[0]) == _jpeg()
    assert source.account(["train"]).found == 3 + 6
    one = WebDatasetTars(f"{tmp_path}/set/00003.tar")
    assert [record.source_id for record in one.records("train")] == ["00003.tar/3.jpg"]
    divided = WebDatasetTars(f"{tmp_path}/{{train,test}}/0.tar")
    for split in ("train", "test"):
        _tar(tmp_path / split / "0.tar", {"x.jpg": _jpeg(), "x.txt": b"a thing"})
    assert [record.source_id for record in divided.records("test")] == ["test/0.tar/x.jpg"]
    with pytest.raises(UserError, match=r"there is no .*00009\.tar"):
        WebDatasetTars(f"{tmp_path}/set/{{00008..00009}}.tar").records("test")
    # a name that has braces itself is that name, and folders are never expanded
    _tar(tmp_path / "set/a{0..1}.tar", {"y.jpg": _jpeg(), "y.txt": b"a thing"})
    literal = WebDatasetTars(f"{tmp_path}/set/a{{0..1}}.tar")
    assert [record.source_id for record in literal.records("train")] == ["a{0..1}.tar/y.jpg"]
    _tar(tmp_path / "b{1,2}/0.tar", {"z.jpg": _jpeg(), "z.txt": b"a thing"})
    assert len(WebDatasetTars(f"{tmp_path}/b{{1,2}}").records("train")) == 1
