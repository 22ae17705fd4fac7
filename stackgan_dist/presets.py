"""Runs by name, one row each: what is trained, on which data set, by which schedule. Flags change a preset further."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from stackgan_dist.config import Config, DataConfig, RunConfig, TrainingConfig
from stackgan_dist.errors import UserError
from stackgan_dist.models.config import ImageSize, ModelConfig
from stackgan_dist.near_names import did_you_mean

PAINTED_PARTS = ("crown", "eye", "neck", "breast", "belly", "wing", "back", "tail", "feet", "beak")
"""The keypoints of painted birds."""

# Models. STAGE1 makes 64x64 and STAGE2 256x256 pixels, as in the paper.
STAGE1 = ModelConfig()
STAGE2 = ModelConfig(stage=2, image_size=256)
INT_CLS = ModelConfig(family="gan-int-cls")
BOX = ModelConfig(family="gawwn-box", image_size=128, discriminator_width=128)
CUB_POINTS = ModelConfig(family="gawwn-keypoints", image_size=128, discriminator_width=128)
PAINTED_POINTS = replace(CUB_POINTS, keypoints=PAINTED_PARTS)
DF_GAN = ModelConfig(family="df-gan", image_size=256, generator_width=32, discriminator_width=32)


def _coco(stage: ModelConfig) -> ModelConfig:
    """`stage` as the authors' PyTorch code trains COCO with: wider."""
    return replace(stage, recipe="pytorch", generator_width=192, discriminator_width=96, residual_blocks=2)


def _stage1(pixels: ImageSize, *, ca: bool = True) -> ModelConfig:
    """A Stage-I of the paper's Table 2; `ca`: with conditioning augmentation."""
    return ModelConfig(image_size=pixels, conditioning_augmentation=ca)


def _stage2(pixels: ImageSize, *, ca: bool = True, twice: bool = True) -> ModelConfig:
    """A Stage-II of the paper's Table 2; `twice`: given the text as well as the Stage-I image."""
    return ModelConfig(stage=2, image_size=pixels, conditioning_augmentation=ca, text_in_stage2=twice)


# The picture recipe (docs/models.md): the paper's networks, whose generators read the text at every layer, and draw z
# from what is read off painted birds. Off photographs much more is read; there that did not help (docs/oxford102.md).
BEST1 = ModelConfig(text_every_layer=True, noise_as_read=True, detail_layer=True)
PHOTO1 = replace(BEST1, noise_as_read=False)
BEST2 = ModelConfig(stage=2, image_size=256, text_every_layer=True, stage1_skip=True, stage1_coarse=32)
# Both without text at every layer, and what goes with one of the recipe's terms alone, or with none.
FIRST1, FIRST2 = (replace(best, text_every_layer=False, noise_as_read=False) for best in (BEST1, BEST2))
LAYERS1, READ1 = replace(FIRST1, text_every_layer=True), replace(FIRST1, noise_as_read=True)
# And narrow ones.
DEMO1 = ModelConfig(
    generator_width=24, discriminator_width=16, condition_dim=64, noise_dim=32, detail_layer=True,
    text_every_layer=True, noise_as_read=True,
)  # fmt: skip
DEMO2 = ModelConfig(
    stage=2, image_size=128, generator_width=16, discriminator_width=8, condition_dim=64, noise_dim=32,
    residual_blocks=1, stage1_skip=True, stage1_coarse=32, text_every_layer=True,
)  # fmt: skip

# Schedules. That of the paper: 600 epochs of batch 64, Adam 2e-4 halved every 100 epochs.
PAPER = TrainingConfig()
COCO1 = TrainingConfig(batch_size=128, epochs=120, halve_every_epochs=20, captions_per_text=1)
COCO2 = replace(COCO1, batch_size=160)  # 40 on each of 4 GPUs
INT = TrainingConfig(interpolated_texts=True)
GAWWN = TrainingConfig(batch_size=16)
DEEP = TrainingConfig(
    batch_size=24, halve_every_epochs=0, learning_rate=1e-4, discriminator_learning_rate=4e-4, adam_beta1=0.0,
    adam_beta2=0.9, captions_per_text=1,
)  # fmt: skip

# The picture recipe's terms. A weak KL term lets the text through early. A painted bird soon picks its text out of 512
# by its large parts alone; out of 4,096 it also takes the small ones. Stage-II keeps what Stage-I generated, and is
# sharper with 512. On photographs, whose texts are hard to pick out of 512, the generator has a smaller share of the
# contrastive term.
RECIPE1 = TrainingConfig(
    halve_every_epochs=0, linear_decay=0.5, kl_weight=0.2, contrastive_weight=1.0, generator_contrastive_weight=1.0,
    contrastive_pool=4096, reading_weight=40.0,
)  # fmt: skip
RECIPE2 = replace(RECIPE1, contrastive_pool=512, reading_weight=0.0, colour_weight=50.0, reconstruction_weight=100.0)
# Both without those terms that have a weight.
PLAIN1, PLAIN2 = (
    replace(recipe, contrastive_weight=0.0, generator_contrastive_weight=0.0, reading_weight=0.0)
    for recipe in (RECIPE1, RECIPE2)
)
CONTRAST1 = replace(PLAIN1, contrastive_weight=1.0, generator_contrastive_weight=1.0)
READING1 = replace(PLAIN1, reading_weight=40.0)
PHOTOS1 = replace(RECIPE1, generator_contrastive_weight=0.2, contrastive_pool=512)
PHOTOS2 = replace(RECIPE2, generator_contrastive_weight=0.2)

# The same for what two CPU cores train in minutes. The learning rates are some times the paper's: that is what narrow
# networks, few steps and large plain areas of colour take. A D that learns as fast as G wins in some trainings of
# Stage-I after 800 steps, and pictures get worse from there on; a slower one needs more weight on the texts
# (docs/models.md). A quarter of G's rate gave the best parts and shapes. A text is the mean of four captions, as in the
# authors' code of the paper: one alone does not mention parts of most birds, and small ones are learnt worse.
QUICK1 = replace(
    RECIPE1, batch_size=32, epochs=18, learning_rate=1.6e-3, discriminator_learning_rate=4e-4, contrastive_weight=2.0,
    ema_half_life_images=4_000,
)  # fmt: skip
QUICK2 = replace(RECIPE2, batch_size=16, epochs=3, learning_rate=1.8e-3, ema_half_life_images=4_000)


# fmt: off
_TABLE: Final[tuple[tuple[str, str, ModelConfig, TrainingConfig, str], ...]] = (
    # name                     data set     model          schedule  what it is
    ("painted-stage1",         "painted",   STAGE1,         PAPER,  "Painted birds, Stage-I as in the paper."),
    ("painted-stage2",         "painted",   STAGE2,         PAPER,  "Painted birds, Stage-II as in the paper."),
    ("oxford102-stage1",       "oxford102", STAGE1,         PAPER,  "Oxford-102 flowers, Stage-I as in the paper."),
    ("oxford102-stage2",       "oxford102", STAGE2,         PAPER,  "Oxford-102 flowers, Stage-II as in the paper."),
    ("cub-stage1",             "cub",       STAGE1,         PAPER,  "CUB-200-2011 birds, Stage-I as in the paper."),
    ("cub-stage2",             "cub",       STAGE2,         PAPER,  "CUB-200-2011 birds, Stage-II as in the paper."),
    ("coco-stage1",            "coco",      _coco(STAGE1),  COCO1,  "COCO, Stage-I of the authors' PyTorch code."),
    ("coco-stage2",            "coco",      _coco(STAGE2),  COCO2,  "COCO, Stage-II of the authors' PyTorch code."),
    ("own-stage1",             "own",       STAGE1,         PAPER,  "Your own pictures, Stage-I (docs/own_data.md)."),
    ("own-stage2",             "own",       STAGE2,         PAPER,  "Your own pictures, Stage-II."),
    # The picture recipe, for pictures that follow their sentences (docs/models.md).
    ("painted-best-stage1",    "painted",   BEST1,          RECIPE1, "Painted birds, Stage-I by the picture recipe."),
    ("painted-best-stage2",    "painted",   BEST2,          RECIPE2, "Painted birds, Stage-II by the picture recipe."),
    ("oxford102-best-stage1",  "oxford102", PHOTO1,         PHOTOS1, "Oxford-102, Stage-I by the picture recipe."),
    ("oxford102-best-stage2",  "oxford102", BEST2,          PHOTOS2, "Oxford-102, Stage-II by the picture recipe."),
    ("cub-best-stage1",        "cub",       PHOTO1,         PHOTOS1, "CUB birds, Stage-I by the picture recipe."),
    ("cub-best-stage2",        "cub",       BEST2,          PHOTOS2, "CUB birds, Stage-II by the picture recipe."),
    ("own-best-stage1",        "own",       PHOTO1,         PHOTOS1, "Your pictures, Stage-I by the picture recipe."),
    ("own-best-stage2",        "own",       BEST2,          PHOTOS2, "Your pictures, Stage-II by the picture recipe."),
    # Baselines, with their authors' schedules; that of GAN-INT-CLS is StackGAN's.
    ("painted-gan-int-cls",    "painted",   INT_CLS,        INT,    "Painted birds, GAN-INT-CLS of 64 pixels."),
    ("oxford102-gan-int-cls",  "oxford102", INT_CLS,        INT,    "Oxford-102 flowers, GAN-INT-CLS."),
    ("cub-gan-int-cls",        "cub",       INT_CLS,        INT,    "CUB-200-2011 birds, GAN-INT-CLS."),
    ("painted-gawwn-box",      "painted",   BOX,            GAWWN,  "Painted birds, GAWWN of 128 pixels, boxes."),
    ("painted-gawwn-keypoints", "painted",  PAINTED_POINTS, GAWWN,  "Painted birds, GAWWN, 10 keypoints."),
    ("cub-gawwn-box",          "cub",       BOX,            GAWWN,  "CUB-200-2011 birds, GAWWN, boxes."),
    ("cub-gawwn-keypoints",    "cub",       CUB_POINTS,     GAWWN,  "CUB-200-2011 birds, GAWWN, 15 keypoints."),
    ("painted-df-gan",         "painted",   DF_GAN,         DEEP,   "Painted birds, DF-GAN of 256 pixels."),
    ("oxford102-df-gan",       "oxford102", DF_GAN,         DEEP,   "Oxford-102 flowers, DF-GAN."),
    ("cub-df-gan",             "cub",       DF_GAN,         DEEP,   "CUB-200-2011 birds, DF-GAN."),
    # Table 2 of the paper, in its order, with the pixels; CA is conditioning augmentation.
    ("ablation-stage1-64-no-ca",        "cub", _stage1(64, ca=False),     PAPER, "Table 2: Stage-I 64, no CA."),
    ("ablation-stage1-64",              "cub", _stage1(64),               PAPER, "Table 2: Stage-I 64."),
    ("ablation-stage1-256-no-ca",       "cub", _stage1(256, ca=False),    PAPER, "Table 2: Stage-I 256, no CA."),
    ("ablation-stage1-256",             "cub", _stage1(256),              PAPER, "Table 2: Stage-I 256."),
    ("ablation-stackgan-128-text-once", "cub", _stage2(128, twice=False), PAPER, "Table 2: Stage-II 128, text once."),
    ("ablation-stackgan-128-no-ca",     "cub", _stage2(128, ca=False),    PAPER, "Table 2: Stage-II 128, no CA."),
    ("ablation-stackgan-128",           "cub", _stage2(128),              PAPER, "Table 2: Stage-II 128."),
    ("ablation-stackgan-256-text-once", "cub", _stage2(256, twice=False), PAPER, "Table 2: Stage-II 256, text once."),
    ("ablation-stackgan-256-no-ca",     "cub", _stage2(256, ca=False),    PAPER, "Table 2: Stage-II 256, no CA."),
    ("ablation-stackgan-256",           "cub", _stage2(256),              PAPER, "Table 2: Stage-II 256."),
    # The terms of the picture recipe, each alone; the schedule is the recipe's in all of them.
    ("terms-stage1-none",        "painted", FIRST1, PLAIN1,  "Painted birds, Stage-I, none of the recipe's terms."),
    ("terms-stage1-contrastive", "painted", FIRST1, CONTRAST1, "The contrastive term alone."),
    ("terms-stage1-text-layers", "painted", LAYERS1, PLAIN1,  "Text at every layer alone."),
    ("terms-stage1-reading",     "painted", READ1,  READING1, "Rows that are read alone."),
    ("terms-stage1-all",         "painted", BEST1,  RECIPE1, "All three terms."),
    ("terms-stackgan-none",      "painted", FIRST2, PLAIN2,  "Painted birds, Stage-II, none of the recipe's terms."),
    ("terms-stackgan-all",       "painted", BEST2,  RECIPE2, "All terms that Stage-II has."),
    # Minutes on two CPU cores (launch/demo.sh).
    ("demo-stage1",            "painted",   DEMO1,          QUICK1, "Painted birds, a quick narrow Stage-I."),
    ("demo-stage2",            "painted",   DEMO2,          QUICK2, "Painted birds, a quick narrow Stage-II."),
)
# fmt: on


@dataclass(frozen=True)
class Preset:
    """A configuration with a name."""

    config: Config
    what: str
    """What --help-all says of it."""


def _preset(name: str, data: str, model: ModelConfig, training: TrainingConfig, what: str) -> Preset:
    """A row of the table, with what follows from its name: where it is written, and which Stage-I it starts from."""
    config = Config(
        model=model,
        data=DataConfig(url=f"data/{data}"),
        training=training,
        run=RunConfig(name=_run_name(name)),
        stage1=f"runs/{_run_name(_stage1_of(name, model))}" if model.stage == 2 else None,
    )
    if name.startswith("demo-"):
        data_of_demo = replace(config.data, workers=0)  # two cores have no room for loaders beside two ranks
        config = replace(config, data=data_of_demo, run=replace(config.run, checkpoint_steps=250, sample_steps=250))
    return Preset(config, what)


def _run_name(preset: str) -> str:
    """The demo's runs and those of a table lie in a folder of their own each: demo-stage1 in demo/stage1."""
    group, _, rest = preset.partition("-")
    return f"{group}/{rest}" if group in ("demo", "ablation", "terms") else preset


def preset_of_run(run: str) -> str:
    """The preset of a table's row whose run is written to `run`: runs/ablation/stage1-64 is ablation-stage1-64's."""
    return "-".join(run.split("/")[-2:])


def _stage1_of(preset: str, model: ModelConfig) -> str:
    """The preset that a Stage-II starts from; in Table 2 the one of 64 pixels with the same augmentation."""
    if preset.startswith("ablation-"):
        return "ablation-stage1-64" if model.conditioning_augmentation else "ablation-stage1-64-no-ca"
    return preset.replace("stage2", "stage1").replace("stackgan", "stage1")


PRESETS: Final[dict[str, Preset]] = {row[0]: _preset(*row) for row in _TABLE}
DEFAULT_PRESET = "painted-stage1"


def preset(name: str) -> Config:
    """The configuration of the preset called `name`; UserError when there is none."""
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}.{did_you_mean(name, PRESETS)} Known presets: {', '.join(PRESETS)}")
    return PRESETS[name].config
