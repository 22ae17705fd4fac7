"""Real torchrun groups that are signalled, or whose losses leave the numbers: they stop together, and lose nothing."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from chaos import flags
from distributed.harness import Launch

from stackgan_dist.runs.checkpoint import committed_steps

TRAIN = "stackgan_dist.train"
SECONDS_TO_STOP = 30
"""On a busy machine; an idle one takes two."""


def _steps(run: Path) -> list[int]:
    metrics = run / "metrics.jsonl"
    if not metrics.exists():
        return []
    return [json.loads(line)["step"] for line in metrics.read_text().splitlines() if line.endswith("}")]


def _stop(launch: Launch, process: int, number: signal.Signals, run: Path) -> int:
    """Signal `process`; the step whose checkpoint was committed. All of the launch is gone soon, markers are left."""
    began = time.monotonic()
    os.kill(process, number)
    result = launch.wait(60)
    assert result.code != 0, "only a run that is DONE ends with 0"
    assert time.monotonic() - began < SECONDS_TO_STOP, result.output
    assert launch.vanished(), f"{launch.processes()} are left\n{result.output}"
    assert (run / "PREEMPTED").exists(), result.output
    assert not (run / "DONE").exists()
    step = committed_steps(str(run / "checkpoints"))[-1]
    assert f"PREEMPTED at step {step:,} of " in result.output
    assert _steps(run) == list(range(1, step + 1))
    return step


def test_signals_stop_all_ranks_after_one_step_and_the_run_goes_on(packed: Path, tmp_path: Path) -> None:
    """SIGTERM and SIGINT to torchrun, SIGUSR1 and SIGHUP to one rank, with loader workers throughout. That a run which
    stopped ends as one that did not is shown by test_world_size.py and test_chaos.py."""
    run = tmp_path / "run"
    stops = [0]
    choose: list[tuple[Callable[[Launch], int], signal.Signals]] = [
        (lambda launch: launch.agent.pid, signal.SIGTERM),
        (lambda launch: launch.ranks()[1], signal.SIGUSR1),
        (lambda launch: launch.agent.pid, signal.SIGINT),
        (lambda launch: launch.ranks()[1], signal.SIGHUP),
    ]
    for number, (process, stop) in enumerate(choose):
        launch = Launch(2, TRAIN, flags(str(packed), tmp_path, 1000), tmp_path / f"{number}.txt")
        try:
            launch.until(lambda: (_steps(run) or [0])[-1] >= stops[-1] + 3)
            stops.append(_stop(launch, process(launch), stop, run))
        finally:
            launch.kill()
    assert f"resumed at step {stops[-2]}" in launch.output


TARGETS: dict[str, Callable[[Launch], list[int]]] = {
    "torchrun": lambda launch: [launch.agent.pid],
    "one rank": lambda launch: [launch.ranks()[1]],
    "all": lambda launch: [launch.agent.pid, *launch.ranks()],
}


def _stop_the_demo(arguments: list[str], run: Path, target: str, number: signal.Signals, log: Path) -> str:
    """Start, train three steps, signal; a line of what came of it. A step without its loader worker would fail."""
    launch = Launch(2, TRAIN, arguments, log)
    try:
        first = (_steps(run) or [0])[-1]
        launch.until(lambda: (_steps(run) or [0])[-1] >= first + 3)
        assert len(launch.processes()) >= 5, "torchrun, two ranks and their loader workers"
        began = time.monotonic()
        for process in TARGETS[target](launch):
            os.kill(process, number)
        marked_s = None
        # A torchrun that nobody told about SIGUSR1 dies of it; its ranks notice, and stop by themselves.
        while launch.processes():
            if marked_s is None and (run / "PREEMPTED").exists():
                marked_s = time.monotonic() - began
            launch.agent.poll()
            assert time.monotonic() - began < 2 * SECONDS_TO_STOP, f"{launch.processes()} are left\n{launch.output}"
            time.sleep(0.02)
        gone_s = time.monotonic() - began
        marked_s = marked_s or gone_s
        assert (run / "PREEMPTED").exists(), launch.output
        assert marked_s < SECONDS_TO_STOP, launch.output
        step = committed_steps(str(run / "checkpoints"))[-1]
        assert f"PREEMPTED at step {step:,} of " in launch.output
        assert _steps(run) == list(range(1, step + 1))
        return f"| {number.name} to {target} | {marked_s:.1f} | {gone_s:.1f} |"
    finally:
        launch.kill()


@pytest.mark.slow
def test_the_demo_stops_within_half_a_minute_whoever_is_told(packed: Path, tmp_path: Path) -> None:
    """Each start goes on where the one before was stopped; then Stage-II, from that Stage-I."""
    always = ["--data.url", str(packed), "--run.folder", str(tmp_path), "--run.tick-steps", "1"]
    always += ["--data.workers", "1", "--training.epochs", "100000", "--training.batch-size"]
    lines = []
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
        for target in TARGETS:
            arguments = ["--preset", "demo-stage1", *always, "32", "--run.name", "stage1"]
            log = tmp_path / f"{number.name}-{target}.txt"
            lines.append(f"{_stop_the_demo(arguments, tmp_path / 'stage1', target, number, log)} Stage-I |")
    stage1 = str(tmp_path / "stage1")
    arguments = ["--preset", "demo-stage2", "--stage1", stage1, *always, "16", "--run.name", "stage2"]
    stopped = _stop_the_demo(arguments, tmp_path / "stage2", "torchrun", signal.SIGTERM, tmp_path / "stage2.txt")
    print(
        "\n| | s until PREEMPTED | s until all are gone | |",
        "|---|---|---|---|",
        *lines,
        f"{stopped} Stage-II |",
        sep="\n",
    )


@pytest.mark.slow
def test_a_rank_that_hangs_in_a_training_is_named(packed: Path, tmp_path: Path) -> None:
    """test_missing_ranks.py has the short forms."""
    arguments = [*flags(str(packed), tmp_path, 1000), "--run.timeout-s", "10"]
    launch = Launch(3, TRAIN, arguments, tmp_path / "log.txt")
    try:
        launch.until(lambda: len(_steps(tmp_path / "run")) >= 3)
        frozen = launch.ranks()[2]
        began = time.monotonic()
        os.kill(frozen, signal.SIGSTOP)
        launch.until(lambda: launch.output.count("error on rank") == 2, timeout_s=60)
        print(f"\nnamed {time.monotonic() - began:.0f} s after it was stopped (--run.timeout-s 10)")
        messages = [line for line in launch.output.splitlines() if line.startswith("error on rank")]
        for message in messages:
            assert f", process {frozen}) did not answer: it hangs" in message
            assert "in a roll call rank 2 (" in message
    finally:
        launch.kill()
