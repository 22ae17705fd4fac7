"""Run by forked ranks: the same trainings under both engines, in one process group."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from distributed.same_rounding import same_adam, same_rounding
from distributed.tiny import STEPS_PER_EPOCH, assert_equal, flat, tiny_config, tiny_stage1
from distributed.trainings import VARIANTS, StopAfter, run
from torch.nn.parallel import DistributedDataParallel

from stackgan_dist.config import Config
from stackgan_dist.data.dataset import open_packed
from stackgan_dist.distributed.process_group import Ranks, process_group
from stackgan_dist.distributed.stop import StopRequest, listen_for_stop
from stackgan_dist.engines import ddp
from stackgan_dist.errors import UserError
from stackgan_dist.models import upsampling
from stackgan_dist.runs.checkpoint import from_bytes, list_steps, read_checkpoint, to_host
from stackgan_dist.train.precision import resolve_precision
from stackgan_dist.train.state import TrainingState

ZERO: dict[str, dict[str, Any]] = {
    "zero0": {"stage": 0},
    "zero1": {"stage": 1},
    "zero2": {"stage": 2},
    "zero1-offload": {"stage": 1, "offload_optimizer": {"device": "cpu"}},
    "zero2-offload": {"stage": 2, "offload_optimizer": {"device": "cpu"}},
    # Buckets of a few parameters each, and every switch the other way.
    "zero1-switches": {
        "stage": 1, "reduce_bucket_size": 1000, "allgather_bucket_size": 1000, "overlap_comm": True,
        "contiguous_gradients": False,
    },
    "zero2-switches": {
        "stage": 2, "reduce_bucket_size": 1000, "allgather_bucket_size": 1000, "overlap_comm": True,
        "reduce_scatter": False,
    },
}  # fmt: skip
SWITCHED = [name for name in ZERO if "-" in name]
HANDOVERS = {
    "ddp-alone": ("ddp", "ddp"),
    "kept": ("zero2", "zero2"),
    "to-ddp": ("zero1", "ddp"),
    "from-ddp": ("ddp", "zero2"),
}
"""Runs that one group begins and another goes on with: the engines of the first and of the second."""
RESUMED = {2: [("stage1", "zero2")], 3: [("stage1", "zero1"), ("stage1", "zero2"), ("stage2", "zero2")]}
"""world size -> runs that are stopped and go on."""
STAGES = {"stage1": VARIANTS["paper"], "stage2": VARIANTS["paper-stage2"]}
MODELS = {**STAGES, "terms": VARIANTS["terms"], "df-gan": VARIANTS["df-gan"]}
"""What is trained; that with more terms in its loss once, on two ranks."""
STOP, SHORT, STEPS = 3, STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH
"""A run is stopped after STOP steps; it has SHORT or all STEPS."""


class Trainings:
    """Runs of this group, each in a folder of its own."""

    def __init__(self, data: str, out: Path, ranks: Ranks, never: StopRequest) -> None:
        self._data, self._out, self._ranks, self._never = data, out, ranks, never
        for name, zero in ZERO.items():
            if ranks.is_main:
                out.mkdir(parents=True, exist_ok=True)
                (out / f"{name}.json").write_text(json.dumps({"zero_optimization": zero}))
        if dist.is_initialized():
            dist.barrier()

    def config(self, stage: str, engine: str, name: str, precision: str = "fp32", steps: int = STEPS) -> Config:
        """A run under `engine`: "ddp" or a key of ZERO. It saves after SHORT steps too."""
        config = tiny_config(
            self._data, self._out / stage, name, model=MODELS[stage], epochs=steps // STEPS_PER_EPOCH,
            precision=precision, checkpoint_steps=SHORT,
        )  # fmt: skip
        config = dataclasses.replace(config, run=dataclasses.replace(config.run, sample_steps=steps))
        if engine == "ddp":
            return config
        return dataclasses.replace(config, engine="deepspeed", deepspeed_config=str(self._out / f"{engine}.json"))

    def train(self, stage: str, engine: str, name: str | None = None, **options: Any) -> None:
        """To its end, from wherever the run is."""
        run(self.config(stage, engine, name or engine, **options), self._ranks, self._never)

    def begin(self, stage: str, engine: str, name: str) -> None:
        """Stop after STOP steps."""
        run(self.config(stage, engine, name), self._ranks, StopAfter(STOP, self._ranks.rank == 0))

    def diverge(self, engine: str) -> None:
        """Learn far too fast; what stops the run is left in error.txt."""
        name = f"{engine}-diverged"
        config = self.config("stage1", engine, name)
        config = dataclasses.replace(
            config,
            training=dataclasses.replace(config.training, learning_rate=1e6),
            run=dataclasses.replace(config.run, checkpoint_steps=1),
        )
        try:
            run(config, self._ranks, self._never)
        except UserError as error:
            if self._ranks.is_main:
                (self._out / "stage1" / name / "error.txt").write_text(str(error))

    def reload(self, stage: str, engine: str, checkpoints: Path) -> None:
        """What an engine makes of the newest checkpoint is that checkpoint, bit for bit."""
        steps = list_steps(str(checkpoints))
        found = read_checkpoint(f"{checkpoints}/step-{steps[-1]:09d}")
        content = from_bytes(found.data, found.url)["state"]
        config = self.config(stage, engine, "reload")
        text_dim = open_packed(config.data, config.model.image_size).index.text_dim
        stage1 = tiny_stage1(config.model, text_dim) if config.model.stage == 2 else None
        precision = resolve_precision("fp32", torch.device("cpu"))
        state = TrainingState(config, text_dim, stage1, self._ranks, precision)
        state.load_state_dict(content)
        again = to_host(state.state_dict())
        if self._ranks.is_main:
            assert_equal(tensors(again), tensors(content))
        for network in ("generator", "discriminator"):
            assert_equal(tensors(again[network]["network"]), tensors(content[network]["network"]))


def tensors(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors in a nested state."""
    return {name: value for name, value in flat(state, "") if isinstance(value, torch.Tensor)}


def main(*arguments: str) -> None:
    """All of them, by these arguments."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--only", nargs="+", required=True, help="two, three, resume, options, bf16, diverge, begin, handover, orders"
    )
    options = parser.parse_args(arguments)

    upsampling._MINIMAL_FROM = 8  # so that tiny networks take every form that wide ones take
    with listen_for_stop() as never, process_group(60) as ranks:
        trainings = Trainings(options.data, options.out, ranks, never)

        if "two" in options.only:  # a + b is b + a, and halves are exact
            with same_adam():
                for stage in STAGES:
                    for engine in ("ddp", "zero0", "zero1", "zero2"):
                        trainings.train(stage, engine)
                for engine in ("ddp", "zero1"):
                    trainings.train("terms", engine)
                    trainings.train("df-gan", engine)

        if "three" in options.only:
            with same_rounding():
                for stage in STAGES:
                    for engine in ("ddp", "zero1", "zero2"):
                        trainings.train(stage, engine)
            with same_rounding(divided_first=False):
                for engine in ("ddp", "zero0"):
                    trainings.train("stage1", engine, f"{engine}-divided-last")

        if "resume" in options.only:
            for stage, engine in RESUMED[ranks.world_size]:
                trainings.train(stage, engine, f"{engine}-unbroken", steps=SHORT)
                trainings.begin(stage, engine, f"{engine}-broken")
                trainings.train(stage, engine, f"{engine}-broken", steps=SHORT)

        if "options" in options.only:
            with same_adam():
                for engine in SWITCHED:
                    trainings.begin("stage1", engine, engine)
                    trainings.train("stage1", engine, steps=SHORT)

        if "bf16" in options.only:
            with same_adam():
                for engine in ("ddp", "zero2"):
                    trainings.train("stage1", engine, f"{engine}-bf16", precision="bf16", steps=SHORT)

        if "diverge" in options.only:
            for engine in ("zero0", "zero2"):
                trainings.diverge(engine)

        if "begin" in options.only:
            with same_rounding():
                for name, (first, _) in HANDOVERS.items():
                    trainings.begin("stage1", first, name)

        if "handover" in options.only:  # of what another group began
            for engine in ("zero1", "zero2"):
                trainings.reload("stage1", engine, options.out / "stage1" / "kept" / "checkpoints")
            with same_rounding():
                for name, (_, second) in HANDOVERS.items():
                    trainings.train("stage1", second, name)

        if "orders" in options.only:
            for stage in STAGES:
                for engine in ("ddp", "zero0", "zero1", "zero2"):
                    trainings.train(stage, engine)
                with patch.object(ddp, "DistributedDataParallel", _with_small_buckets):
                    trainings.train(stage, "ddp", "ddp-small-buckets")


def _with_small_buckets(module: torch.nn.Module, **options: Any) -> DistributedDataParallel:
    """DDP that sends gradients in another order."""
    return DistributedDataParallel(module, bucket_cap_mb=0.002, **options)
