"""Ranks and GPUs of a machine that only seems to have some, and how CUDA is told to compute."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from stackgan_dist.devices import arithmetic_of, device_of_rank, prepare_cuda
from stackgan_dist.distributed import process_group
from stackgan_dist.errors import RankError, UserError


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A workstation with one GPU, as far as torch says; which devices were made current."""
    current: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


def test_a_rank_has_a_gpu_of_its_own_or_the_cpu(one_gpu: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_of_rank(0, 1) == torch.device("cuda", 0)
    assert device_of_rank(2, 3, shared=True) == torch.device("cuda", 0)
    assert one_gpu == [torch.device("cuda", 0)] * 2
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of_rank(1, 2) == torch.device("cpu")


def test_more_ranks_than_gpus_are_one_line_before_anybody_waits(
    one_gpu: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def rendezvous(*_: object, **__: object) -> None:
        pytest.fail("ranks waited for each other first")

    monkeypatch.setattr(process_group.dist, "rendezvous", rendezvous)
    variables = {"MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # A RankError is printed by the rank that has it, a UserError by rank 0 alone.
    for rank, kind in ((0, RankError), (1, UserError)):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        wanted = r"2 ranks here, 1 GPU visible.*CUDA_VISIBLE_DEVICES="
        with pytest.raises(UserError, match=wanted) as raised, process_group.process_group(60):
            pass
        assert raised.type is kind


def test_products_are_of_float32_and_alike_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):
        prepare_cuda()
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.deterministic
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        prepare_cuda(tf32=True, deterministic=False)
        assert torch.backends.cudnn.allow_tf32
        assert torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.deterministic
        prepare_cuda()


def test_records_say_whether_products_were_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert arithmetic_of(torch.device("cpu")) == "float32 on cpu"
    prepare_cuda()
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100")
    assert arithmetic_of(torch.device("cuda", 0)) == "float32 without TF32 on NVIDIA H100"
