"""Whatever people's data sets hold: it is packed rightly, or rejected by name with a reason."""

import dataclasses
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stackgan_dist.data.index import load_index
from stackgan_dist.data.shard import ShardReader
from stackgan_dist.errors import UserError
from stackgan_dist.pack.balance import REJECTED_NAME
from stackgan_dist.pack.data_set import pack
from stackgan_dist.pack.pictures import Frame, PictureError, load_picture
from stackgan_dist.pack.recipe import Recipe
from stackgan_dist.pack.sources import Record
from stackgan_dist.pack.sources.folder import PictureFolder

RECIPE = Recipe("own", "folder", "ngrams", sizes=(16,), splits=("train",), options={"test_fraction": 0.0})


def _save(path: Path, image: Image.Image, **options: object) -> None:
    image.save(path, **options)
    path.with_suffix(".txt").write_text(f"a picture of {path.stem}")


def _noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def _fill(root: Path) -> None:
    """One picture of every kind, good and bad, with captions good and bad."""
    green = Image.new("RGB", (40, 40), (10, 200, 30))
    _save(root / "plain.jpg", green)
    _save(root / "progressive.jpg", green, progressive=True)
    _save(root / "grey.jpg", Image.new("L", (40, 40), 90))
    _save(root / "cmyk.jpg", Image.new("CMYK", (40, 40), (0, 255, 255, 0)))
    _save(root / "deep.png", Image.new("I;16", (40, 40), 90 * 257))
    _save(root / "alpha.png", Image.new("RGBA", (40, 40), (255, 0, 0, 0)))
    _save(root / "palette.png", green.quantize(4))
    rotated = Image.new("RGB", (40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    _save(root / "rotated.jpg", rotated, exif=exif)
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    _save(root / "animated.gif", frames[0], save_all=True, append_images=frames[1:])
    for name in ("truncated", "progressive-truncated"):
        _save(root / f"{name}.jpg", _noise(64, 64), progressive="progressive" in name)
        data = (root / f"{name}.jpg").read_bytes()
        (root / f"{name}.jpg").write_bytes(data[: len(data) // 2])
    _save(root / "text.jpg", green, format="JPEG")
    (root / "text.jpg").write_text("this is no picture")
    _save(root / "postscript.jpg", green)
    (root / "postscript.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    _save(root / "bomb.png", Image.new("1", (20_000, 20_000)))
    for name, caption in {
        "empty": b"",
        "long": b"bird " * 2000,
        "latin": b"caf\xe9",
        "symbols": "🐦🐦".encode(),
        "control": b"a \x00 bird",
        "hebrew": "ציפור אדומה".encode(),
        "emoji": "a red bird 🐦".encode(),
    }.items():
        _save(root / f"caption-{name}.jpg", green)
        (root / f"caption-{name}.txt").write_bytes(caption)
    _save(root / "caption-missing.jpg", green)
    (root / "caption-missing.txt").unlink()


REASONS = {
    "truncated.jpg": "truncated",
    "progressive-truncated.jpg": "truncated",
    "text.jpg": "cannot identify",
    "postscript.jpg": "cannot identify",
    "bomb.png": "decompression bomb",
    "caption-empty.jpg": "there is no caption",
    "caption-long.jpg": "caption 1 has 9999 characters, more than 2000",
    "caption-latin.jpg": "caption-latin.txt is not UTF-8",
    "caption-symbols.jpg": "no word to encode",
    "caption-control.jpg": "control characters",
    "caption-missing.jpg": "there are no captions caption-missing.txt",
}


def test_everything_is_packed_or_named(tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    root.mkdir()
    _fill(root)
    with pytest.raises(UserError, match=r"(?s)--max-rejects 0\.01 allows; no index.*Mend or remove them"):
        pack(RECIPE, root=str(root), out=str(out), workers=1)
    assert not (out / "train/16").exists()

    pack(RECIPE, root=str(root), out=str(out), workers=1, max_rejects=0.6)
    reasons = _reasons(out)
    assert sorted(reasons) == sorted(REASONS)
    for name, reason in REASONS.items():
        assert reason in reasons[name], name

    index = load_index(str(out / "train/16"))
    shard = index.shards[0]
    reader = ShardReader((out / "train/16" / shard.name).open("rb"), shard.name, shard.samples)
    colours, captions = {}, {}
    for sample in range(shard.samples):
        meta = reader.meta(sample)
        image = Image.open(io.BytesIO(reader.jpeg(sample)))
        assert (image.size, image.mode) == ((16, 16), "RGB")
        name = meta["id"].partition(".")[0]
        colours[name], captions[name] = image.getpixel((8, 8)), meta["captions"]
        assert "class" not in meta
    assert captions["caption-hebrew"] == ["ציפור אדומה"]
    assert captions["caption-emoji"] == ["a red bird 🐦"]
    for name, colour in {
        "plain": (10, 200, 30),
        "progressive": (10, 200, 30),
        "grey": (90, 90, 90),
        "cmyk": (255, 0, 0),
        "deep": (90, 90, 90),
        "alpha": (255, 255, 255),
        "palette": (10, 200, 30),
        "rotated": (0, 0, 0),
        "animated": (255, 0, 0),
    }.items():
        np.testing.assert_allclose(colours.pop(name), colour, atol=6, err_msg=name)
    assert sorted(colours) == ["caption-emoji", "caption-hebrew"]
    assert index.classes == ()
    n = shard.samples  # every picture is a class of its own
    assert len({reader.classes.other(0, (k + 0.5) / (n - 1)) for k in range(n - 1)}) == n - 1


def test_boxes_outside_the_picture() -> None:
    image = Image.new("RGB", (60, 50))
    assert Frame.of(image, (-20, -20, 40, 40)) == Frame(0, 0, 40, 40)
    for crop in ((60, 0, 90, 30), (-30, -30, 0, 0), (10, 10, 10, 10), (5, 5, float("nan"), 9)):
        with pytest.raises(PictureError, match="outside the picture of 60 x 50"):
            Frame.of(image, crop)
    frame = Frame.of(image, (0, 0, 50, 50))
    assert frame.box(40, 40, 100, 100) == pytest.approx((0.8, 0.8, 0.2, 0.2))
    assert frame.box(70, 70, 10, 10) is None
    assert frame.box(10, 10, -5, float("nan")) is None


def test_duplicate_ids_keep_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        _save(tmp_path / f"{number}.jpg", Image.new("RGB", (8, 8)))
    listed = PictureFolder.records

    def twice(self: PictureFolder, split: str) -> list[Record]:
        return [*listed(self, split), *listed(self, split)[:1]]

    monkeypatch.setattr(PictureFolder, "records", twice)
    with pytest.raises(UserError, match=r"1 of 4 pictures(.|\n)*0\.jpg: the id 0-\w+ occurs twice"):
        pack(RECIPE, root=str(tmp_path), out=str(tmp_path / "out"), workers=1)


def _reasons(out: Path) -> dict[str, str]:
    lines = (out / "train" / REJECTED_NAME).read_text().splitlines()
    return {entry["id"]: entry["reason"] for entry in map(json.loads, lines)}


def test_missing_pictures_and_names_that_leave_the_folder(tmp_path: Path) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret.jpg"
    root.mkdir()
    Image.new("RGB", (8, 8)).save(secret)
    for number in range(3):
        Image.new("RGB", (8, 8)).save(root / f"{number}.jpg")
    names = ["0.jpg", "1.jpg", "2.jpg", "2.jpg", "gone.jpg", "../secret.jpg", str(secret)]
    lines = [json.dumps({"file": name, "caption": "a thing"}) for name in names]
    (root / "captions.jsonl").write_text("\n".join(lines))
    pack(RECIPE, root=str(root), out=str(tmp_path / "out"), workers=1, max_rejects=0.9)
    reasons = _reasons(tmp_path / "out")
    assert set(reasons) == {"gone.jpg", "../secret.jpg", str(secret)}
    assert reasons["gone.jpg"] == "the picture is missing"
    assert "leaves the folder" in reasons["../secret.jpg"]
    assert "leaves the folder" in reasons[str(secret)]


def test_foreign_tars_that_reach_outside(tmp_path: Path) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret.jpg"
    root.mkdir()
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    secret.write_bytes(buffer.getvalue())
    with tarfile.open(root / "0.tar", "w") as tar:
        for key in ("a", "b", "../../c", "/etc/d"):
            for name, content in ((f"{key}.jpg", buffer.getvalue()), (f"{key}.txt", b"a thing")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        for name, kind in (("soft.jpg", tarfile.SYMTYPE), ("hard.jpg", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(secret)
            tar.addfile(member)
    before = set(tmp_path.rglob("*"))
    recipe = dataclasses.replace(RECIPE, source="webdataset")
    pack(recipe, root=str(root), out=str(tmp_path / "out"), workers=1, max_rejects=0.9)
    reasons = {
        name.removeprefix("0.tar/").partition(".jpg")[0]: reason for name, reason in _reasons(tmp_path / "out").items()
    }
    assert set(reasons) == {"../../c", "/etc/d", "soft", "hard"}
    assert all("leaves the archive" in reasons[name] for name in ("../../c", "/etc/d"))
    assert all("a link or a device" in reasons[name] for name in ("soft", "hard"))
    assert load_index(str(tmp_path / "out/train/16")).samples == 2
    assert {path for path in set(tmp_path.rglob("*")) - before if not path.is_relative_to(tmp_path / "out")} == set()


def test_boxes_that_lead_outside_are_rejected_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        _save(tmp_path / f"{number}.jpg", Image.new("RGB", (8, 8)))
    listed = PictureFolder.records

    def boxed(self: PictureFolder, split: str) -> list[Record]:
        first, *others = listed(self, split)
        return [dataclasses.replace(first, crop=(20, 20, 30, 30), box=(20, 20, 5, 5)), *others]

    monkeypatch.setattr(PictureFolder, "records", boxed)
    pack(RECIPE, root=str(tmp_path), out=str(tmp_path / "out"), workers=1, max_rejects=0.9)
    ((name, reason),) = _reasons(tmp_path / "out").items()
    assert name == "0.jpg"
    assert "outside the picture of 8 x 8" in reason


def test_pictures_are_read_in_known_formats_only() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PCX")
    with pytest.raises(PictureError, match="cannot identify"):
        load_picture(buffer.getvalue())
