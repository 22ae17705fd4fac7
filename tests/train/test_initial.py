"""--init-from: what fits of other weights is taken, what does not is named, and the run's own checkpoint wins."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from distributed.forked import run_door, run_forked
from distributed.tiny import TINY_FLAGS, final_state, tiny_config, tiny_model

from stackgan_dist.distributed.process_group import process_group
from stackgan_dist.errors import UserError
from stackgan_dist.runs.trained import load_trained
from stackgan_dist.storage.folder import Folder
from stackgan_dist.train import __main__ as train
from stackgan_dist.train.initial import InitialWeights, find_initial, start_from


def _train(patch: pytest.MonkeyPatch, packed: Path, runs: Path, *flags: object) -> None:
    common = ["--data.url", packed, "--run.folder", runs, "--training.epochs", 1]
    patch.setattr("sys.argv", ["train", *map(str, [*TINY_FLAGS, *common, *flags])])
    train.main()


def test_a_run_starts_from_another_one_and_goes_on_from_itself(
    packed: Path,
    three_runs: tuple[Path, Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = Path(shutil.copytree(three_runs[1], tmp_path / "source"))
    # So small a rate changes no float32: what the run ends with is what it began with.
    flags = ["--run.name", "tuned", "--init-from", source, "--training.learning-rate", 1e-30]
    _train(monkeypatch, packed, tmp_path, *flags)
    shown = capsys.readouterr().out
    theirs, ours = load_trained(source, print), load_trained(tmp_path / "tuned", print, raw=True)
    weights = len(theirs.weights) + len(theirs.discriminator_weights)
    assert f"starts from {weights} weights of {source}/checkpoints/step-000000005 (step 5)" in shown
    learned = [name for name, value in theirs.weights.items() if value.dim() > 1]
    assert len(learned) > 5
    for name in learned:
        assert torch.equal(ours.weights[name], theirs.weights[name].float()), name
    for name, value in theirs.discriminator_weights.items():
        if value.dim() > 1:
            assert torch.equal(ours.discriminator_weights[name], value.float()), name
    record = json.loads((tmp_path / "tuned" / "initial.json").read_text())
    assert (record["step"], record["fresh"]) == (5, [])

    # The same command again resumes, though what it started from is gone.
    shutil.rmtree(source)
    before = final_state(tmp_path / "tuned")
    _train(monkeypatch, packed, tmp_path, *flags)
    assert "resumed at step 5" in capsys.readouterr().out
    assert final_state(tmp_path / "tuned").keys() == before.keys()
    with pytest.raises(SystemExit):
        _train(monkeypatch, packed, tmp_path, *flags[:2], *flags[4:])
    assert "init_from: None here" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["ddp", "deepspeed"])
def test_two_ranks_start_from_the_same(
    packed: Path, three_runs: tuple[Path, Path, Path], tmp_path: Path, engine: str
) -> None:
    """Rank 0 reads it and sends it: what is trained, and averaged over, is what one rank would start from."""
    flags = [*TINY_FLAGS, "--data.url", packed, "--run.folder", tmp_path, "--run.name", "tuned", "--engine", engine]
    flags += ["--training.batch-size", 6, "--training.epochs", 1, "--training.learning-rate", 1e-30]
    run_door(2, "train", *flags, "--init-from", three_runs[1], log=tmp_path / "log", timeout_s=120)
    theirs, ours = load_trained(three_runs[1], print), load_trained(tmp_path / "tuned", print, raw=True)
    for found, expected in (
        (ours.weights, theirs.weights),
        (ours.discriminator_weights, theirs.discriminator_weights),
    ):
        learned = [name for name, value in expected.items() if value.dim() > 1]
        assert learned
        for name in learned:
            assert torch.equal(found[name].float(), expected[name].float()), name


def _refused(run: str) -> None:
    unwritable = Mock(spec=InitialWeights, record=Mock(side_effect=UserError("it cannot be written")))
    with process_group(60) as ranks:
        for initial, said in ((None, "no checkpoint of .* can be read"), (unwritable, "it cannot be written")):
            with pytest.raises(UserError, match=said):
                start_from(initial, Mock(), Folder.at(run), ranks)


def test_what_keeps_rank_0_from_it_is_said_on_every_rank(tmp_path: Path) -> None:
    run_forked(_refused, 2, str(tmp_path), log=tmp_path / "log", timeout_s=120)


def test_texts_of_another_width_start_anew_and_are_named(
    packed: Path, three_runs: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    config = replace(tiny_config(str(packed), tmp_path, "run"), init_from=str(three_runs[1]))
    same, narrow = find_initial(config, 256, None), find_initial(config, 40, None)
    assert same.fresh == ()
    assert narrow.fresh == ("generator.conditioning.fc.weight", "discriminator.embed_text.0.weight")
    assert narrow.generator.keys() == same.generator.keys() - {"conditioning.fc.weight"}
    assert "2 weights start anew: generator.conditioning.fc.weight" in narrow.describe()[1]
    read = replace(config, model=tiny_model(text_every_layer=True))
    assert any("of_text" in name for name in find_initial(read, 256, None).fresh)


def test_what_cannot_be_started_from_is_said(packed: Path, three_runs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    config = tiny_config(str(packed), tmp_path, "run")
    with pytest.raises(UserError, match=r"--init-from .*/none: there is no run at"):
        find_initial(replace(config, init_from=str(tmp_path / "none")), 256, None)
    with pytest.raises(UserError, match="is a stage-II model, this run is stage-I"):
        find_initial(replace(config, init_from=str(three_runs[2])), 256, None)
    wide = replace(config, model=replace(tiny_model(), generator_width=8, condition_dim=6, noise_dim=6))
    with pytest.raises(UserError, match=r"no layer of its generator has the shape .* \(4 there, 8 here\)"):
        find_initial(replace(wide, init_from=str(three_runs[1])), 40, None)
