"""Everything that a run changes while it trains: built fresh, saved and loaded as one."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import torch

from stackgan_dist.config import Config
from stackgan_dist.data.batch import Batch, rows_with_partner
from stackgan_dist.data.plan import rows_of_rank
from stackgan_dist.distributed.gather import gather_rows
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.engines import Engine
from stackgan_dist.engines.ddp import DDPEngine
from stackgan_dist.engines.deepspeed import DeepSpeedEngine
from stackgan_dist.engines.deepspeed_config import load_deepspeed_config
from stackgan_dist.models import Generator, ModelConfig
from stackgan_dist.models.reader import ReadingGenerator
from stackgan_dist.models.upsampling import forms_taken
from stackgan_dist.runs.checkpoint import to_host
from stackgan_dist.train.captured import CapturedStep, captures
from stackgan_dist.train.ema import MovingAverage
from stackgan_dist.train.losses import LossWeights
from stackgan_dist.train.networks import build_networks
from stackgan_dist.train.precision import Precision
from stackgan_dist.train.step import StepReport, StepSettings, train_step


class TrainingState:
    """Both networks with their optimizers, and the generator's moving average.

    With rows that are read the generator's engine trains a ReadingGenerator; the average is of the generator in it.

    Args:
        config: the run.
        text_dim: width of its text embeddings.
        stage1: for Stage-II, the model configuration and the weights of the frozen Stage-I generator.
        ranks: who takes part; all build the same weights from the seed.
        precision: number formats.
    """

    def __init__(
        self,
        config: Config,
        text_dim: int,
        stage1: tuple[ModelConfig, dict[str, torch.Tensor]] | None,
        ranks: Ranks,
        precision: Precision,
    ) -> None:
        training = config.training
        torch.manual_seed(training.seed)
        generator, trained, discriminator, self._loss = build_networks(config, text_dim, stage1[0] if stage1 else None)
        if stage1 is not None:
            generator.stage1.load_state_dict(stage1[1])  # type: ignore[union-attr]
        # cuDNN's half-precision convolutions want channels last; on CPUs it gains nothing (docs/speed.md), and ZeRO
        # cuts weights as they lie in memory.
        channels_last = ranks.device.type == "cuda" and config.engine == "ddp"
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        for network in (trained, discriminator):
            network.to(device=ranks.device, dtype=precision.weights, memory_format=memory_format)  # type: ignore[call-overload]
        self.ema = MovingAverage(generator, training.ema_half_life_images)
        if isinstance(trained, ReadingGenerator) and trained.generator.noise is not None and ranks.gather is not None:
            counts = [rows_read(training.batch_size, rank, ranks.world_size).rows for rank in range(ranks.world_size)]
            trained.generator.noise.of_all_ranks = partial(gather_rows, counts=counts, gather=ranks.gather)
        betas = (training.adam_beta1, training.adam_beta2)
        self.generator: Engine
        self.discriminator: Engine
        if config.engine == "deepspeed":
            content = load_deepspeed_config(config.deepspeed_config)
            self.generator, self.discriminator = (
                DeepSpeedEngine(
                    network,
                    ranks,
                    betas,
                    content,
                    rows=math.ceil(training.batch_size / ranks.world_size),
                    autocast_to=precision.autocast_to,
                    timeout_s=config.run.timeout_s,
                )
                for network in (trained, discriminator)
            )
        else:
            self.generator, self.discriminator = (
                DDPEngine(network, ranks, betas, scale_loss=precision.scale_loss)
                for network in (trained, discriminator)
            )
        if training.compile:
            self.generator.module.compile()
            self.discriminator.module.compile()
        self._config, self._ranks, self._precision = config, ranks, precision
        self._network = generator
        self._settings = self._step_settings()
        self._rate = math.nan
        """What is in the settings, so that it is written only where it changes."""
        self._captured: CapturedStep | None = None

    def _step_settings(self) -> StepSettings:
        training, ranks = self._config.training, self._ranks
        rows = rows_of_rank(training.batch_size, ranks.rank, ranks.world_size)
        share = len(rows) * ranks.world_size / training.batch_size
        more, all_more = len(rows_with_partner(rows)), training.batch_size // 2
        with_partners = (len(rows) + more) * ranks.world_size / (training.batch_size + all_more)
        read = rows_read(training.batch_size, ranks.rank, ranks.world_size)
        # Fused Adam reads it on the device, in float32 there, and in full on a CPU. DeepSpeed's has to read it on the
        # host.
        on_device = ranks.device.type == "cuda" and self._config.engine == "ddp"
        rate, discriminator_rate = (
            torch.zeros(
                (), dtype=torch.float32 if on_device else torch.float64, device=ranks.device if on_device else "cpu"
            )
            for _ in range(2)
        )
        return StepSettings(
            learning_rate=rate,
            discriminator_learning_rate=discriminator_rate,
            adversarial=self._loss,
            weights=LossWeights.of(training),
            precision=self._precision,
            share=share,
            generator_share=with_partners if training.interpolated_texts else share,
            read_first=read.first,
            read_share=read.share,
        )

    def step(self, batch: Batch, step: int, steps_per_epoch: int) -> StepReport:
        """Train on this rank's rows of global batch `step`."""
        training = self._config.training
        rate = learning_rate(self._config, step / steps_per_epoch)
        if rate != self._rate:
            self._rate = rate
            self._settings.learning_rate.fill_(rate)
            self._settings.discriminator_learning_rate.fill_(
                learning_rate(self._config, step / steps_per_epoch, discriminator=True)
            )
        report = (self._captured or self._take)(batch)
        self.ema.update(self._network, (step + 1) * training.batch_size, training.batch_size)
        return report

    def _take(self, batch: Batch) -> StepReport:
        return train_step(self.generator, self.discriminator, batch, self._settings)

    def rehearse(self, batch: Batch) -> None:
        """One step, or more, whose effects are undone; here the step is captured, where it is.

        DDP arranges its gradients anew after the first backward pass, by which sums over three or more ranks change
        in their last bit. After a rehearsal a resumed run's first step is already like any other, hence bit-equal to
        that of a run that never stopped.
        """
        captured = captures(self._config, self._ranks, self._precision)
        if not (captured or self.generator.rehearses):
            return
        # Pinned memory stays with the process; only rank 0 has a use for it later, for checkpoints.
        before = to_host(self.state_dict(), pinned=self._ranks.is_main)
        if captured:
            self._captured = CapturedStep(self._take, batch)
        else:
            self._take(batch)
        self.load_state_dict(before)

    def up_sampling(self, batch: Batch) -> list[str]:
        """What form each up-sampling layer of the generator takes here, see models/upsampling.py."""
        inputs = (batch.text, batch.z, batch.eps, *(() if batch.place is None else (batch.place,)))
        with self._precision.autocast():
            return forms_taken(self.ema.network, *(tensor[:1].to(self._precision.weights) for tensor in inputs))

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only. Every rank has to call it; it is whole on rank 0."""
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "ema": self.ema.network.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what rank 0's `state_dict` returned, on any number of ranks."""
        self.generator.load_state_dict(state["generator"])
        self.discriminator.load_state_dict(state["discriminator"])
        self.ema.network.load_state_dict(state["ema"])

    @property
    def terms(self) -> frozenset[str]:
        """The names of the loss's terms, which are reported one by one."""
        return self._settings.weights.present | ({"penalty"} if self._loss.penalty is not None else set())

    @property
    def sample_generators(self) -> dict[str, Generator]:
        """The generators that show samples, by name."""
        return {"ema": self.ema.network, "raw": self._network}  # type: ignore[dict-item]


class RowsRead(NamedTuple):
    """Which of a rank's rows are read, where rows are: every other one, from `first` on."""

    first: int
    rows: int
    share: float
    """See StepSettings.read_share."""


def rows_read(batch_size: int, rank: int, world_size: int) -> RowsRead:
    """Those of `rank`: the rows with even numbers in the global batch, whoever has them."""
    rows = rows_of_rank(batch_size, rank, world_size)
    first = rows.start % 2
    count = len(rows[first::2])
    return RowsRead(first, count, count * world_size / len(range(0, batch_size, 2)))


_LAST_RATE = 0.05
"""Where a linear decay ends, as a share of where it begins."""


def learning_rate(config: Config, epochs: float, *, discriminator: bool = False) -> float:
    """Adam's learning rate after so many `epochs`, of the generator or of the discriminator.

    It is halved at every multiple of `halve_every_epochs`, and falls linearly over the last part of the run by
    `linear_decay`.
    """
    training = config.training
    every, decay = training.halve_every_epochs, training.linear_decay
    first = training.learning_rate
    if discriminator and training.discriminator_learning_rate is not None:
        first = training.discriminator_learning_rate
    rate = first * 0.5 ** (epochs // every if every else 0)
    if decay:
        fallen = max(0.0, 1 - (1 - epochs / training.epochs) / decay)
        rate *= 1 - (1 - _LAST_RATE) * fallen
    return rate
