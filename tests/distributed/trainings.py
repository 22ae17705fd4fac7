"""Run by forked ranks or by torchrun: many short trainings in one process group.

torchrun --nproc-per-node N tests/distributed/trainings.py DATA OUT [--epochs E]
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from distributed.tiny import BASELINES, STEPS_PER_EPOCH, tiny_config, tiny_model, tiny_stage1

from stackgan_dist.config import Config
from stackgan_dist.data.dataset import open_packed
from stackgan_dist.distributed.process_group import Ranks, process_group
from stackgan_dist.distributed.stop import StopRequest, listen_for_stop
from stackgan_dist.errors import UserError
from stackgan_dist.models import ModelConfig, upsampling
from stackgan_dist.runs.folder import RunFolder
from stackgan_dist.storage.files import join
from stackgan_dist.train.loop import train
from stackgan_dist.train.state import TrainingState

VARIANTS: dict[str, ModelConfig] = {
    "paper": tiny_model(),
    "paper-no-ca": tiny_model(conditioning_augmentation=False),
    "pytorch": tiny_model(recipe="pytorch"),
    "paper-stage2": tiny_model(stage=2, image_size=128),
    # and all that short runs of Stage-II may have beside
    "pytorch-stage2": tiny_model(recipe="pytorch", stage=2, image_size=128, stage1_skip=True, stage1_coarse=8),
    # The terms that are not in the paper, see tiny_config.
    "terms": tiny_model(text_every_layer=True, noise_as_read=True),
    "terms-stage2": tiny_model(stage=2, image_size=128, text_every_layer=True, stage1_skip=True, stage1_coarse=8),
    **BASELINES,
}
RESUMED = {
    "stage1": "paper", "stage2": "paper-stage2", "gan-int-cls": "gan-int-cls", "gawwn-box": "gawwn-box",
    "terms": "terms", "terms-stage2": "terms-stage2", "df-gan": "df-gan",
}  # fmt: skip
"""Runs that are stopped and go on -> what they train."""
RESUMED_ON = {1: ["stage1"], 2: ["stage1", "stage2"], 3: list(RESUMED)}
"""world size -> those of RESUMED. Three ranks have all that two or one can do wrong, and orders of summation."""
STOPS = {1: [1, 4, 5], 2: [8, 10]}
"""A run of Stage-I that is broken: epochs -> after which steps each start stops. It ends, and is then extended."""
SHORT_STOPS = {1: [2, 5]}
"""Of the others."""
CHECKPOINT_STEPS = 3
"""Between two checkpoints of these runs."""


def compared_on(world_size: int) -> list[str]:
    """The variants that a group of so many ranks trains to be compared with one rank: not the baselines on two."""
    return [name for name in VARIANTS if world_size != 2 or name not in BASELINES]


class StopAfter(StopRequest):
    """A request that comes, at one rank, during step `steps`."""

    def __init__(self, steps: int, here: bool) -> None:
        super().__init__()
        self._left = steps if here else -1

    @property
    def raised(self) -> bool:
        """Asked once a step."""
        self._left -= 1
        return self._left == 0


def run(config: Config, ranks: Ranks, stop: StopRequest) -> None:
    """What `stackgan_dist.train` does once it has joined the group."""
    data = open_packed(config.data, config.model.image_size)
    stage1 = tiny_stage1(config.model, data.index.text_dim) if config.model.stage == 2 else None
    folder = RunFolder(join(config.run.folder, config.run.name))
    if ranks.is_main:
        folder.path.mkdir(parents=True, exist_ok=True)
    train(config, data, data.plan(config.training), data, stage1, folder, ranks, stop)


def resume(data: str, out: Path, model: ModelConfig, stops: dict[int, list[int]], ranks: Ranks) -> None:
    """A run, unbroken and broken: both end after the last of `stops`."""

    def go_on(name: str, epochs: int, stop: StopRequest) -> None:
        config = tiny_config(
            data, out, name, model=model, epochs=epochs, precision="fp32", checkpoint_steps=CHECKPOINT_STEPS
        )
        run(config, ranks, stop)

    go_on("unbroken", max(stops), StopRequest())
    reached = 0
    for epochs, steps in stops.items():
        for step in steps:
            ends = step == epochs * STEPS_PER_EPOCH
            stop = StopRequest() if ends else StopAfter(step - reached, ranks.rank == step % ranks.world_size)
            go_on("broken", epochs, stop)
            reached = step


def diverge(data: str, out: Path, ranks: Ranks, never: StopRequest) -> None:
    """Learn far too fast; what stops the run is left in error.txt."""
    config = tiny_config(data, out, "diverged", precision="fp32", checkpoint_steps=1)
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, learning_rate=1e6))
    try:
        run(config, ranks, never)
    except UserError as error:
        (out / "diverged" / f"error-{ranks.rank}.txt").write_text(str(error))


def main(*arguments: str) -> None:
    """All of them, by these arguments."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=1, help="of the runs that are compared across world sizes")
    parser.add_argument("--all", action="store_true", help="all variants on two ranks, too")
    parser.add_argument("--only", help="invariance, resume, diverge or handover")
    parser.add_argument("--no-rehearsal", action="store_true", help="to see the tests of resuming fail")
    options = parser.parse_args(arguments)
    if options.no_rehearsal:
        TrainingState.rehearse = lambda self, batch: None  # type: ignore[method-assign]

    upsampling._MINIMAL_FROM = 8  # so that tiny networks take every form that wide ones take
    with listen_for_stop() as never, process_group(60) as ranks:

        def want(what: str) -> bool:
            return options.only in (None, what)

        if want("invariance"):
            workers = (ranks.world_size - 1) % 3
            for name in VARIANTS if options.all else compared_on(ranks.world_size):
                model = VARIANTS[name]
                config = tiny_config(
                    options.data, options.out, name, model=model, workers=workers, epochs=options.epochs
                )
                run(config, ranks, never)

        if want("resume"):
            for name in RESUMED_ON[ranks.world_size]:
                model = VARIANTS[RESUMED[name]]
                stops = STOPS if name == "stage1" else SHORT_STOPS
                resume(options.data, options.out / name, model, stops, ranks)

        if want("diverge") and ranks.world_size == 2:
            diverge(options.data, options.out, ranks, never)

        if want("handover"):
            if ranks.world_size == 1:
                run(tiny_config(options.data, options.out, "alone", epochs=2), ranks, never)
            # Whoever finds the folder goes on with it; the first one stops in mid-epoch.
            config = tiny_config(options.data, options.out, "handover", epochs=2)
            fresh = not (options.out / "handover").exists()
            run(config, ranks, StopAfter(3, ranks.rank == 0) if fresh else never)


if __name__ == "__main__":
    main(*sys.argv[1:])
