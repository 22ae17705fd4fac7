"""What defines a run, field by field.

Every field is a flag: `--training.batch-size 128`. The docstrings below are its help.
"""

from __future__ import annotations

import dataclasses
import json
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
    memory_gb: float = 1.0
    """What a rank keeps decoded in host memory, shared by its workers, if the whole set fits: the embeddings, and the
    pictures as well. It takes samples x (2 x captions x text dim + 3 x side^2) bytes, filled as they are first read.
    0: every picture is decoded each time. Does not change what is loaded."""


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
    reconstruction_weight: float = 0.0
    """Stage-II: weight of the mean absolute difference between real pictures and what G makes of them from their text
    and their 64 pixels. Not in the paper, hence 0: a short run learns from it what sharp pictures look like without
    waiting for D to teach it. See also `--model.stage1-coarse`."""
    interpolated_texts: bool = False
    """Train the generator also on texts half-way between two, one for every two rows of the batch: the INT of
    GAN-INT-CLS (arXiv 1605.05396, section 4.3)."""
    captions_per_text: int = 4
    """A text is the mean embedding of this many captions of a picture, drawn anew each step (the authors' TensorFlow
    code: 4 of 10, their PyTorch code: 1)."""
    ema_half_life_images: float = 10_000.0
    """Half-life of the generator's moving average, in images; short at first (a 20th of the images seen). 0: no
    averaging."""
    precision: Precision = "auto"
    """auto: bf16 autocast on CUDA, fp32 on CPU. fp16 uses one loss scaler per optimizer. fp64 is for equality tests."""
    compile: bool = False
    """Compile both networks with torch.compile when the run starts, for CUDA devices. Experimental: it has not been run
    on one, and the last bits of a compiled run are not promised to survive a restart."""


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
        if self.data.memory_gb < 0:
            raise UserError(f"--data.memory-gb is {self.data.memory_gb}, it must be 0 or more")
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
        if training.reconstruction_weight and self.model.stage == 1:
            raise UserError("--training.reconstruction-weight is for Stage-II, which starts from images; leave it out")
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
    "training.compile",
)  # fmt: skip
"""What may differ when a run goes on: it changes where and how it runs, or how far, not what it computes. (The data
are compared by the digest of their index, the Stage-I by its weights, which are in the checkpoint.)"""


def differences(ours: Config, theirs: Config) -> list[str]:
    """Fields in which two configurations define different runs, as "section.field: ours, theirs"."""
    mine, other = flatten(dataclasses.asdict(ours)), flatten(dataclasses.asdict(theirs))
    return [
        f"{name}: {mine[name]} here, {other[name]} there"
        for name in mine
        if mine[name] != other[name] and not name.startswith(_FREE_TO_CHANGE)
    ]


def flatten(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields (of `dataclasses.asdict`) by their full names: {"section.field": value}."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat.update(flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat
