"""1, 2 and 4 ranks on this machine, every rank with as many rows; and a model of the step on up to 1,024 devices."""

from __future__ import annotations

import dataclasses
import json
import operator
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from stackgan_dist.bench import step as step_benchmark
from stackgan_dist.bench.cluster_model import BACKWARD_SHARE, Network, Step, estimate
from stackgan_dist.bench.machine import Threads, describe_machine, pick_device
from stackgan_dist.bench.report import Report, Table
from stackgan_dist.engines.ddp import BUCKETS
from stackgan_dist.errors import UserError
from stackgan_dist.machine import usable_cores
from stackgan_dist.ranges import Range

_MODELLED = (1, 2, 4, 8, 16, 32, 64, 256, 1024)
_WAITS_PER_NORM = 3
"""Of the host in each forward pass of torch's SyncBatchNorm, which reads the size of a mask."""
_TIMEOUT_S = 1800


@dataclass(frozen=True)
class Options:
    """Which groups to start, and what network to assume."""

    ranks: tuple[Annotated[int, Range(at_least=1)], ...] = (1, 2, 4)
    """The numbers of ranks in the groups, which torchrun starts one after the other."""
    stage: Literal[1, 2] = 1
    """The stage to train, as in `bench step`."""
    batch: Annotated[int, Range(at_least=1)] | None = None
    """The rows of EACH rank. The default is 16 in Stage-I and 4 in Stage-II."""
    width: Annotated[int, Range(at_least=2, at_most=65_536)] | None = None
    """The width of the generator; that of the discriminator is half of it. The default is the paper's 128."""
    repeats: Annotated[int, Range(at_least=1)] = 5
    """The number of timed steps: of a rank alone, of all side by side, and joint ones in turns."""
    threads: Threads = 1
    """The CPU threads of a rank."""
    latency_us: Annotated[float, Range(above=0)] = 10.0
    """The model assumes this many microseconds between two devices of different nodes, switch and software included."""
    bandwidth_gb_s: Annotated[float, Range(above=0)] = 25.0
    """The model assumes that a device sends this many gigabytes a second to another node (a 200 Gb/s port each)."""
    compute_ms: Annotated[float, Range(above=0)] | None = None
    """The model takes this many milliseconds as the compute time of a step on the devices to be modelled. The default
    is what was measured here."""
    host_ms: Annotated[float, Range(above=0)] | None = None
    """The model takes this many milliseconds for launching a step kernel by kernel. The default is what it took here:
    on a CPU, which computes while it launches, all of the step."""
    wait_us: Annotated[float, Range(at_least=0)] = 50.0
    """The model leaves the device idle for this many microseconds where the host waits for it."""
    device: Literal["cpu", "cuda"] | None = None
    """The device of each rank. The default is cuda where there is one."""
    json: str | None = None
    """Also write the tables to this file."""


def run(options: Options) -> Report:
    """Start the groups, then reckon."""
    if not options.ranks:
        raise UserError("--ranks is empty; give one or more numbers of ranks, as --ranks 1 2")
    of_step = step_benchmark.Options(
        stage=options.stage,
        batch=options.batch,
        width=options.width,
        repeats=options.repeats,
        threads=options.threads,
        device=options.device,
    )
    machine = describe_machine(pick_device(options.device))  # first: it says when the device is not there
    found = [_group(size, of_step) for size in options.ranks]
    return Report(machine, [_measured(found, of_step), _modelled(found, options)])


def _group(ranks: int, options: step_benchmark.Options) -> dict[str, Any]:
    """What a group of `ranks` measured."""
    with tempfile.TemporaryDirectory(prefix="bench-scaling-") as folder:
        out = Path(folder) / "found.json"
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks),
            "-m", "stackgan_dist.bench.scaling_rank", json.dumps(dataclasses.asdict(options)), str(out),
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        if options.device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S)
        if done.returncode != 0:
            raise UserError(f"a group of {ranks} rank(s) failed; the end of what it said:\n{done.stderr[-2000:]}")
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return found


def _measured(found: list[dict[str, Any]], options: step_benchmark.Options) -> Table:
    cores = usable_cores()
    on_cpu = pick_device(options.device).type == "cpu"
    rows = []
    for group in found:
        ranks, joint, alone, beside = (group[key] for key in ("ranks", "joint_s", "alone_s", "beside_s"))
        # Ranks that share a core cannot be faster together than the core is.
        workers = min(ranks, max(1, cores // options.threads)) if on_cpu else ranks
        ratio = statistics.median(one / all_of_them for one, all_of_them in zip(alone, joint, strict=True))
        rows.append(
            {
                "ranks": ranks,
                "median s": statistics.median(joint),
                "min s": min(joint),
                "max s": max(joint),
                "images/s": ranks * options.rows / statistics.median(joint),
                "alone s": statistics.median(alone),
                "side by side s": statistics.median(beside) if beside else None,
                "share of linear": ratio * ranks / workers,
                "of side by side": statistics.median(map(operator.truediv, beside, joint)) if beside else None,
                "exchanges": len(group["gather_bytes"]) or None,
                "in exchanges": statistics.median(group["gathering_s"]) / statistics.median(joint)
                if group["gathering_s"]
                else None,
                "gradient MB": sum(group["gradient_bytes"]) / 1e6,
            }
        )
    config = options.config
    return Table(
        f"Joint {config.model.title} steps at widths {config.model.generator_width} and "
        f"{config.model.discriminator_width}, {options.rows} rows for each rank, batch norm over all of them",
        rows,
        [
            "alone: rank 0 of the same group without the others, which sleep meanwhile; the two take turns. Share of "
            "linear: images/s over those of one rank alone times the ranks, or times the cores where ranks share them.",
            "side by side: all ranks at once, each by itself, with nothing to exchange; what they lose to one alone is "
            "the machine's, whose cores share caches, memory and clock. Of side by side: what the exchanges leave.",
            "in exchanges: share of a joint step that rank 0 spends in the small gathers of batch norm, waiting for "
            "slower ranks included.",
        ],
    )


def _modelled(found: list[dict[str, Any]], options: Options) -> Table:
    most = max(found, key=lambda group: group["ranks"])
    measured = statistics.median(second for group in found for second in group["alone_s"])
    compute_s = measured if options.compute_ms is None else options.compute_ms / 1e3
    launching_s = statistics.median(most["launching_s"]) if options.host_ms is None else options.host_ms / 1e3
    exchanges = most["exchanged_bytes"]
    step = Step(
        compute_s,
        tuple(most["gradient_bytes"]),
        tuple(exchanges),
        launching_s,
        _WAITS_PER_NORM * most["forward_exchanges"],
    )
    network = Network(options.latency_us / 1e6, options.bandwidth_gb_s * 1e9)
    rows = []
    rows_each = most["rows"]
    for ranks in _MODELLED:
        guess = estimate(step, network, ranks, options.wait_us / 1e6)
        rows.append(
            {
                "devices": ranks,
                "step ms": guess.total_s * 1e3,
                "gradients ms": guess.gradients_s * 1e3,
                "of them not hidden ms": guess.exposed_s * 1e3,
                "statistics ms": guess.statistics_s * 1e3,
                "share of linear": guess.share_of_linear(compute_s),
                "images/s": ranks * rows_each / guess.total_s,
                "launched one by one ms": guess.launched_s * 1e3,
                "images/s so": ranks * rows_each / guess.launched_s,
            }
        )
    origin = "measured here" if options.compute_ms is None else "stated by --compute-ms"
    return Table(
        "A model of the same step on many devices, as many rows on each",
        rows,
        [
            f"Assumed: {compute_s * 1e3:,.1f} ms of compute ({origin}); {sum(step.gradient_bytes) / 1e6:,.1f} MB of "
            f"gradients in {len(step.gradient_bytes)} x {BUCKETS} buckets; {len(step.statistics)} exchanges of "
            f"{sum(step.statistics) / 1e3:,.1f} kB in all from each device for batch norm and its gradients, each "
            f"waited for, as counted from the layers; {options.latency_us:g} us latency and "
            f"{options.bandwidth_gb_s:g} GB/s between any two "
            "devices, as if each had a node of its own.",
            f"All-reduce: 2 log2(devices) latencies for a bucket and 2 (n - 1) / n of its bytes. {BACKWARD_SHARE:.0%} "
            "of the compute time is backward passes, which hide the gradients of all buckets but the last. All-gather "
            "of statistics: log2(devices) latencies and n - 1 contributions. No stragglers, no congestion, data always "
            "there.",
            f"Launched one by one: by a host that takes {launching_s * 1e3:,.1f} ms to launch the step's kernels, and "
            f"that torch's SyncBatchNorm has wait {step.host_waits} times, for {options.wait_us:g} us each. The others "
            "are of a step that is captured in a graph, with batch norm that has no host wait; on several "
            "devices that is a bound, since a step is captured on a single one.",
        ],
    )
