"""DeepSpeed trains what DDP trains, goes on where it stopped, and writes the checkpoints that DDP writes.

Groups of one, two and three ranks run the trainings of engine_trainings.py; a global batch of 7 gives ranks uneven
shares.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chaos import chaos, flags, report
from distributed.engine_trainings import HANDOVERS, RESUMED, SHORT, STAGES, STEPS, STOP, SWITCHED, main
from distributed.forked import run_forked
from distributed.harness import REPOSITORY
from distributed.tiny import assert_equal, final_state, largest_difference
from free_ports import free_port
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stackgan_dist.runs.checkpoint import list_steps
from stackgan_dist.runs.metrics import TERMS_OF_PROGRESS, Progress, metrics_of

TOLERANCE = 1e-6
"""In float32, relative to a tensor's largest value: beyond it, runs are different runs."""


@pytest.fixture(scope="module")
def group(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """world size -> the folder with the runs of that group, which all go on with what two ranks began."""
    folder = tmp_path_factory.mktemp("engines")
    only = {
        1: ["handover"],
        2: ["two", "resume", "options", "bf16", "diverge", "begin"],
        3: ["three", "resume", "handover"],
    }

    def run(world_size: int) -> Path:
        out = folder / str(world_size)
        if not out.exists():
            if world_size != 2:
                for name in HANDOVERS:
                    shutil.copytree(run(2) / "stage1" / name, out / "stage1" / name)
            args = [str(packed), str(out), "--only", *only[world_size]]
            run_forked(main, world_size, *args, log=folder / f"{world_size}.txt")
        return out

    return run


@pytest.mark.parametrize("engine", ["zero0", "zero1", "zero2"])
@pytest.mark.parametrize("stage", STAGES)
def test_two_ranks_train_what_ddp_trains(group: Callable[[int], Path], stage: str, engine: str) -> None:
    """Weights, moving average, Adam's state and batch statistics, under the same names, in float32, bit for bit.

    Two ranks' sums have one order only, and Adam rounds alike (same_rounding.py).
    """
    runs = group(2) / stage
    ddp, zero = final_state(runs / "ddp"), final_state(runs / engine)
    assert ddp["step"] == zero["step"] == STEPS
    assert _difference(ddp, zero, f"{engine} and ddp on 2 ranks, {stage}") == 0


def test_two_ranks_train_more_terms_as_ddp_does(group: Callable[[int], Path]) -> None:
    """With a head beside D and a reader beside G, which have Adam's state too."""
    runs = group(2) / "terms"
    ddp, zero = final_state(runs / "ddp"), final_state(runs / "zero1")
    assert any("reader" in name for name in ddp)
    assert any("contrastive" in name for name in ddp)
    assert _difference(ddp, zero, "zero1 and ddp on 2 ranks, terms") == 0


def test_two_ranks_differentiate_twice_as_ddp_does(group: Callable[[int], Path]) -> None:
    """DF-GAN's penalty is a gradient, and has one."""
    runs = group(2) / "df-gan"
    ddp, zero = final_state(runs / "ddp"), final_state(runs / "zero1")
    assert _difference(ddp, zero, "zero1 and ddp on 2 ranks, df-gan") == 0


@pytest.mark.parametrize("engine", ["zero0", "zero1", "zero2"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_leaves_what_ddp_leaves(group: Callable[[int], Path], stage: str, engine: str) -> None:
    """The same losses, step for step, hence of the same samples in the same rows; pictures; TensorBoard."""
    runs = group(2) / stage
    ours, theirs = _metrics(runs / "ddp"), _metrics(runs / engine)
    assert [row["step"] for row in ours] == list(range(1, STEPS + 1))
    for first, second in zip(ours, theirs, strict=True):
        # The gradients' norms are summed in another order.
        assert {name: second[name] for name in first} == pytest.approx(first, rel=2e-5)
        assert all(first[name] == second[name] for name in first if "gradient" not in name)
    picture = f"samples/step-{STEPS:09d}.png"
    assert (runs / "ddp" / picture).read_bytes() == (runs / engine / picture).read_bytes()
    board = EventAccumulator(str(runs / engine), size_guidance={"scalars": 0})
    board.Reload()
    assert [event.step for event in board.Scalars("loss/kl")] == list(range(1, STEPS + 1))


def _metrics(run: Path) -> list[dict[str, float]]:
    """But for those of the clock and of the machine."""
    measured = {
        name for name, one in metrics_of(Progress, TERMS_OF_PROGRESS).items() if one.group in ("speed", "machine")
    }
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{name: row[name] for name in row if name not in measured} for row in rows]


@pytest.mark.parametrize(
    ("stage", "ddp", "zero"),
    [
        *[(stage, "ddp", engine) for stage in STAGES for engine in ("zero1", "zero2")],
        ("stage1", "ddp-divided-last", "zero0-divided-last"),
    ],
)
def test_three_ranks_train_what_ddp_trains(group: Callable[[int], Path], stage: str, ddp: str, zero: str) -> None:
    """The same, where a number's place in a buffer decides on nothing (same_rounding.py).

    Where it does, DDP is not what DDP with other buckets is, see the long form below.
    """
    runs = group(3) / stage
    ours, theirs = final_state(runs / ddp), final_state(runs / zero)
    assert ours["step"] == theirs["step"] == STEPS
    assert _difference(ours, theirs, f"{zero} and ddp on 3 ranks, {stage}") == 0


@pytest.mark.parametrize(
    ("world_size", "stage", "engine"), [(world_size, *run) for world_size, runs in RESUMED.items() for run in runs]
)
def test_a_resumed_run_is_bit_equal(group: Callable[[int], Path], world_size: int, stage: str, engine: str) -> None:
    """In gloo's own order of sums, of which three ranks have several."""
    runs = group(world_size) / stage
    assert list_steps(str(runs / f"{engine}-broken" / "checkpoints")) == [STOP, SHORT]
    assert_equal(final_state(runs / f"{engine}-broken"), final_state(runs / f"{engine}-unbroken"))


@pytest.mark.parametrize("engine", SWITCHED)
def test_offload_and_other_switches_change_nothing(group: Callable[[int], Path], engine: str) -> None:
    """The runs were broken once, and so read and wrote their state in that layout too."""
    runs = group(2) / "stage1"
    assert list_steps(str(runs / engine / "checkpoints")) == [STOP, SHORT]
    assert _difference(final_state(runs / "ddp", SHORT), final_state(runs / engine), f"{engine} and ddp") == 0


@pytest.mark.parametrize("world_size", [1, 3])
@pytest.mark.parametrize("name", [name for name in HANDOVERS if name != "ddp-alone"])
def test_another_number_of_ranks_and_the_other_engine_go_on(
    group: Callable[[int], Path], name: str, world_size: int
) -> None:
    """Two ranks began; the end is what DDP makes of what DDP began, on as many ranks, in float32, bit for bit as above.

    That DDP's is the same run on any number of ranks is shown in float64 by test_world_size.py.
    """
    runs = group(world_size) / "stage1"
    assert list_steps(str(group(2) / "stage1" / name / "checkpoints")) == [STOP]
    ours, ddp = final_state(runs / name), final_state(runs / "ddp-alone")
    assert ours["step"] == ddp["step"] == STEPS
    assert _difference(ours, ddp, f"{name}, 2 to {world_size} ranks") == 0


def test_bf16_is_the_same_autocast(group: Callable[[int], Path]) -> None:
    runs = group(2) / "stage1"
    half = final_state(runs / "ddp-bf16")
    assert _difference(half, final_state(runs / "zero2-bf16"), "zero2 and ddp in bfloat16") == 0
    # Otherwise it would not have been half precision at all.
    assert largest_difference(half, final_state(runs / "ddp", SHORT)) > 100 * TOLERANCE


@pytest.mark.parametrize("engine", ["zero0", "zero2"])
def test_a_gradient_that_is_not_a_number_stops_the_run(group: Callable[[int], Path], engine: str) -> None:
    """ZeRO leaves such an update out and would go on."""
    run = group(2) / "stage1" / f"{engine}-diverged"
    message = (run / "error.txt").read_text()
    assert "not finite at step 1 (" in message
    assert "the last checkpoint is of step 1 in" in message
    assert list_steps(str(run / "checkpoints")) == [1]


@pytest.mark.slow
def test_in_its_own_order_of_sums_ddp_is_no_nearer_to_itself(packed: Path, tmp_path: Path) -> None:
    """What same_rounding is for. Stage-II on three ranks, ten steps in float32: DDP with other buckets."""
    args = [str(packed), str(tmp_path), "--only", "orders"]
    run_forked(main, 3, *args, log=tmp_path / "log.txt")
    for stage in STAGES:
        runs = tmp_path / stage
        ddp = final_state(runs / "ddp")
        itself = _difference(ddp, final_state(runs / "ddp-small-buckets"), f"ddp with small buckets, {stage}")
        zero = [_difference(ddp, final_state(runs / name), f"{name}, {stage}") for name in ("zero0", "zero1", "zero2")]
        assert itself > TOLERANCE, "same_rounding is not needed any more"
        assert max(zero) < 10 * itself


def _difference(ours: dict[str, Any], theirs: dict[str, Any], what: str) -> float:
    found = largest_difference(ours, theirs)
    print(f"{what}: {found:.1e}")
    return found


def test_the_deepspeed_launcher_starts_it(packed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_gpus", "2", "--master_port", str(free_port())]
    command += ["--module", "stackgan_dist.train", *flags(str(packed), tmp_path, 1), "--engine", "deepspeed"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run" / "DONE").exists()
    assert "2 rank(s)" in done.stdout


@pytest.mark.slow
def test_three_kills(packed: Path, tmp_path: Path) -> None:
    """The short form of tests/chaos.py with --engine deepspeed."""
    tally = chaos(str(packed), tmp_path / "runs", kills=3, seed=16, ranks=2, engine="deepspeed")
    assert tally.kills.total() == 3
    print(report(tally, 2))
