import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stackgan_dist.errors import UserError
from stackgan_dist.pack.pictures import load_picture
from stackgan_dist.pack.sources.oxford102 import Oxford102

scipy_io = pytest.importorskip("scipy.io")

LABELS = [77, 1, 20, 21, 102, 77]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six pictures of five classes; the last has captions but no picture."""
    scipy_io.savemat(tmp_path / "imagelabels.mat", {"labels": np.array([LABELS], dtype=np.uint8)})
    (tmp_path / "jpg").mkdir()
    for number, label in enumerate(LABELS, 1):
        folder = tmp_path / "text_c10" / f"class_{label:05d}"
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"flower {number} has petals of kind {line}" for line in range(10)]
        (folder / f"image_{number:05d}.txt").write_text("\n".join(lines) + "\n")
        if number < len(LABELS):
            Image.new("RGB", (6, 4), (number, 0, 0)).save(tmp_path / "jpg" / f"image_{number:05d}.jpg", quality=100)
    return tmp_path


def test_splits_share_no_class_and_leave_out_missing_pictures(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Oxford102(str(root), partial=True)
    assert [record.key for record in source.records("test")] == ["image_00002", "image_00003"]
    assert capsys.readouterr().out == ""
    assert "the picture is missing" in Oxford102(str(root)).records("train")[3].fault
    train = source.records("train")
    assert [record.key for record in train] == ["image_00001", "image_00004", "image_00005"]
    assert "1 of 4 pictures are missing" in capsys.readouterr().out
    assert [record.class_name for record in train] == ["class_00077", "class_00021", "class_00102"]
    assert train[0].captions[3] == "flower 1 has petals of kind 3"
    assert len(train[0].captions) == 10
    picture = load_picture(source.picture(train[1]))
    assert picture.size == (6, 4)
    assert picture.getpixel((0, 0))[0] == 4


def test_other_test_classes(root: Path) -> None:
    source = Oxford102(str(root), test_classes=[77], partial=True)
    assert [record.key for record in source.records("test")] == ["image_00001"]
    with pytest.raises(UserError, match=r"\[103\]"):
        Oxford102(str(root), test_classes=[1, 103])


def test_english_class_names_where_they_are_known(root: Path) -> None:
    names = {str(number): f"flower of {number}" for number in range(1, 103)}
    (root / "cat_to_name.json").write_text(json.dumps(names))
    assert Oxford102(str(root)).records("test")[0].class_name == "001.flower of 1"
    del names["7"]
    (root / "cat_to_name.json").write_text(json.dumps(names))
    with pytest.raises(UserError, match="'7'"):
        Oxford102(str(root)).records("test")


def test_captions_are_cleaned_and_stay_ten(root: Path) -> None:
    path = root / "text_c10" / "class_00001" / "image_00002.txt"
    path.write_bytes(b"a  red\xff flower\r\n\r\n{}\nv\n  its petals\tare white \n")
    assert Oxford102(str(root)).records("test")[0].captions == ("a red flower", "its petals are white") * 5
    path.write_bytes(b"{}\n\n")
    assert "image_00002.txt holds no caption" in Oxford102(str(root)).records("test")[0].fault


def test_what_is_missing_is_named(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(UserError, match="--root"):
        Oxford102(None)
    with pytest.raises(UserError, match="val"):
        Oxford102(str(root)).records("val")
    (root / "text_c10" / "class_00001" / "image_00002.txt").unlink()
    assert "class_00001/image_00002.txt are missing" in Oxford102(str(root)).records("test")[0].fault
    (root / "imagelabels.mat").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"imagelabels\.mat is not"):
        Oxford102(str(root)).records("test")
    (root / "imagelabels.mat").unlink()
    with pytest.raises(UserError, match=r"no .*imagelabels\.mat"):
        Oxford102(str(root)).records("test")
    empty = tmp_path_factory.mktemp("empty")
    scipy_io.savemat(empty / "imagelabels.mat", {"labels": np.array([LABELS], dtype=np.uint8)})
    with pytest.raises(UserError, match=r"no folder .*jpg"):
        Oxford102(str(empty)).records("test")
    (empty / "jpg").mkdir()
    with pytest.raises(UserError, match="none of the 2 pictures is there"):
        Oxford102(str(empty)).records("test")
