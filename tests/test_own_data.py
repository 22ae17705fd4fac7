"""From each layout that docs/own_data.md shows to a picture: `pytest -m slow tests/test_own_data.py`."""

from __future__ import annotations

import csv
import io
import json
import pickle
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from stackgan_dist import __main__ as stackgan
from stackgan_dist.pack.sources.painted import PaintedBirds

pytestmark = pytest.mark.slow

TINY = [
    "--model.generator-width", "8", "--model.discriminator-width", "8", "--model.condition-dim", "16",
    "--training.batch-size", "8", "--training.epochs", "1", "--data.workers", "0", "--run.sample-captions", "2",
]  # fmt: skip

Bird = tuple[str, Image.Image, tuple[str, ...]]


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def texts_beside(root: Path, birds: Sequence[Bird]) -> list[str]:
    for name, image, captions in birds:
        _save(image, root / f"{name}.jpg")
        (root / f"{name}.txt").write_text("\n".join(captions))
    return ["folder"]


def flickr8k(root: Path, birds: Sequence[Bird]) -> list[str]:
    with io.StringIO(newline="") as text:
        rows = csv.writer(text)
        rows.writerow(["image", "caption"])
        for name, image, captions in birds:
            _save(image, root / f"Images/{name}.jpg")
            rows.writerows([f"{name}.jpg", f"{caption}, drawn"] for caption in captions)
        (root / "captions.txt").write_text(text.getvalue())
    return ["folder"]


def imagefolder(root: Path, birds: Sequence[Bird]) -> list[str]:
    for split, some in (("train", birds[8:]), ("test", birds[:8])):
        for name, image, _ in some:
            _save(image, root / split / f"{name}.jpg")
        lines = [json.dumps({"file_name": f"{name}.jpg", "text": said[0]}) for name, _, said in some]
        (root / split / "metadata.jsonl").write_text("\n".join(lines))
    return ["folder"]


def coco_file(root: Path, birds: Sequence[Bird]) -> list[str]:
    for name, image, _ in birds:
        _save(image, root / f"pictures/{name}.jpg")
    images = [{"id": number, "file_name": f"{name}.jpg"} for number, (name, _, _) in enumerate(birds)]
    notes = [
        {"id": number, "image_id": number, "caption": caption}
        for number, (_, _, captions) in enumerate(birds)
        for caption in captions
    ]
    (root / "captions.json").write_text(json.dumps({"images": images, "annotations": notes}))
    return ["folder", "--options", "fit=pad"]


def attngan_cub(root: Path, birds: Sequence[Bird]) -> list[str]:
    top = root / "birds/CUB_200_2011"
    names = [f"{number % 4:03d}.Kind/{name}" for number, (name, _, _) in enumerate(birds)]
    for name, (_, image, captions) in zip(names, birds, strict=True):
        _save(image, top / f"images/{name}.jpg")
        text = root / f"birds/text/{name}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("\n".join(captions))
    lines = [f"{number} {name}.jpg" for number, name in enumerate(names, 1)]
    (top / "images.txt").write_text("\n".join(lines))
    (top / "bounding_boxes.txt").write_text("\n".join(f"{number} 4 4 60 60" for number in range(1, len(names) + 1)))
    unseen = [name for name in names if name < "002"]  # the splits of CUB share no class
    for split, some in (("train", [name for name in names if name not in unseen]), ("test", unseen)):
        (root / "birds" / split).mkdir()
        (root / "birds" / split / "filenames.pickle").write_bytes(pickle.dumps(some, protocol=0))
    return ["cub"]


def img2dataset(root: Path, birds: Sequence[Bird]) -> list[str]:
    root.mkdir()
    for shard in range(3):
        with tarfile.open(root / f"{shard:05d}.tar", "w") as tar:
            for number, (_, image, captions) in enumerate(birds[shard::3]):
                key, jpeg = f"{shard:05d}{number:04d}", io.BytesIO()
                image.save(jpeg, "JPEG")
                fields = {"caption": captions[0], "url": "https://example.org/x.jpg", "key": key, "status": "success"}
                members = {"jpg": jpeg.getvalue(), "json": json.dumps(fields).encode(), "txt": captions[0].encode()}
                for ending, content in members.items():
                    member = tarfile.TarInfo(f"{key}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        (root / f"{shard:05d}_stats.json").write_text('{"count": 16}')
    return ["webdataset"]


def parquet_files(root: Path, birds: Sequence[Bird]) -> list[str]:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (root / "data").mkdir(parents=True)
    for split, some in (("train", birds[8:]), ("validation", birds[:8])):
        rows = []
        for name, image, captions in some:
            jpeg = io.BytesIO()
            image.save(jpeg, "JPEG")
            rows.append({"image": {"bytes": jpeg.getvalue(), "path": f"{name}.jpg"}, "caption": captions})
        parquet.write_table(pyarrow.Table.from_pylist(rows), root / f"data/{split}-00000-of-00001.parquet")
    return ["parquet"]


LAYOUTS: tuple[Callable[[Path, Sequence[Bird]], list[str]], ...] = (
    texts_beside, flickr8k, imagefolder, coco_file, attngan_cub, img2dataset, parquet_files
)  # fmt: skip


@pytest.fixture(scope="module")
def birds() -> list[Bird]:
    painted = PaintedBirds(pictures=240)
    some = painted.records("train")[:48]
    return [(record.key, painted.picture(record), record.captions[:2]) for record in some]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_from_a_layout_to_a_picture(
    layout: Callable[[Path, Sequence[Bird]], list[str]],
    birds: list[Bird],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe, *options = layout(tmp_path / "mine", birds)
    monkeypatch.chdir(tmp_path)
    for line in (
        [
            "pack",
            recipe,
            "--root",
            "mine",
            "--out",
            "data/mine",
            "--sizes",
            "76",
            "--encoder",
            "ngrams",
            "--workers",
            "1",
            *options,
        ],
        ["pack", "verify", "data/mine"],
        ["train", "--preset", "own-best-stage1", "--data.url", "data/mine", "--run.name", "mine", *TINY],
        ["generate", "runs/mine", "a small red bird with white wings", "--count", "2", "--out", "pictures"],
    ):
        monkeypatch.setattr(sys, "argv", ["stackgan", *line])
        stackgan.main()
    assert Image.open("pictures/000-001.png").size == (64, 64)
