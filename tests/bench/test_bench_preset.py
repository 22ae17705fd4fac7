"""The table of what presets take."""

from __future__ import annotations

import pytest

from stackgan_dist.bench.preset import Options, run
from stackgan_dist.errors import UserError


def test_presets_are_counted_and_estimates_are_called_so() -> None:
    report = run(Options(names=("demo-stage1", "cub-stage2"), peak_tflops=100, utilisation=0.5))
    demo, paper = report.tables[0].rows
    assert (demo["preset"], demo["batch"], demo["steps"]) == ("demo-stage1", 32, 18 * 75)
    # The paper's Stage-II: 75 M weights of four bytes, their gradients and two moments, an average of the generator.
    assert paper["parameters M"] == pytest.approx(74.9, abs=0.1)
    assert 16 * 74.9e6 < paper["state GB"] * 1e9 < 20 * 74.9e6
    assert paper["GPU-hours (est.)"] == pytest.approx(paper["steps"] * paper["GFLOP a step"] / 50e3 / 3600)
    assert demo["rows (est.)"] > paper["rows (est.)"] > 64
    assert "Estimated until measured: GPU-hours at 50% of 100 TFLOP/s" in str(report.tables[0])


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(UserError, match="unknown preset"):
        run(Options(names=("nothing",)))
