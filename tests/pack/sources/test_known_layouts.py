"""Layouts as people have them, each read without an option; and what is said where one does not fit."""

from __future__ import annotations

import json
import pickle
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stackgan_dist.cli.doors import command_main
from stackgan_dist.errors import UserError
from stackgan_dist.pack.pictures import Frame
from stackgan_dist.pack.sources import Record
from stackgan_dist.pack.sources.cub import Cub
from stackgan_dist.pack.sources.folder import PictureFolder
from stackgan_dist.pack.sources.names import AmbiguousNameError, PictureNames
from stackgan_dist.storage.folder import Folder

PICTURES = ("1000268201_693b08cb0e.jpg", "1001773457_577c3a7d70.jpg", "1002674143_1b742ab4b8.jpg")
SAID = {
    PICTURES[0]: ('A girl in a "pink" dress, climbing stairs .', "A child, in pink ."),
    PICTURES[1]: ("A black dog and a spotted dog are fighting", "Two dogs on the road; both wet ."),
    PICTURES[2]: ("A girl | a rainbow", "A small girl in the grass plays"),
}


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 9), (len(name) % 256, 90, 30)).save(root / name)


def _write(root: Path, name: str, text: str, encoding: str = "utf-8") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(text.encode(encoding))


def _records(root: Path, split: str = "train", **options: Any) -> dict[str, Record]:
    source = PictureFolder(str(root), **{"test_fraction": 0.0, **options})
    records = {record.source_id: record for record in source.records(split)}
    account = source.account([split])
    assert account.found == account.pictures.total() + account.others.total()
    return records


def _captions(root: Path, **options: Any) -> dict[str, tuple[str, ...]]:
    records = _records(root, **options)
    assert not any(record.fault for record in records.values()), records
    return {Path(name).name: record.captions for name, record in records.items()}


def _table(separator: str, header: str = "image,caption", *, quoted: bool = True) -> str:
    lines = [header.replace(",", separator)]
    for name, captions in SAID.items():
        for caption in captions:
            doubled = caption.replace('"', '""')
            lines.append(f'{name}{separator}"{doubled}"' if quoted else f"{name}{separator}{caption}")
    return "\n".join(lines) + "\n"


def _objects() -> list[dict[str, str]]:
    return [{"image": name, "caption": caption} for name, captions in SAID.items() for caption in captions]


def _coco() -> dict[str, Any]:
    images = [{"id": number, "file_name": name, "width": 12} for number, name in enumerate(SAID)]
    notes = [
        {"id": 10 * number + k, "image_id": number, "caption": caption}
        for k in range(2)
        for number, captions in enumerate(SAID.values())
        for caption in captions[k : k + 1]
    ]
    return {"info": {}, "licenses": [{"id": 1}], "images": images, "annotations": notes}


def _karpathy() -> dict[str, Any]:
    images = [
        {"filename": name, "filepath": "val2014", "split": "train", "imgid": 0, "sentids": [1, 2], "cocoid": 7,
         "sentences": [{"raw": caption, "tokens": ["a"], "imgid": 0} for caption in captions]}
        for name, captions in SAID.items()
    ]  # fmt: skip
    return {"images": images, "dataset": "coco"}


FORMS: dict[str, tuple[str, str]] = {
    "Flickr8k": ("captions.txt", _table(",")),
    "its header in capitals, BOM, CRLF": ("Labels.CSV", "\ufeff" + _table(",", "Image,Caption").replace("\n", "\r\n")),
    "other words": ("a/b/data.csv", _table(",", "File Name,Description")),
    "semicolons": ("results.csv", _table(";")),
    "Excel's": ("results.csv", "sep=;\n" + _table(";")),
    "tabs": ("results.tsv", _table("\t", "filename,sentence")),
    "Flickr30k": (
        "results.csv",
        "image_name| comment_number| comment\n"
        + "".join(
            f"{name}| {k}| {caption.replace('|', '/')}\n"
            for name, said in SAID.items()
            for k, caption in enumerate(said)
        ),
    ),
    "Flickr8k's token file": (
        "Flickr8k_text/Flickr8k.token.txt",
        "".join(f"{name}#{k}\t{caption}\n" for name, said in SAID.items() for k, caption in enumerate(said)),
    ),
    "no header, commas": ("mine.csv", _table(",").partition("\n")[2]),
    "caption_1, caption_2": (
        "captions_all.csv",
        "id,image,caption_1,caption_2\n"
        + "".join(
            f"7,{name}," + ",".join('"' + caption.replace('"', '""') + '"' for caption in said) + "\n"
            for name, said in SAID.items()
        ),
    ),
    "without endings": ("captions.csv", _table(",").replace(".jpg", "")),
    "another folder's names": (
        "captions.csv",
        re.sub(r"^(?=\d)", "Flicker8k_Dataset/", _table(","), flags=re.MULTILINE),
    ),
    "a Windows path": ("x.csv", re.sub(r"^(?=\d)", r"C:\\data\\Images\\", _table(","), flags=re.MULTILINE)),
    "a list of objects": ("captions.json", json.dumps(_objects())),
    "a list in lines": ("captions.jsonl", json.dumps(_objects(), indent=1)),
    "objects in lines": ("x.json", "\n".join(map(json.dumps, _objects()))),
    "captions by name": ("captions.json", json.dumps(SAID)),
    "objects by name": ("all.json", json.dumps({name: {"captions": said} for name, said in SAID.items()})),
    "COCO's": ("annotations/captions_all.json", json.dumps(_coco())),
    "Karpathy's": ("dataset_mine.json", json.dumps(_karpathy())),
    "a list in an object": ("mine.json", json.dumps({"version": 1, "samples": _objects()})),
}


@pytest.mark.parametrize("form", FORMS)
def test_captions_are_found_in_every_form(form: str, tmp_path: Path) -> None:
    _touch(tmp_path, *(f"Images/{name}" for name in PICTURES))
    name, text = FORMS[form]
    _write(tmp_path, name, text)
    _write(tmp_path, "readme.txt", "Pictures, and their captions.\n")
    said = {picture: tuple(caption.replace("|", "/") for caption in captions) for picture, captions in SAID.items()}
    assert _captions(tmp_path) == (said if form == "Flickr30k" else SAID)


def test_flickr8k_packs_at_the_first_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _touch(tmp_path, *(f"flickr8k/Images/{name}" for name in PICTURES))
    _write(tmp_path, "flickr8k/captions.txt", _table(","))
    line = f"pack folder --root {tmp_path}/flickr8k --out {tmp_path}/out --encoder ngrams --sizes 16 --workers 1"
    monkeypatch.setattr(sys, "argv", [*line.split(), "--splits", "train", "--options", "test_fraction=0"])
    command_main("pack")()
    said = capsys.readouterr().out
    assert re.search(r"3 packed as train\n +1 with captions", said), said
    assert re.search(r"6 captions\n +6 packed as train", said), said


class TestImagefolder:
    """Hugging Face's: a metadata file, or one in each split, and names relative to it."""

    @pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
    def test_metadata_of_each_split(self, ending: str, tmp_path: Path) -> None:
        for split in ("train", "validation"):
            _touch(tmp_path, f"{split}/0.jpg", f"{split}/sub/1.jpg")
            rows = [
                {"file_name": "0.jpg", "text": f"{split} a", "n": 1},
                {"file_name": "sub/1.jpg", "text": "b", "n": 2},
            ]
            file = tmp_path / split / f"metadata.{ending}"
            if ending == "csv":
                file.write_text("file_name,text,n\n" + "".join(",".join(map(str, row.values())) + "\n" for row in rows))
            elif ending == "jsonl":
                file.write_text("\n".join(map(json.dumps, rows)))
            else:
                pyarrow = pytest.importorskip("pyarrow")
                pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), file)
        train, test = _records(tmp_path), _records(tmp_path, "test")
        assert {name: record.captions for name, record in train.items()} == {
            "train/0.jpg": ("train a",), "train/sub/1.jpg": ("b",)
        }  # fmt: skip
        assert [*test] == ["validation/0.jpg", "validation/sub/1.jpg"]
        if ending != "jsonl":
            source = PictureFolder(str(tmp_path))
            source.records("train")
            assert any("columns that are not read: n." in note for note in source.account(["train"]).notes)

    @pytest.mark.parametrize("asked", [{}, {"captions": "train/metadata.jsonl"}])
    def test_training_alone_decides_no_split(self, asked: dict[str, str], tmp_path: Path) -> None:
        names = [f"{number}.jpg" for number in range(20)]
        _touch(tmp_path, *(f"train/{name}" for name in names))
        rows = [json.dumps({"file_name": name, "text": f"bird {name}"}) for name in names]
        _write(tmp_path, "train/metadata.jsonl", "\n".join(rows))
        train, test = (_records(tmp_path, split, test_fraction=0.2, **asked) for split in ("train", "test"))
        assert len(train) + len(test) == 20
        assert 2 <= len(test) < len(train)

    def test_pictures_inside_a_parquet_file_are_told(self, tmp_path: Path) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        _touch(tmp_path, "a.jpg")
        rows = [{"image": {"bytes": b"x", "path": "a.jpg"}, "text": "a red bird"}]
        parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "metadata.parquet")
        with pytest.raises(UserError, match=r"the pictures themselves in its column 'image': .* the recipe parquet"):
            _records(tmp_path, captions="metadata.parquet")
        (tmp_path / "metadata.parquet").write_bytes(b"PAR1 no")
        with pytest.raises(UserError, match="is not a parquet file"):
            _records(tmp_path, captions="metadata.parquet")

    def test_without_pyarrow_the_extra_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        _touch(tmp_path, "a.jpg")
        (tmp_path / "metadata.parquet").write_bytes(b"PAR1")
        with pytest.raises(UserError, match=r"pip install 'stackgan_dist\[parquet\]'"):
            _records(tmp_path)


def test_cub_as_attngan_and_df_gan_have_it(tmp_path: Path) -> None:
    """birds/ with CUB_200_2011/ in it, the texts in text/, and no parts."""
    top = tmp_path / "birds" / "CUB_200_2011"
    names = ["001.Auk/Auk_1", "001.Auk/Auk_2", "002.Wren/Wren_1"]
    for number, name in enumerate(names, 1):
        _touch(top / "images", f"{name}.jpg")
        _write(tmp_path, f"birds/text/{name}.txt", f"a bird of number {number}\nit is grey\n")
    _write(top, "images.txt", "".join(f"{number} {name}.jpg\n" for number, name in enumerate(names, 1)))
    _write(top, "bounding_boxes.txt", "".join(f"{number} 1.0 1.0 8.0 6.0\n" for number in (1, 2, 3)))
    for split, chosen in (("train", names[:2]), ("test", names[2:])):
        (tmp_path / "birds" / split).mkdir()
        (tmp_path / "birds" / split / "filenames.pickle").write_bytes(pickle.dumps(chosen, protocol=0))
    for root in (tmp_path, tmp_path / "birds"):
        source = Cub(str(root))
        first, _ = source.records("train")
        assert (first.key, first.class_name, first.fault) == ("Auk_1", "001.Auk", "")
        assert first.captions[:2] == ("a bird of number 1", "it is grey")
        assert source.picture(first)
        assert source.account(["train"]).notes == [
            "There is no CUB_200_2011/parts: the pictures have no keypoints, which GAWWN alone needs."
        ]


def test_texts_in_a_folder_of_their_own(tmp_path: Path) -> None:
    _touch(tmp_path, "images/001.Auk/a.jpg", "images/002.Wren/a.jpg", "images/002.Wren/b.jpg")
    _write(tmp_path, "text/001.Auk/a.txt", "an auk\n")
    _write(tmp_path, "text/002.Wren/a.txt", "a wren\n")
    _write(tmp_path, "text/002.Wren/b.txt", "two wrens\nthey sing")
    assert {name: record.captions for name, record in _records(tmp_path).items()} == {
        "images/001.Auk/a.jpg": ("an auk",),
        "images/002.Wren/a.jpg": ("a wren",),
        "images/002.Wren/b.jpg": ("two wrens", "they sing"),
    }
    # One text cannot be that of two pictures, and one beside other pictures is of none elsewhere.
    _touch(tmp_path, "images/003.Gull/b.jpg", "dogs/rex.jpg", "cats/tom.jpg")
    _write(tmp_path, "dogs/tom.txt", "a dog")
    (tmp_path / "text/002.Wren/b.txt").rename(tmp_path / "text/b.txt")
    found = _records(tmp_path)
    assert found["images/002.Wren/b.jpg"].fault == "there are no captions images/002.Wren/b.txt"
    assert found["cats/tom.jpg"].fault == "there are no captions cats/tom.txt"


def test_texts_of_other_endings(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jpg", "b.jpg", "c.jpg")
    _write(tmp_path, "a.caption", "one\n")
    _write(tmp_path, "b.json", '{"caption": "two", "width": 3}')
    _write(tmp_path, "c.json", "[3]")
    found = _records(tmp_path)
    assert (found["a.jpg"].captions, found["b.jpg"].captions) == (("one",), ("two",))
    assert "it is a list, not an object" in found["c.jpg"].fault
    # JSON beside each picture that is about other things does not hide a file of captions.
    (tmp_path / "a.caption").unlink()
    _write(tmp_path, "metadata.csv", "file_name,text\na.jpg,three\nb.jpg,four\nc.jpg,five\n")
    assert [record.captions for record in _records(tmp_path).values()] == [("three",), ("four",), ("five",)]


class TestNames:
    @pytest.mark.parametrize(
        "name", ["x/a.jpg", "a.jpg", "a", "X/A.JPG", "old/x/a.jpg", "/home/me/x/a.jpg", "../x/a", "x\\a.jpg"]
    )
    def test_what_means_a_picture(self, name: str) -> None:
        names = PictureNames(["x/a.jpg", "y/b.jpg"])
        assert names.exact(name) or names.like(name) == "x/a.jpg"

    @pytest.mark.parametrize("name", ["y/a.jpg", "a.png", "aa", "", "x", "c.jpg"])
    def test_what_means_none(self, name: str) -> None:
        names = PictureNames(["x/a.jpg", "y/b.jpg"])
        assert names.exact(name) is None
        assert names.like(name) is None

    def test_several_are_refused_and_the_nearer_preferred(self) -> None:
        names = PictureNames(["train/cats/rex.jpg", "train/rex.jpg", "test/in/rex.png"])
        with pytest.raises(AmbiguousNameError, match=r"may mean test/in/rex\.png, train/cats/rex\.jpg, train/rex"):
            names.like("rex")
        assert names.like("cats/rex") == "train/cats/rex.jpg"
        assert names.like("rex", "test") == "test/in/rex.png"
        assert names.exact("rex.jpg", "train") == "train/rex.jpg"

    def test_in_a_table(self, tmp_path: Path) -> None:
        _touch(tmp_path, "cats/rex.jpg", "dogs/rex.jpg", "cats/tom.jpg", "new/kit.jpg")
        _write(
            tmp_path,
            "captions.csv",
            "file,caption\nrex.jpg,one\ncats/rex.jpg,two\ngone/tom.jpg,three\ncats/tom.jpg,four\na/kit,five\nb/kit,six\n",
        )
        found = _records(tmp_path)
        assert "the name 'rex.jpg' may mean cats/rex.jpg, dogs/rex.jpg" in found["rex.jpg"].fault
        assert found["cats/rex.jpg"].captions == ("two",)
        # Not a caption of one cat for another: the other line has the whole name.
        assert found["cats/tom.jpg"].captions == ("four",)
        assert "cats/tom.jpg is like it, but another line names it in full" in found["gone/tom.jpg"].fault
        for name in ("a/kit", "b/kit"):
            assert "new/kit.jpg is like it, but another line names it too" in found[name].fault
            assert not found[name].present

    def test_it_is_said_how_many(self, tmp_path: Path) -> None:
        _touch(tmp_path, "Images/a.jpg", "Images/b.jpg")
        _write(tmp_path, "captions.csv", "file,caption\na.jpg,one\nb,two\n")
        source = PictureFolder(str(tmp_path))
        source.records("train")
        assert source.account(["train"]).notes[0] == (
            "2 names were matched without their folder or ending: a.jpg, for example, is Images/a.jpg."
        )


def test_classes_are_whole_paths(tmp_path: Path) -> None:
    for name in ("train/cats/big/a", "train/dogs/big/a", "train/b", "test/cats/big/c"):
        _touch(tmp_path, f"{name}.jpg")
        _write(tmp_path, f"{name}.txt", "one")
    found = _records(tmp_path, classes="folders")
    assert [record.class_name for record in found.values()] == ["", "cats/big", "dogs/big"]
    assert [record.class_name for record in _records(tmp_path, "test", classes="folders").values()] == ["cats/big"]


def test_columns_are_named_and_splits_are_in_file_names(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jpg", "b.jpg")
    _write(tmp_path, "labels_train.csv", "photo_of,says,also,kind,part\na.jpg,one,two,x,train\n")
    _write(tmp_path, "labels_val.csv", "photo_of,says,also,kind,part\nb.jpg,three,four,y,\n")
    options = {"file_column": "photo_of", "caption_column": ["says", "also"], "class_column": "kind"}
    (record,) = _records(tmp_path, **options).values()
    assert (record.captions, record.class_name) == (("one", "two"), "x")
    assert [*_records(tmp_path, "test", **options)] == ["b.jpg"]
    both = {**options, "captions": ["labels_val.csv", "labels_train.csv"], "split_column": "part"}
    assert [*_records(tmp_path, **both)] == ["a.jpg"]


def test_several_files_of_captions_are_refused(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jpg", "b.jpg")
    for name in ("one.csv", "two.csv"):
        _write(tmp_path, name, "image,caption\na.jpg,a red bird\n")
    with pytest.raises(UserError, match=r"several files of captions: one\.csv, two\.csv; choose with --options capt"):
        _records(tmp_path)
    # A list of pictures is none, and neither are Flickr's words cut to their stems and its judgements.
    (tmp_path / "two.csv").unlink()
    _write(tmp_path, "trainImages.txt", "a.jpg\nb.jpg\n")
    _write(tmp_path, "lemma.token.txt", "a.jpg#0\tred bird be here\n")
    _write(tmp_path, "ExpertAnnotations.txt", "a.jpg\tb.jpg#2\t1\t1\t1\n")
    assert [*_records(tmp_path)] == ["a.jpg"]


Suggestion = Callable[[Path], None]


def _odd_table(root: Path) -> None:
    _write(root, "my labels.csv", "photo of,serial,says\na.jpg,77,a small red bird\nb.jpg,78,a blue one\n")


def _odd_json(root: Path) -> None:
    rows = [{"photo_of": "a.jpg", "caption": "a red bird"}, {"photo_of": "b.jpg", "caption": "a blue one"}]
    _write(root, "labels.json", json.dumps(rows))


@pytest.mark.parametrize("lay", [_odd_table, _odd_json])
def test_where_nothing_fits_the_option_that_would_is_said(lay: Suggestion, tmp_path: Path) -> None:
    _touch(tmp_path, "a.jpg", "b.jpg")
    lay(tmp_path)
    with pytest.raises(UserError) as told:
        _records(tmp_path)
    message = str(told.value)
    assert "holds 2 pictures but no captions" in message
    assert "Found: 2 .jpg, 1 ." in message
    words = shlex.split(message.partition("--options ")[2])
    given = {key: value for key, _, value in (word.partition("=") for word in words)}
    if lay is _odd_table:
        assert "(parted by commas) and the first row ['a.jpg', '77', 'a small red bird']" in message
        assert given == {"captions": "my labels.csv", "file_column": "photo of", "caption_column": "says"}
    else:
        given["file_column"] = "photo_of"
    assert _captions(tmp_path, **given)["b.jpg"] == ("a blue one",)


@pytest.mark.parametrize(("name", "times"), [("captions.csv", 1), ("labels.csv", 2)])
def test_a_captions_file_is_fetched_to_find_it_and_to_read_it_alone(
    name: str, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store sends it each time. The columns that are not read are told from the same copy."""
    fetched = []
    local_copy = Folder.local_copy

    def counted(folder: Folder, file: str) -> Any:
        fetched.append(file)
        return local_copy(folder, file)

    monkeypatch.setattr(Folder, "local_copy", counted)
    _touch(tmp_path, "a.jpg", "b.jpg")
    _write(tmp_path, name, "file,caption,mood\na.jpg,a small red bird,7\nb.jpg,a blue one,8\n")
    source = PictureFolder(str(tmp_path))
    source.records("train")
    assert fetched == [name] * times
    assert "columns that are not read: mood" in " ".join(source.account(["train"]).notes)


def test_the_option_is_said_as_a_shell_takes_it(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jpg", "b.jpg")
    _write(tmp_path, "Ann's labels.csv", "photo of,Ann's words\na.jpg,a small red bird\nb.jpg,a blue one\n")
    with pytest.raises(UserError) as told:
        _records(tmp_path)
    words = shlex.split(str(told.value).partition("--options ")[2])
    assert words == ["captions=Ann's labels.csv", "file_column=photo of", "caption_column=Ann's words"]


def test_folders_of_other_things_point_to_their_recipe(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"")
    with pytest.raises(UserError, match="it holds tars: pack it with the recipe webdataset"):
        _records(tmp_path)


def test_fit_pad_keeps_all_of_a_picture(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jpg")
    _write(tmp_path, "a.txt", "one")
    assert [record.pad for fit in ("crop", "pad") for record in _records(tmp_path, fit=fit).values()] == [False, True]
    with pytest.raises(UserError, match="fit is 'squeeze'; choose one of crop, pad"):
        _records(tmp_path, fit="squeeze")
    image = Image.new("RGB", (40, 10), (255, 0, 0))
    frame = Frame.of(image, pad=True)
    square = frame.resample(image, 16)
    assert square.size == (16, 16)
    assert [square.getpixel((8, y)) for y in (2, 8, 13)] == [(255, 255, 255), (255, 0, 0), (255, 255, 255)]
    assert square.getpixel((0, 8)) == (255, 0, 0)
    assert frame.point(0, 0) == (0.0, 15 / 40)
    assert frame.box(0, 0, 40, 10) == pytest.approx((0.0, 15 / 40, 1.0, 10 / 40))
    tall = Frame.of(Image.new("RGB", (10, 40)), pad=True).resample(Image.new("RGB", (10, 40)), 16)
    assert (tall.getpixel((0, 8)), tall.getpixel((8, 0))) == ((255, 255, 255), (0, 0, 0))
    assert Frame.of(Image.new("RGB", (9, 9)), pad=True) == Frame.of(Image.new("RGB", (9, 9)))
