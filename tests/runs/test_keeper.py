"""The shell of every training, without one: when it writes, what stops it, and what must not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from stackgan_dist.config import RunConfig
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.distributed.stop import StopRequest
from stackgan_dist.errors import UserError
from stackgan_dist.runs.checkpoint import committed_steps, from_bytes, read_checkpoint
from stackgan_dist.runs.folder import RunFolder
from stackgan_dist.runs.keeper import Keeper, May, Training, WritePolicy, resume
from stackgan_dist.runs.metrics import metric, metrics_of
from stackgan_dist.storage.folder import Folder

ALONE = Ranks(0, 1, torch.device("cpu"), None)
OTHER = Ranks(1, 1, torch.device("cpu"), None)
"""A rank that is not the first; nothing is exchanged in these tests."""


@dataclass
class _Report:
    error: float = metric("loss", "how wrong it is", "error {:.1f}")
    gradient: float = metric("gradient_norm", "how steep it is")


@dataclass(frozen=True)
class _Identity:
    colour: str = "red"

    def content(self) -> dict[str, Any]:
        return {"colour": self.colour}

    def differences(self, content: Mapping[str, Any], where: str) -> list[str]:
        theirs = content["colour"]
        return [] if theirs == self.colour else [f"colour: {self.colour} here, {theirs} there"]


class _Counter:
    """Counts its steps: all that it changes."""

    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": torch.tensor(self.count)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = int(state["count"])


TRAINING = Training(
    title="counting",
    last_step=7,
    batch_size=4,
    identity=_Identity(),
    metrics=metrics_of(_Report),
    writes=WritePolicy(tick_steps=2, checkpoint_steps=3, keep_last=9, picture_steps=4),
    advice="Count more slowly",
)


def _count(
    folder: Path, training: Training = TRAINING, stop_at: int | None = None, ranks: Ranks = ALONE, **bad: float
) -> tuple[str, list[int]]:
    """Count to the end, or until `stop_at`; how it ended, and the steps that a picture was shown after.

    The metrics `bad` have these values in the step after 4 steps.
    """
    counter, run, shown = _Counter(), RunFolder(folder), []
    step, messages = resume(training.identity, counter, run, ranks)
    assert step == counter.count

    def picture(at: int) -> Image.Image:
        # What is shown is safe already: a checkpoint that is due at the same step came first.
        assert at % 3 or counter.count in committed_steps(run.checkpoints) or not ranks.is_main
        shown.append(at)
        return Image.new("RGB", (4, 4))

    with Keeper(training, counter, step, run, ranks, StopRequest()) as keeper:
        for message in messages:
            keeper.say(message)
        while step < training.last_step and not keeper.stopped:
            counter.count += 1
            means = {"error": float(step), "gradient": 1.0, **(bad if step == 4 else {})}
            keeper.take(step, means, stop=step + 1 == stop_at)
            step += 1
            keeper.tick(step, 0.1)
            keeper.save(step)
            keeper.picture(step, "samples", lambda at=step: picture(at))  # type: ignore[misc]
        return keeper.close(step), shown


def _rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_everything_is_written_when_it_is_due_and_at_the_end(tmp_path: Path) -> None:
    ending, shown = _count(tmp_path)
    assert ending == "DONE"
    assert (tmp_path / "DONE").read_text().startswith("step 7 of 7, ")
    assert committed_steps(str(tmp_path / "checkpoints")) == [3, 6, 7]
    assert [(row["step"], row["error"]) for row in _rows(tmp_path)] == [(2, 0.5), (4, 2.5), (6, 4.5), (7, 6.0)]
    assert shown == [4, 7]
    assert [file.name for file in sorted((tmp_path / "samples").iterdir())] == [
        "step-000000004.png",
        "step-000000007.png",
    ]


def test_a_checkpoint_says_what_it_is_of(tmp_path: Path) -> None:
    _count(tmp_path)
    found = read_checkpoint(str(tmp_path / "checkpoints" / "step-000000006"))
    content = from_bytes(found.data, found.url)
    assert list(content) == ["step", "colour", "world_size", "state"]
    assert (content["step"], content["colour"], content["world_size"]) == (6, "red", 1)
    assert content["state"] == {"count": torch.tensor(6)}


def test_a_stop_ticks_and_saves_at_once_and_draws_nothing(tmp_path: Path) -> None:
    ending, shown = _count(tmp_path, stop_at=1)
    assert ending == "PREEMPTED"
    assert (tmp_path / "PREEMPTED").read_text().startswith("step 1 of 7, ")
    assert committed_steps(str(tmp_path / "checkpoints")) == [1]
    assert [row["step"] for row in _rows(tmp_path)] == [1]
    assert shown == []


def test_it_goes_on_where_it_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _count(tmp_path, stop_at=5)
    assert _count(tmp_path)[0] == "DONE"
    assert "resumed at step 5, saved on 1 rank(s), now 1" in capsys.readouterr().out
    assert not (tmp_path / "PREEMPTED").exists()
    assert [row["step"] for row in _rows(tmp_path)] == [2, 4, 5, 6, 7]


def test_another_training_is_refused_by_name(tmp_path: Path) -> None:
    _count(tmp_path)
    with pytest.raises(UserError, match=r"another configuration \(colour: blue here, red there\); choose another"):
        _count(tmp_path, replace(TRAINING, identity=_Identity("blue")))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("name", "scales_loss", "stops"), [
    ("error", False, True), ("error", True, True), ("gradient", False, True), ("gradient", True, False),
])  # fmt: skip
def test_what_is_not_finite_ends_it_where_it_is_watched(
    tmp_path: Path, name: str, value: float, scales_loss: bool, stops: bool
) -> None:
    training = replace(TRAINING, scales_loss=scales_loss)
    if not stops:
        assert _count(tmp_path, training, **{name: value})[0] == "DONE"
        return
    with pytest.raises(UserError, match=rf"not finite at step 4 \(.*{name} .*\).* step 3 in .*\. Count more slowly"):
        _count(tmp_path, training, **{name: value})
    assert committed_steps(str(tmp_path / "checkpoints")) == [3]
    assert not (tmp_path / "DONE").exists()


def test_what_is_only_shown_may_fail_and_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> Image.Image:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with Keeper(replace(TRAINING, last_step=8), _Counter(), 0, RunFolder(tmp_path), ALONE, StopRequest()) as keeper:
        for step in (4, 8):
            keeper.picture(step, "samples", fail)
        assert keeper.attempt("other", lambda: 5) == 5
        assert keeper.attempt("other", fail) is None
    said = capsys.readouterr().out
    assert said.count("pictures (samples/) could not be made (RuntimeError: mat1 and mat2 shapes") == 1
    assert said.count("other could not be made") == 1


def test_a_fault_of_tensorboard_is_said_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("a version of tensorboard that nobody knows")

    monkeypatch.setattr("stackgan_dist.runs.event_file.EventFile.add_scalars", broken)
    monkeypatch.setattr("stackgan_dist.runs.event_file.EventFile.add_image", broken)
    assert _count(tmp_path)[0] == "DONE"
    said = capsys.readouterr().out
    assert said.count("TensorBoard's events could not be written") == 1
    assert [row["step"] for row in _rows(tmp_path)] == [2, 4, 6, 7]
    assert len(list((tmp_path / "samples").iterdir())) == 2


def test_a_last_checkpoint_that_is_not_safe_leaves_no_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Folder, "write_file", full)
    with pytest.raises(UserError, match=r"the last checkpoint \(step 7\) could not be written"):
        _count(tmp_path)
    assert not (tmp_path / "DONE").exists()


def test_other_ranks_write_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ending, shown = _count(tmp_path, ranks=OTHER)
    assert ending == "DONE"
    assert shown == []
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_pauses_are_at_all_that_is_due(tmp_path: Path) -> None:
    with Keeper(TRAINING, _Counter(), 0, RunFolder(tmp_path), ALONE, StopRequest()) as keeper:
        assert [step for step in range(1, 8) if keeper.pauses_at(step)] == [2, 3, 4, 6, 7]


@pytest.mark.parametrize(("tick_s", "write_s"), [(3600.0, 0.0), (0.0, 3600.0)])
def test_what_is_due_waits_for_its_seconds_but_milestones_and_the_end_do_not(
    tmp_path: Path, tick_s: float, write_s: float
) -> None:
    """Rank 0's clock decides, and what it says comes back with the step."""
    writes = replace(TRAINING.writes, checkpoint_steps=1, milestone_steps=3, tick_s=tick_s, write_s=write_s)
    counter, run, shown = _Counter(), RunFolder(tmp_path), []
    with Keeper(replace(TRAINING, writes=writes), counter, 0, run, ALONE, StopRequest()) as keeper:
        other = Keeper(replace(TRAINING, writes=writes), counter, 0, run, OTHER, StopRequest())
        for step in range(1, 8):
            assert other.may == May(0)
            keeper.take(step - 1, {"error": 0.0, "gradient": 1.0}, stop=False, may=keeper.may | other.may)
            keeper.tick(step, 0.1)
            keeper.save(step)
            keeper.picture(step, "samples", lambda: Image.new("RGB", (4, 4)))
        keeper.close(7)
    shown = [file.name for file in (tmp_path / "samples").iterdir()]
    rows = [row["step"] for row in _rows(tmp_path)]
    if tick_s:
        assert (rows, len(shown)) == ([7], 2)
        assert committed_steps(run.checkpoints) == [1, 2, 3, 4, 5, 6, 7]
    else:
        assert (rows, shown) == ([2, 4, 6, 7], ["step-000000007.png"])
        assert committed_steps(run.checkpoints) == [3, 6, 7]


def test_a_step_of_milliseconds_has_pauses_by_default_and_that_of_a_cpu_has_none() -> None:
    cpu, cuda = (WritePolicy.of(RunConfig(), torch.device(kind)) for kind in ("cpu", "cuda"))
    assert (cpu.tick_s, cpu.write_s, cuda.tick_s, cuda.write_s) == (0, 0, 1, 30)
    assert WritePolicy.of(RunConfig(min_tick_s=0, min_write_s=5), torch.device("cuda")) == replace(
        cuda, tick_s=0.0, write_s=5.0
    )
