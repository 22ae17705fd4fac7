"""DeepSpeed trains what DDP trains, goes on where it stopped, and writes the checkpoints that DDP writes.

Groups of one, two and three ranks run the trainings of engine_trainings.py; a global batch of 7 gives ranks uneven
shares.
"""

from __future__ import annotations

import os
import shutil
import socket
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from chaos import chaos, flags, report
from distributed.engine_trainings import STEPS, STOP, ZERO
from distributed.harness import REPOSITORY, torchrun
from distributed.tiny import ZERO_BUT_FOR_ROUNDING, assert_equal, final_state, largest_difference

from stackgan_dist.training.checkpoint import list_steps

SCRIPT = str(Path(__file__).with_name("engine_trainings.py"))
TOLERANCE = 1e-6
"""Of float32 after ten steps, relative to a tensor's largest value."""
AS_GOOD = 4.0
"""Times the distance of DDP in float32 from the same run in float64: rounding, which Adam amplifies where a gradient is
small, differs between orders of summation, which three ranks have many of."""
SWITCHED = [name for name in ZERO if "-" in name]


@pytest.fixture(scope="module")
def group(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """world size -> the folder with the runs of that group, which all go on with what two ranks began."""
    folder = tmp_path_factory.mktemp("engines")
    only = {
        1: ["handover"],
        2: ["equal", "exact", "resume", "options", "bf16", "handover"],
        3: ["equal", "resume", "handover"],
    }

    def run(world_size: int) -> Path:
        out = folder / str(world_size)
        if not out.exists():
            if world_size != 2:
                for name in ("kept", "to-ddp", "from-ddp"):
                    shutil.copytree(run(2) / "stage1" / name, out / "stage1" / name)
            args = [str(packed), str(out), "--only", *only[world_size]]
            result = torchrun(world_size, SCRIPT, args, folder / f"{world_size}.txt", 600)
            assert result.code == 0, result.output
        return out

    return run


def distance(group: Callable[[int], Path], ours: dict[str, Any]) -> float:
    """The mean over tensors of the largest difference from the run in float64, relative to the largest value."""
    exact = final_state(group(2) / "stage1" / "exact")
    assert exact.keys() == ours.keys()
    differences = []
    for name, value in exact.items():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or name.endswith("running_mean"):
            continue  # running means move with the biases before them, which are next
        other = ours[name].double()
        if name.endswith("exp_avg_sq"):
            value, other = value.sqrt(), other.sqrt()
        if float(value.abs().max()) > ZERO_BUT_FOR_ROUNDING:
            differences.append(float((value - other).abs().max() / value.abs().max()))
    return statistics.mean(differences)


@pytest.mark.parametrize("engine", ["zero0", "zero1", "zero2"])
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_two_ranks_train_what_ddp_trains(group: Callable[[int], Path], stage: str, engine: str) -> None:
    """Weights, moving average, Adam's state and batch statistics, under the same names. Two ranks' gradients have one
    order of summation only."""
    runs = group(2) / stage
    ddp, zero = final_state(runs / "ddp"), final_state(runs / engine)
    assert ddp["step"] == zero["step"] == STEPS
    assert largest_difference(ddp, zero) < TOLERANCE


@pytest.mark.parametrize("engine", ["zero0", "zero1", "zero2"])
def test_three_ranks_are_as_near_to_the_exact_run_as_ddp(group: Callable[[int], Path], engine: str) -> None:
    ours, ddp = final_state(group(3) / "stage1" / engine), final_state(group(3) / "stage1" / "ddp")
    assert ours["step"] == STEPS
    assert distance(group, ours) < AS_GOOD * distance(group, ddp)


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize(("stage", "engine"), [("stage1", "zero1"), ("stage1", "zero2"), ("stage2", "zero2")])
def test_a_resumed_run_is_bit_equal(group: Callable[[int], Path], world_size: int, stage: str, engine: str) -> None:
    runs = group(world_size) / stage
    assert STOP in list_steps(str(runs / f"{engine}-broken" / "checkpoints"))
    assert final_state(runs / f"{engine}-broken")["step"] == STEPS
    assert_equal(final_state(runs / f"{engine}-broken"), final_state(runs / f"{engine}-unbroken"))


@pytest.mark.parametrize("engine", SWITCHED)
def test_offload_and_other_switches_change_nothing(group: Callable[[int], Path], engine: str) -> None:
    """The runs were broken once, and so read and wrote their state in that layout too."""
    runs = group(2) / "stage1"
    assert STOP in list_steps(str(runs / engine / "checkpoints"))
    assert final_state(runs / engine)["step"] == STEPS
    assert largest_difference(final_state(runs / "ddp"), final_state(runs / engine)) < TOLERANCE


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("name", ["kept", "to-ddp", "from-ddp"])
def test_another_number_of_ranks_and_the_other_engine_go_on(
    group: Callable[[int], Path], name: str, world_size: int
) -> None:
    """Two ranks began. That their state was taken over bit for bit, engine_trainings.py itself has asserted."""
    assert list_steps(str(group(2) / "stage1" / name / "checkpoints")) == [3, STOP]
    assert final_state(group(world_size) / "stage1" / name)["step"] == STEPS


@pytest.mark.parametrize("name", ["kept", "from-ddp"])
def test_after_a_handover_to_one_rank_both_engines_train_the_same(group: Callable[[int], Path], name: str) -> None:
    runs = group(1) / "stage1"
    assert largest_difference(final_state(runs / "to-ddp"), final_state(runs / name)) < TOLERANCE


def test_bf16_is_the_same_autocast(group: Callable[[int], Path]) -> None:
    runs = group(2) / "stage1"
    half = final_state(runs / "ddp-bf16")
    assert largest_difference(half, final_state(runs / "zero2-bf16")) < TOLERANCE
    # Otherwise it would not have been half precision at all.
    assert largest_difference(half, final_state(runs / "ddp")) > 100 * TOLERANCE


def test_the_deepspeed_launcher_starts_it(packed: Path, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_gpus", "2", "--master_port", str(port)]
    command += ["--module", "stackgan_dist.train", *flags(str(packed), tmp_path, 1), "--engine", "deepspeed"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run" / "DONE").exists()
    assert "2 rank(s)" in done.stdout


def test_three_kills(packed: Path, tmp_path: Path) -> None:
    """The short form of tests/chaos.py with --engine deepspeed."""
    tally = chaos(str(packed), tmp_path / "runs", kills=3, seed=16, ranks=2, engine="deepspeed")
    assert tally.kills.total() == 3
    print(report(tally, 2))
