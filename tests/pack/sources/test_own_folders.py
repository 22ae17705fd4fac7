"""People's folders as they are: tables with commas, JSON of other types, validation sets, links, accents."""

from __future__ import annotations

import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources import Record
from stackgan_dist.pack.sources.files import Files, Names
from stackgan_dist.pack.sources.folder import PictureFolder
from stackgan_dist.pack.sources.splits import splits_by_folder
from stackgan_dist.pack.sources.webdataset import WebDatasetTars


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def _records(root: Path, **options: Any) -> dict[str, Record]:
    source = PictureFolder(str(root), **{"test_fraction": 0.0, **options})
    return {record.source_id: record for record in source.records("train")}


def _table(root: Path, *lines: str) -> dict[str, Record]:
    (root / "captions.csv").write_text("\n".join(lines) + "\n")
    return _records(root)


def test_unquoted_commas_are_rejected_by_line(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    found = _table(
        tmp_path, "file,caption", "a.jpg,a red, round, small, fruit", 'b.jpg,"a red, round fruit"', "c.jpg,one, two"
    )
    assert found["a.jpg"].fault == "captions.csv, line 2: 3 columns too many; quote the caption"
    assert (found["b.jpg"].captions, found["b.jpg"].fault) == (("a red, round fruit",), "")
    assert found["c.jpg"].fault == "captions.csv, line 4: 1 column too many; quote the caption"


def test_other_faults_of_a_table_cost_a_line(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jpg", "b.jpg")
    found = _table(tmp_path, "file, caption,class", "a.jpg,good,x", ",no file,x", "b.jpg", "a.jpg,again,y", "b.jpg,ok,")
    assert "its rows give it the class 'x' and 'y'" in found["a.jpg"].fault
    assert found["captions.csv, line 3"].fault.endswith("it names no file")
    assert not found["captions.csv, line 3"].present
    assert (found["b.jpg"].captions, found["b.jpg"].fault) == (("ok",), "")
    with pytest.raises(UserError, match="the column 'caption' twice"):
        _table(tmp_path, "file,caption,caption", "a.jpg,one,two")
    with pytest.raises(UserError, match=r"line \d+: .*close the quotes"):
        _table(tmp_path, "file,caption", 'a.jpg,"never closed', "b.jpg,fine")
    # later rows give what the first leaves out
    found = _table(tmp_path, "file,caption,class", "a.jpg,one,", "a.jpg,two,x")
    assert (found["a.jpg"].captions, found["a.jpg"].class_name) == (("one", "two"), "x")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"captions": None, "caption": "b"}, (("b",), "", "")),
        ({"caption": None}, ((), "", "")),
        ({"captions": ["a", None, "b"]}, (("a", "b"), "", "")),
        ({"caption": "a", "class": None, "split": None}, (("a",), "", "")),
        ({"caption": "a", "class": 7}, (("a",), "7", "")),
        ({"caption": "a", "class": ["x"]}, ((), "", '"class" is a list; a text was expected')),
        ({"caption": "a", "class": True}, ((), "", '"class" is true or false; a text was expected')),
        ({"caption": "a", "class": 1.5}, ((), "", '"class" is a number; a text was expected')),
        ({"caption": "a", "split": ["train"]}, ((), "", '"split" is a list; a text was expected')),
        ({"caption": "a", "split": "restval"}, (("a",), "", "the split is 'restval'; train, test, val are known")),
        ({"caption": {"en": "a"}}, ((), "", '"caption" holds an object; a caption must be a text')),
        ({"captions": ["a", ["b"]]}, ((), "", '"captions" holds a list; a caption must be a text')),
        ({"captions": 5}, ((), "", '"captions" holds a number; a caption must be a text')),
    ],
)
def test_what_is_no_text_is_never_made_one(tmp_path: Path, fields: dict[str, Any], expected: tuple[Any, ...]) -> None:
    _touch(tmp_path, "a.jpg")
    (tmp_path / "captions.jsonl").write_text(json.dumps({"file": "a.jpg", **fields}))
    record = _records(tmp_path)["a.jpg"]
    captions, class_name, fault = expected
    assert (record.captions, record.class_name) == (captions, class_name)
    assert record.fault.removeprefix("captions.jsonl:1: ") == fault


@pytest.mark.parametrize(
    "line", ["[1]", "null", '"a.jpg"', '{"file": null, "caption": "a"}', '{"file": ["a.jpg"]}', "7"]
)
def test_a_line_that_is_no_object_or_names_no_file_costs_itself(tmp_path: Path, line: str) -> None:
    _touch(tmp_path, "a.jpg")
    (tmp_path / "captions.jsonl").write_text(f'{{"file": "a.jpg", "caption": "a"}}\n{line}\n')
    found = _records(tmp_path)
    assert not found["a.jpg"].fault
    assert "the line is not understood" in found["captions.jsonl:2"].fault


SPLIT_CASES = {
    "train and val": (["train/a", "val/b"], {"train": {"train/a"}, "test": {"val/b"}}),
    "all three": (["train/a", "val/b", "test/c"], {"train": {"train/a"}, "test": {"test/c"}, "val": {"val/b"}}),
    "other names": (["Training/a", "VALIDATION/b", "x/c"], {"train": {"Training/a"}, "test": {"VALIDATION/b"}}),
    "no train": (["cats/a", "test/b", "dev/c", "d"], {"train": {"cats/a", "d"}, "test": {"test/b"}, "val": {"dev/c"}}),
}


@pytest.mark.parametrize("case", SPLIT_CASES)
def test_validation_pictures_are_never_trained_on(tmp_path: Path, case: str) -> None:
    names, expected = SPLIT_CASES[case]
    _touch(tmp_path, *(f"{name}{ending}" for name in names for ending in (".jpg", ".txt")))
    source = PictureFolder(str(tmp_path), test_fraction=0.5)
    found = {split: {record.source_id[:-4] for record in source.records(split)} for split in ("train", "test", "val")}
    assert {split: pictures for split, pictures in found.items() if pictures} == expected
    account = source.account(["train"])
    assert account.found == sum(account.pictures.values()) + sum(account.others.values())
    said = ["The validation pictures are the split test, since there is no other one."]
    assert account.notes == (said if case in ("train and val", "other names") else [])


def test_validation_in_a_captions_file_and_in_folders_of_tars(tmp_path: Path) -> None:
    rows = [("a.jpg", "train"), ("b.jpg", "Validation"), ("c.jpg", "val")]
    _touch(tmp_path, *(file for file, _ in rows), "tars/train/0.tar", "tars/valid/0.tar", "tars/test/0.tar")
    lines = [json.dumps({"file": file, "caption": "x", "split": split}) for file, split in rows]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    source = PictureFolder(str(tmp_path))
    assert [record.source_id for record in source.records("train")] == ["a.jpg"]
    assert [record.source_id for record in source.records("test")] == ["b.jpg", "c.jpg"]
    with (tmp_path / "captions.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"file": "gone.jpg", "caption": "x", "split": "test"}))
    assert [record.source_id for record in source.records("val")] == ["b.jpg", "c.jpg"]
    tars = WebDatasetTars(str(tmp_path / "tars"))
    for name in ("train", "valid", "test"):
        (tmp_path / f"tars/{name}/0.tar").write_bytes(b"no tar")
    with pytest.raises(UserError, match=r"valid/0\.tar is cut short"):
        tars.records("val")


def test_a_split_folder_that_lies_deeper_is_said(tmp_path: Path) -> None:
    names = ["images/train/a.jpg", "images/val/b.jpg"]
    account = PictureFolder(str(tmp_path))._account
    assert not splits_by_folder(names, account)
    assert account.notes == [
        "The folder images/val decides no split, because it is not directly under --root; end --root with images if it "
        "should."
    ]


def test_links_are_followed_once(tmp_path: Path) -> None:
    root, disk = tmp_path / "root", tmp_path / "disk"
    _touch(root, "real/a.jpg")
    _touch(disk, "sub/b.jpg")
    (disk / "back").symlink_to(root)
    (root / "linked").symlink_to(disk)
    (root / "again").symlink_to(root / "real")
    (root / "c.jpg").symlink_to(root / "real/a.jpg")
    (root / "gone.jpg").symlink_to("nothing")
    (root / "self").symlink_to("self")
    os.mkfifo(root / "pipe.jpg")
    tree = Files(str(root), "folder", "pictures").tree()
    assert tree.files == ["c.jpg", "linked/sub/b.jpg", "real/a.jpg"]
    assert tree.others == {
        "again": "links to a folder that is read already",
        "gone.jpg": "broken links",
        "linked/back": "links to a folder that is read already",
        "pipe.jpg": "pipes, sockets or devices",
        "self": "broken links",
    }
    (tmp_path / "way").symlink_to(root)
    assert Files(str(tmp_path / "way"), "folder", "pictures").names("real") == ["real/a.jpg"]


def test_accents_are_matched_however_they_are_written(tmp_path: Path) -> None:
    composed, split_up = "cafés/É.jpg", unicodedata.normalize("NFD", "cafés/É.jpg")
    _touch(tmp_path, split_up)
    (tmp_path / "captions.jsonl").write_text(json.dumps({"file": composed, "caption": "x"}, ensure_ascii=False))
    record = _records(tmp_path)[split_up]
    assert (record.fault, record.present) == ("", True)
    assert PictureFolder(str(tmp_path)).picture(record) == b""
    line = (tmp_path / "captions.jsonl").read_text()
    (tmp_path / "captions.jsonl").write_text(f"{line}\n{unicodedata.normalize('NFD', line)}")
    assert _records(tmp_path)[split_up].captions == ("x", "x")
    names = Names([composed, split_up, "a"])
    assert (names.find(composed), names.find(split_up), names.find("b")) == (composed, split_up, None)
    _touch(tmp_path / "beside", unicodedata.normalize("NFD", "ü.jpg"))
    (tmp_path / "beside" / unicodedata.normalize("NFC", "ü.txt")).write_text("umlaut")
    (record,) = _records(tmp_path / "beside").values()
    assert record.captions == ("umlaut",)
