"""Runs whose names mean each other as patterns: none touches another's files."""

from __future__ import annotations

import pytest
import torch

from stackgan_dist.errors import UserError
from stackgan_dist.runs.checkpoint import Checkpointer, committed_steps, find_newest, from_bytes
from stackgan_dist.runs.folder import RunFolder, find_run
from stackgan_dist.runs.score_rows import append_score, recorded_scores
from stackgan_dist.storage import lease
from stackgan_dist.storage.files import exists, read_bytes, write_bytes

OTHERS = ("exp1", "exp2", "exp")
OURS = ("exp[1]", "exp?", "*")


def _train(run: RunFolder, name: str, keep_last: int) -> None:
    """What a training leaves, and what its start clears away."""
    run.mark(None)
    write_bytes(f"{run.url}/config.json", name.encode())
    said: list[str] = []
    checkpointer = Checkpointer(run.checkpoints, keep_last=keep_last, milestone_steps=0, report=said.append)
    checkpointer.remove_unfinished()
    for step in (1, 2, 3):
        checkpointer.save(step, {"name": name, "weights": torch.zeros(3)})
    checkpointer.wait()
    append_score(run.url, {"score": "inception", "value": name})
    run.mark("DONE", name)
    assert not said


def _assert_whole(run: RunFolder, name: str, steps: list[int]) -> None:
    assert committed_steps(run.checkpoints) == steps
    found = find_newest(run.checkpoints, print)
    assert found is not None
    assert from_bytes(found.data, "")["name"] == name
    assert read_bytes(f"{run.url}/DONE").startswith(f"{name}, ".encode())
    assert read_bytes(f"{run.url}/config.json") == name.encode()
    assert recorded_scores(run.url, {})["inception"]["value"] == name


def test_runs_keep_to_themselves(anywhere: str) -> None:
    runs = {name: RunFolder(f"{anywhere}/{name}") for name in (*OTHERS, *OURS)}
    for name in OTHERS:
        _train(runs[name], name, keep_last=3)
    for name in OURS:
        for _ in range(2):
            _train(runs[name], name, keep_last=1)
    for name in OTHERS:
        _assert_whole(runs[name], name, [1, 2, 3])
    for name in OURS:
        _assert_whole(runs[name], name, [3])
    for name in runs:
        assert find_run(f"{anywhere}/{name}").url == runs[name].url


@pytest.mark.parametrize("name", ["exp[1]", "exp?", "e*", "exp#1", "exp%31"])
def test_a_run_that_is_not_there_is_not_another(anywhere: str, name: str) -> None:
    write_bytes(f"{anywhere}/exp1/config.json", b"{}")
    with pytest.raises(UserError, match=r"there is no run at .*; runs found under .*exp1;"):
        find_run(f"{anywhere}/{name}")


def test_the_owner_of_a_run_leaves_the_lock_of_another(anywhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_PAUSE_S", 0.1)
    write_bytes(f"{anywhere}/exp1/.lock", b"process 1 on elsewhere\n0\n")
    write_bytes(f"{anywhere}/exp1/.half.tmp", b"being written")
    for name in ("exp[1]", "exp*"):
        with RunFolder(f"{anywhere}/{name}").owned(patience_s=5):
            pass
    assert read_bytes(f"{anywhere}/exp1/.lock") == b"process 1 on elsewhere\n0\n"
    assert exists(f"{anywhere}/exp1/.half.tmp")
