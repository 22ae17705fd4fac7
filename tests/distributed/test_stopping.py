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
from distributed.harness import Launch, torchrun
from distributed.tiny import assert_equal, final_state

from stackgan_dist.training.checkpoint import committed_steps

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
    assert time.monotonic() - began < SECONDS_TO_STOP, result.output
    assert launch.vanished(), f"{launch.processes()} are left\n{result.output}"
    assert (run / "PREEMPTED").exists(), result.output
    assert not (run / "DONE").exists()
    step = committed_steps(str(run / "checkpoints"))[-1]
    assert f"PREEMPTED at step {step:,} of " in result.output
    assert _steps(run) == list(range(1, step + 1))
    return step


@pytest.mark.parametrize("ranks", [2])
def test_signals_stop_all_ranks_after_one_step_and_the_run_goes_on(packed: Path, tmp_path: Path, ranks: int) -> None:
    """SIGTERM to torchrun, then SIGUSR1 to one rank, then undisturbed to the end, with loader workers throughout."""
    run = tmp_path / "broken" / "run"
    stops = [0]
    choose: list[tuple[Callable[[Launch], int], signal.Signals]] = [
        (lambda launch: launch.agent.pid, signal.SIGTERM),
        (lambda launch: launch.ranks()[1], signal.SIGUSR1),
    ]
    for number, (process, stop) in enumerate(choose):
        launch = Launch(ranks, TRAIN, flags(str(packed), tmp_path / "broken", 1000), tmp_path / f"{number}.txt")
        try:
            launch.until(lambda: (_steps(run) or [0])[-1] >= stops[-1] + 3)
            stops.append(_stop(launch, process(launch), stop, run))
        finally:
            launch.kill()
    epochs = stops[-1] // 5 + 2
    for name in ("broken", "unbroken"):
        log = tmp_path / f"{name}.txt"
        result = torchrun(ranks, TRAIN, flags(str(packed), tmp_path / name, epochs), log)
        assert result.code == 0, result.output
        assert (tmp_path / name / "run" / "DONE").exists()
        assert not (tmp_path / name / "run" / "PREEMPTED").exists()
    assert f"resumed at step {stops[-1]}" in (tmp_path / "broken.txt").read_text()
    assert _steps(run) == list(range(1, 5 * epochs + 1))
    assert_equal(final_state(run), final_state(tmp_path / "unbroken" / "run"))


def test_a_loss_that_is_not_a_number_stops_the_run(packed: Path, tmp_path: Path) -> None:
    args = [*flags(str(packed), tmp_path, 1000), "--training.learning-rate", "1e6", "--run.checkpoint-steps", "1"]
    result = torchrun(2, TRAIN, args, tmp_path / "log.txt", timeout_s=300)
    assert result.code != 0
    good = committed_steps(str(tmp_path / "run" / "checkpoints"))
    messages = [line for line in result.output.splitlines() if line.startswith("error")]
    assert len(messages) == 1, result.output
    # The first step is a step too far; the second one shows it.
    assert _steps(tmp_path / "run") == good == [1]
    assert "not finite at step 1 (" in messages[0]
    assert "the last checkpoint is of step 1 in" in messages[0]
    assert not (tmp_path / "run" / "DONE").exists()
    assert not (tmp_path / "run" / "PREEMPTED").exists()
