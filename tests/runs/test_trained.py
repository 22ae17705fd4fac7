"""What generates and scores starts from: a run, or one of its checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from distributed.tiny import tiny_config, tiny_model, train_alone

from stackgan_dist.runs.checkpoint import find_newest, from_bytes
from stackgan_dist.runs.trained import load_discriminator, load_trained
from stackgan_dist.storage.folder import Folder


@pytest.mark.parametrize(
    ("working", "given"),
    [
        ("", "checkpoints/{step}"),
        ("", "checkpoints/{step}/"),
        ("checkpoints", "{step}"),
        ("checkpoints", "../checkpoints/{step}"),
        ("checkpoints/{step}", "."),
        ("..", "{run}/checkpoints/{step}"),
    ],
)
def test_the_run_of_a_checkpoint_is_found(
    three_runs: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch, working: str, given: str
) -> None:
    run = three_runs[1]
    names = {"run": run.name, "step": max(path.name for path in (run / "checkpoints").iterdir())}
    monkeypatch.chdir(run / working.format(**names))
    trained = load_trained(given.format(**names), print)
    assert trained.folder.path.resolve() == run.resolve()
    assert trained.step == load_trained(run, print).step


def test_the_discriminator_comes_from_the_bytes_that_were_read(
    three_runs: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = three_runs[1]
    trained = load_trained(run, print)
    found = find_newest(run / "checkpoints", print)
    assert found is not None
    saved = from_bytes(found.data, found.url)["state"]["discriminator"]["network"]

    def read_again(folder: Folder, name: str, *_: object) -> bytes:
        raise AssertionError(folder.url_of(name))

    monkeypatch.setattr(Folder, "read", read_again)
    loaded = load_discriminator(trained, torch.device("cpu")).state_dict()
    expected = {name.removeprefix("discriminator."): value for name, value in saved.items()}
    assert loaded.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(loaded[name], value.float() if value.is_floating_point() else value), name


def test_a_run_with_more_terms_is_taken_like_any_other(packed: Path, tmp_path: Path) -> None:
    """Its average, its last weights, its discriminator; and Stage-II starts from it."""
    run = train_alone(
        tiny_config(str(packed), tmp_path, "terms", model=tiny_model(text_every_layer=True), precision="fp32"), None
    )
    trained, raw = load_trained(run, print), load_trained(run, print, raw=True)
    assert trained.weights.keys() == raw.weights.keys()
    assert not any("reader" in name for name in raw.weights)
    assert any(not torch.equal(raw.weights[name], value) for name, value in trained.weights.items())
    for each in (trained, raw):
        each.generator(torch.device("cpu"))
    load_discriminator(trained, torch.device("cpu"))
    second = tiny_config(str(packed), tmp_path, "second", model=tiny_model(stage=2, image_size=128), precision="fp32")
    stage2 = load_trained(train_alone(second, (trained.config.model, trained.weights)), print)
    for name, value in trained.weights.items():
        assert torch.equal(stage2.weights[f"stage1.{name}"], value), name
