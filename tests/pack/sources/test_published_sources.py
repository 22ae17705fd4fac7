"""CUB and COCO as their publishers lay them out, and the published embeddings."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stackgan_dist.errors import UserError
from stackgan_dist.pack.listing import list_split
from stackgan_dist.pack.pictures import Frame, load_picture
from stackgan_dist.pack.recipe import Recipe
from stackgan_dist.pack.sources import SOURCES, EmbeddedSource, open_source
from stackgan_dist.pack.sources.coco import Coco
from stackgan_dist.pack.sources.cub import Cub
from stackgan_dist.pack.sources.files import Files

BIRDS = {"001.Auk/Auk_1": "10.0 20.0 40.0 20.0", "001.Auk/Auk_2": "0.0 0.0 60.0 50.0", "002.Wren/Wren_1": "1 1 9 8"}
SPLITS = {"train": ["001.Auk/Auk_2", "001.Auk/Auk_1"], "test": ["002.Wren/Wren_1"]}


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    """Three birds of two classes, 60 x 50 px; captions and splits in birds/."""
    top = tmp_path / "CUB_200_2011"
    (top / "parts").mkdir(parents=True)
    tables: dict[str, list[str]] = {"images.txt": [], "bounding_boxes.txt": [], "parts/part_locs.txt": []}
    for number, (name, box) in enumerate(BIRDS.items(), 1):
        tables["images.txt"].append(f"{number} {name}.jpg")
        tables["bounding_boxes.txt"].append(f"{number} {box}")
        tables["parts/part_locs.txt"] += [f"{number} 1 12.0 22.0 1", f"{number} 2 0.0 0.0 0"]
        for folder, ending in ((top / "images", "jpg"), (tmp_path / "birds/text_c10", "txt")):
            path = folder / f"{name}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if ending == "jpg":
                Image.new("RGB", (60, 50), (0, 90, 0)).save(path)
            else:
                path.write_text("".join(f"a {name} bird of kind {line}\n" for line in range(10)))
    (top / "parts/parts.txt").write_text("1 back\n2 left eye\n")
    for name, lines in tables.items():
        (top / name).write_text("\n".join(lines) + "\n")
    for split, names in SPLITS.items():
        (tmp_path / "birds" / split).mkdir()
        (tmp_path / "birds" / split / "filenames.pickle").write_bytes(pickle.dumps(names, protocol=0))
    return tmp_path


def test_cub_records(cub: Path) -> None:
    two, one = Cub(str(cub)).records("train")
    assert (one.key, one.class_name, one.source_id) == ("Auk_1", "001.Auk", "CUB_200_2011/images/001.Auk/Auk_1.jpg")
    assert one.captions[9] == "a 001.Auk/Auk_1 bird of kind 9"
    assert one.box == (10.0, 20.0, 40.0, 20.0)
    assert one.keypoints == {"back": (12.0, 22.0)}  # the left eye is not visible
    assert two.key == "Auk_2"
    assert [record.key for record in Cub(str(cub)).records("test")] == ["Wren_1"]
    # what the authors' code computes: centre (30, 30), R = int(0.75 * 40)
    assert one.crop == (0, 0, 60, 60)
    # clipped to the picture and squeezed into a square, as theirs
    image = load_picture(Cub(str(cub)).picture(one))
    frame = Frame.of(image, one.crop)
    assert frame == Frame(0, 0, 60, 50)
    assert frame.box(10.0, 20.0, 40.0, 20.0) == pytest.approx((10 / 60, 0.4, 40 / 60, 0.4))
    assert frame.resample(image, 16).size == (16, 16)
    assert Cub(str(cub), crop=False).records("train")[0].crop is None


def test_cub_with_gaps(cub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cub / "CUB_200_2011/images/001.Auk/Auk_1.jpg").unlink()
    (cub / "birds/text_c10/001.Auk/Auk_2.txt").unlink()
    two, one = Cub(str(cub)).records("train")
    assert "the picture is missing" in one.fault
    assert "text_c10/001.Auk/Auk_2.txt are missing" in two.fault
    (two,) = Cub(str(cub), partial=True).records("train")
    assert two.key == "Auk_2"
    assert "1 of 2 pictures are missing and left out" in capsys.readouterr().out
    (cub / "birds/test/filenames.pickle").write_bytes(pickle.dumps(["../../etc/passwd"]))
    with pytest.raises(UserError, match=r"names the picture '\.\./\.\./etc/passwd'"):
        Cub(str(cub)).records("test")
    (cub / "birds/test/filenames.pickle").write_bytes(pickle.dumps(["001.Auk/Auk_9"]))
    with pytest.raises(UserError, match=r"names '001\.Auk/Auk_9'"):
        Cub(str(cub)).records("test")
    with pytest.raises(UserError, match="change --splits"):
        Cub(str(cub)).records("val")


def test_published_embeddings_follow_their_pictures(cub: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(2, 10, 1024)).astype(np.float32)
    pickled = cub / "birds/train/char-CNN-RNN-embeddings.pickle"
    recipe = Recipe("cub", "cub", "published", sizes=(16,))
    source = Cub(str(cub), embeddings=pickled.name)
    assert isinstance(source, EmbeddedSource)
    for content in (list(rows), rows):
        pickled.write_bytes(pickle.dumps(content, protocol=2))
        listing = list_split(recipe, "train", source, None)
        by_key = {record.key: found for record, found in zip(listing.records, listing.embeddings, strict=True)}
        np.testing.assert_array_equal(by_key["Auk_2"], rows[0].astype(np.float16))  # the order of filenames.pickle
        np.testing.assert_array_equal(by_key["Auk_1"], rows[1].astype(np.float16))
    digest = listing.digest
    pickled.write_bytes(pickle.dumps(rows + 1, protocol=2))
    assert list_split(recipe, "train", source, None).digest != digest
    pickled.write_bytes(pickle.dumps(rows[:1], protocol=2))
    with pytest.raises(UserError, match=r"holds 1 entries; filenames\.pickle beside it names 2"):
        list_split(recipe, "train", source, None)
    pickled.write_bytes(pickle.dumps(rows[:, :7], protocol=2))
    with pytest.raises(UserError, match="differ in number"):
        list_split(recipe, "train", source, None)


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Three pictures of val2017; the second has two captions only, the third a strange name."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val2017").mkdir()
    names = {7: "000000000007.jpg", 3: "000000000003.jpg", 9: "../../secret.jpg"}
    images = [{"id": number, "file_name": name} for number, name in names.items()]
    said = [(7, 30, "fifth"), (7, 10, " first\n caption "), (3, 5, "b"), (3, 4, "a"), (9, 1, "x"), (7, 20, "second")]
    annotations = [{"image_id": image, "id": number, "caption": text} for image, number, text in said]
    path = tmp_path / "annotations/captions_val2017.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    for number in (7, 3):
        Image.new("RGB", (8, 6)).save(tmp_path / "val2017" / names[number])
    return tmp_path


def test_coco_records(coco: Path) -> None:
    three, seven, nine = Coco(str(coco)).records("test")
    assert (three.key, three.class_name, three.source_id) == ("000000000003", "", "val2017/000000000003.jpg")
    assert seven.captions == ("first caption", "second", "fifth")
    assert "leaves the data set" in nine.fault
    assert Image.open(coco / three.source_id).size == load_picture(Coco(str(coco)).picture(three)).size
    # every picture gets equally many: the first ones, beginning again
    listing = list_split(Recipe("coco", "coco", "ngrams", captions_per_image=2), "test", Coco(str(coco)), None)
    assert {record.key: record.captions for record in listing.records} == {
        "000000000003": ("a", "b"),
        "000000000007": ("first caption", "second"),
    }
    assert [entry["id"] for entry in listing.rejected] == ["val2017/../../secret.jpg"]


def test_coco_layout_faults(coco: Path) -> None:
    with pytest.raises(UserError, match=r"no .*captions_train2017\.json.*--splits"):
        Coco(str(coco)).records("train")
    with pytest.raises(UserError, match=r"captions_val2014\.json"):
        Coco(str(coco), year=2014).records("test")
    (coco / "annotations/captions_val2017.json").write_text('{"images": []')
    with pytest.raises(UserError, match="is not a file of COCO captions"):
        Coco(str(coco)).records("test")


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "painted"])
def test_a_root_that_is_not_there_is_said_and_not_a_file_in_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"there is no folder {tmp_path}/nowhere; --root must hold "):
        open_source(name, f"{tmp_path}/nowhere", {}).records("train")


def test_the_root_of_other_commands_is_not_called_root(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere; it must hold pictures or tars$"):
        Files(f"{tmp_path}/nowhere", "scores", "pictures or tars").names()


def test_options_that_do_not_fit_are_named_with_those_that_there_are() -> None:
    with pytest.raises(
        UserError, match=r"coco has no option 'ft'\. Did you mean fit\? Its --options are year, partial, fit"
    ):
        open_source("coco", "x", {"ft": "pad"})
    with pytest.raises(
        UserError, match=r"painted does not take the options pictures='x'; one of them is of another type"
    ):
        open_source("painted", None, {"pictures": "x"})
