"""Runs by name: each preset is a plain function that returns a configuration, to be changed flag by flag."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from stackgan_dist.config import Config, DataConfig, RunConfig, TrainingConfig
from stackgan_dist.distributed.environment import is_main_rank
from stackgan_dist.errors import UserError
from stackgan_dist.models.config import ImageSize, ModelConfig, Stage

PAINTED_PARTS = ("crown", "eye", "neck", "breast", "belly", "wing", "back", "tail", "feet", "beak")
"""The keypoints of painted birds."""


def _stage1(name: str, url: str) -> Config:
    """The paper's Stage-I: 64x64, 600 epochs of batch 64, Adam 2e-4 halved every 100 epochs."""
    return Config(data=DataConfig(url=url), run=RunConfig(name=f"{name}-stage1"))


def _stage2(name: str, url: str) -> Config:
    """The paper's Stage-II: 256x256 from a frozen Stage-I, the same schedule."""
    return Config(
        model=ModelConfig(stage=2, image_size=256),
        data=DataConfig(url=url),
        run=RunConfig(name=f"{name}-stage2"),
        stage1=f"runs/{name}-stage1",
    )


def painted_stage1() -> Config:
    """Painted birds, Stage-I at the paper's size and schedule."""
    return _stage1("painted", "data/painted")


def painted_stage2() -> Config:
    """Painted birds, Stage-II at the paper's size and schedule."""
    return _stage2("painted", "data/painted")


def oxford102_stage1() -> Config:
    """Oxford-102 flowers, Stage-I as in the paper."""
    return _stage1("oxford102", "data/oxford102")


def oxford102_stage2() -> Config:
    """Oxford-102 flowers, Stage-II as in the paper."""
    return _stage2("oxford102", "data/oxford102")


def cub_stage1() -> Config:
    """CUB-200-2011 birds, Stage-I as in the paper."""
    return _stage1("cub", "data/cub")


def cub_stage2() -> Config:
    """CUB-200-2011 birds, Stage-II as in the paper."""
    return _stage2("cub", "data/cub")


def _coco(stage: Config, batch_size: int) -> Config:
    """`stage` with what the authors' PyTorch code trains COCO with: wider, 120 epochs, the rate halved every 20."""
    training = dataclasses.replace(
        stage.training, batch_size=batch_size, epochs=120, halve_every_epochs=20, captions_per_text=1
    )
    model = dataclasses.replace(
        stage.model, recipe="pytorch", generator_width=192, discriminator_width=96, residual_blocks=2
    )
    return dataclasses.replace(stage, model=model, training=training)


def coco_stage1() -> Config:
    """COCO, Stage-I as in the authors' PyTorch code (batch 128)."""
    return _coco(_stage1("coco", "data/coco"), batch_size=128)


def coco_stage2() -> Config:
    """COCO, Stage-II as in the authors' PyTorch code (batch 160: 40 on each of 4 GPUs)."""
    return _coco(_stage2("coco", "data/coco"), batch_size=160)


def own_stage1() -> Config:
    """Your own pictures (docs/own_data.md), Stage-I as in the paper."""
    return _stage1("own", "data/own")


def own_stage2() -> Config:
    """Your own pictures, Stage-II as in the paper."""
    return _stage2("own", "data/own")


def _demo(stage: Config, model: ModelConfig, **training: Any) -> Config:
    """`stage` with a narrow `model`, at a length that two CPU cores train in minutes.

    The learning rates are some times the paper's: that is what narrow networks, few steps and large plain areas of
    colour take. A weak KL term lets the text through early.
    """
    return dataclasses.replace(
        stage,
        model=model,
        data=dataclasses.replace(stage.data, workers=0),  # two cores have no room for loaders beside two ranks
        training=TrainingConfig(kl_weight=0.2, captions_per_text=1, **training),
        run=dataclasses.replace(
            stage.run,
            name=f"demo/stage{model.stage}",
            tick_steps=50,
            checkpoint_steps=250,
            sample_steps=250,
        ),
    )


_DEMO_STAGE1 = ModelConfig(
    generator_width=24, discriminator_width=16, condition_dim=64, noise_dim=32, detail_layer=True
)


def demo_stage1() -> Config:
    """Painted birds in minutes on two CPU cores: a narrow Stage-I (launch/demo.sh)."""
    return _demo(
        painted_stage1(),
        _DEMO_STAGE1,
        batch_size=32,
        epochs=20,
        learning_rate=1.6e-3,
        halve_every_epochs=8,
        ema_half_life_images=4_000,
    )


def demo_stage2() -> Config:
    """Painted birds in minutes on two CPU cores: a narrow Stage-II of 128 pixels (launch/demo.sh)."""
    model = dataclasses.replace(
        _DEMO_STAGE1,
        stage=2,
        image_size=128,
        generator_width=16,
        discriminator_width=8,
        residual_blocks=1,
        detail_layer=False,
        stage1_skip=True,
        stage1_coarse=16,
    )
    stage2 = _demo(
        painted_stage2(),
        model,
        batch_size=16,
        epochs=3,
        learning_rate=8e-4,
        halve_every_epochs=2,
        colour_weight=50.0,
        reconstruction_weight=200.0,
        ema_half_life_images=10_000,
    )
    return dataclasses.replace(stage2, stage1="runs/demo/stage1")


def _gan_int_cls(name: str) -> Config:
    """GAN-INT-CLS on a data set, with its authors' schedule, which is StackGAN's."""
    stage1 = _stage1(name, f"data/{name}")
    return dataclasses.replace(
        stage1,
        model=ModelConfig(family="gan-int-cls"),
        training=TrainingConfig(interpolated_texts=True),
        run=dataclasses.replace(stage1.run, name=f"{name}-gan-int-cls"),
    )


def painted_gan_int_cls() -> Config:
    """Painted birds, the baseline GAN-INT-CLS: 64 pixels, as its authors train it."""
    return _gan_int_cls("painted")


def oxford102_gan_int_cls() -> Config:
    """Oxford-102 flowers, the baseline GAN-INT-CLS."""
    return _gan_int_cls("oxford102")


def cub_gan_int_cls() -> Config:
    """CUB-200-2011 birds, the baseline GAN-INT-CLS."""
    return _gan_int_cls("cub")


def _gawwn(name: str, family: Literal["gawwn-box", "gawwn-keypoints"], keypoints: tuple[str, ...] = ()) -> Config:
    """GAWWN on a data set whose shards say where the objects are, with its authors' schedule: batch 16."""
    stage1 = _stage1(name, f"data/{name}")
    model = ModelConfig(family=family, image_size=128, discriminator_width=128, keypoints=keypoints)
    return dataclasses.replace(
        stage1,
        model=model,
        training=TrainingConfig(batch_size=16),
        run=dataclasses.replace(stage1.run, name=f"{name}-{family}"),
    )


def painted_gawwn_box() -> Config:
    """Painted birds, the baseline GAWWN, told the bird's bounding box: 128 pixels."""
    return _gawwn("painted", "gawwn-box")


def painted_gawwn_keypoints() -> Config:
    """Painted birds, the baseline GAWWN, told the places of the bird's parts."""
    return _gawwn("painted", "gawwn-keypoints", PAINTED_PARTS)


def cub_gawwn_box() -> Config:
    """CUB-200-2011 birds, the baseline GAWWN, told the bird's bounding box: 128 pixels."""
    return _gawwn("cub", "gawwn-box")


def cub_gawwn_keypoints() -> Config:
    """CUB-200-2011 birds, the baseline GAWWN, told the places of the bird's 15 parts."""
    return _gawwn("cub", "gawwn-keypoints")


def _ablation(image_size: ImageSize, *, stage: Stage, ca: bool = True, text_twice: bool = True) -> Callable[[], Config]:
    """A row of the paper's Table 2 on CUB; StackGAN's start from the row of 64 pixels with the same augmentation."""
    kind = "stackgan" if stage == 2 else "stage1"
    name = f"{kind}-{image_size}{'' if ca else '-no-ca'}{'' if text_twice else '-text-once'}"
    model = ModelConfig(
        stage=stage, image_size=image_size, conditioning_augmentation=ca, text_in_stage2=text_twice or stage == 1
    )

    def make() -> Config:
        return Config(
            model=model,
            data=DataConfig(url="data/cub"),
            run=RunConfig(name=f"ablation/{name}"),
            stage1=f"runs/ablation/stage1-64{'' if ca else '-no-ca'}" if stage == 2 else None,
        )

    text = f", text {'twice' if text_twice else 'once'}" if stage == 2 else ""
    what = f"{'StackGAN' if stage == 2 else 'Stage-I GAN'} of {image_size} pixels"
    make.__doc__ = f"Table 2 of the paper: {what}, {'with' if ca else 'without'} conditioning augmentation{text}."
    return make


ABLATION: dict[str, Callable[[], Config]] = {
    "ablation-stage1-64-no-ca": _ablation(64, stage=1, ca=False),
    "ablation-stage1-64": _ablation(64, stage=1),
    "ablation-stage1-256-no-ca": _ablation(256, stage=1, ca=False),
    "ablation-stage1-256": _ablation(256, stage=1),
    "ablation-stackgan-128-text-once": _ablation(128, stage=2, text_twice=False),
    "ablation-stackgan-128-no-ca": _ablation(128, stage=2, ca=False),
    "ablation-stackgan-128": _ablation(128, stage=2),
    "ablation-stackgan-256-text-once": _ablation(256, stage=2, text_twice=False),
    "ablation-stackgan-256-no-ca": _ablation(256, stage=2, ca=False),
    "ablation-stackgan-256": _ablation(256, stage=2),
}
"""The rows of the paper's Table 2, in its order."""

PRESETS: dict[str, Callable[[], Config]] = {
    "painted-stage1": painted_stage1,
    "painted-stage2": painted_stage2,
    "oxford102-stage1": oxford102_stage1,
    "oxford102-stage2": oxford102_stage2,
    "cub-stage1": cub_stage1,
    "cub-stage2": cub_stage2,
    "coco-stage1": coco_stage1,
    "coco-stage2": coco_stage2,
    "own-stage1": own_stage1,
    "own-stage2": own_stage2,
    "painted-gan-int-cls": painted_gan_int_cls,
    "oxford102-gan-int-cls": oxford102_gan_int_cls,
    "cub-gan-int-cls": cub_gan_int_cls,
    "painted-gawwn-box": painted_gawwn_box,
    "painted-gawwn-keypoints": painted_gawwn_keypoints,
    "cub-gawwn-box": cub_gawwn_box,
    "cub-gawwn-keypoints": cub_gawwn_keypoints,
    **ABLATION,
    "demo-stage1": demo_stage1,
    "demo-stage2": demo_stage2,
}
DEFAULT_PRESET = "painted-stage1"


def preset(name: str) -> Config:
    """The preset called `name`; UserError when there is none."""
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}; known presets: {', '.join(PRESETS)}")
    return PRESETS[name]()


def parse(arguments: list[str], description: str | None = None) -> Config:
    """A preset, then its changes. `description` is what --help begins with."""
    import tyro

    name = DEFAULT_PRESET
    rest = []
    iterator = iter(arguments)
    for argument in iterator:
        if argument == "--preset":
            name = next(iterator, "")
        elif argument.startswith("--preset="):
            name = argument.removeprefix("--preset=")
        elif not argument.startswith("--local_rank="):  # of the deepspeed launcher; LOCAL_RANK has it too
            rest.append(argument)
    presets = "\n".join(f"  --preset {key}: {make.__doc__}" for key, make in PRESETS.items())
    return tyro.cli(
        Config,
        default=preset(name),
        args=rest,
        prog="python -m stackgan_dist.train",
        description=f"{description or ''}\nPresets (default {DEFAULT_PRESET}):\n{presets}",
        console_outputs=is_main_rank(),
    )
