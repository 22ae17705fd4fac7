"""Parquet files with the pictures inside: forms of columns and splits, what is not understood, a whole pack."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stackgan_dist.data.index import load_index
from stackgan_dist.errors import UserError
from stackgan_dist.pack.data_set import pack
from stackgan_dist.pack.recipe import Recipe
from stackgan_dist.pack.sources import Record
from stackgan_dist.pack.sources.parquet import ParquetPictures
from stackgan_dist.pack.verify import verify

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def _picture(shade: int, side: int = 24) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side + shade % 5, side), (shade % 256, 80, 160)).save(file, "PNG")
    return file.getvalue()


def _write(file: Path, rows: list[dict[str, Any]], features: dict[str, Any] | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist(rows)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    parquet.write_table(table, file, row_group_size=3)


def _rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"image": {"bytes": _picture(n), "path": f"{n}.png"}, "text": f"bird number {n}", "label": n % 3}
        for n in range(start, start + count)
    ]


def _source(root: Path, kept: Path, **options: Any) -> ParquetPictures:
    source = ParquetPictures(str(root), **options)
    source.keep_listing(str(kept))
    return source


def _all(source: ParquetPictures) -> dict[str, list[Record]]:
    return {split: list(source.records(split)) for split in ("train", "test", "val")}


def test_files_named_after_their_splits(tmp_path: Path) -> None:
    """As in a data set's repository; each picture is the bytes that were put in, and labels have their names."""
    features = {"label": {"names": ["auk", "wren", "owl"], "_type": "ClassLabel"}, "text": {"dtype": "string"}}
    for split, counts in {"train": (7, 4), "validation": (2,), "test": (3,)}.items():
        for part, count in enumerate(counts):
            _write(tmp_path / f"set/data/{split}-{part:05d}-of-{len(counts):05d}-0a1b.parquet", _rows(count), features)
    (tmp_path / "set/README.md").write_text("---\n")
    source = _source(tmp_path / "set", tmp_path / "kept")
    found = _all(source)
    assert {split: len(records) for split, records in found.items()} == {"train": 11, "test": 3, "val": 2}
    first = found["train"][:7]
    assert [record.captions for record in first] == [(f"bird number {n}",) for n in range(7)]
    assert [record.class_name for record in first] == ["auk", "wren", "owl"] * 2 + ["auk"]
    assert [source.picture(record) for record in first] == [_picture(n) for n in range(7)]
    assert len({record.key for records in found.values() for record in records}) == 16
    account = source.account(["train", "test", "val"])
    assert account.found == account.pictures.total() + account.others.total() == 4 + 1 + 16
    assert account.others["parquet files"] == 4


@pytest.mark.parametrize("name", ["default/{}/0000.parquet", "{}.parquet", "mine_{}.parquet"])
def test_other_names_of_splits(name: str, tmp_path: Path) -> None:
    _write(tmp_path / "set" / name.format("train"), _rows(3))
    _write(tmp_path / "set" / name.format("validation"), _rows(2, 50))
    found = _all(_source(tmp_path / "set", tmp_path / "kept"))
    assert {split: len(records) for split, records in found.items()} == {"train": 3, "test": 2, "val": 0}


def test_without_a_test_file_rows_are_divided_and_all_are_accounted_for(tmp_path: Path) -> None:
    _write(tmp_path / "set/train-00000-of-00001.parquet", _rows(60))
    source = _source(tmp_path / "set", tmp_path / "kept", test_fraction=0.3)
    found = _all(source)
    ids = {split: {record.source_id for record in records} for split, records in found.items()}
    assert 5 < len(ids["test"]) < 35
    assert not ids["train"] & ids["test"]
    assert len(ids["train"] | ids["test"]) == 60
    account = source.account(["train", "test"])
    assert account.found == account.pictures.total() + account.others.total() == 61
    assert not _all(_source(tmp_path / "set", tmp_path / "kept", test_fraction=0.0))["test"]


def test_columns_of_other_forms(tmp_path: Path) -> None:
    """Bytes alone; several captions as a list, as numbered columns, as objects; a class by its column; pad."""
    rows: list[dict[str, Any]] = [{"picture": _picture(n), "sentences": ["a bird", f"bird {n}"]} for n in range(2)]
    _write(tmp_path / "a/x.parquet", rows)
    found = _source(tmp_path / "a", tmp_path / "kept", test_fraction=0.0, fit="pad").records("train")
    assert [record.captions for record in found] == [("a bird", "bird 0"), ("a bird", "bird 1")]
    assert all(record.pad for record in found)

    rows = [
        {"image": {"bytes": _picture(1), "path": None}, "caption_1": "one", "caption_2": "two", "kind": "auk", "n": 1}
    ]
    _write(tmp_path / "b/x.parquet", rows)
    source = _source(tmp_path / "b", tmp_path / "kept", test_fraction=0.0, class_column="kind")
    (record,) = source.records("train")
    assert (record.captions, record.class_name) == (("one", "two"), "auk")
    for split in ("train", "test", "train"):  # also where the listing was kept
        source.records(split)
        assert any("columns that are not read: n." in note for note in source.account([split]).notes)
    assert len(source.account(["train", "test"]).notes) == 1

    rows = [{"mask": _picture(2), "photo": _picture(1), "says": [{"raw": "a wren", "tokens": ["a", "wren"]}]}]
    _write(tmp_path / "c/x.parquet", rows)
    with pytest.raises(UserError, match=r"no column of captions .* mask, photo, says; .*image_column=NAME"):
        _source(tmp_path / "c", tmp_path / "kept").records("train")
    options = {"image_column": "photo", "caption_column": "says", "test_fraction": 0.0}
    source = _source(tmp_path / "c", tmp_path / "kept", **options)
    (record,) = source.records("train")
    assert record.captions == ("a wren",)
    assert source.picture(record) == _picture(1)


def test_what_is_not_understood_costs_its_row_or_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[dict[str, Any]] = [
        {"image": {"bytes": _picture(0), "path": "a"}, "text": "a bird"},
        {"image": {"bytes": None, "path": "b.png"}, "text": "a bird elsewhere"},
        {"image": None, "text": "no bird"},
        {"image": {"bytes": _picture(3), "path": "d"}, "text": None},
    ]
    _write(tmp_path / "a/x.parquet", rows)
    found = _source(tmp_path / "a", tmp_path / "kept", test_fraction=0.0).records("train")
    assert [record.fault for record in found] == ["", "the row has no picture", "the row has no picture", ""]
    assert [record.present for record in found] == [True, False, False, True]
    assert not found[3].captions

    _write(tmp_path / "b/x.parquet", [{"image": {"bytes": _picture(0), "path": "a"}, "text": 7}])
    (record,) = _source(tmp_path / "b", tmp_path / "kept", test_fraction=0.0).records("train")
    assert record.fault == 'row 0: "text" holds a number; a caption must be a text'

    _write(tmp_path / "c/x.parquet", [{"image": "a.jpg", "text": "a bird"}])
    with pytest.raises(UserError, match=r"no column with the pictures themselves .*recipe folder"):
        _source(tmp_path / "c", tmp_path / "kept").records("train")
    (tmp_path / "c/x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="is not a parquet file"):
        _source(tmp_path / "c", tmp_path / "kept").records("train")
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a.jpg").touch()
    with pytest.raises(UserError, match=r"there are no parquet files .* but 1 .jpg"):
        _source(tmp_path / "d", tmp_path / "kept").records("train")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'stackgan_dist\[parquet\]'"):
        _source(tmp_path / "b", tmp_path / "kept2").records("train")


def test_what_is_kept_is_read_again_and_a_replaced_file_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "set/x.parquet", _rows(4))
    once = _source(tmp_path / "set", tmp_path / "kept", test_fraction=0.0).records("train")
    with monkeypatch.context() as patch:
        patch.setattr(ParquetPictures, "_scan", None)
        again = _source(tmp_path / "set", tmp_path / "kept", test_fraction=0.0)
        assert again.records("train") == once
        assert [again.picture(record) for record in once] == [_picture(n) for n in range(4)]
    for pictures in (tmp_path / "kept").glob("*.pictures"):
        pictures.unlink()
    whole = _source(tmp_path / "set", tmp_path / "kept", test_fraction=0.0)
    assert whole.picture(whole.records("train")[3]) == _picture(3)
    # Another choice of columns, or another file, is no reason to take what was kept.
    assert (
        not _source(tmp_path / "set", tmp_path / "kept", test_fraction=0.0, class_column="none")
        .records("train")[0]
        .class_name
    )
    _write(tmp_path / "set/x.parquet", _rows(5, 20))
    new = _source(tmp_path / "set", tmp_path / "kept", test_fraction=0.0)
    assert [new.picture(record) for record in new.records("train")] == [_picture(n) for n in range(20, 25)]


def test_a_set_is_packed_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    features = {"label": {"names": ["auk", "wren", "owl"], "_type": "ClassLabel"}}
    _write(tmp_path / "set/data/train-00000-of-00001.parquet", _rows(20), features)
    _write(tmp_path / "set/data/test-00000-of-00001.parquet", _rows(6, 100), features)
    recipe = Recipe("own", "parquet", "ngrams", sizes=(16,))
    pack(recipe, root=str(tmp_path / "set"), out=str(tmp_path / "out"), workers=1)
    assert "those in the parquet files among them" in capsys.readouterr().out
    index = load_index(str(tmp_path / "out/train/16"), how_to_make="pack it")
    assert index.samples == 20
    assert list(index.classes) == ["auk", "owl", "wren"]
    verify(str(tmp_path / "out"), workers=1)
    assert not (tmp_path / "out/listing").exists()
