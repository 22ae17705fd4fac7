"""The plan's promises, checked against the definition: every sample at most once an epoch, in lanes, for any ranks."""

from __future__ import annotations

import itertools

import pytest

from stackgan_dist.data.plan import Plan, rows_of_rank
from stackgan_dist.errors import UserError
from stackgan_dist.randomness import Permutation, Stream, permutation

SETS = {
    "equal shards": ([8] * 6, 7),
    "uneven shards": ([3, 11, 1, 8, 8, 5, 2], 5),
    "one shard": ([23], 4),
    "shards smaller than a lane": ([2] * 20, 3),
    "nothing left over": ([6, 6, 6], 9),
    "one batch an epoch": ([4, 5], 9),
    "one row": ([4, 5], 1),
}


@pytest.fixture(params=SETS, ids=str)
def plan(request: pytest.FixtureRequest) -> Plan:
    shards, batch_size = SETS[request.param]
    return Plan(shards, 3, batch_size)


def _epoch(plan: Plan, epoch: int) -> list[list[tuple[int, int]]]:
    first = epoch * plan.steps_per_epoch
    return [plan.locate(step, range(plan.batch_size)) for step in range(first, first + plan.steps_per_epoch)]


def _sequence(sizes: list[int], seed: int, epoch: int) -> list[tuple[int, int]]:
    """The samples in the order of the epoch, as the docstring of the plan defines it."""
    return [
        (shard, sample)
        for shard in permutation(len(sizes), seed, Stream.SHARD_ORDER, epoch).tolist()
        for sample in permutation(sizes[shard], seed, Stream.SAMPLE_ORDER, epoch, shard).tolist()
    ]


@pytest.mark.parametrize("name", SETS)
def test_row_i_walks_lane_i_of_the_epoch_s_sequence(name: str) -> None:
    sizes, batch_size = SETS[name]
    plan = Plan(sizes, 3, batch_size)
    assert plan.samples == sum(sizes)
    assert plan.steps_per_epoch == sum(sizes) // batch_size
    for epoch in range(3):
        sequence = _sequence(sizes, 3, epoch)
        for t, batch in enumerate(_epoch(plan, epoch)):
            assert batch == [sequence[row * plan.steps_per_epoch + t] for row in range(batch_size)]


def test_no_sample_comes_twice_in_an_epoch_and_all_come_in_time(plan: Plan) -> None:
    seen_ever = set()
    for epoch in range(40):
        seen = list(itertools.chain.from_iterable(_epoch(plan, epoch)))
        assert len(seen) == len(set(seen)) == plan.steps_per_epoch * plan.batch_size
        seen_ever |= set(seen)
    assert len(seen_ever) == plan.samples


def test_what_is_left_over_differs_from_epoch_to_epoch() -> None:
    plan = Plan([8, 8, 8, 6], 0, 7)
    everything = {(shard, sample) for shard, size in enumerate([8, 8, 8, 6]) for sample in range(size)}
    left = [frozenset(everything - set(itertools.chain.from_iterable(_epoch(plan, epoch)))) for epoch in range(6)]
    assert {len(leftover) for leftover in left} == {2}
    assert len(set(left)) == 6


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    plan, other = Plan([40, 40], 0, 8), Plan([40, 40], 1, 8)
    assert _epoch(plan, 0) != _epoch(plan, 1)
    assert _epoch(plan, 0) != _epoch(other, 0)


def test_any_order_of_asking_gives_the_same(plan: Plan) -> None:
    steps = range(3 * plan.steps_per_epoch)
    in_order = {step: plan.locate(step, range(plan.batch_size)) for step in steps}
    asked = sorted(steps, key=lambda step: (step * 7919) % 31)
    assert {step: plan.locate(step, range(plan.batch_size)) for step in asked} == in_order


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_divide_the_rows(world_size: int) -> None:
    plan = Plan([9, 9, 9], 0, 7)
    rows = [rows_of_rank(7, rank, world_size) for rank in range(world_size)]
    assert list(itertools.chain.from_iterable(rows)) == list(range(7))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1
    for step in range(6):
        parts = [plan.locate(step, share) for share in rows]
        assert list(itertools.chain.from_iterable(parts)) == plan.locate(step, range(7))


def test_a_rank_reads_the_shards_of_its_lanes_only() -> None:
    plan = Plan([5] * 24, 0, 12)
    touched = [
        {shard for step in range(plan.steps_per_epoch) for shard, _ in plan.locate(step, rows_of_rank(12, rank, 4))}
        for rank in range(4)
    ]
    # 30 samples each: six shards, when the lanes happen to begin at a shard's begin.
    assert all(len(shards) <= 7 for shards in touched)


@pytest.mark.parametrize("ahead", [1, 2, 5, 9])
def test_shards_ahead_by_brute_force(plan: Plan, ahead: int) -> None:
    for rows in (range(plan.batch_size), rows_of_rank(plan.batch_size, 0, 2) or range(1)):
        for step in range(2 * plan.steps_per_epoch):
            first_need: dict[int, int] = {}
            # Beyond the next epoch nothing is promised.
            end = min(step + ahead, (plan.epoch(step) + 2) * plan.steps_per_epoch)
            for later in range(step, end):
                for shard, _ in plan.locate(later, rows):
                    first_need.setdefault(shard, later)
            found = plan.shards_ahead(step, ahead, rows)
            assert found == sorted(first_need, key=lambda shard: (first_need[shard], shard))


def test_looking_ahead_does_not_disturb_the_order() -> None:
    plan, undisturbed = Plan([8] * 6, 0, 7), Plan([8] * 6, 0, 7)
    for step in range(15):
        plan.shards_ahead(step, 4, range(7))
        assert plan.locate(step, range(7)) == undisturbed.locate(step, range(7))


def test_a_rank_of_many_rows_permutes_each_shard_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counting(*arguments: int) -> Permutation:
        made.append(arguments)
        return Permutation(*arguments)

    monkeypatch.setattr("stackgan_dist.data.plan.Permutation", counting)
    plan = Plan([4] * 700, 0, 700)
    for step in range(plan.steps_per_epoch):
        plan.locate(step, range(700))
    assert len(made) == 700


def test_fewer_samples_than_a_batch_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"holds 9 samples, fewer than one global batch of 10; lower --training\.batch"):
        Plan([4, 5], 0, 10)


def test_an_order_that_runs_depend_on() -> None:
    """Pinned: a change of it would silently change every run that goes on."""
    plan = Plan([5, 3, 4], 7, 3)
    assert [plan.locate(step, range(3)) for step in (0, 3, 4)] == [
        [(1, 1), (2, 1), (0, 3)],
        [(2, 3), (0, 0), (0, 1)],
        [(2, 2), (0, 1), (0, 3)],
    ]
