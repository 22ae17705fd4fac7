"""Ranks of one host meet over Unix sockets wherever $TMPDIR is, or by gloo, and leave nothing behind."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from distributed.forked import run_forked

from stackgan_dist.distributed.gather import SmallGather

RANKS = 3


def _rank(temporary: str, folder: str, refused: int | None) -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    rank = dist.get_rank()
    with patch("tempfile.tempdir", temporary), patch.object(socket.socket, "bind", _bind(rank == refused)):
        gather = SmallGather(60)
    found = [gather(torch.tensor([float(rank), float(call)])) for call in range(3)]
    torch.save({"found": torch.stack(found), "by_sockets": gather._by_sockets}, f"{folder}/rank-{rank}.pt")
    dist.barrier()
    gather.close()
    dist.destroy_process_group()


def _bind(is_refused: bool) -> object:
    original = socket.socket.bind

    def bind(self: socket.socket, address: object) -> None:
        if is_refused and self.family == socket.AF_UNIX:
            raise PermissionError("no sockets here")
        original(self, address)  # type: ignore[arg-type]

    return bind


@pytest.mark.parametrize(
    ("long", "refused", "by_sockets"), [(False, None, True), (True, None, True), (False, 1, False), (None, None, False)]
)
def test_small_tensors_arrive_everywhere(
    tmp_path: Path, long: bool | None, refused: int | None, by_sockets: bool
) -> None:
    """In a folder of a usual name, of 95 characters more, where a rank may not listen, and where there is none."""
    temporary = tmp_path / ("x" * 95 if long else "t")
    if long is not None:
        temporary.mkdir()
    run_forked(_rank, RANKS, str(temporary), str(tmp_path), refused, log=tmp_path / "log", timeout_s=120)
    expected = torch.tensor([[[float(rank), float(call)] for rank in range(RANKS)] for call in range(3)])
    for rank in range(RANKS):
        content = torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True)
        assert torch.equal(content["found"], expected)
        assert content["by_sockets"] == by_sockets
    assert long is None or list(temporary.iterdir()) == []
    assert ("small tensors go by gloo" in (tmp_path / "log").read_text()) != by_sockets
