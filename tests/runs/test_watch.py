"""Following a run: what is passed over, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stackgan_dist.distributed.gather import gather_alone
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.errors import UserError
from stackgan_dist.runs import watch
from stackgan_dist.runs.checkpoint import FoundCheckpoint
from stackgan_dist.runs.folder import RunFolder
from stackgan_dist.storage.folder import Folder
from stackgan_dist.storage.retry import StoreError


def test_a_damaged_checkpoint_is_passed_over_and_an_outage_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def read(where: Folder) -> FoundCheckpoint:
        step = int(where.url.rpartition("-")[2])
        if step == 1:
            raise UserError("it is damaged")
        if step == 3:
            raise StoreError("the store does not answer")
        return FoundCheckpoint(where.url, step, b"")

    monkeypatch.setattr(watch, "committed_steps", lambda _: [1, 2, 3])
    monkeypatch.setattr(watch, "read_checkpoint", read)
    ranks = Ranks(0, 1, torch.device("cpu"), gather_alone)
    news = watch.new_checkpoints(RunFolder(str(tmp_path)), lambda _: False, 0.01, ranks)
    assert next(news).step == 2
    with pytest.raises(StoreError):
        next(news)
    assert capsys.readouterr().out == "passed over: it is damaged\n"
