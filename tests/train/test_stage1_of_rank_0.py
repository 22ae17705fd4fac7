"""A Stage-II on nodes that do not see its Stage-I: rank 0 reads it and sends it."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import torch
from distributed.forked import run_forked
from distributed.tiny import tiny_config, tiny_model

from stackgan_dist.data.dataset import open_packed
from stackgan_dist.distributed.process_group import process_group
from stackgan_dist.runs.trained import load_trained
from stackgan_dist.train.__main__ import _stage1


def _rank(packed: str, seen: str, out: str) -> None:
    model = tiny_model(stage=2, image_size=128)
    config = tiny_config(packed, Path(out), "second", model=model)
    config = dataclasses.replace(config, stage1=seen if os.environ["RANK"] == "0" else "/not/on/this/node")
    data = open_packed(config.data, model.image_size)
    with process_group(60) as ranks:
        found, weights = _stage1(config, data, ranks)
    expected = load_trained(seen, print)
    assert found == expected.config.model
    assert weights.keys() == expected.weights.keys()
    assert all(torch.equal(weights[name], value) for name, value in expected.weights.items())


def test_rank_0_alone_has_to_see_it(packed: Path, three_runs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    run_forked(_rank, 2, str(packed), str(three_runs[1]), str(tmp_path), log=tmp_path / "log", timeout_s=120)
