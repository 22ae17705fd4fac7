"""How large a table is made: as in the paper, small enough for CPUs, or only to see that it works."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from stackgan_dist.config import Config
from stackgan_dist.models.config import ImageSize
from stackgan_dist.scores.protocol import ScoreProtocol

ScaleName = Literal["smoke", "small", "paper"]


@dataclass(frozen=True)
class Scale:
    """What becomes of the presets, and how many pictures each generates."""

    protocol: ScoreProtocol
    largest: ImageSize = 256
    """What the paper generates larger is generated at this size, in pixels."""
    divisor: int = 1
    """The paper's widths are divided by this."""
    short: Short | None = None
    """None: the schedule of the presets."""
    classifier_views: int = 4
    """Views of each picture that the classifier's last layer learns from."""
    classifier_epochs: int = 0
    """Passes over the pictures in which all of its layers learn, as the paper's did."""

    def size(self, paper: ImageSize) -> ImageSize:
        """The size that stands for one of the paper's."""
        return min(paper, self.largest)

    def apply(self, config: Config, samples: int) -> Config:
        """`config`, of a preset, at this scale, for a training set of so many pictures."""
        model = config.model
        model = replace(
            model,
            image_size=self.size(model.image_size),
            generator_width=model.generator_width // self.divisor,
            discriminator_width=model.discriminator_width // self.divisor,
        )
        config = replace(config, model=model)
        return self.short.apply(config, samples) if self.short else config


@dataclass(frozen=True)
class Short:
    """The same few pictures for every training of a table, at the same batch and learning rate.

    The other settings are those that the demo's presets found for short runs of narrow networks: without them such runs
    learn next to nothing of the text.
    """

    images: int
    """Pictures that each training sees, rounded up to whole epochs."""
    batch_size: int
    """Rows of the global batch; all pictures there are where they are fewer."""
    learning_rate: float = 8e-4

    def apply(self, config: Config, samples: int) -> Config:
        """`config` on this budget, for a training set of so many pictures."""
        batch_size = min(self.batch_size, samples)
        epochs = -(-self.images // (samples // batch_size * batch_size))
        is_stackgan, stage = config.model.family == "stackgan", config.model.stage
        changes: dict[str, Any] = {"condition_dim": 32, "noise_dim": 32}
        if is_stackgan:
            changes |= {"detail_layer": True} if stage == 1 else {"residual_blocks": 1, "stage1_skip": True}
        return replace(
            config,
            model=replace(config.model, **changes),
            data=replace(config.data, workers=0),
            training=replace(
                config.training,
                batch_size=batch_size,
                epochs=epochs,
                learning_rate=self.learning_rate,
                halve_every_epochs=0 if config.training.linear_decay else max(1, epochs // 2),
                kl_weight=0.2,
                colour_weight=50.0 if stage == 2 else 0.0,
                ema_half_life_images=1_000.0,
            ),
            run=replace(config.run, checkpoint_steps=100, sample_steps=200),
        )


SCALES: Final[dict[ScaleName, Scale]] = {
    "smoke": Scale(
        ScoreProtocol(
            samples=20,
            splits=2,
            kernel_samples=20,
            kernel_block=10,
            wrong_captions=9,
            wrong_pool=30,
            map_pictures=32,
            diversity_sentences=4,
            diversity_pictures=2,
        ),
        largest=128,
        divisor=32,
        short=Short(images=64, batch_size=32),
        classifier_views=1,
    ),
    "small": Scale(
        ScoreProtocol(samples=300, splits=3, kernel_samples=300, kernel_block=300, map_pictures=600),
        largest=128,
        divisor=8,
        short=Short(images=4_800, batch_size=16),
        classifier_views=2,
    ),
    "paper": Scale(ScoreProtocol(), classifier_epochs=10),
}
