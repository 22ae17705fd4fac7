"""What is there already: a cell's run by its configuration and checkpoints, its scores by all that decides them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from stackgan_dist.classifiers.classifier import load_classifier, read_record
from stackgan_dist.config import differences, from_json
from stackgan_dist.data.dataset import PackedSet
from stackgan_dist.errors import UserError
from stackgan_dist.reproduce.cells import Cell
from stackgan_dist.reproduce.commands import Command
from stackgan_dist.reproduce.scale import Scale
from stackgan_dist.runs.checkpoint import committed_steps
from stackgan_dist.runs.folder import RunFolder
from stackgan_dist.runs.score_rows import recorded_scores
from stackgan_dist.scores.protocol import ScoreProtocol
from stackgan_dist.scores.rows import ROWS
from stackgan_dist.scores.subject import Subject
from stackgan_dist.storage.files import local_path

CLASSIFIER = "classifier"
"""The name of the job that makes it."""


@dataclass(frozen=True)
class Judge:
    """The classifier that all cells are scored with."""

    spec: str
    """As for --classifier of the scores."""
    weights_sha256: str | None
    """None: it is not made yet."""
    command: Command | None
    """What makes it; None for one that was given."""


def given_judge(spec: str) -> Judge:
    """A classifier that is there; UserError when it is not."""
    return Judge(spec, load_classifier(spec).weights_sha256, None)


def own_judge(folder: str, url: str, test: PackedSet, scale: Scale) -> Judge:
    """The classifier in `folder`, made or not, that knows the classes of `test` (of the set `url`).

    Raises UserError when it is of another data set.
    """
    path = local_path(folder)
    if path is None:
        raise UserError(f"a classifier cannot be made in {folder}: give a folder on a disk, or one with --classifier")
    file = path / f"{CLASSIFIER}.pt"
    arguments = ["--data", url, "--image-size", str(scale.largest), "--views", str(scale.classifier_views)]
    arguments += ["--epochs", str(scale.classifier_epochs)] if scale.classifier_epochs else []
    command = Command("train_classifier", (*arguments, "--out", str(file)))
    record = read_record(file) if file.exists() else {}
    if record and record["data_digest"] != test.index.digest:
        raise UserError(f"{file} knows the classes of another data set than {test.url}; choose another --folder")
    return Judge(str(file), record.get("weights_sha256"), command)


@dataclass(frozen=True)
class Progress:
    """How far a cell is."""

    step: int
    """Of its newest checkpoint; 0: none."""
    is_trained: bool
    scores: dict[str, dict[str, Any]]
    """Of its last step: rows of scores.jsonl by the score's name; empty until all of them are there."""

    @property
    def text(self) -> str:
        """In a word or two."""
        if self.is_trained:
            return "scored" if self.scores else "trained"
        return f"begun, step {self.step:,}" if self.step else "not begun"


def progress_of(cell: Cell, judge: Judge, protocol: ScoreProtocol) -> Progress:
    """What there is of a cell; UserError when its folder holds a run of another configuration or data set."""
    folder = RunFolder(cell.run)
    try:
        text = folder.root.read("config.json")
    except FileNotFoundError:
        return Progress(0, False, {})
    _check_same(cell, json.loads(text))
    steps = committed_steps(folder.checkpoints)
    step = steps[-1] if steps else 0
    if step > cell.last_step:
        raise UserError(
            f"{cell.run} was trained for {step:,} steps, more than the {cell.last_step:,} of this table; "
            "choose another --folder"
        )
    is_trained = step == cell.last_step and folder.root.exists("DONE")
    scores = recorded_scores(folder.root, _identity(cell, judge, protocol)) if judge.weights_sha256 else {}
    return Progress(step, is_trained, scores if scores.keys() >= set(ROWS) else {})


def _check_same(cell: Cell, stored: dict[str, Any]) -> None:
    theirs = from_json(json.dumps(stored["config"]), cell.run)
    changed = differences(cell.config, theirs)
    if (ours := cell.config.training.epochs) != theirs.training.epochs:
        changed.append(f"training.epochs: {ours} here, {theirs.training.epochs} there")
    if (digest := cell.train.index.digest) != (other := stored["data"]["digest"]):
        changed.append(f"digest of the data's index: {digest[:12]} here, {other[:12]} there")
    if changed:
        raise UserError(
            f"{cell.run} holds a run of another configuration ({'; '.join(changed)}); choose another --folder, or "
            "remove that run"
        )


def _identity(cell: Cell, judge: Judge, protocol: ScoreProtocol) -> dict[str, Any]:
    subject = Subject(cell.run)
    return {
        "protocol": dataclasses.asdict(protocol),
        "weights_sha256": judge.weights_sha256,
        "step": cell.last_step,
        "weights": subject.weights,
        "captions_digest": cell.test.index.digest,
        "seed": subject.seed,
        "batch_size": subject.batch_size,
    }
