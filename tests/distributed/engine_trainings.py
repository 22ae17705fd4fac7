"""Run by torchrun: the same trainings under both engines, in one process group.

torchrun --nproc-per-node N tests/distributed/engine_trainings.py DATA OUT [--only WORD ...]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import PropertyMock, patch

import torch
import torch.distributed as dist
from distributed.tiny import assert_equal, flat, tiny_config, tiny_stage1
from distributed.trainings import VARIANTS, StopAfter, run

from stackgan_dist.config import Config
from stackgan_dist.data.dataset import open_packed
from stackgan_dist.distributed.process_group import Ranks, process_group
from stackgan_dist.distributed.stop import StopRequest, listen_for_stop
from stackgan_dist.engines.deepspeed import import_deepspeed
from stackgan_dist.training.checkpoint import list_steps, read_checkpoint, to_host, unpack
from stackgan_dist.training.precision import resolve_precision
from stackgan_dist.training.state import TrainingState

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
    # Of float64, which DeepSpeed reduces but does not scatter.
    "zero2-float64": {"stage": 2, "reduce_scatter": False},
}  # fmt: skip
FLOAT64 = {"zero0": "zero0", "zero1": "zero1", "zero2": "zero2-float64"}
"""The layouts that float64 can have."""
HANDOVERS = {"kept": ("zero2", "zero2"), "to-ddp": ("zero1", "ddp"), "from-ddp": ("ddp", "zero2")}
"""Runs that one group begins and another goes on with: the engines of the first and of the second."""
STAGES = {"stage1": VARIANTS["paper"], "stage2": VARIANTS["paper-stage2"]}
STOP, STEPS = 4, 10


class Trainings:
    """Runs of ten steps of this group, each in a folder of its own."""

    def __init__(self, data: str, out: Path, ranks: Ranks, never: StopRequest) -> None:
        self._data, self._out, self._ranks, self._never = data, out, ranks, never
        for name, zero in ZERO.items():
            if ranks.is_main:
                out.mkdir(parents=True, exist_ok=True)
                (out / f"{name}.json").write_text(json.dumps({"zero_optimization": zero}))
        if dist.is_initialized():
            dist.barrier()

    def config(self, stage: str, engine: str, name: str, precision: str = "fp32") -> Config:
        """A run of ten steps under `engine`: "ddp" or a key of ZERO."""
        config = tiny_config(
            self._data, self._out / stage, name, model=STAGES[stage], epochs=2, precision=precision, checkpoint_steps=3
        )
        if engine == "ddp":
            return config
        return dataclasses.replace(config, engine="deepspeed", deepspeed_config=str(self._out / f"{engine}.json"))

    def train(self, stage: str, engine: str, name: str | None = None, precision: str = "fp32") -> None:
        """To its end, from wherever the run is."""
        run(self.config(stage, engine, name or engine, precision), self._ranks, self._never)

    def begin(self, stage: str, engine: str, name: str, precision: str = "fp32") -> None:
        """Stop after STOP steps."""
        run(self.config(stage, engine, name, precision), self._ranks, StopAfter(STOP, self._ranks.rank == 0))

    def reload(self, stage: str, engine: str, checkpoints: Path) -> None:
        """What an engine makes of the newest checkpoint is that checkpoint, bit for bit."""
        steps = list_steps(str(checkpoints))
        found = read_checkpoint(f"{checkpoints}/step-{steps[-1]:09d}")
        content = unpack(found.data, found.url)["state"]
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


@contextmanager
def deepspeed_in_float64() -> Iterator[None]:
    """Nothing of DeepSpeed but the number format of its sums and of its copy of the weights, which it fixes at float32.

    Moments still pass through float32 when they are gathered for a checkpoint.
    """
    import_deepspeed()
    from deepspeed.accelerator import get_accelerator
    from deepspeed.runtime.engine import DeepSpeedEngine
    from deepspeed.runtime.zero.stage_1_and_2 import DeepSpeedZeroOptimizer

    accelerator = get_accelerator()

    def of_engine(engine: Any) -> tuple[torch.dtype, torch.dtype]:
        """Of the model and of the accumulated gradients. At stage 0 another answer would wrap the optimizer."""
        return (torch.float64,) * 2 if engine.zero_optimization_stage() else (torch.float32,) * 2

    formats = [*accelerator.supported_dtypes(), torch.float64]
    with (
        patch.object(accelerator, "supported_dtypes", lambda: formats),
        patch.object(DeepSpeedEngine, "communication_data_type", PropertyMock(return_value=torch.float64)),
        patch.object(DeepSpeedEngine, "get_data_types", of_engine),
        patch.object(DeepSpeedZeroOptimizer, "_configure_master_weights", lambda *_, **__: torch.float64),
    ):
        yield


def tensors(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors in a nested state."""
    return {name: value for name, value in flat(state, "") if isinstance(value, torch.Tensor)}


def main() -> None:
    """All of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="*", default=[], help="equal, float64, resume, handover, options, bf16")
    options = parser.parse_args()

    with listen_for_stop() as never, process_group(60) as ranks:
        trainings = Trainings(options.data, options.out, ranks, never)

        if "equal" in options.only:
            for stage in STAGES:
                for engine in ("ddp", "zero0", "zero1", "zero2"):
                    trainings.train(stage, engine)

        if "float64" in options.only:
            with deepspeed_in_float64():
                for stage in STAGES:
                    trainings.train(stage, "ddp", "ddp-float64", "fp64")
                    for engine, layout in FLOAT64.items():
                        trainings.train(stage, layout, f"{engine}-float64", "fp64")

        if "resume" in options.only:
            for stage, engine in (("stage1", "zero1"), ("stage1", "zero2"), ("stage2", "zero2")):
                trainings.train(stage, engine, f"{engine}-unbroken")
                trainings.begin(stage, engine, f"{engine}-broken")
                trainings.train(stage, engine, f"{engine}-broken")

        if "options" in options.only:
            for engine in ZERO:
                if "-" in engine and not engine.endswith("float64"):
                    trainings.begin("stage1", engine, engine)
                    trainings.train("stage1", engine)

        if "bf16" in options.only:
            for engine in ("ddp", "zero2"):
                trainings.train("stage1", engine, f"{engine}-bf16", "bf16")

        if "handover" in options.only:
            # Whoever finds the folders goes on with them, under the other engine too.
            begun = options.out / "stage1"
            for name, (first, second) in HANDOVERS.items():
                if not (begun / name).exists():
                    trainings.begin("stage1", first, name)
                else:
                    for engine in ("zero1", "zero2"):
                        trainings.reload("stage1", engine, begun / name / "checkpoints")
                    trainings.train("stage1", second, name)
            with deepspeed_in_float64():
                for name, engines in HANDOVERS.items():
                    first, second = (FLOAT64.get(engine, engine) for engine in engines)
                    if not (begun / f"{name}-float64").exists():
                        trainings.begin("stage1", first, f"{name}-float64", "fp64")
                    else:
                        trainings.train("stage1", second, f"{name}-float64", "fp64")


if __name__ == "__main__":
    main()
