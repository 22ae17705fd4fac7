"""What an engine costs a rank: bytes at the paper's widths, seconds per step beside DDP.

Prints the tables of docs/deepspeed.md.

    python tests/engine_costs.py [--ranks 2 4] [--stages 1 2] [--rounds 20]

Bytes are counted where they lie: every tensor of weights, gradients (at the end of the backward pass, before the
update, buckets included) and optimizer state that a rank holds for both networks, once. Their losses are sums over all
weights, since pictures would cost time and no byte of these. Steps are timed in turns, DDP beside ZeRO, on the networks
and the batch of the demo, with made-up pictures.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # torchrun and python find the packages by themselves
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import torch
from distributed.harness import torchrun
from torch import Tensor

from stackgan_dist.config import Config
from stackgan_dist.data.batch import Batch, BatchShape
from stackgan_dist.data.plan import rows_of_rank
from stackgan_dist.distributed.process_group import Ranks, process_group
from stackgan_dist.models import ModelConfig, build_generator
from stackgan_dist.presets import preset
from stackgan_dist.train.precision import resolve_precision
from stackgan_dist.train.state import TrainingState

ENGINES = ("ddp", "zero1", "zero2")
TEXT_DIM = 1024
"""Of the char-CNN-RNN embeddings, the paper's."""


def with_engine(config: Config, engine: str) -> Config:
    """`config` under "ddp", "zero1" or "zero2"."""
    return config if engine == "ddp" else dataclasses.replace(config, engine="deepspeed", deepspeed_config=engine)


def build(config: Config, ranks: Ranks) -> TrainingState:
    """Fresh networks, a fresh Stage-I inside where it is Stage-II."""
    stage1 = None
    if config.model.stage == 2:
        model = dataclasses.replace(config.model, stage=1, image_size=64)
        stage1 = (model, build_generator(model, TEXT_DIM).state_dict())
    return TrainingState(config, TEXT_DIM, stage1, ranks, resolve_precision("auto", ranks.device))


def held(tensors: Iterable[Any]) -> int:
    """Bytes of the memory behind `tensors`, counting what several share once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if isinstance(t, Tensor)}
    return sum(storages.values())


def inside(value: Any) -> Iterator[Tensor]:
    """The tensors in nested lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from inside(item)


def count_bytes(stage: int, engine: str, ranks: Ranks) -> dict[str, int]:
    """What this rank holds of both networks, at the paper's widths."""
    state = build(with_engine(preset(f"painted-stage{stage}"), engine), ranks)
    total = dict.fromkeys(("parameters", "weights", "gradients", "optimizer"), 0)
    for trained in (state.generator, state.discriminator):
        parameters = [p for p in trained.module.parameters() if p.requires_grad]
        held_at_update: dict[str, int] = {}
        optimizer: Any = trained._optimizer  # type: ignore[attr-defined]

        def gradients(optimizer: Any = optimizer, parameters: list[Tensor] = parameters) -> Iterator[Tensor]:
            yield from (p.grad for p in parameters if p.grad is not None)
            yield from inside(dict(getattr(optimizer, "averaged_gradients", {})))
            yield from inside(dict(getattr(optimizer, "all_grad_tensors", {})))
            for bucket in getattr(optimizer, "ipg_buckets", {}).values():
                yield from inside(bucket.buffer)
            for part in getattr(optimizer, "single_partition_of_fp32_groups", ()):
                yield from inside([part.grad])

        adam: torch.optim.Adam = getattr(optimizer, "optimizer", optimizer)
        step = optimizer.step

        def watched_step(*args: Any, step: Any = step, found: Any = held_at_update, seen: Any = gradients) -> Any:
            found["gradients"] = held(seen())
            return step(*args)

        optimizer.step = watched_step
        # A forward pass through the engine, by which every weight has a gradient.
        trained.module.forward = lambda weights=parameters: torch.stack([w.square().sum() for w in weights]).sum()
        trained.update(trained(), 1e-4)
        del optimizer.step
        total["parameters"] += sum(p.numel() for p in parameters)
        total["weights"] += held([*parameters, *getattr(optimizer, "single_partition_of_fp32_groups", ())])
        total["gradients"] += held_at_update["gradients"]
        total["optimizer"] += held(value for entry in adam.state.values() for value in entry.values())
    return total


def time_steps(ranks: Ranks, rounds: int) -> dict[str, list[float]]:
    """Seconds of each step of the demo's Stage-I, the engines taking turns."""
    config = preset("demo-stage1")
    model: ModelConfig = config.model
    shape = BatchShape(model.image_size, 1, model.noise_dim, model.stage, model.condition_dim)
    rows = len(rows_of_rank(config.training.batch_size, ranks.rank, ranks.world_size))
    batch = Batch(
        images=torch.randint(0, 256, (rows, 3, shape.image_size, shape.image_size)).byte(),
        text=torch.randn(rows, TEXT_DIM),
        wrong_text=torch.randn(rows, TEXT_DIM),
        z=torch.randn(rows, model.noise_dim),
        eps=torch.randn(rows, model.stage, model.condition_dim),
        samples=torch.zeros(rows, 2, dtype=torch.int64),
    )
    states = {engine: build(with_engine(config, engine), ranks) for engine in ENGINES}
    taken: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    for number in range(rounds + 2):
        for engine, state in states.items():
            begin = time.perf_counter()
            state.step(batch, number, 1000)
            if number >= 2:  # the first ones allocate
                taken[engine].append(time.perf_counter() - begin)
    return taken


def measure(options: argparse.Namespace) -> None:
    """A rank: rank 0 writes what it found to `--out`."""
    with process_group(600) as ranks:
        found = {
            "bytes": {
                f"{stage}/{engine}": count_bytes(stage, engine, ranks) for stage in options.stages for engine in ENGINES
            },
            "seconds": time_steps(ranks, options.rounds)
            if options.rounds and ranks.world_size == min(options.ranks)
            else {},
        }
        if ranks.is_main:
            options.out.write_text(json.dumps(found))


def report(found: dict[int, dict[str, Any]]) -> str:
    """The tables as Markdown."""
    lines = [
        "| ranks | networks | engine | weights | gradients | optimizer | together |",
        "|---|---|---|---|---|---|---|",
    ]
    for ranks, result in found.items():
        for name, counted in result["bytes"].items():
            stage, engine = name.split("/")
            sizes = [counted["weights"], counted["gradients"], counted["optimizer"]]
            megabytes = " | ".join(f"{size / 1e6:,.0f}" for size in (*sizes, sum(sizes)))
            networks = f"Stage-{'I' * int(stage)}, {counted['parameters'] / 1e6:.1f} M"
            lines.append(f"| {ranks} | {networks} | {engine} | {megabytes} |")
    lines.append("\nMegabytes on rank 0, float32, both networks.\n")
    for ranks, result in found.items():
        for engine, seconds in result["seconds"].items():
            ratio = statistics.median(a / b for a, b in zip(seconds, result["seconds"]["ddp"], strict=True))
            lines.append(
                f"{engine} on {ranks} ranks: {statistics.median(seconds):.3f} s a step (median of {len(seconds)}), "
                f"{ratio:.2f} times DDP's beside it"
            )
    return "\n".join(lines)


def main() -> None:
    """Start a group per world size, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--stages", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=20, help="of timed steps, on the fewest ranks; 0: none")
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if "RANK" in os.environ:
        measure(options)
        return
    found = {}
    with tempfile.TemporaryDirectory(prefix="engine-costs-") as name:
        for ranks in options.ranks:
            out = Path(name) / f"{ranks}.json"
            result = torchrun(ranks, __file__, [*sys.argv[1:], "--out", str(out)], Path(name) / "log.txt", 3600)
            assert result.code == 0, result.output
            found[ranks] = json.loads(out.read_text())
    print(report(found))


if __name__ == "__main__":
    main()
