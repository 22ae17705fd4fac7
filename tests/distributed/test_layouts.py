"""Gradients lie in memory as DDP wants them."""

from __future__ import annotations

from pathlib import Path

import torch
from distributed.forked import run_forked
from distributed.layouts import main

from stackgan_dist.engines.ddp import _with_strides


def test_the_demo_s_networks_train_without_a_warning_about_strides(tmp_path: Path) -> None:
    """At the demo's batch sizes: small ones take other convolutions, which leave other strides."""
    run_forked(main, 2, str(tmp_path), "demo-stage1", "demo-stage2", log=tmp_path / "log.txt")
    for rank in range(2):
        assert "trides" not in (tmp_path / f"{rank}.txt").read_text()
    assert "trides" not in (tmp_path / "log.txt").read_text()


def test_only_the_strides_of_axes_of_size_one_are_changed() -> None:
    kernel = torch.randn(8, 4, 1, 1)
    grad = torch.randn(8, 4, 1, 1).as_strided((8, 4, 1, 1), (4, 1, 4, 4))
    changed = _with_strides(grad, kernel.shape, kernel.stride())
    assert changed.stride() == kernel.stride()
    assert changed.data_ptr() == grad.data_ptr()
    assert torch.equal(changed, grad)

    kernel = torch.randn(1, 4, 2, 2)
    other = torch.randn(1, 4, 2, 2).to(memory_format=torch.channels_last)
    assert _with_strides(other, kernel.shape, kernel.stride()) is other
