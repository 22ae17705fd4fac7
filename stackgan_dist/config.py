"""What defines a run, field by field; presets are plain functions.

Every field is a flag: `--training.batch-size 128`. The docstrings below are its help.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from stackgan_dist.errors import UserError
from stackgan_dist.models.config import ModelConfig

Precision = Literal["auto", "fp32", "bf16", "fp16", "fp64"]


@dataclass(frozen=True)
class DataConfig:
    """Where the pictures come from, and how they reach a rank."""

    url: str = "data/painted"
    """Packed data set: the folder above SPLIT/SIZE/index.json; any fsspec URL, e.g. s3://bucket/cub."""
    split: str = "train"
    """Split to train on."""
    workers: int = 1
    """Loader processes per rank; 0 loads in the rank itself. Does not change what is loaded."""
    lookahead_steps: int = 64
    """Remote shards are fetched this many steps before they are needed."""
    cache: str | None = None
    """Node-local folder for shards of remote sets (default: a folder of the user's under $TMPDIR)."""
    cache_gb: float = 50.0
    """The cache holds at most this many gigabytes per node; the oldest shards go first."""


@dataclass(frozen=True)
class TrainingConfig:
    """The mathematics of the run."""

    seed: int = 0
    """Seed of everything random: initial weights, order of samples, crops, texts, noise."""
    batch_size: int = 64
    """Rows of the GLOBAL batch; ranks share them. The number of ranks does not change the mathematics."""
    epochs: int = 600
    """Length of the run; an epoch is floor(samples / batch size) steps."""
    learning_rate: float = 2e-4
    """Of Adam, for both networks."""
    halve_every_epochs: int = 100
    """The learning rate is halved each time this many epochs are over; 0 keeps it."""
    adam_beta1: float = 0.5
    """Adam's decay of the first moment."""
    adam_beta2: float = 0.999
    """Adam's decay of the second moment."""
    kl_weight: float = 2.0
    """Weight of KL(N(mu, sigma) || N(0, 1)), a mean over rows and dimensions as in the authors' code, where 2.0 made
    the published numbers; the summed KL of the paper's formula with lambda = 1 would be 128."""
    colour_weight: float = 0.0
    """Stage-II: weight of the difference between its colours and those of the Stage-I image (the colour consistency
    of StackGAN-v2, arXiv 1710.10916, which uses 50). Not in the paper, hence 0; it keeps short runs from trading
    Stage-I's colours for others."""
    captions_per_text: int = 4
    """A text is the mean embedding of this many captions of a picture, drawn anew each step (the authors' TensorFlow
    code: 4 of 10, their PyTorch code: 1)."""
    ema_half_life_images: float = 10_000.0
    """Half-life of the generator's moving average, in images; short at first (a 20th of the images seen). 0: no
    averaging."""
    precision: Precision = "auto"
    """auto: bf16 autocast on CUDA, fp32 on CPU. fp16 uses one loss scaler per optimizer. fp64 is for equality tests."""


@dataclass(frozen=True)
class RunConfig:
    """Where a run writes, and how often. Changes nothing in the mathematics."""

    name: str = "run"
    """The run lives in FOLDER/NAME."""
    folder: str = "runs"
    """Folder of all runs, or a URL, e.g. s3://bucket/runs; give it to tensorboard --logdir."""
    tick_steps: int = 50
    """Steps between two status lines, rows of metrics.jsonl and points in TensorBoard."""
    checkpoint_steps: int = 1000
    """Steps between two checkpoints; one more is written when the run ends or is stopped."""
    keep_last: int = 2
    """Checkpoints kept besides the milestones; the newest ones."""
    milestone_steps: int = 0
    """Checkpoints at multiples of this are kept for good; 0: none."""
    sample_steps: int = 1000
    """Steps between two grids of pictures."""
    sample_captions: int = 8
    """Captions in a grid; they and their noise stay the same throughout a run."""
    timeout_s: float = 300.0
    """A rank that does not answer for this long is taken for lost, and the run stops (to be restarted)."""


@dataclass(frozen=True)
class Config:
    """One training run of one stage."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    run: RunConfig = field(default_factory=RunConfig)
    stage1: str | None = None
    """For Stage-II: the Stage-I run (its folder, or one of its checkpoints)."""
    engine: Literal["ddp", "deepspeed"] = "ddp"
    """How ranks share the work: torch's DistributedDataParallel, or DeepSpeed with ZeRO 0, 1 or 2. It changes nothing
    in the mathematics, and a run may go on with the other one."""
    deepspeed_config: str = "zero1"
    """For --engine deepspeed: zero1, zero2, or the path of a JSON file with the keys of launch/README.md."""
    resume: Literal["auto", "never"] = "auto"
    """auto: go on from the newest good checkpoint of the run, if there is one. never: refuse if there is one."""

    def validate(self, world_size: int) -> None:
        """Refuse, before anything starts, what cannot work on `world_size` ranks; raises UserError."""
        training, run = self.training, self.run
        positive = {
            "--training.batch-size": training.batch_size,
            "--training.epochs": training.epochs,
            "--training.learning-rate": training.learning_rate,
            "--training.captions-per-text": training.captions_per_text,
            "--run.tick-steps": run.tick_steps,
            "--run.checkpoint-steps": run.checkpoint_steps,
            "--run.keep-last": run.keep_last,
            "--run.sample-steps": run.sample_steps,
            "--run.sample-captions": run.sample_captions,
            "--run.timeout-s": run.timeout_s,
            "--data.cache-gb": self.data.cache_gb,
        }
        for flag, value in positive.items():
            if not value > 0:
                raise UserError(f"{flag} is {value}, it must be above 0")
        if self.data.workers < 0:
            raise UserError(f"--data.workers is {self.data.workers}, it must be 0 or more")
        if world_size > training.batch_size:
            raise UserError(
                f"{world_size} ranks share a global batch of {training.batch_size} rows: some would get none; "
                "start fewer ranks or raise --training.batch-size"
            )
        if run.folder.startswith(("http://", "https://")):
            raise UserError(
                f"--run.folder is {run.folder}, which can only be read; give a folder, or s3://, gs://, az://"
            )
        if training.colour_weight and self.model.stage == 1:
            raise UserError("--training.colour-weight compares Stage-II with Stage-I; leave it out for Stage-I")
        if self.model.stage == 2 and self.stage1 is None:
            raise UserError("Stage-II starts from a trained Stage-I; give its run folder with --stage1")
        if self.engine == "deepspeed" and training.precision in ("fp16", "fp64"):
            raise UserError(
                f"--training.precision {training.precision} is for --engine ddp; with deepspeed, whose weights are "
                "float32 and whose loss scaler is another one, take bf16, fp32 or auto"
            )
        if self.model.stage == 1 and self.stage1 is not None:
            raise UserError("--stage1 is for Stage-II runs; add --model.stage 2 or leave it out")


def to_json(config: Config) -> str:
    """The resolved configuration as JSON text."""
    return json.dumps(dataclasses.asdict(config), indent=1)


def from_json(text: str, where: str) -> Config:
    """The configuration that `to_json` wrote; UserError naming `where` when it is of another version."""
    try:
        fields = json.loads(text)
        sections = {
            "model": ModelConfig,
            "data": DataConfig,
            "training": TrainingConfig,
            "run": RunConfig,
        }
        built = {name: section(**fields.pop(name)) for name, section in sections.items()}
        return Config(**built, **fields)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{where} is not a configuration of this version: {error}") from error


_FREE_TO_CHANGE = (
    "run", "engine", "deepspeed_config", "resume", "data", "stage1", "training.epochs", "training.precision",
)  # fmt: skip
"""What may differ when a run goes on: it changes where and how it runs, or how far, not what it computes. (The data
are compared by the digest of their index, the Stage-I by its weights, which are in the checkpoint.)"""


def differences(ours: Config, theirs: Config) -> list[str]:
    """Fields in which two configurations define different runs, as "section.field: ours, theirs"."""
    mine, other = _flatten(dataclasses.asdict(ours)), _flatten(dataclasses.asdict(theirs))
    return [
        f"{name}: {mine[name]} here, {other[name]} there"
        for name in mine
        if mine[name] != other[name] and not name.startswith(_FREE_TO_CHANGE)
    ]


def _flatten(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat.update(_flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat


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
    )
    stage2 = _demo(
        painted_stage2(),
        model,
        batch_size=16,
        epochs=8,
        learning_rate=8e-4,
        halve_every_epochs=4,
        colour_weight=200.0,
        ema_half_life_images=10_000,
    )
    return dataclasses.replace(stage2, stage1="runs/demo/stage1")


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
    "demo-stage1": demo_stage1,
    "demo-stage2": demo_stage2,
}
DEFAULT_PRESET = "painted-stage1"


def preset(name: str) -> Config:
    """The preset called `name`; UserError when there is none."""
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}; known presets: {', '.join(PRESETS)}")
    return PRESETS[name]()
