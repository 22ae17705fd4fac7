"""Pictures of other systems: folders and tars score alike, against any real side, on any number of ranks."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from distributed.forked import run_forked
from PIL import Image
from scipy.spatial.distance import pdist
from small_classifier import open_door_with_it, small_classifier
from small_encoders import small_clip

from stackgan_dist.classifiers.image_encoder import FolderEncoder, load_image_encoder
from stackgan_dist.data.index import load_index
from stackgan_dist.errors import UserError
from stackgan_dist.scores import __main__ as scores
from stackgan_dist.scores.picture_files import PictureFiles

COUNT = 30


@pytest.fixture(scope="module", autouse=True)
def _little_work() -> Iterator[None]:
    with small_classifier():
        yield


def drawn(count: int, side: int, seed: int) -> list[Image.Image]:
    noise = np.random.default_rng(seed).integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
    return [Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC) for one in noise]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty PNGs of 64 pixels with captions, three sentences for ten pictures each; and the same in two tars."""
    top = tmp_path_factory.mktemp("foreign")
    folder = top / "drawn"
    folder.mkdir()
    lines = []
    for number, picture in enumerate(drawn(COUNT, 64, 0)):
        picture.save(folder / f"{number:02d}.png")
        lines.append(json.dumps({"file": f"{number:02d}.png", "captions": [f"bird number {number % 3}"]}))
    (folder / "captions.jsonl").write_text("\n".join(lines))
    for shard in range(2):
        with tarfile.open(top / f"drawn-{shard}.tar", "w") as tar:
            for number in range(shard, COUNT, 2):
                for name, content in (
                    (f"{number:02d}.png", (folder / f"{number:02d}.png").read_bytes()),
                    (f"{number:02d}.txt", f"bird number {number % 3}".encode()),
                ):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return top


FEW = ["--splits", 3, "--kernel-block", 15, "--batch-size", 16, "--keep-real", "none"]


def rows_of(patch: pytest.MonkeyPatch, out: Path, *arguments: object) -> dict[str, dict[str, Any]]:
    patch.setattr("sys.argv", ["scores", "--out", str(out), *map(str, arguments)])
    scores.main()
    return read(out)


def read(out: Path) -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    return {f"{row['classifier']} {row['score']}".removeprefix("efficientnet-lite0 "): row for row in rows}


def numbers(rows: dict[str, dict[str, Any]]) -> dict[str, float]:
    return {
        f"{name} {key}": value
        for name, row in rows.items()
        for key, value in row.items()
        if isinstance(value, float) and "score" not in key
    }


def test_a_folder_and_its_tars_on_one_and_two_ranks_score_alike(
    foreign: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = small_clip(tmp_path / "tiny-clip")
    common = ["--against", packed, "--training", packed, *FEW, "--encoder", clip]
    folder = ["--pictures", foreign / "drawn", "--captions", "captions.jsonl"]
    one = rows_of(monkeypatch, tmp_path / "one", *folder, *common)
    tars = ["--pictures", foreign / "drawn-{0..1}.tar", "--captions", "inside"]
    packed_up = rows_of(monkeypatch, tmp_path / "tars", *tars, *common)
    arguments = map(str, ["--out", tmp_path / "two", *folder, *common])
    run_forked(open_door_with_it, 2, "scores", *arguments, log=tmp_path / "log")
    assert numbers(one) == pytest.approx(numbers(read(tmp_path / "two")), rel=1e-9, abs=1e-12)
    assert one.keys() == {
        "inception", "frechet", "kernel", "neighbours", "memorisation", "diversity",
        *(f"tiny-clip {name}" for name in ("frechet", "kernel", "cmmd", "neighbours", "memorisation")),
        *(f"tiny-clip {name}" for name in ("clip score", "clip r precision", "diversity")),
    }  # fmt: skip
    # The order of the pictures is that of their names, and tars name them otherwise.
    assert packed_up["frechet"]["distance"] == pytest.approx(one["frechet"]["distance"], rel=1e-9)
    assert packed_up["tiny-clip clip score"]["mean"] == pytest.approx(one["tiny-clip clip score"]["mean"], rel=1e-6)
    assert packed_up["tiny-clip clip r precision"]["share"] == one["tiny-clip clip r precision"]["share"]
    row = one["frechet"]
    assert row["name"] == "drawn"
    assert row["against_digest"] == load_index(str(packed / "test" / "76")).digest
    assert (row["samples"], row["real_pictures"], row["protocol"]["samples"]) == (COUNT, 38, COUNT)
    assert "fewer pictures (30) than features (1,280)" in row["notes"][0]
    assert one["memorisation"]["training_pictures"] == 38


def test_what_sentences_say_equals_a_reference(foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = small_clip(tmp_path / "tiny-clip")
    drawn = foreign / "drawn"
    arguments = ["--pictures", drawn, "--captions", "captions.jsonl", "--against", drawn, "--encoder", clip, *FEW]
    found = rows_of(monkeypatch, tmp_path / "out", *arguments, "--samples", COUNT)

    encoder = load_image_encoder(str(clip), "cpu")
    assert isinstance(encoder, FolderEncoder)
    pixels = np.stack([np.array(Image.open(drawn / f"{n:02d}.png")) for n in range(COUNT)])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).double() / 127.5 - 1
    features = torch.cat([encoder.features(image[None].float()) for image in images]).double()
    said = encoder.text_encoder()([f"bird number {n}" for n in range(3)]).double()
    cosines = F.cosine_similarity(features[:, None], said[None], dim=2)
    own = torch.arange(COUNT) % 3
    row = found["tiny-clip clip r precision"]
    assert row["share"] == pytest.approx((cosines.argmax(1) == own).double().mean().item())
    assert row["wrong_sentences"] == 2
    assert "only 2 other sentences" in row["notes"][0]
    assert found["tiny-clip clip score"]["mean"] == pytest.approx(
        100 * cosines.gather(1, own[:, None]).clamp(min=0).mean().item(), rel=1e-6
    )
    # Eight of the ten pictures of each sentence are compared; which of them hangs on the seed.
    pictures = PictureFiles(str(drawn), "captions.jsonl", 16, 0, "crop", COUNT)
    groups = pictures.of_one_sentence(50, 8)
    assert [len(group) for group in groups] == [8, 8, 8]
    names = [[int(pictures._records[n].source_id[:2]) for n in group] for group in groups]
    assert all(len({n % 3 for n in group}) == 1 for group in names)
    assert found["diversity"]["deviation"] == pytest.approx(
        np.mean([images.numpy()[group].std(0, ddof=1).mean() for group in names]), rel=1e-6
    )
    assert found["tiny-clip diversity"]["distance"] == pytest.approx(
        np.mean([pdist(features[group].numpy()).mean() for group in names]), rel=1e-6
    )
    assert found["diversity"]["deviation_of_real_pictures"] is None  # of a folder, which knows no classes


def test_pictures_of_one_sentence_may_have_sizes_of_their_own(tmp_path: Path) -> None:
    for number, side in enumerate((16, 24, 16)):
        drawn(1, side, number)[0].save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("a bird" if number < 2 else "another")
    lines = [{"file": f"{n}.png", "captions": ["a bird" if n < 2 else "another"]} for n in range(3)]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    pictures = PictureFiles(str(tmp_path), "captions.jsonl", 16, 0, "crop")
    (group,) = pictures.of_one_sentence(50, 8)
    images = pictures.images(group)
    assert images.shape[0] == 2
    assert images.shape[2] == images.shape[3] in (16, 24)
    assert not PictureFiles(str(tmp_path), None, 16, 0, "crop").of_one_sentence(50, 8)


def test_real_pictures_against_themselves_are_at_zero(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = foreign / "drawn"
    rows = rows_of(monkeypatch, tmp_path, "--pictures", drawn, "--against", drawn, "--training", drawn, *FEW)
    assert rows["frechet"]["distance"] == pytest.approx(0, abs=1e-6)
    assert (rows["neighbours"]["precision"], rows["neighbours"]["coverage"]) == (1, 1)
    assert rows["neighbours"]["precision_interval"] is None
    assert rows["memorisation"]["nearer_than_held_out"] == pytest.approx(0.5)
    shown = capsys.readouterr().out
    assert "to look at: 30 pictures, 30 real pictures, 30 training pictures" in shown
    assert "note: fewer pictures (30) than features (1,280)" in shown


def test_map_pictures_bounds_the_training_pictures_alone(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = foreign / "drawn"
    sides = ["--pictures", drawn, "--against", drawn, "--training", drawn, "--map-pictures", 8]
    assert rows_of(monkeypatch, tmp_path, *sides, *FEW)["frechet"]["real_pictures"] == COUNT
    assert "30 real pictures, 8 training pictures" in capsys.readouterr().out


def test_a_clip_without_tokenizer_is_refused_before_any_picture_is_looked_at(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = small_clip(tmp_path / "clip")
    (clip / "vocab.json").unlink()
    drawn = foreign / "drawn"
    with pytest.raises(SystemExit):
        rows_of(monkeypatch, tmp_path, "--pictures", drawn, "--against", drawn, "--encoder", clip, *FEW)
    shown = capsys.readouterr()
    assert "has no tokenizer that can be read" in shown.err
    assert "to look at" not in shown.out


def test_a_packed_set_of_other_sizes_says_which_it_has(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn(1, 50, 0)[0].save(tmp_path / "a.png")
    with pytest.raises(SystemExit):
        rows_of(monkeypatch, tmp_path, "--pictures", tmp_path, "--against", packed, "--splits", 1)
    assert "has pictures of 64, 128 pixels, not 50: name one with --image-size" in " ".join(
        capsys.readouterr().err.split()
    )


def test_what_a_stopped_call_of_generate_left_is_not_scored_as_all_of_it(foreign: Path, tmp_path: Path) -> None:
    part = tmp_path / "generated" / "0001-a-bird"
    shutil.copytree(foreign / "drawn", part)
    assert PictureFiles(str(tmp_path), None, 8, 0, "crop").count == COUNT
    (part / ".writing-0").touch()
    for where in (part, tmp_path):
        with pytest.raises(UserError, match=r"\.writing-0, .*may be a part.*--overwrite, or remove that file"):
            PictureFiles(str(where), None, 8, 0, "crop")


def test_statistics_are_saved_and_scored_against(
    foreign: Path,
    packed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    drawn, file = foreign / "drawn", tmp_path / "drawn.npz"
    whole = rows_of(
        monkeypatch, tmp_path / "a", "--pictures", drawn, "--against", packed, "--save-statistics", file, *FEW
    )
    rows = rows_of(monkeypatch, tmp_path / "b", "--pictures", drawn, "--against", file, *FEW)
    kept = file.read_bytes()
    monkeypatch.setattr(PictureFiles, "__init__", lambda *_: pytest.fail("looked at pictures first"))
    with pytest.raises(SystemExit):
        rows_of(monkeypatch, tmp_path / "c", "--pictures", drawn, "--against", file, "--save-statistics", file, *FEW)
    assert f"--save-statistics {file} exists" in capsys.readouterr().err
    assert file.read_bytes() == kept
    assert rows.keys() == {"inception", "frechet"}
    assert rows["frechet"]["distance"] == pytest.approx(0, abs=1e-6)
    assert rows["frechet"]["against_digest"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert rows["frechet"]["real_pictures"] is None
    assert rows["inception"]["mean"] == whole["inception"]["mean"]


def test_sizes_may_differ_and_each_is_resized_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for number, side in enumerate((64, 80, 64, 96, 50, 64)):
        drawn(1, side, number)[0].save(folder / f"{number}.png")
    tall = drawn(1, 64, 9)[0].resize((64, 100))
    tall.save(folder / "tall.jpg", quality=95)
    images = {}
    for fit in ("crop", "squash"):
        pictures = PictureFiles(str(folder), None, 4, 0, fit)
        images[fit] = [image for batch in pictures.batches(0, 1) for image in batch.images]
        assert pictures.count == 7
    assert {tuple(image.shape[1:]) for image in images["crop"]} == {(side, side) for side in (50, 64, 80, 96)}
    assert (100, 64) in {tuple(image.shape[1:]) for image in images["squash"]}
    rows = rows_of(
        monkeypatch, tmp_path / "out", "--pictures", folder, "--against", folder, "--fit", "squash", "--splits", 2,
        "--keep-real", "none",
    )  # fmt: skip
    assert rows["frechet"]["distance"] == pytest.approx(0, abs=1e-6)


def test_pictures_are_what_their_files_say(foreign: Path) -> None:
    pictures = PictureFiles(str(foreign / "drawn"), "captions.jsonl", 8, 3, "crop")
    batches = [batch for rank in range(2) for batch in pictures.batches(rank, 2)]
    seen = torch.cat([batch.images for batch in batches if isinstance(batch.images, torch.Tensor)])
    assert sorted(torch.cat([batch.numbers for batch in batches]).tolist()) == list(range(COUNT))
    expected = {np.asarray(one).tobytes() for one in drawn(COUNT, 64, 0)}
    pixels = ((seen + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert {one.tobytes() for one in pixels} == expected


def test_pictures_without_caption_are_counted(
    foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for number, picture in enumerate(drawn(8, 64, 1)):
        picture.save(folder / f"{number}.png")
    (folder / "few.csv").write_text("file,caption\n" + "".join(f"{n}.png,a bird\n" for n in range(6)))
    rows_of(
        monkeypatch, tmp_path / "out", "--pictures", folder, "--captions", "few.csv", "--against", foreign / "drawn",
        "--splits", 2, "--keep-real", "none",
    )  # fmt: skip
    assert "6 pictures are scored, 2 left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pictures", "nowhere", "--against", "nowhere"], "there is no folder nowhere"),
        (["--pictures", "empty", "--against", "empty"], "there are no tars"),
        (["--pictures", "broken", "--against", "broken"], "b.png in broken cannot be used"),
        (["--pictures", "made", "--against", "one"], "has grid.png beside the pictures of its sentences"),
        (["--pictures", "one", "--against", "absent.npz"], "cannot read --against absent.npz"),
        (["--pictures", "one", "--against", "one.npz"], "is not a statistics file"),
        (["--pictures", "one", "--against", "one", "--splits", "2"], "1 samples in 2 splits"),
        (["--pictures", "one", "--against", "one", "--encoder", "efficientnet-lite0"], "is named twice"),
        (["--pictures", "one", "--against", "one", "--out", "one.npz/x"], "cannot make the folder one.npz/x"),
        (["--pictures", "one", "--against", "one.npz", "--training", "one"], "--training needs held-out real"),
    ],
)
def test_what_cannot_be_scored_is_said(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "broken", "one", "made"):
        (tmp_path / name).mkdir()
    drawn(1, 64, 0)[0].save("one/a.png")
    for name in ("000-000", "grid"):
        drawn(1, 64, 0)[0].save(f"made/{name}.png")
    (tmp_path / "one.npz").write_bytes(b"no archive")
    (tmp_path / "broken" / "b.png").write_bytes(b"no picture")
    monkeypatch.setattr("sys.argv", ["scores", "--splits", "1", "--keep-real", "none", *arguments])
    with pytest.raises(SystemExit) as end:
        scores.main()
    assert end.value.code == 2
    assert message in capsys.readouterr().err
