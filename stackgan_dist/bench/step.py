"""The plain training step beside the fast one, in turns, at the paper's widths."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from stackgan_dist.bench.launches import count_launches
from stackgan_dist.bench.machine import Threads, describe_machine, in_own_process, pick_device
from stackgan_dist.bench.plain_step import PlainStep
from stackgan_dist.bench.report import Report, Table
from stackgan_dist.bench.timing import Timing, in_turns
from stackgan_dist.config import Config, PrecisionName, TrainingConfig
from stackgan_dist.data.batch import Batch
from stackgan_dist.devices import prepare_cuda
from stackgan_dist.distributed.gather import gather_alone
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.models import ModelConfig, build_generator
from stackgan_dist.models.config import RecipeName
from stackgan_dist.models.upsampling import FORMS, UpsampleConv
from stackgan_dist.ranges import Range, check_fields
from stackgan_dist.runs.utilisation import peak_flops, peak_memory_of
from stackgan_dist.train.precision import resolve_precision
from stackgan_dist.train.state import TrainingState
from stackgan_dist.train.step import StepReport

TEXT_DIM = 1024
"""Of the char-CNN-RNN embeddings, the paper's."""

WAYS = ("plain", "fast")
CAPTURED = "captured"
"""The fast one as one CUDA graph."""


@dataclass(frozen=True)
class Options:
    """What to train, and how often to time it."""

    stage: Literal[1, 2] = 1
    """The stage to train: 1 makes 64 pixels, 2 makes 256 pixels with a frozen Stage-I inside."""
    batch: Annotated[int, Range(at_least=1)] | None = None
    """The rows of the batch. The default is 16 in Stage-I and 4 in Stage-II."""
    width: Annotated[int, Range(at_least=2, at_most=65_536)] | None = None
    """The width of the generator; that of the discriminator is half of it. The default is the paper's 128."""
    recipe: RecipeName = "paper"
    """The layers of the networks, as --model.recipe."""
    precision: PrecisionName = "auto"
    """The precision of the step, as --training.precision."""
    repeats: Annotated[int, Range(at_least=1)] = 5
    """The number of timed steps of each way, in turns, after one that is not timed."""
    threads: Threads = 1
    """The CPU threads of torch."""
    device: str | None = None
    """The device, cpu or cuda. The default is cuda where there is one."""
    steps: bool = True
    """Time the steps."""
    layers: bool = True
    """Also time every form of each up-sampling layer, by which the rule of models/upsampling.py was made."""
    memory: bool = True
    """Also take the peak of memory of each way, in processes of their own."""
    json: str | None = None
    """Also write the tables to this file."""

    @property
    def config(self) -> Config:
        """Of the run that the step is a step of."""
        width = self.width or 128
        model = ModelConfig(
            recipe=self.recipe,
            stage=self.stage,
            image_size=64 if self.stage == 1 else 256,
            generator_width=width,
            discriminator_width=width // 2,
        )
        return Config(model=model, training=TrainingConfig(batch_size=self.rows, precision=self.precision))

    @property
    def rows(self) -> int:
        """`batch` with its default."""
        return self.batch or (16 if self.stage == 1 else 4)


def run(options: Options) -> Report:
    """Time, count, weigh."""
    check_fields(options)
    device = _start(options)
    machine = describe_machine(device)
    tables = [_steps(options, device)] if options.steps else []
    if options.layers:
        tables.append(_layers(options, device))
    return Report(machine, tables)


def build_ways(options: Options, device: torch.device) -> dict[str, Callable[[], tuple[Tensor, Tensor]]]:
    """The ways, from the same weights and on the same batch; each call takes a step, returning D's and G's loss.

    On CUDA the fast step is there a second time, captured.
    """
    ways = [*WAYS, *([CAPTURED] if device.type == "cuda" and options.precision != "fp16" else [])]
    return {way: _build(way, options, device) for way in ways}


def made_up_batch(model: ModelConfig, rows: int, device: torch.device) -> Batch:
    """Rows of noise in place of pictures and texts."""
    random = torch.Generator().manual_seed(0)
    side = model.image_size
    return Batch(
        images=torch.randint(0, 256, (rows, 3, side, side), generator=random, dtype=torch.uint8).to(device),
        text=torch.randn(rows, TEXT_DIM, generator=random).to(device),
        wrong_text=torch.randn(rows, TEXT_DIM, generator=random).to(device),
        z=torch.randn(rows, model.noise_dim, generator=random).to(device),
        eps=torch.randn(rows, model.augmentations, model.condition_dim, generator=random).to(device),
        samples=torch.zeros(rows, 2, dtype=torch.int64),
    )


def _start(options: Options) -> torch.device:
    torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    tf32 = resolve_precision(options.precision, device).tf32
    prepare_cuda(tf32=tf32, deterministic=options.config.training.deterministic)
    return device


def _build(way: str, options: Options, device: torch.device) -> Callable[[], tuple[Tensor, Tensor]]:
    config = options.config
    precision = resolve_precision(options.precision, device)
    batch = made_up_batch(config.model, options.rows, device)
    if way == "plain":
        return partial(PlainStep(config.model, TEXT_DIM, config.training, device, precision), batch)
    ranks = Ranks(0, 1, device, gather_alone if device.type == "cpu" else None)
    training = replace(config.training, capture="on" if way == CAPTURED else "off")
    state = TrainingState(replace(config, training=training), TEXT_DIM, None, ranks, precision)
    if way == CAPTURED:
        state.rehearse(batch)
    return partial(_fast_step, state, batch, [0])


def _fast_step(state: TrainingState, batch: Batch, steps: list[int]) -> tuple[Tensor, Tensor]:
    report: StepReport = state.step(batch, steps[0], 1_000_000)
    steps[0] += 1
    return report.discriminator_loss, report.generator_loss


def _steps(options: Options, device: torch.device) -> Table:
    ways = build_ways(options, device)
    flop, losses = {}, {}
    for name, way in ways.items():
        with FlopCounterMode(display=False) as counter:
            losses[name] = [float(loss) for loss in way()]
        flop[name] = counter.get_total_flops()
    if CAPTURED in flop:
        flop[CAPTURED] = flop["fast"]  # a replay calls nothing that could be counted
    timings = in_turns(ways, repeats=options.repeats, device=device)
    precision = resolve_precision(options.precision, device)
    peak = peak_flops(device, precision.autocast_to or precision.weights)
    rows = []
    slowest: dict[str, tuple[tuple[str, float], ...]] = {}
    for name, timing in timings.items():
        row = {"step": name, **timing.cells(options.rows), "times plain": timing.times_faster_than(timings["plain"])}
        if device.type == "cpu":
            row["CPU s"] = statistics.median(timing.cpu_seconds)
            row["times in CPU s"] = timing.times_less_cpu_than(timings["plain"])
        seconds = _seconds(timing, device, options.threads)
        row |= {
            "GFLOP": flop[name] / 1e9,
            "GFLOP/s": flop[name] / seconds / 1e9,
            "share of peak": flop[name] / seconds / peak,
            "of plain's GFLOP": flop["plain"] / seconds / peak,
        }
        launches = count_launches(ways[name], device, steps=5 if device.type == "cuda" else 1)
        row |= {"launches": launches.from_host, "kernels": launches.kernels, "busy": launches.busy}
        slowest[name] = launches.longest
        if options.memory:
            row["peak MB"] = in_own_process(_peak_of, name, options) / 1e6
        rows.append(row)
    model = options.config.model
    (plain_d, plain_g), (fast_d, fast_g) = (losses[way] for way in WAYS)
    return Table(
        f"One {model.title} step at widths {model.generator_width} and {model.discriminator_width}, recipe "
        f"{model.recipe}, batch {options.rows}, {device.type}",
        rows,
        [
            "GFLOP: of matrix products and convolutions, 2 for a multiply-add, as torch's FlopCounterMode counts them "
            "in one step of each way; the last share takes the plain step's count for both.",
            f"The peak is {peak / 1e9:,.0f} GFLOP/s, measured now with a square product and as many threads. On CPUs "
            "it and GFLOP/s are by CPU time, which says the same while others use the machine; images/s do not.",
            f"Both begin with the same weights: the first step's losses are D {plain_d:.6f} and {fast_d:.6f}, "
            f"G {plain_g:.6f} and {fast_g:.6f}.",
            "Launches: of kernels, copies and graphs by the host in a step (on CPUs the operations of torch that it "
            "calls); busy: the share of the time in which a kernel runs. Longest in a step: "
            + "; ".join(
                f"{name}: " + ", ".join(f"{kernel[:60]} {ms:.3g} ms" for kernel, ms in longest)
                for name, longest in slowest.items()
            )
            + ".",
            *(["Peaks are of whole processes that do nothing else."] if options.memory else []),
        ],
    )


def _seconds(timing: Timing, device: torch.device, threads: int) -> float:
    """Of work: on CPUs by CPU time, which is the same while others use the machine."""
    return statistics.median(timing.cpu_seconds) / threads if device.type == "cpu" else timing.median


def _peak_of(way: str, options: Options) -> int:
    device = _start(options)
    step = _build(way, options, device)
    for _ in range(2):  # Adam makes its state in the first
        step()
    return peak_memory_of(device)


def _layers(options: Options, device: torch.device) -> Table:
    """Forward and backward pass of each up-sampling layer in every form."""
    config = options.config
    precision = resolve_precision(options.precision, device)
    generator = build_generator(config.model, TEXT_DIM).to(device, precision.weights)
    rows: list[dict[str, object]] = []

    def measure(layer: UpsampleConv, given: tuple[Tensor, ...]) -> None:
        x = given[0].detach().clone().requires_grad_()
        weight = layer.weight.detach().clone().requires_grad_()
        chosen = layer.form_for(x)

        def pass_through(form: Literal["plain", "transposed", "minimal"]) -> None:
            with torch.enable_grad():
                with precision.autocast():
                    y = FORMS[form](x, weight)
                torch.autograd.grad(y, (x, weight), torch.ones_like(y))

        timings = in_turns({form: partial(pass_through, form) for form in FORMS}, repeats=3, device=device)
        row: dict[str, object] = {"layer": f"{layer.in_channels} -> {layer.out_channels} at {x.shape[2]}x{x.shape[3]}"}
        taken_ms = {form: _seconds(timing, device, options.threads) * 1e3 for form, timing in timings.items()}
        row.update({f"{form} ms": ms for form, ms in taken_ms.items()})
        rows.append({**row, "taken": chosen, "quickest here": min(taken_ms, key=lambda form: taken_ms[form])})

    batch = made_up_batch(config.model, options.rows, device)
    inputs = (tensor.to(precision.weights) for tensor in (batch.text, batch.z, batch.eps))
    for layer in generator.modules():
        if isinstance(layer, UpsampleConv):
            layer.register_forward_pre_hook(measure)
    with torch.no_grad(), precision.autocast():
        generator(*inputs)
    return Table(
        f"Forward and backward pass of the up-sampling layers, batch {options.rows}, {device.type}",
        rows,
        [
            "Medians of 3, in turns; CPU time on CPUs. A layer takes what models/upsampling.py says for its device, "
            "width and side, and not what is quickest at the moment: a choice that could turn out differently at every "
            "start would change the last bits of a run.",
        ],
    )
