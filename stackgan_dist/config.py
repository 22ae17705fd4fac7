"""What defines a run, field by field.

Every field is a flag: `--training.batch-size 128`. The docstrings below are its help.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from stackgan_dist.errors import UserError
from stackgan_dist.importable import is_importable
from stackgan_dist.models.config import LOSSES, ModelConfig
from stackgan_dist.ranges import Range, Seed, Timeout, check_fields

PrecisionName = Literal["auto", "fp32", "tf32", "bf16", "fp16", "fp64"]
LoggerName = Literal["wandb", "mlflow"]
"""A service that shows a run's curves beside TensorBoard."""

_MOST_PROFILED = 1_000


@dataclass(frozen=True)
class DataConfig:
    """Where the pictures come from, and how they reach a rank."""

    url: str = "data/painted"
    """The packed data set: the folder above SPLIT/SIZE/index.json, on any fsspec URL, e.g. s3://bucket/cub."""
    split: str = "train"
    """The split to train on."""
    workers: Annotated[int, Range(at_least=0, at_most=256)] = 1
    """The number of loader processes of each rank; 0 loads in the rank itself. It does not change what is loaded."""
    lookahead_steps: Annotated[int, Range(at_least=0)] = 64
    """Shards of a remote set are fetched this many steps before they are needed."""
    cache: str | None = None
    """The node-local folder for shards of remote sets. The default is a folder of the user's own under $TMPDIR."""
    cache_gb: Annotated[float, Range(above=0)] = 50.0
    """The cache holds at most this many gigabytes on each node; the oldest shards are removed first."""
    memory_gb: Annotated[float, Range(at_least=0)] = 1.0
    """A rank keeps at most this many gigabytes decoded in host memory, shared by its workers: the embeddings if those
    of the whole set fit, and the pictures as well if both do. A set takes samples x (2 x captions x text dim +
    3 x side^2) bytes. With 0 every picture is decoded each time. It does not change what is loaded."""
    device_gb: Annotated[float, Range(at_least=0)] | None = None
    """A set of at most this many gigabytes is kept in the memory of each rank's device, as many bytes as above, and
    loader processes are not needed. The default is 4 on CUDA and 0 on CPUs; 0 keeps none there. It does not change
    what is loaded."""


@dataclass(frozen=True)
class TrainingConfig:
    """The mathematics of the run."""

    seed: Seed = 0
    """The seed of everything random: initial weights, order of samples, crops, texts and noise."""
    batch_size: Annotated[int, Range(at_least=2)] = 64
    """The rows of the GLOBAL batch, which the ranks share. The number of ranks does not change the mathematics.
    A single row has no variance for batch norm."""
    epochs: Annotated[int, Range(at_least=1)] = 600
    """The length of the run; an epoch is floor(samples / batch size) steps."""
    learning_rate: Annotated[float, Range(above=0)] = 2e-4
    """The learning rate of Adam at the first step, for both networks."""
    discriminator_learning_rate: Annotated[float, Range(above=0)] | None = None
    """The same for the discriminator alone, which falls as the other does; None stands for --training.learning-rate."""
    halve_every_epochs: Annotated[int, Range(at_least=0)] = 100
    """The learning rate is halved each time this many epochs are over; 0 keeps it as it is."""
    linear_decay: Annotated[float, Range(at_least=0, at_most=1)] = 0.0
    """The share of the run, at its end, over which the learning rate falls linearly to a 20th; halvings come on top.
    0.5 lets it fall over the second half. The rate then depends on --training.epochs, which is fixed once the run has
    begun. 0, as in the paper, leaves it to the halvings."""
    adam_beta1: Annotated[float, Range(at_least=0, below=1)] = 0.5
    """Adam's decay rate of the first moment."""
    adam_beta2: Annotated[float, Range(at_least=0, below=1)] = 0.999
    """Adam's decay rate of the second moment."""
    loss: str | None = None
    """The adversarial loss: non-saturating (StackGAN's), hinge, matching-aware-hinge (DF-GAN's: D pays for being steep
    at real pictures), or MODULE:CLASS, one of your own (docs/extending.md). None takes that of the family."""
    kl_weight: Annotated[float, Range(at_least=0)] = 2.0
    """The weight of KL(N(mu, sigma) || N(0, 1)), a mean over rows and dimensions as in the authors' code, where 2.0
    made the published numbers; the summed KL of the paper's formula with lambda = 1 would be 128."""
    colour_weight: Annotated[float, Range(at_least=0)] = 0.0
    """Stage-II: the weight of the difference between its colours and those of the Stage-I image (the colour consistency
    of StackGAN-v2, arXiv 1710.10916, which uses 50). It is not in the paper, hence 0; it keeps short runs from trading
    Stage-I's colours for others."""
    reconstruction_weight: Annotated[float, Range(at_least=0)] = 0.0
    """Stage-II: the weight of the mean absolute difference between real pictures and what G makes of them from their
    text and their 64 pixels. It is not in the paper, hence 0: a short run learns from it what sharp pictures look like
    without waiting for D to teach it. See also --model.stage1-coarse."""
    contrastive_weight: Annotated[float, Range(at_least=0)] = 0.0
    """The weight of the contrastive text term in D's loss: D's features of a real picture also have to pick the
    picture's own text out of --training.contrastive-pool others (InfoNCE, arXiv 1807.03748, as in XMC-GAN, arXiv
    2101.04702). It is not in the paper, hence 0; 1 teaches D the parts of a sentence that real and wrong pairs alone do
    not. For StackGAN."""
    contrastive_pool: Annotated[int, Range(at_least=1, at_most=65_536)] = 512
    """Texts of other training pictures, drawn at random for each step, that a picture has to pick its own text out of.
    In a large pool there are more that differ from the own text in one part alone."""
    generator_contrastive_weight: Annotated[float, Range(at_least=0)] = 0.0
    """The weight in G's loss of how much worse generated pictures pick their texts than the real pictures of the same
    texts do. It needs --training.contrastive-weight. 1 suits painted birds; on photographs, whose texts are hard to
    pick, 0.2 does, and 1 makes cartoons."""
    reading_weight: Annotated[float, Range(at_least=0)] = 0.0
    """Stage-I: the weight of redrawing real pictures. For every other row of the global batch an encoder reads z off
    the real picture and its text, and G has to redraw that picture: this times the mean absolute difference (the
    conditional VAE of BicycleGAN, arXiv 1711.11586). It is not in the paper, hence 0; with 40 the pictures of one
    sentence differ in pose, size and background. The encoder is part of checkpoints, and of nothing that generates."""
    reading_kl_weight: Annotated[float, Range(at_least=0)] = 0.05
    """With --training.reading-weight: the weight of the KL divergence of what the encoder reads from a standard normal
    z, summed over the dimensions of z."""
    interpolated_texts: bool = False
    """Train the generator also on texts half-way between two, one for every two rows of the batch: the INT of
    GAN-INT-CLS (arXiv 1605.05396, section 4.3)."""
    captions_per_text: Annotated[int, Range(at_least=1)] = 4
    """A text is the mean embedding of this many captions of a picture, drawn at random in each step (the authors'
    TensorFlow code: 4 of 10, their PyTorch code: 1). Several name more of what is seen: by the picture recipe painted
    birds' small parts follow single sentences much better with 4 than with 1."""
    ema_half_life_images: Annotated[float, Range(at_least=0)] = 10_000.0
    """The half-life of the generator's moving average, in images; it is shorter at first (a 20th of the images seen).
    0 switches the average off."""
    precision: PrecisionName = "auto"
    """auto is bf16 autocast on CUDA and fp32 on CPU. tf32 is fp32 whose products CUDA rounds to TF32. fp16 uses one
    loss scaler per optimizer. fp64 is for equality tests."""
    deterministic: bool = True
    """On CUDA, take kernels that give the same bits each time, so that a resumed run is that which never stopped. It
    may cost speed; a CPU is deterministic anyway."""
    capture: Literal["auto", "on", "off"] = "auto"
    """Record the whole step once, when the run starts, as one CUDA graph, and replay it: a small batch then no longer
    waits for the host. auto does on a single CUDA device, but not with fp16, --engine deepspeed or
    --training.compile. On a CPU "on" takes the same path without a graph, for tests. It changes no bit of the
    training."""
    compile: bool = False
    """Compile both networks with torch.compile when the run starts, for CUDA devices. Experimental: it has not been run
    on one, and the last bits of a compiled run are not promised to survive a restart."""


@dataclass(frozen=True)
class RunConfig:
    """Where a run writes, and how often. Changes nothing in the mathematics."""

    name: str = "run"
    """The name of the run, which is written to FOLDER/NAME."""
    folder: str = "runs"
    """The folder of all runs, or a URL, e.g. s3://bucket/runs; it is what tensorboard --logdir takes."""
    tick_steps: Annotated[int, Range(at_least=1)] = 50
    """The number of steps between two status lines, rows of metrics.jsonl and points in TensorBoard."""
    checkpoint_steps: Annotated[int, Range(at_least=1)] = 1000
    """The number of steps between two checkpoints; one more is written when the run ends or is stopped."""
    keep_last: Annotated[int, Range(at_least=1)] = 2
    """This many of the newest checkpoints are kept besides the milestones."""
    milestone_steps: Annotated[int, Range(at_least=0)] = 0
    """Checkpoints at multiples of this many steps are kept for good; with 0 there are none."""
    sample_steps: Annotated[int, Range(at_least=1)] = 1000
    """The number of steps between two grids of pictures."""
    sample_captions: Annotated[int, Range(at_least=1)] = 8
    """The number of captions in a grid; they and their noise stay the same throughout a run."""
    min_tick_s: Annotated[float, Range(at_least=0)] | None = None
    """At least this many seconds lie between two status lines, however short the steps are. The default is 1 on CUDA
    and 0 on a CPU."""
    min_write_s: Annotated[float, Range(at_least=0)] | None = None
    """At least this many seconds lie between two checkpoints, and between two grids, however short the steps are; those
    of milestones and of the end are always written. The default is 30 on CUDA and 0 on a CPU."""
    timeout_s: Timeout = 300.0
    """A rank that does not answer for this many seconds is taken for lost, and the run stops (to be restarted)."""
    log: tuple[LoggerName, ...] = ()
    """Where curves and pictures go beside TensorBoard: wandb, mlflow or both. They take their servers from their own
    variables (WANDB_MODE=offline, MLFLOW_TRACKING_URI, ...), and a resumed run goes on in the same page of theirs."""
    profile: str | None = None
    """START:STEPS writes a trace of so many steps from step number START (from 0) into the run's folder profile/, for
    Perfetto or TensorBoard. 50:10 leaves out what happens only at first."""
    profile_ranks: tuple[Annotated[int, Range(at_least=0)], ...] = (0,)
    """The ranks of which --run.profile writes a trace each."""

    def __post_init__(self) -> None:
        for name in ("log", "profile_ranks"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON has lists

    @property
    def profiled_steps(self) -> range:
        """The steps that --run.profile names; empty without it. UserError where it is not START:STEPS."""
        if self.profile is None:
            return range(0)
        start, _, steps = self.profile.partition(":")
        if not (start.isdecimal() and steps.isdecimal() and 0 < int(steps) <= _MOST_PROFILED):
            raise UserError(
                f"--run.profile is {self.profile!r}; give START:STEPS, such as 50:10 for ten steps from step 50, of at "
                f"most {_MOST_PROFILED} steps: a trace of more is too large to be opened"
            )
        return range(int(start), int(start) + int(steps))


@dataclass(frozen=True)
class Config:
    """One training run of one stage."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    run: RunConfig = field(default_factory=RunConfig)
    stage1: str | None = None
    """For Stage-II: the Stage-I run (its folder, or one of its checkpoints)."""
    init_from: str | None = None
    """A run, a checkpoint or an exported folder whose weights this run starts from: of other data, or texts of another
    width. Weights of the same name and shape are taken, the others start fresh and are named. A run that has a
    checkpoint of its own goes on from that."""
    engine: Literal["ddp", "deepspeed"] = "ddp"
    """How the ranks share the work: torch's DistributedDataParallel, or DeepSpeed with ZeRO 0, 1 or 2. It changes
    nothing in the mathematics, and a run may go on with the other one."""
    deepspeed_config: str = "zero1"
    """For --engine deepspeed: zero1, zero2, or the path of a JSON file with the keys of launch/README.md."""
    resume: Literal["auto", "never"] = "auto"
    """auto goes on from the newest good checkpoint of the run, if there is one; never refuses to start if there is
    one."""

    @property
    def own_parts(self) -> list[str]:
        """The importable names in it, of a family and a loss of the user's own."""
        return [name for name in (self.model.family, self.training.loss) if name and is_importable(name)]

    def validate(self, world_size: int) -> None:
        """Refuse, before anything starts, what cannot work on `world_size` ranks; raises UserError."""
        check_fields(self)
        training, run = self.training, self.run
        if run.profiled_steps and (outside := [rank for rank in run.profile_ranks if rank >= world_size]):
            raise UserError(f"--run.profile-ranks names rank {outside[0]}, and there are {world_size}, counted from 0")
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
        self._check_terms()
        if self.model.stage == 2 and self.stage1 is None:
            raise UserError("Stage-II starts from a trained Stage-I; give its run folder with --stage1")
        if self.engine == "deepspeed" and training.precision in ("fp16", "fp64"):
            raise UserError(
                f"--training.precision {training.precision} is for --engine ddp; with deepspeed, whose weights are "
                "float32 and whose loss scaler is another one, take bf16, fp32 or auto"
            )
        if self.model.stage == 1 and self.stage1 is not None:
            raise UserError("--stage1 is for Stage-II runs; add --model.stage 2 or leave it out")

    def _check_terms(self) -> None:
        """Refuse terms of the loss that this model cannot have."""
        model, training = self.model, self.training
        if training.loss is not None and training.loss not in LOSSES and not is_importable(training.loss):
            raise UserError(
                f"--training.loss is {training.loss!r}, it must be one of {', '.join(LOSSES)}, or your own as "
                "MODULE:CLASS (docs/extending.md)"
            )
        for flag, weight in (
            ("--training.contrastive-weight", training.contrastive_weight),
            ("--training.reading-weight", training.reading_weight),
        ):
            if weight and model.family != "stackgan":
                raise UserError(
                    f"{flag} is {weight}, but the term is StackGAN's and {model.family} has none; leave it out"
                )
        if training.generator_contrastive_weight and not training.contrastive_weight:
            raise UserError(
                "--training.generator-contrastive-weight has G learn what D knows of texts, but D learns nothing of "
                "them without --training.contrastive-weight; set that too, or leave both out"
            )
        if model.noise_as_read and not training.reading_weight:
            raise UserError(
                "--model.noise-as-read draws z as it is read off real pictures, but none is read without "
                "--training.reading-weight; set that too, or add --model.no-noise-as-read"
            )
        if training.reading_weight and model.stage == 2:
            raise UserError(
                "--training.reading-weight is for Stage-I, which starts from noise; Stage-II has "
                "--training.reconstruction-weight instead"
            )


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
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{where} is not a configuration of this version: {error}") from error


_FREE_TO_CHANGE = (
    "run", "engine", "deepspeed_config", "resume", "data", "stage1", "training.epochs", "training.precision",
    "training.compile", "training.deterministic", "training.capture",
)  # fmt: skip
"""What may differ when a run goes on: it changes where and how it runs, or how far, not what it computes. (The data
are compared by the digest of their index, the Stage-I by its weights, which are in the checkpoint.)"""


def differences(ours: Config, theirs: Config) -> list[str]:
    """Fields in which two configurations define different runs, as "section.field: ours, theirs"."""
    mine, other = flatten(dataclasses.asdict(ours)), flatten(dataclasses.asdict(theirs))
    differing = [
        f"{name}: {mine[name]} here, {other[name]} there"
        for name in mine
        if mine[name] != other[name] and not name.startswith(_FREE_TO_CHANGE)
    ]
    if ours.training.linear_decay and ours.training.epochs != theirs.training.epochs:
        differing.append(
            f"training.epochs: {ours.training.epochs} here, {theirs.training.epochs} there, and by "
            f"--training.linear-decay {ours.training.linear_decay} the learning rate of every step depends on them"
        )
    return differing


def flatten(fields: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields (of `dataclasses.asdict`) by their full names: {"section.field": value}."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat.update(flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value})
    return flat
