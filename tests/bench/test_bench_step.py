"""The two ways that `bench step` compares are one function, and its tables say what they should."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from stackgan_dist.bench import step
from stackgan_dist.bench.plain_step import with_two_layers
from stackgan_dist.bench.step import Options, build_ways, run
from stackgan_dist.errors import UserError
from stackgan_dist.models import build_generator, upsampling
from stackgan_dist.models.config import RecipeName

CPU = torch.device("cpu")


@pytest.mark.parametrize(("recipe", "stage"), [("paper", 1), ("pytorch", 1), ("paper", 2)])
def test_plain_and_fast_are_one_function(
    recipe: RecipeName, stage: Literal[1, 2], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upsampling, "_MINIMAL_FROM", 32)  # so that narrow networks have layers of both fast forms
    ways = build_ways(Options(stage=stage, batch=3, width=8, recipe=recipe, precision="fp64"), CPU)
    for _ in range(3):  # the losses of later steps show the updates of the earlier ones
        plain, fast = (torch.stack(ways[name]()) for name in ("plain", "fast"))
        torch.testing.assert_close(fast, plain, rtol=1e-7, atol=1e-9)


def test_the_plain_step_enlarges_and_convolves() -> None:
    generator = build_generator(Options(width=8).config.model, 4)
    names = set(generator.state_dict())
    with_two_layers(generator)
    layers = list(generator.modules())
    assert not any(isinstance(layer, upsampling.UpsampleConv) for layer in layers)
    assert sum(isinstance(layer, nn.Upsample) for layer in layers) == 4
    assert len(generator.state_dict()) == len(names)


def test_the_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "in_own_process", lambda work, way, options: {"plain": 2_000_000, "fast": 1_000_000}[way])
    report = run(Options(width=8, batch=2, repeats=2))
    steps, layers = report.tables
    plain, fast = steps.rows
    assert (plain["step"], fast["step"]) == ("plain", "fast")
    assert plain["times plain"] == 1
    assert plain["GFLOP"] > 1.5 * fast["GFLOP"]
    assert plain["GFLOP/s"] == pytest.approx(plain["GFLOP"] / plain["CPU s"])
    assert plain["images/s"] == pytest.approx(2 / plain["median s"])
    assert fast["of plain's GFLOP"] / fast["share of peak"] == pytest.approx(plain["GFLOP"] / fast["GFLOP"])
    assert fast["launches"] > 0
    assert (fast["kernels"], fast["busy"]) == (None, None)  # of a device
    assert "aten::" in steps.notes[-2]
    assert (plain["peak MB"], fast["peak MB"]) == (2, 1)
    assert [row["layer"] for row in layers.rows] == [
        "64 -> 32 at 4x4", "32 -> 16 at 8x8", "16 -> 8 at 16x16", "8 -> 3 at 32x32",
    ]  # fmt: skip
    assert {row["taken"] for row in layers.rows} == {"transposed"}


def test_options_are_checked() -> None:
    with pytest.raises(UserError, match="--repeats is 0"):
        run(Options(repeats=0))
