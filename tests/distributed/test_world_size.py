"""The number of ranks is not a hyper-parameter, and a run that stopped goes on as if it had not.

Groups of one, two and three ranks run the trainings of trainings.py; a global batch of 7 gives ranks uneven shares, and
each group has another number of loader workers.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from distributed.forked import run_forked
from distributed.tiny import STEPS_PER_EPOCH, assert_equal, final_state, largest_difference
from distributed.trainings import CHECKPOINT_STEPS, RESUMED_ON, SHORT_STOPS, STOPS, compared_on, main
from invariance import invariance, report

from stackgan_dist.runs.checkpoint import list_steps

TOLERANCE = 1e-9


@pytest.fixture(scope="session")
def group(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """world size -> the folder with the runs of that group, which all go on with what three ranks began."""
    folder = tmp_path_factory.mktemp("groups")

    def run(world_size: int) -> Path:
        out = folder / str(world_size)
        if not out.exists():
            if world_size != 3:
                shutil.copytree(run(3) / "handover", out / "handover")
            run_forked(main, world_size, str(packed), str(out), log=folder / f"{world_size}.txt", timeout_s=900)
        return out

    return run


@pytest.mark.parametrize(
    ("world_size", "variant"), [(world_size, variant) for world_size in (2, 3) for variant in compared_on(world_size)]
)
def test_any_number_of_ranks_trains_the_same(group: Callable[[int], Path], variant: str, world_size: int) -> None:
    alone, shared = final_state(group(1) / variant), final_state(group(world_size) / variant)
    assert alone["step"] == shared["step"] == STEPS_PER_EPOCH
    assert largest_difference(alone, shared) < TOLERANCE


@pytest.mark.parametrize(
    ("world_size", "stage"), [(world_size, stage) for world_size, stages in RESUMED_ON.items() for stage in stages]
)
def test_a_resumed_run_is_bit_equal(group: Callable[[int], Path], world_size: int, stage: str) -> None:
    """Again and again, in mid-epoch and after its end; seen at each checkpoint that the unbroken run has, too."""
    runs = group(world_size) / stage
    stops = STOPS if stage == "stage1" else SHORT_STOPS
    # That it did stop where it should have: its own last checkpoint is there.
    stopped = {step for steps in stops.values() for step in steps}
    broken = set(list_steps(str(runs / "broken" / "checkpoints")))
    unbroken = list_steps(str(runs / "unbroken" / "checkpoints"))
    assert broken == stopped | set(unbroken)
    assert unbroken == sorted({*range(CHECKPOINT_STEPS, max(stopped), CHECKPOINT_STEPS), max(stopped)})
    for step in unbroken:
        assert_equal(final_state(runs / "broken", step), final_state(runs / "unbroken", step))


@pytest.mark.parametrize("world_size", [1, 2])
def test_fewer_ranks_go_on_with_the_same_mathematics(group: Callable[[int], Path], world_size: int) -> None:
    """Three ranks began; what one or two make of it is what one rank would have made alone."""
    assert list_steps(str(group(3) / "handover" / "checkpoints")) == [3]
    assert final_state(group(world_size) / "handover")["step"] == 10
    assert largest_difference(final_state(group(1) / "alone"), final_state(group(world_size) / "handover")) < TOLERANCE


def test_a_loss_that_is_not_a_number_stops_all_ranks(group: Callable[[int], Path]) -> None:
    """The first step is a step too far; the second one shows it."""
    run = group(2) / "diverged"
    messages = {(run / f"error-{rank}.txt").read_text() for rank in range(2)}
    assert len(messages) == 1, messages
    (message,) = messages
    assert "not finite at step 1 (" in message
    assert "the last checkpoint is of step 1 in" in message
    assert list_steps(str(run / "checkpoints")) == [1]
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1
    assert not (run / "DONE").exists()
    assert not (run / "PREEMPTED").exists()


@pytest.mark.slow
def test_ten_steps_on_four_ranks(packed: Path, tmp_path: Path) -> None:
    table = invariance(str(packed), tmp_path, [1, 2, 3, 4])
    print(report(table, [1, 2, 3, 4]))
    assert max(difference for differences in table.values() for difference in differences.values()) < TOLERANCE


@pytest.mark.slow
def test_without_a_rehearsal_three_ranks_are_not_bit_equal(packed: Path, tmp_path: Path) -> None:
    """What TrainingState.rehearse is for; when this fails, torch has become better and it can go."""
    args = [str(packed), str(tmp_path / "out"), "--only", "resume", "--no-rehearsal"]
    run_forked(main, 3, *args, log=tmp_path / "log.txt")
    runs = tmp_path / "out" / "stage1"
    with pytest.raises(AssertionError, match="differ"):
        assert_equal(final_state(runs / "broken"), final_state(runs / "unbroken"))
