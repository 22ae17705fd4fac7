"""The model of many devices by hand, and a real group of two ranks."""

from __future__ import annotations

import math

import pytest
import torch

from stackgan_dist.bench import scaling_rank
from stackgan_dist.bench import step as step_benchmark
from stackgan_dist.bench.cluster_model import BACKWARD_SHARE, Network, Step, estimate
from stackgan_dist.bench.scaling import Options, run
from stackgan_dist.bench.scaling_rank import CountedGather
from stackgan_dist.distributed.gather import gather_alone
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.engines.ddp import BUCKETS
from stackgan_dist.errors import UserError
from stackgan_dist.ranges import check_fields
from stackgan_dist.train.step_metrics import Reports

NETWORK = Network(latency_s=1e-5, bandwidth_bytes_s=1e9)


def test_a_device_alone_only_computes() -> None:
    alone = estimate(Step(0.5, (10**9,), (100,)), NETWORK, 1)
    assert (alone.total_s, alone.gradients_s, alone.statistics_s) == (0.5, 0, 0)


def test_gradients_hide_behind_the_backward_pass() -> None:
    """8 MB on 4 devices: 2 x 3/4 x 8 ms, and for each bucket 2 x 2 latencies."""
    taken = 0.012 + BUCKETS * 4e-5
    hidden = estimate(Step(1.0, (8_000_000,), ()), NETWORK, 4)
    assert hidden.gradients_s == pytest.approx(taken)
    assert hidden.exposed_s == pytest.approx(taken / BUCKETS)
    bare = estimate(Step(0.001, (8_000_000,), ()), NETWORK, 4)
    assert bare.exposed_s == pytest.approx(taken - BACKWARD_SHARE * 0.001)
    assert bare.total_s == pytest.approx(0.001 + bare.exposed_s)


def test_statistics_are_waited_for() -> None:
    found = estimate(Step(0.1, (), (1000, 500)), NETWORK, 1024)
    assert found.statistics_s == pytest.approx(2 * math.log2(1024) * 1e-5 + 1023 * 1500 / 1e9)
    assert found.share_of_linear(0.1) == pytest.approx(0.1 / (0.1 + found.statistics_s))


def test_more_devices_are_never_better() -> None:
    step = Step(0.005, (57_000_000, 16_000_000), (4000,) * 40)
    shares = [estimate(step, NETWORK, 2**n).share_of_linear(0.005) for n in range(11)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == 1


def test_two_ranks_are_measured() -> None:
    measured, modelled = run(Options(ranks=(2,), batch=2, width=8, repeats=2)).tables
    (row,) = measured.rows
    assert row["ranks"] == 2
    assert row["images/s"] == pytest.approx(4 / row["median s"])
    assert row["exchanges"] > 30  # a forward and a backward one for each batch norm
    assert 0 < row["in exchanges"] < 1
    assert row["share of linear"] > 0
    assert row["side by side s"] > 0
    assert row["of side by side"] > 0
    assert [line["devices"] for line in modelled.rows][-1] == 1024
    assert "Assumed" in modelled.notes[0]
    # Counted from the layers they are those that happened, and the report.
    assert f"{row['exchanges'] + 1} exchanges of" in modelled.notes[0]


def test_exchanges_are_counted_from_the_layers_as_they_happen() -> None:
    options = step_benchmark.Options(batch=3, width=4)
    counted = CountedGather(gather_alone)
    state = scaling_rank.build(options, Ranks(0, 1, torch.device("cpu"), counted))
    batch = step_benchmark.made_up_batch(options.config.model, 3, torch.device("cpu"))
    sizes, forward = scaling_rank.exchanged_bytes(state, batch)
    report = state.step(batch, 0, 1_000_000)
    del counted.sizes[len(sizes) - 1 :]
    Reports(Ranks(0, 1, torch.device("cpu"), counted), 1.0).put(0, report, stop=False)
    assert sizes == counted.sizes  # the last is the report's, which no step sends
    assert 2 * forward > len(sizes) - 1 - forward > 0


def test_a_host_that_waits_leaves_the_device_idle() -> None:
    step = Step(0.002, (), (100,) * 10, host_s=0.006, host_waits=30)
    found = estimate(step, NETWORK, 8, wait_s=5e-5)
    assert found.launched_s == pytest.approx(0.006 + 30 * 5e-5)
    assert found.total_s == pytest.approx(0.002 + found.statistics_s)
    assert estimate(step, NETWORK, 1, wait_s=5e-5).launched_s == 0.006  # alone it has nothing to wait for


def test_options_are_checked() -> None:
    with pytest.raises(UserError, match="--ranks"):
        run(Options(ranks=()))
    with pytest.raises(UserError, match="--latency-us"):
        check_fields(Options(latency_us=0))
