"""The parts that train in their own process: the same numbers on both devices, no waits, resumption, speed."""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from context import Context
from distributed import tiny
from states import (
    FAMILIES,
    batch_of_noise,
    comparable,
    config_of,
    fresh_state,
    ranks_of,
    rows_of,
    same_bits,
    take,
    wide,
)

from stackgan_dist.bench.launches import count_launches
from stackgan_dist.bench.timing import wait_for
from stackgan_dist.config import Config, DataConfig
from stackgan_dist.data.batch import Batch, BatchShape
from stackgan_dist.data.dataset import PackedSet, open_packed
from stackgan_dist.data.device_batches import DeviceBatches
from stackgan_dist.data.device_set import DeviceSet
from stackgan_dist.data.loader import StepDataset, make_loader
from stackgan_dist.data.loader_processes import start_method
from stackgan_dist.data.plan import Plan
from stackgan_dist.devices import prepare_cuda
from stackgan_dist.runs.checkpoint import to_host
from stackgan_dist.runs.metrics import metrics_of
from stackgan_dist.train.losses import LossWeights
from stackgan_dist.train.precision import resolve_precision
from stackgan_dist.train.state import TrainingState
from stackgan_dist.train.step import StepReport
from stackgan_dist.train.step_metrics import Reports

CPU = torch.device("cpu")


def float64(context: Context) -> None:
    """The step on the CPU and on the device."""
    worst = 0.0
    for name, model in FAMILIES.items():
        difference = _difference_of_devices(context, config_of(model, "fp64"), 1 if context.tiny else 3)
        context.note(f"float64/{name}", difference)
        worst = max(worst, difference)
    context.note("float64/families", worst)
    config = config_of(wide(context, 1), "fp64", batch_size=4)
    context.note("float64/paper width", _difference_of_devices(context, config, 2))


def _difference_of_devices(context: Context, config: Config, steps: int) -> float:
    found = []
    for device in (CPU, context.device):
        state = fresh_state(config, device)
        take(state, config, range(steps), device)
        found.append(comparable(state))
    return tiny.largest_difference(*found)


def syncs(context: Context) -> None:
    """20 steps in which a wait of the host is an error; then a profile of some more."""
    for stage in (1, 2):
        model = wide(context, stage)
        for capture in ("off", "on"):
            config = config_of(model, "auto", batch_size=rows_of(context), capture=capture)
            state = fresh_state(config, context.device)
            batch = batch_of_noise(config, 0, context.device)
            reports = Reports(ranks_of(context.device), 1.0, metrics=_metrics(config))

            def step(number: int, state: TrainingState = state, reports: Reports = reports, batch: Any = batch) -> None:
                reports.put(number, state.step(batch, number, 1000), stop=False)
                reports.read()

            for number in range(2):
                step(number)
            with _no_syncs(context.device):
                for number in range(2, 4 if context.tiny else 22):
                    step(number)
            name = f"stage {stage}, {capture}"
            launches = count_launches(lambda: step(30), context.device, steps=1 if context.tiny else 5)
            context.note(f"{name}/launches", launches.from_host)
            context.note(f"{name}/kernels", launches.kernels)
            context.note(f"{name}/busy", launches.busy)
            context.note(f"{name}/longest", launches.longest)
            context.note(f"{name}/host ms", 1e3 * _host_s(lambda: step(40), context.device, 1 if context.tiny else 10))
    context.note("syncs", 0)


@contextmanager
def _no_syncs(device: torch.device) -> Iterator[None]:
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _host_s(step: Callable[[], None], device: torch.device, steps: int = 10) -> float:
    """Of the host in one step, while the device's queue has room."""
    seconds = []
    for _ in range(steps):
        wait_for(device)
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
    return sorted(seconds)[steps // 2]


def resume(context: Context) -> None:
    """60 steps against 30, a save, a load and 30 more."""
    half = 2 if context.tiny else 30
    same, times = 0, {}
    for precision in ("fp32",) if context.device.type == "cpu" else ("fp32", "bf16"):
        for deterministic in (True, False):
            prepare_cuda(deterministic=deterministic)
            config = config_of(wide(context, 1), precision, batch_size=rows_of(context))
            begin = time.perf_counter()
            unbroken = fresh_state(config, context.device)
            take(unbroken, config, range(2 * half), context.device)
            wait_for(context.device)
            times[precision, deterministic] = time.perf_counter() - begin
            first = fresh_state(config, context.device)
            take(first, config, range(half), context.device)
            second = fresh_state(config, context.device)
            second.load_state_dict(to_host(first.state_dict()))
            take(second, config, range(half, 2 * half), context.device)
            equal = same_bits(comparable(unbroken), comparable(second))
            context.note(f"resume/{precision}, {'' if deterministic else 'not '}deterministic", equal)
            same += equal and deterministic
    prepare_cuda()
    context.note("resume/bits", same)
    context.note("resume/deterministic", max(times[name, True] / times[name, False] for name, _ in times))


def devices(context: Context) -> None:
    """A checkpoint of one device goes on on the other, as the one that was not broken."""
    config = config_of(FAMILIES["terms"], "fp64")
    for name, begun, going_on in (("to cuda", CPU, context.device), ("to cpu", context.device, CPU)):
        unbroken = fresh_state(config, begun)
        take(unbroken, config, range(3), begun)
        other = fresh_state(config, going_on)
        other.load_state_dict(to_host(unbroken.state_dict()))
        for state, device in ((unbroken, begun), (other, going_on)):
            take(state, config, range(3, 4), device)
        context.note(f"devices/{name}", tiny.largest_difference(comparable(unbroken), comparable(other)))


def captured(context: Context) -> None:
    """The captured step against one launched kernel by kernel: bits, then speed."""
    same, steps = 0, 4 if context.tiny else 30
    for name in ("paper", "terms"):
        found = []
        for capture in ("off", "on"):
            config = config_of(FAMILIES[name], "fp32", capture=capture, halve_every_epochs=1)
            state = fresh_state(config, context.device)
            take(state, config, range(steps // 2), context.device, steps_per_epoch=steps // 4)
            saved = to_host(state.state_dict())
            take(state, config, range(2), context.device)
            state.load_state_dict(saved)
            take(state, config, range(steps // 2, steps), context.device, steps_per_epoch=steps // 4)
            found.append(comparable(state))
        equal = same_bits(*found)
        context.note(f"captured/{name}, same bits", equal)
        same += equal
    context.note("captured/bits", same)
    context.needs_gpu(or_tiny=True)
    sizes = (("64", 1, 64), ("256", 1, 256), ("1024", 1, 1024), ("stage 2", 2, 64))
    for name, stage, rows in (("64", 1, 4), ("stage 2", 2, 4)) if context.tiny else sizes:
        speed = {}
        for capture in ("off", "on"):
            config = config_of(wide(context, stage), "auto", batch_size=rows, capture=capture)
            state = fresh_state(config, context.device)
            batch = batch_of_noise(config, 0, context.device)
            count = 2 if context.tiny else 20
            seconds = _seconds(lambda n, state=state, batch=batch: state.step(batch, n, 1000), context.device, count)
            speed[capture] = rows / seconds
            context.note(f"captured/{name}, {capture}", speed[capture])
            del state, batch
            gc.collect()  # an old graph must not be freed while the next one is recorded
            torch.cuda.empty_cache()
        context.note(f"captured/{name}, ms", 1e3 * rows / speed["on"])
        context.note(f"captured/{name}, times", speed["on"] / speed["off"])


def _seconds(step: Callable[[int], object], device: torch.device, steps: int = 20) -> float:
    for number in range(3):
        step(number)
    wait_for(device)
    begin = time.perf_counter()
    for number in range(steps):
        step(number)
    wait_for(device)
    return (time.perf_counter() - begin) / steps


def curves(context: Context) -> None:
    """Losses on real rows by precision, against the spread of three seeds."""
    steps = 4 if context.tiny else 100
    width = 4 if context.tiny else 32
    model = dataclasses.replace(FAMILIES["paper"], generator_width=width, discriminator_width=width)
    data = open_packed(DataConfig(url=str(context.data)), model.image_size)
    held = DeviceSet.read(data.index, data.cache, ranks_of(context.device), None)

    def losses(precision: Any, seed: int) -> torch.Tensor:
        prepare_cuda(tf32=precision == "tf32")
        config = config_of(model, precision, seed=seed, batch_size=7 if context.tiny else 32)
        state = TrainingState(
            config, data.index.text_dim, None, ranks_of(context.device), resolve_precision(precision, context.device)
        )
        batches = DeviceBatches(
            held, data.plan(config.training), range(config.training.batch_size), BatchShape.of(config), None
        )
        reports = [state.step(batches[n], n, 1000) for n in range(steps)]
        curve = torch.stack([torch.stack([r.discriminator_loss.double(), r.generator_loss.double()]) for r in reports])
        return curve[steps // 2 :].mean(0).cpu()

    of_seeds = torch.stack([losses("fp32", seed) for seed in range(2 if context.tiny else 3)])
    spread = of_seeds.amax(0) - of_seeds.amin(0)
    context.note("curves/of seeds", of_seeds.tolist())
    for precision in ("fp64",) if context.device.type == "cpu" else ("fp64", "bf16", "tf32"):
        found = losses(precision, 0)
        context.note(f"curves/{precision}, D and G", found.tolist())
        context.note(f"curves/{precision}", float(((found - of_seeds[0]).abs() / spread).max()))
    prepare_cuda()


def device_set(context: Context) -> None:
    """Rows from the device's memory against the loader's: bits, then speed."""
    data = open_packed(DataConfig(url=str(context.data)), 64)
    held = DeviceSet.read(data.index, data.cache, ranks_of(context.device), None)
    same = 0
    for captions in (1, 3, 4, 10):
        shape = BatchShape(64, captions, 100, 1, 128, interpolate=captions == 3)
        plan = Plan([shard.samples for shard in data.index.shards], 0, 7)
        loaded = _dataset(data, plan, shape, 7)
        batches = DeviceBatches(held, plan, range(7), shape, None)
        equal = all(_equal_batches(batches[step], loaded[step]) for step in range(3 if context.tiny else 20))
        context.note(f"set/{captions} captions, same bits", equal)
        same += equal
    context.note("set/bits", same)
    context.needs_gpu(or_tiny=True)
    shape, rows = BatchShape(64, 4, 100, 1, 128), 7 if context.tiny else 64
    plan = Plan([shard.samples for shard in data.index.shards], 0, rows)
    batches = DeviceBatches(held, plan, range(rows), shape, None)
    steps = plan.steps_per_epoch
    context.note("set/host ms", 1e3 * _host_s(lambda: batches[5] and None, context.device))
    context.note("set/img/s", rows / _seconds(lambda n: batches[n % steps], context.device, 2 * steps))
    loader = iter(make_loader(_dataset(data, plan, shape, rows), 0, 4 * steps, 1, start_method(context.device)))
    for _ in range(steps):  # the store is filled by the first epoch
        next(loader)
    begin = time.perf_counter()
    for _ in range(2 * steps):
        next(loader)
    context.note("set/loader", 2 * steps * rows / (time.perf_counter() - begin))


def _dataset(data: PackedSet, plan: Plan, shape: BatchShape, rows: int) -> StepDataset:
    return StepDataset(data.index, plan, data.cache(), range(rows), shape, 4, memory_bytes=10**9)


def _equal_batches(ours: Batch, theirs: Any) -> bool:
    return all(a is b is None or torch.equal(a.cpu(), b) for a, b in zip(ours, theirs, strict=True))


def _metrics(config: Config) -> Any:
    return metrics_of(StepReport, LossWeights.of(config.training).present)
