"""The parts of the check on one GPU. Each notes what it measured as soon as it has it; check.py runs them.

On a CPU, and `tiny`, they run small, and skip what needs a GPU by raising SkippedError.
"""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from distributed import tiny

from stackgan_dist.bench import step as step_benchmark
from stackgan_dist.bench.launches import count_launches
from stackgan_dist.bench.timing import wait_for
from stackgan_dist.config import Config, DataConfig
from stackgan_dist.data.batch import Batch, BatchShape, blank_batch
from stackgan_dist.data.dataset import PackedSet, open_packed
from stackgan_dist.data.device_batches import DeviceBatches
from stackgan_dist.data.device_set import DeviceSet
from stackgan_dist.data.loader import StepDataset, make_loader
from stackgan_dist.data.loader_processes import start_method
from stackgan_dist.data.plan import Plan
from stackgan_dist.devices import prepare_cuda
from stackgan_dist.distributed.gather import gather_alone
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.models import ModelConfig, build_generator
from stackgan_dist.runs.checkpoint import to_host
from stackgan_dist.runs.metrics import metrics_of
from stackgan_dist.train.losses import LossWeights
from stackgan_dist.train.precision import resolve_precision
from stackgan_dist.train.state import TrainingState
from stackgan_dist.train.step import StepReport
from stackgan_dist.train.step_metrics import Reports
from stackgan_dist.train.to_device import to_device

CPU = torch.device("cpu")
TEXT_DIM = 16
TESTS = Path(__file__).parents[1]


class SkippedError(Exception):
    """Why a part was not run."""


@dataclasses.dataclass(frozen=True)
class Context:
    """What a part is given."""

    device: torch.device
    tiny: bool
    out: Path
    """For whatever it writes."""
    data: Path
    """A packed set of painted birds, at 76 pixels."""
    flowers: Path | None
    """A packed set of real pictures, for the last part."""
    left_s: float
    """Until the whole check has to end."""
    note: Callable[[str, Any], None]
    """Takes a measurement: a number that predictions.py knows, or anything else that is to be kept."""

    def needs_gpu(self) -> None:
        """Skip where there is none."""
        if self.device.type != "cuda":
            raise SkippedError("needs a GPU")


def versions(context: Context) -> None:
    context.note("torch", torch.__version__)
    context.note("python", sys.version.split()[0])
    if context.device.type == "cuda":
        context.note("gpu", torch.cuda.get_device_name(context.device))
        context.note("cuda", torch.version.cuda)


FAMILIES = {
    "paper": tiny.tiny_model(),
    "terms": tiny.tiny_model(text_every_layer=True, noise_as_read=True),
    "pytorch": tiny.tiny_model(recipe="pytorch"),
    "stage2": tiny.tiny_model(stage=2, image_size=128, text_every_layer=True, stage1_skip=True, stage1_coarse=8),
    **tiny.BASELINES,
}


def float64(context: Context) -> None:
    """The step on the CPU and on the device."""
    families = {"paper": FAMILIES["paper"]} if context.tiny else FAMILIES
    worst = 0.0
    for name, model in families.items():
        difference = _difference_of_devices(context, _config(model, "fp64"), 1 if context.tiny else 3)
        context.note(f"float64/{name}", difference)
        worst = max(worst, difference)
    context.note("float64/families", worst)
    if not context.tiny:
        config = _config(ModelConfig(), "fp64", batch_size=4)
        context.note("float64/paper width", _difference_of_devices(context, config, 2))


def _difference_of_devices(context: Context, config: Config, steps: int) -> float:
    found = []
    for device in (CPU, context.device):
        state = _state(config, device)
        _take(state, config, range(steps), device)
        found.append(_named(state))
    return tiny.largest_difference(*found)


def syncs(context: Context) -> None:
    """20 steps in which a wait of the host is an error; then a profile of some more."""
    for stage in (1,) if context.tiny else (1, 2):
        model = _wide(context, stage)
        for capture in ("off", "on"):
            config = _config(model, "auto", batch_size=_rows(context), capture=capture)
            state = _state(config, context.device)
            batch = _batch(config, 0, context.device)
            reports = Reports(_ranks(context.device), 1.0, metrics=_metrics(config))

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
            if not context.tiny:
                context.note(f"{name}/host ms", 1e3 * _host_s(lambda: step(40), context.device))
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
            config = _config(_wide(context, 1), precision, batch_size=_rows(context))
            begin = time.perf_counter()
            unbroken = _state(config, context.device)
            _take(unbroken, config, range(2 * half), context.device)
            wait_for(context.device)
            times[precision, deterministic] = time.perf_counter() - begin
            first = _state(config, context.device)
            _take(first, config, range(half), context.device)
            second = _state(config, context.device)
            second.load_state_dict(to_host(first.state_dict()))
            _take(second, config, range(half, 2 * half), context.device)
            equal = _same_bits(_named(unbroken), _named(second))
            context.note(f"resume/{precision}, {'' if deterministic else 'not '}deterministic", equal)
            same += equal and deterministic
    prepare_cuda()
    context.note("resume/bits", same)
    context.note("resume/deterministic", max(times[name, True] / times[name, False] for name, _ in times))


def trainings(context: Context) -> None:
    """The trainer, ended by SIGTERM and started again; then its speed by the loader."""
    context.needs_gpu()
    runs = context.out / "runs"

    def command(name: str, epochs: int, *more: str) -> list[str]:
        return [
            sys.executable, "-m", "stackgan_dist.train", "--preset", "painted-stage1", "--data.url", str(context.data),
            "--run.folder", str(runs), "--run.name", name, "--training.epochs", str(epochs), *more,
        ]  # fmt: skip

    metrics = runs / "stopped" / "metrics.jsonl"
    passed = 0
    with (context.out / "stopped.txt").open("w") as log:
        process = subprocess.Popen(command("stopped", 60), stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        code = process.wait()
        context.note("markers/first exit code", code)
        passed += code == 75
        code = subprocess.run(command("stopped", 60), stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    context.note("markers/second exit code", code)
    passed += code == 0 and (runs / "stopped" / "DONE").exists()
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    passed += steps == sorted(set(steps))
    context.note("markers", passed)
    for workers in (1, 3):
        name = f"workers-{workers}"
        more = ["--data.device-gb", "0", "--data.workers", str(workers)]
        subprocess.run(command(name, 15, *more), check=True, stdout=subprocess.DEVNULL)
        last = json.loads((runs / name / "metrics.jsonl").read_text().splitlines()[-1])
        context.note(f"trainings/{workers} workers, img/s", last["images_per_s"])
        context.note(f"trainings/{workers} workers, data wait", last["data_wait"])


def devices(context: Context) -> None:
    """A checkpoint of one device goes on on the other, as the one that was not broken."""
    config = _config(FAMILIES["paper" if context.tiny else "terms"], "fp64")
    for name, begun, going_on in (("to cuda", CPU, context.device), ("to cpu", context.device, CPU)):
        unbroken = _state(config, begun)
        _take(unbroken, config, range(3), begun)
        other = _state(config, going_on)
        other.load_state_dict(to_host(unbroken.state_dict()))
        for state, device in ((unbroken, begun), (other, going_on)):
            _take(state, config, range(3, 4), device)
        context.note(f"devices/{name}", tiny.largest_difference(_named(unbroken), _named(other)))


def ranks(context: Context) -> None:
    """Trainings of 2 ranks on the one GPU, through gloo, against those of one."""
    context.needs_gpu()
    from distributed.trainings import compared_on

    data = context.out / "small"  # five batches of seven, as the tests of ranks have it
    pack = [
        sys.executable, "-m", "stackgan_dist.pack", "painted", "--out", str(data), "--sizes", "76", "152",
        "--limit", "38", "--samples-per-shard", "8",
    ]  # fmt: skip
    subprocess.run(pack, check=True, stdout=subprocess.DEVNULL)
    for size in (1, 2):
        log = context.out / f"ranks-{size}.txt"
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size),
            str(TESTS / "distributed" / "trainings.py"), str(data), str(context.out / str(size)),
            "--only", "invariance",
        ]  # fmt: skip
        with log.open("w") as file:
            subprocess.run(command, check=True, stdout=file, stderr=file, env=_environment(STACKGAN_BACKEND="gloo"))
    worst = 0.0
    for variant in compared_on(2):
        found = [tiny.final_state(context.out / str(size) / variant) for size in (1, 2)]
        difference = tiny.largest_difference(*found)
        context.note(f"ranks/2, {variant}", difference)
        worst = max(worst, difference)
    context.note("ranks/2", worst)


def captured(context: Context) -> None:
    """The captured step against one launched kernel by kernel: bits, then speed."""
    same, steps = 0, 4 if context.tiny else 30
    for name in ("paper",) if context.tiny else ("paper", "terms"):
        found = []
        for capture in ("off", "on"):
            config = _config(FAMILIES[name], "fp32", capture=capture, halve_every_epochs=1)
            state = _state(config, context.device)
            _take(state, config, range(steps // 2), context.device, steps_per_epoch=steps // 4)
            saved = to_host(state.state_dict())
            _take(state, config, range(2), context.device)
            state.load_state_dict(saved)
            _take(state, config, range(steps // 2, steps), context.device, steps_per_epoch=steps // 4)
            found.append(_named(state))
        equal = _same_bits(*found)
        context.note(f"captured/{name}, same bits", equal)
        same += equal
    context.note("captured/bits", same)
    context.needs_gpu()
    for name, stage, rows in (("64", 1, 64), ("256", 1, 256), ("1024", 1, 1024), ("stage 2", 2, 64)):
        speed = {}
        for capture in ("off", "on"):
            config = _config(_wide(context, stage), "auto", batch_size=rows, capture=capture)
            state = _state(config, context.device)
            batch = _batch(config, 0, context.device)
            seconds = _seconds(lambda n, state=state, batch=batch: state.step(batch, n, 1000), context.device)
            speed[capture] = rows / seconds
            context.note(f"captured/{name}, {capture}", speed[capture])
        context.note(f"captured/{name}, ms", 1e3 * rows / speed["on"])
        context.note(f"captured/{name}, times", speed["on"] / speed["off"])
        del state, batch
        torch.cuda.empty_cache()


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
    held = DeviceSet.read(data.index, data.cache, _ranks(context.device), None)

    def losses(precision: Any, seed: int) -> torch.Tensor:
        prepare_cuda(tf32=precision == "tf32")
        config = _config(model, precision, seed=seed, batch_size=7 if context.tiny else 32)
        state = TrainingState(
            config, data.index.text_dim, None, _ranks(context.device), resolve_precision(precision, context.device)
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


def bench(context: Context) -> None:
    context.needs_gpu()
    for stage, rows in ((1, 64), (1, 512), (2, 64)):
        name = f"bench/{stage} at {rows}"
        options = ["step", "--stage", str(stage), "--batch", str(rows), "--no-layers", "--no-memory"]
        for row in _bench(context, name, options):
            for column in ("images/s", "launches", "kernels", "busy"):
                context.note(f"{name}, {row['step']}, {column}", row[column])
            if row["step"] == step_benchmark.CAPTURED:
                context.note(f"{name}, share", row["share of peak"])


def checkpoint(context: Context) -> None:
    context.needs_gpu()
    first, later, *_ = _bench(context, "checkpoint", ["checkpoint", "--repeats", "3", "--loop-s", "0.2"])
    context.note("checkpoint/first ms", 1e3 * first["median s"])
    context.note("checkpoint/again ms", 1e3 * later["median s"])


def _bench(context: Context, name: str, options: list[str]) -> list[dict[str, Any]]:
    out = context.out / f"{name.replace('/', '-').replace(' ', '-')}.json"
    command = [sys.executable, "-m", "stackgan_dist.bench", *options, "--device", "cuda", "--json", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    rows: list[dict[str, Any]] = json.loads(out.read_text())["tables"][0]["rows"]
    return rows


def device_set(context: Context) -> None:
    """Rows from the device's memory against the loader's: bits, then speed."""
    data = open_packed(DataConfig(url=str(context.data)), 64)
    held = DeviceSet.read(data.index, data.cache, _ranks(context.device), None)
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
    context.needs_gpu()
    shape, rows = BatchShape(64, 4, 100, 1, 128), 64
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


def too_many_ranks(context: Context) -> None:
    context.needs_gpu()
    count = torch.cuda.device_count() + 1
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "stackgan_dist", "--ranks", str(count), "train", "--data.url", str(context.data),
         "--run.folder", str(context.out / "refused"), *tiny.TINY_FLAGS],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    context.note("too many/exit code", done.returncode)
    said = done.stdout + done.stderr
    context.note("too many/lines", [line for line in said.splitlines() if "visible" in line])
    if done.returncode != 2 or said.count("visible") != 1 or "Traceback" in said:
        raise AssertionError(said[-2000:])
    context.note("too many/s", time.perf_counter() - begin)


def scores(context: Context) -> None:
    """The scores of the run of `trainings`, on the CPU and on the device."""
    context.needs_gpu()
    run = context.out.parent / "trainings" / "runs" / "stopped"
    if not (run / "DONE").exists():
        raise SkippedError("the part trainings left no run")
    found = []
    for name, variables in (("cpu", {"CUDA_VISIBLE_DEVICES": ""}), ("cuda", {})):
        command = [sys.executable, "-m", "stackgan_dist.inception_score", str(run), "--samples", "256", "--splits", "1"]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=_environment(**variables))
        (context.out / f"{name}.txt").write_text(done.stdout)
        rows = [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]
        context.note(f"scores/{name}", rows[-1])
        found.append(float(rows[-1]["mean"]))
    context.note("scores/difference", abs(found[0] - found[1]) / found[0])


def flowers(context: Context) -> None:
    """Stage-I of the picture recipe on real pictures, as long as there is time; its pictures are kept."""
    context.needs_gpu()
    if context.flowers is None:
        raise SkippedError("no --flowers FOLDER")
    if context.left_s < 40:
        raise SkippedError(f"{context.left_s:.0f} s are left")
    command = [
        sys.executable, "-m", "stackgan_dist.train", "--preset", "oxford102-best-stage1", "--data.url",
        str(context.flowers), "--run.folder", str(context.out), "--run.name", "flowers", "--run.sample-steps", "500",
    ]  # fmt: skip
    with (context.out / "flowers.txt").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            process.wait(context.left_s - 25)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.wait()
    context.note("flowers/exit code", process.returncode)
    pictures = sorted((context.out / "flowers" / "samples").glob("*.png"))
    context.note("flowers/last picture", str(pictures[-1]) if pictures else None)


def _config(model: ModelConfig, precision: Any, **training: Any) -> Config:
    config = tiny.tiny_config("unused", Path("unused"), "run", model=model, precision=precision)
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **{"capture": "off", **training}))


def _rows(context: Context) -> int:
    return 4 if context.tiny else 64


def _wide(context: Context, stage: int) -> ModelConfig:
    if context.tiny:
        return FAMILIES["paper"]
    return ModelConfig(stage=stage, image_size=64 if stage == 1 else 256)  # type: ignore[arg-type]


def _ranks(device: torch.device) -> Ranks:
    return Ranks(0, 1, device, gather_alone if device.type == "cpu" else None)


def _state(config: Config, device: torch.device) -> TrainingState:
    """A fresh one, rehearsed."""
    stage1 = None
    if config.model.stage == 2:
        inside = dataclasses.replace(config.model, stage=1, image_size=64, stage1_skip=False, stage1_coarse=0)
        torch.manual_seed(1)
        stage1 = inside, build_generator(inside, TEXT_DIM).state_dict()
    precision = resolve_precision(config.training.precision, device)
    state = TrainingState(config, TEXT_DIM, stage1, _ranks(device), precision)
    rows = range(config.training.batch_size)
    state.rehearse(to_device(blank_batch(rows, BatchShape.of(config), TEXT_DIM), device))
    return state


def _batch(config: Config, number: int, device: torch.device) -> Batch:
    """Rows of noise, the same on any device."""
    random = torch.Generator().manual_seed(number)

    def filled(part: torch.Tensor | None) -> torch.Tensor | None:
        if part is None or part.dtype in (torch.int64, torch.bool):
            return part
        if part.dtype == torch.uint8:
            return torch.randint(0, 256, part.shape, generator=random, dtype=torch.uint8)
        return torch.rand(part.shape, generator=random) / 2 + 0.25  # places have to lie within the picture

    blank = blank_batch(range(config.training.batch_size), BatchShape.of(config), TEXT_DIM)
    return to_device(Batch(*map(filled, blank)), device)  # type: ignore[arg-type]


def _take(
    state: TrainingState, config: Config, steps: range, device: torch.device, steps_per_epoch: int = 1000
) -> None:
    for number in steps:
        state.step(_batch(config, number, device), number, steps_per_epoch)


def _metrics(config: Config) -> Any:
    return metrics_of(StepReport, LossWeights.of(config.training).present)


def _named(state: TrainingState) -> dict[str, Any]:
    """What a checkpoint would hold, flat, as tests/distributed/tiny.py compares it."""
    content, idle = to_host(state.state_dict()), {}
    for kind, engine in (("generator", state.generator), ("discriminator", state.discriminator)):
        trained = [name for name, parameter in engine.module.named_parameters() if parameter.requires_grad]
        tiny._name_entries(content[kind]["optimizer"], trained)
        content[kind]["optimizer"].pop("param_groups")  # rates, and what kind of Adam the device has
        idle[f"/{kind}"] = tiny.idle_biases(engine.module) | tiny.biases_idle_at_times(engine.module)
    return dict(tiny.flat(content, ""), idle=idle)


def _same_bits(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    try:
        tiny.assert_equal(ours, theirs)
    except AssertionError:
        return False
    return True


def _environment(**variables: str) -> dict[str, str]:
    import os

    return {**os.environ, **variables}


PARTS: dict[str, tuple[Callable[[Context], None], int]] = {
    "versions": (versions, 15),
    "float64": (float64, 45),
    "syncs": (syncs, 35),
    "resume": (resume, 45),
    "trainings": (trainings, 40),
    "devices": (devices, 15),
    "ranks": (ranks, 70),
    "captured": (captured, 40),
    "curves": (curves, 30),
    "bench": (bench, 40),
    "checkpoint": (checkpoint, 20),
    "set": (device_set, 20),
    "too many": (too_many_ranks, 20),
    "scores": (scores, 30),
    "flowers": (flowers, 120),
}
"""Name -> the part, and after how many seconds it is ended."""
