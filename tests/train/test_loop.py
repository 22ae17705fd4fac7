"""The loop on a single rank: what it refuses to go on with, what it survives, and how it says that it has ended."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed.tiny import assert_equal, final_state, tiny_config, tiny_model

from stackgan_dist.config import Config
from stackgan_dist.data import loader
from stackgan_dist.data.captions import Caption, CaptionSet
from stackgan_dist.data.dataset import PackedSet, open_packed
from stackgan_dist.distributed.process_group import Ranks, process_group
from stackgan_dist.distributed.stop import StopRequest
from stackgan_dist.errors import UserError
from stackgan_dist.runs import checkpoint, keeper
from stackgan_dist.runs.checkpoint import committed_steps, list_steps
from stackgan_dist.runs.folder import RunFolder
from stackgan_dist.storage.folder import Folder
from stackgan_dist.train import loop, step_metrics


def _train(
    config: Config,
    change: Callable[[PackedSet], PackedSet] = lambda data: data,
    stop: StopRequest | None = None,
    captions: PackedSet | None = None,
) -> tuple[str, Path]:
    """How the run ended, and where it is."""
    data = change(open_packed(config.data, config.model.image_size))
    folder = RunFolder(Path(config.run.folder) / config.run.name)
    folder.path.mkdir(parents=True, exist_ok=True)
    with process_group(60) as ranks:
        assert isinstance(ranks, Ranks)
        plan = data.plan(config.training)
        return loop.train(config, data, plan, captions or data, None, folder, ranks, stop or StopRequest()), folder.path


@pytest.fixture
def config(packed: Path, tmp_path: Path) -> Config:
    """Five steps, a checkpoint after each second."""
    return tiny_config(str(packed), tmp_path, "run", precision="fp32", checkpoint_steps=2)


def test_a_run_ends_with_a_checkpoint_and_a_marker(config: Config) -> None:
    ending, run = _train(config)
    assert ending == "DONE"
    assert (run / "DONE").read_text().startswith("step 5 of 5, ")
    assert committed_steps(str(run / "checkpoints")) == [2, 4, 5]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["learning_rate"] for row in rows] == [2e-4] * 5


def test_a_set_in_the_memory_of_the_device_trains_the_same(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = dataclasses.replace(config, model=tiny_model(text_every_layer=True))  # with a pool of texts
    config = dataclasses.replace(
        config, training=dataclasses.replace(config.training, contrastive_weight=1.0, captions_per_text=4)
    )
    runs = []
    for name, gigabytes in (("loader", None), ("too small", 1e-6), ("device", 1.0)):
        data = dataclasses.replace(config.data, device_gb=gigabytes)
        run = dataclasses.replace(config.run, name=name)
        ending, folder = _train(dataclasses.replace(config, data=data, run=run))
        assert ending == "DONE"
        runs.append(folder)
    for other in runs[1:]:
        assert_equal(final_state(runs[0]), final_state(other))
    said = capsys.readouterr().out
    assert "batches are loaded in the rank itself\n" in said
    assert re.search(r"\d steps \(\d+ epochs? of \d+\)\n", said)
    assert "rank itself: the set takes 0.00085 GB, more than --data.device-gb 1e-06" in said
    assert "the set is in the memory of the device (0.00085 GB of --data.device-gb 1)" in said


def test_a_stop_while_waiting_for_data_saves_what_was_done(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that makes no batch after the third does not keep a single rank from its end."""
    stop = StopRequest()
    monkeypatch.setattr(loader, "_LOOK_S", 0.05)
    make = loader.StepDataset._make

    def slow(self: loader.StepDataset, step: int) -> Any:
        time.sleep(4 * (step >= 3))
        return make(self, step)

    monkeypatch.setattr(loader.StepDataset, "_make", slow)
    threading.Timer(1.5, stop.ask, ["SIGTERM"]).start()
    began = time.monotonic()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, workers=1))
    ending, run = _train(config, stop=stop)
    assert ending == "PREEMPTED"
    assert time.monotonic() - began < 12
    assert committed_steps(str(run / "checkpoints")) == [2, 3]
    assert (run / "PREEMPTED").read_text().startswith("step 3 of 5, ")


def test_a_run_that_is_done_stays_as_it_is(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    _, run = _train(config)
    before = final_state(run)
    assert _train(config)[0] == "DONE"
    assert "resumed at step 5" in capsys.readouterr().out
    assert_equal(final_state(run), before)


def test_asked_for_less_than_is_done_a_run_is_done(config: Config) -> None:
    """And not PREEMPTED, on which a scheduler would start it for ever."""
    longer = dataclasses.replace(config, training=dataclasses.replace(config.training, epochs=2))
    _, run = _train(longer)
    ending, _ = _train(config)
    assert ending == "DONE"
    assert not (run / "PREEMPTED").exists()
    assert committed_steps(str(run / "checkpoints"))[-1] == 10


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [("training", "seed", 1), ("training", "batch_size", 5), ("model", "noise_dim", 5), ("training", "kl_weight", 1.0)],
)
def test_another_configuration_is_refused(config: Config, section: str, field: str, value: Any) -> None:
    _, run = _train(config)
    before = (run / "checkpoints").stat().st_mtime_ns
    changed = dataclasses.replace(getattr(config, section), **{field: value})
    with pytest.raises(
        UserError, match=rf"another configuration \({section}\.{field}: {value} here, .* there\); choose"
    ):
        _train(dataclasses.replace(config, **{section: changed}))  # type: ignore[arg-type]
    assert (run / "checkpoints").stat().st_mtime_ns == before


def test_other_data_are_refused(config: Config) -> None:
    _train(config)

    def other(data: PackedSet) -> PackedSet:
        return dataclasses.replace(data, index=dataclasses.replace(data.index, name="other"))

    with pytest.raises(UserError, match=r"digest of the data's index: \w{12} here, \w{12} there"):
        _train(config, other)


@pytest.mark.parametrize("damaged", [(5,), (4, 5), (2, 4, 5)])
def test_damage_costs_steps_and_nothing_else(
    config: Config, damaged: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    _, run = _train(config)
    before = final_state(run)
    for step in damaged:
        (run / "checkpoints" / f"step-{step:09d}" / "state.pt").write_bytes(b"")
    if len(damaged) == 3:
        with pytest.raises(UserError, match=r"none of them is whole; .* remove that folder or"):
            _train(config)
        shutil.rmtree(run / "checkpoints")
    assert _train(config)[0] == "DONE"
    if len(damaged) < 3:
        said = capsys.readouterr().out
        assert all(f"step-{step:09d} has 0 bytes of state" in said for step in damaged)
        assert f"resumed at step {damaged[0] - (2 if damaged[0] == 4 else 1)}," in said
    assert_equal(final_state(run), before)
    rows = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows == [1, 2, 3, 4, 5]


def test_half_written_checkpoints_are_named_and_removed(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    _, run = _train(config)
    (run / "checkpoints" / "step-000000005" / "commit.json").unlink()
    (run / "checkpoints" / "step-000000009").mkdir()
    (run / "checkpoints" / "step-000000009" / ".state.pt.abc.tmp").write_bytes(b"half")
    _train(config)
    said = capsys.readouterr().out
    assert "step-000000009 was never committed" in said
    assert "step-000000005 was never committed" in said
    assert list_steps(str(run / "checkpoints")) == [2, 4, 5]
    assert not list(run.rglob("*.tmp"))


def test_a_save_that_fails_does_not_end_the_run(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = Folder.write

    def full_at_first(folder: Folder, name: str, data: bytes) -> None:
        if "step-000000002" in folder.url_of(name):
            raise OSError(28, "No space left on device")
        written(folder, name, data)

    monkeypatch.setattr(Folder, "write", full_at_first)
    ending, run = _train(config)
    assert ending == "DONE"
    assert "checkpoint of step 2 could not be written" in capsys.readouterr().out
    assert list_steps(str(run / "checkpoints")) == [4, 5]


def test_a_last_save_that_fails_is_no_end(config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither marker: whoever decides on a requeue must not take the run for safe."""
    written = Folder.write

    def full_at_last(folder: Folder, name: str, data: bytes) -> None:
        if "step-000000005/commit" in folder.url_of(name):
            raise OSError(28, "No space left on device")
        written(folder, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write", full_at_last)
        with pytest.raises(UserError, match=r"the last checkpoint \(step 5\) could not be written; free space"):
            _train(config)
    run = tmp_path / "run"
    assert not (run / "DONE").exists()
    assert not (run / "PREEMPTED").exists()
    assert _train(config)[0] == "DONE"
    assert committed_steps(str(run / "checkpoints")) == [2, 4, 5]


@pytest.fixture(params=[0, 1], ids=["at-once", "late"])
def late(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How late reports are read: 0 as on CPUs, 1 as on CUDA."""
    monkeypatch.setattr(loop, "Reports", functools.partial(loop.Reports, late=request.param))
    return int(request.param)


def _poison(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Make the KL of step `at` NaN."""
    step_of = loop.TrainingState.step

    def poisoned(state: Any, batch: Any, step: int, steps_per_epoch: int) -> Any:
        report = step_of(state, batch, step, steps_per_epoch)
        return dataclasses.replace(report, kl=torch.tensor(float("nan"))) if step == at else report

    monkeypatch.setattr(loop.TrainingState, "step", poisoned)


@pytest.mark.parametrize("at", [2, 3, 4])
def test_a_loss_that_is_not_finite_stops_at_its_step(
    config: Config, monkeypatch: pytest.MonkeyPatch, late: int, at: int
) -> None:
    _poison(monkeypatch, at)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, tick_steps=100, sample_steps=100))
    saved = at - at % 2
    with pytest.raises(UserError, match=rf"not finite at step {at} .*kl nan.*the last checkpoint is of step {saved}"):
        _train(config)
    run = Path(config.run.folder) / config.run.name
    assert committed_steps(str(run / "checkpoints"))[-1] == saved


def test_reports_that_are_read_late_change_nothing(config: Config, late: int, tmp_path: Path) -> None:
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, tick_steps=3, checkpoint_steps=100))
    _, run = _train(config)
    other = dataclasses.replace(config, run=dataclasses.replace(config.run, name="other"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "Reports", functools.partial(step_metrics.Reports, late=0))
        _, reference = _train(other)
    assert_equal(final_state(run), final_state(reference))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    expected = [json.loads(line) for line in (reference / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 5]
    for row, other_row in zip(rows, expected, strict=True):
        assert all(row[name] == other_row[name] for name in step_metrics.METRICS)


def test_a_stop_is_saved_at_the_step_that_was_taken_last(
    config: Config, monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    """Read late, a wish to stop is known one step later, on every rank alike."""
    rarely = dataclasses.replace(config.run, tick_steps=100, sample_steps=100, checkpoint_steps=100, profile="1:100")
    config = dataclasses.replace(config, run=rarely)
    step_of, stop, taken = loop.TrainingState.step, StopRequest(), []

    def asked(state: Any, batch: Any, step: int, steps_per_epoch: int) -> Any:
        taken.append(step)
        if step == 1:
            stop.ask("a test")
        return step_of(state, batch, step, steps_per_epoch)

    monkeypatch.setattr(loop.TrainingState, "step", asked)
    ending, run = _train(config, stop=stop)
    assert ending == "PREEMPTED"
    assert taken[-1] == 1 + late
    assert committed_steps(str(run / "checkpoints")) == [2 + late]
    (row,) = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert row["step"] == 2 + late
    assert [file.name for file in (run / "profile").iterdir()] == [f"rank-0-steps-1-{1 + late}.pt.trace.json.gz"]


def test_the_forms_of_up_sampling_are_in_the_log(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    _train(config)
    assert "up-sampling on cpu, by the rule of docs/speed.md: " in capsys.readouterr().out


def test_a_trace_and_utilisation_change_no_bit(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, plain = _train(config)
    monkeypatch.setattr(keeper, "_COUNT_AFTER_S", 0.0)
    watched = dataclasses.replace(config, run=dataclasses.replace(config.run, name="watched", profile="1:2"))
    _, run = _train(watched)
    assert_equal(final_state(run), final_state(plain))
    assert (run / "profile" / "rank-0-steps-1-2.pt.trace.json.gz").exists()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < row["mfu"] < 1 and row["memory_gb"] > 0.05 for row in rows)
    said = capsys.readouterr().out
    assert "trace of steps 1 to 2: " in said
    assert re.search(r"step 5/5 .* img/s, MFU \d+%, wait [\d.]+%, [\d.]+ GB \| D ", said)


class TestFaultsOfWhatIsShown:
    """A run goes on without, and trains what it would have trained."""

    def _equals_an_undisturbed_run(self, config: Config, run: Path) -> None:
        undisturbed = dataclasses.replace(config, run=dataclasses.replace(config.run, name="undisturbed"))
        _, other = _train(undisturbed)
        assert_equal(final_state(run), final_state(other))

    def test_captions_of_another_encoder(self, config: Config, capsys: pytest.CaptureFixture[str]) -> None:
        """As of a test split that was packed anew with another one: its embeddings do not fit the generator."""
        config = dataclasses.replace(config, run=dataclasses.replace(config.run, sample_steps=2))
        data = open_packed(config.data, config.model.image_size)

        class Narrow(CaptionSet):
            def caption(self, picture: int, number: int) -> Caption:
                caption = super().caption(picture, number)
                return caption._replace(embedding=caption.embedding[:5])

        class Other(PackedSet):
            def captions(self) -> CaptionSet:
                return Narrow(self.index, self.cache())

        ending, run = _train(config, captions=Other(**vars(data)))
        assert ending == "DONE"
        said = capsys.readouterr().out
        assert said.count("pictures (samples/) could not be made (RuntimeError: ") == 1
        assert committed_steps(str(run / "checkpoints")) == [2, 4, 5]
        # The generator was in the middle of generating: it must have gone back to training.
        self._equals_an_undisturbed_run(config, run)

    def test_captions_that_cannot_be_read(self, config: Config, capsys: pytest.CaptureFixture[str]) -> None:
        data = open_packed(config.data, config.model.image_size)
        ending, run = _train(config, captions=dataclasses.replace(data, folder=data.folder / "lost"))
        assert ending == "DONE"
        assert capsys.readouterr().out.count("pictures (samples/) could not be made (UserError: ") == 1
        assert not (run / "samples").exists()
        self._equals_an_undisturbed_run(config, run)

    def test_a_picture_comes_after_its_step_is_saved(self, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
        config = dataclasses.replace(config, run=dataclasses.replace(config.run, sample_steps=2))
        order: list[str] = []
        save, grid = checkpoint.Checkpointer.save, loop.FixedSamples.grid
        monkeypatch.setattr(checkpoint.Checkpointer, "save", lambda *a: order.append(f"save {a[1]}") or save(*a))
        monkeypatch.setattr(loop.FixedSamples, "grid", lambda *a: order.append("grid") or grid(*a))
        _train(config)
        assert order == ["save 2", "grid", "save 4", "grid", "save 5", "grid"]


@pytest.mark.parametrize("theirs", ["checkpoints/step-000000500/state.pt", "DONE/list.txt", "words.txt", "config.json"])
def test_a_folder_of_something_else_is_left_as_it_is(config: Config, tmp_path: Path, theirs: str) -> None:
    folder = RunFolder(str(tmp_path / "project"))
    file = tmp_path / "project" / theirs
    file.parent.mkdir(parents=True)
    file.write_text("somebody's")
    (tmp_path / "project" / ".draft.tmp").write_text("somebody's")
    with (
        pytest.raises(UserError, match=rf"holds {theirs.partition('/')[0]}, and neither config.json, rows nor"),
        folder.owned(1, check=folder.refuse_foreign),
    ):
        pass
    assert file.read_text() == "somebody's"
    assert (tmp_path / "project" / ".draft.tmp").exists()


def test_a_refused_start_leaves_the_marker(config: Config) -> None:
    _, run = _train(config)
    before = (run / "DONE").read_bytes()
    other = dataclasses.replace(config, training=dataclasses.replace(config.training, learning_rate=0.5))
    with pytest.raises(UserError, match="another configuration"):
        _train(other)
    assert (run / "DONE").read_bytes() == before
    assert _train(config)[0] == "DONE"
    assert (run / "DONE").read_bytes() != before
