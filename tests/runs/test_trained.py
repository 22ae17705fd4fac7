"""What generates and scores starts from: a run, or one of its checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stackgan_dist.runs.checkpoint import find_newest, unpack
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
    saved = unpack(found.data, found.url)["state"]["discriminator"]["network"]

    def read_again(folder: Folder, name: str, *_: object) -> bytes:
        raise AssertionError(folder.url_of(name))

    monkeypatch.setattr(Folder, "read", read_again)
    loaded = load_discriminator(trained, torch.device("cpu")).state_dict()
    expected = {name.removeprefix("discriminator."): value for name, value in saved.items()}
    assert loaded.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(loaded[name], value.float() if value.is_floating_point() else value), name
