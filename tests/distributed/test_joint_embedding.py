"""The training of a text encoder does not feel the number of ranks, nor that it was stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from distributed.embeddings import STEPS, STOPS_AT, main
from distributed.forked import run_forked
from distributed.tiny import assert_equal, final_embedding_state, largest_difference

from stackgan_dist.runs.checkpoint import list_steps


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """world size -> the folder with the trainings of that group."""
    folder = tmp_path_factory.mktemp("embeddings")

    def run(world_size: int) -> Path:
        out = folder / str(world_size)
        if not out.exists():
            run_forked(main, world_size, out, log=folder / f"{world_size}.txt")
        return out

    return run


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("name", ["exact", "frozen"])
def test_any_number_of_ranks_trains_the_same(group: Callable[[int], Path], name: str, world_size: int) -> None:
    alone, shared = final_embedding_state(group(1) / name), final_embedding_state(group(world_size) / name)
    assert alone["step"] == shared["step"] == STEPS
    assert largest_difference(alone, shared) < 1e-9


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_resumed_training_is_bit_equal(group: Callable[[int], Path], world_size: int) -> None:
    runs = group(world_size)
    assert list_steps(str(runs / "broken" / "checkpoints")) == [STOPS_AT, STEPS]
    assert_equal(final_embedding_state(runs / "broken"), final_embedding_state(runs / "unbroken"))
