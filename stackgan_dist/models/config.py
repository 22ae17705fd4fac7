"""What a network is made of: one frozen dataclass, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Final, Literal

from stackgan_dist.errors import UserError
from stackgan_dist.importable import is_importable, options_of
from stackgan_dist.ranges import Range, check_fields

RecipeName = Literal["paper", "pytorch"]
Stage = Literal[1, 2]
ImageSize = Literal[64, 128, 256]

Width = Annotated[int, Range(at_least=1, at_most=65_536)]
"""Channels of a layer, or dimensions of a vector; wider than any machine holds a network of, so that sizes add up."""

STAGE1_IMAGE_SIZE: Final = 64  # W0 = H0 in the paper: what Stage-II starts from

CUB_PARTS: Final = (
    "back", "beak", "belly", "breast", "crown", "forehead", "left eye", "left leg", "left wing", "nape", "right eye",
    "right leg", "right wing", "tail", "throat",
)  # fmt: skip
"""The parts that CUB-200-2011 locates, in its order."""


@dataclass(frozen=True)
class Placement:
    """What a network is conditioned on about where the object is, beside the text."""

    kind: Literal["box", "keypoints"]
    names: tuple[str, ...] = ()
    """Of the keypoints."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row: a box is (left, top, width, height), a keypoint (x, y, 1 if it is visible or else 0).

        All are fractions of the picture's side.
        """
        return (4,) if self.kind == "box" else (len(self.names), 3)


@dataclass(frozen=True)
class _Fixed:
    """What is fixed about a family; known without loading its networks, hence torch."""

    where: str
    """"module:class" of its Family (family.py)."""
    image_sizes: tuple[int, ...]
    narrowing: int | None
    """generator_width over the narrowest layer before the image; None where the configuration decides."""
    place: Literal["box", "keypoints"] | None = None


FAMILIES: Final = {
    "stackgan": _Fixed("stackgan_dist.models.stackgan:StackGAN", (64, 128, 256), narrowing=None),
    "gan-int-cls": _Fixed("stackgan_dist.models.baselines.gan_int_cls:GanIntCls", (64,), narrowing=1),
    "gawwn-box": _Fixed("stackgan_dist.models.baselines.gawwn:GawwnBox", (128,), narrowing=4, place="box"),
    "gawwn-keypoints": _Fixed(
        "stackgan_dist.models.baselines.gawwn:GawwnKeypoints", (128,), narrowing=1, place="keypoints"
    ),
    "df-gan": _Fixed("stackgan_dist.models.baselines.df_gan:DFGAN", (64, 128, 256), narrowing=1),
}
"""By the name that --model.family takes; it takes importable names beside these."""
_OWN: Final = _Fixed("", (64, 128, 256), narrowing=1)
"""Of a user's own family, whose networks check the rest."""

LOSSES: Final = {
    "non-saturating": "stackgan_dist.models.adversarial:NonSaturating",
    "hinge": "stackgan_dist.models.adversarial:Hinge",
    "matching-aware-hinge": "stackgan_dist.models.adversarial:MatchingAwareHinge",
}
"""Name that --training.loss takes -> "module:class" of an AdversarialLoss (adversarial.py); it takes importable names
beside these."""

_STACKGAN_ONLY = (
    "recipe", "stage", "residual_blocks", "detail_layer", "stage1_skip", "stage1_coarse",
    "conditioning_augmentation", "text_in_stage2", "text_every_layer", "noise_as_read",
)  # fmt: skip


@dataclass(frozen=True)
class ModelConfig:
    """The generator and the discriminator of one stage."""

    family: str = "stackgan"
    """stackgan, or another model (docs/baselines.md): gan-int-cls of 64 pixels; gawwn-box or gawwn-keypoints of 128,
    conditioned on where the object is; df-gan of any size. These have one stage and settings of their own: of those
    below they use the widths, condition_dim and noise_dim. MODULE:CLASS is a family of your own (docs/extending.md)."""

    options: tuple[str, ...] = ()
    """The options of a family of your own, as KEY=VALUE, with values as in TOML."""

    recipe: RecipeName = "paper"
    """paper is arXiv 1612.03242, and the authors' TensorFlow code where the paper is silent. pytorch is the authors'
    PyTorch code (their COCO results), except that sigma may be below 1."""

    stage: Stage = 1
    """1 makes a small image of a text. 2 makes a large one of that image and the text; Stage-I is frozen inside."""

    image_size: ImageSize = 64
    """The side of the images in pixels. Stage 2 starts from 64 pixels and makes 128 or 256."""

    generator_width: Width = 128
    """Gf, the channels that all others of the generator are multiples of (the authors' COCO setting: 192)."""

    discriminator_width: Width = 64
    """Df, the same for the discriminator (the authors' COCO setting: 96)."""

    condition_dim: Width = 128
    """The dimensions of the text condition c: Ng in the generator and Nd in the discriminator."""

    noise_dim: Width = 100
    """The dimensions of the noise z."""

    residual_blocks: Annotated[int, Range(at_least=1, at_most=1_000)] | None = None
    """The residual blocks of the Stage-II generator. None stands for 4 at 256 pixels and 2 at 128, as in the paper (the
    authors' COCO setting: 2). Stage 1 does not use it."""

    detail_layer: bool = False
    """Give the Stage-I generator of the recipe paper a last layer at the image's own resolution, as that of pytorch has
    and as its authors advise (hanzhanggit/StackGAN issue 10): clearer pictures for a little more time."""

    stage1_skip: bool = False
    """Let the Stage-II generator generate what the enlarged Stage-I image lacks and add it to that image, rather than
    generate all of it anew. Not in the paper (compare arXiv 1506.05751): what Stage-I has learned is there from the
    first step, which short runs need. Stage 1 does not use it."""

    stage1_coarse: Annotated[int, Range(at_least=1, at_most=STAGE1_IMAGE_SIZE)] | None = None
    """Let the Stage-II generator see the Stage-I image averaged to this many pixels a side; None shows it all 64. Not
    in the paper (compare the blurred conditions of cascades, arXiv 2106.15282): a coarse generated image and a coarse
    photograph look alike, so what G learns from pictures (--training.reconstruction-weight) holds for generated ones,
    and what is missing has to come from the text. Stage 1 does not use it."""

    conditioning_augmentation: bool = True
    """Draw c from N(mu, sigma) of the text. Without it c = mu and there is no KL term, the "no CA" of the paper's
    Table 2."""

    text_in_stage2: bool = True
    """Give the text to the Stage-II generator too. Without it that sees only the Stage-I image, the "no text twice" of
    Table 2. Stage 1 does not use it."""

    text_every_layer: bool = False
    """Let the scale and the shift of every batch normalisation of pictures in the generator depend on the text too
    (conditional batch normalisation, arXiv 1707.00683). It is not in the paper, whose generators read the text once:
    with it the parts of a bird take on their colours in half of the time. In Stage-II it is about Stage-II's own
    layers; the frozen Stage-I is what it was trained as."""

    noise_as_read: bool = False
    """Stage-I with --training.reading-weight: draw the noise z from what was read off real pictures of late, in
    training and ever after, not from N(0, 1) (the aggregate posterior of arXiv 1511.05644). It is not in the paper;
    without it many a z lies where nothing was read, and birds have two heads there. A Stage-II takes it over with its
    Stage-I."""

    keypoints: tuple[str, ...] = ()
    """For gawwn-keypoints: the names of the parts, as they are in the shards; others there are ignored. None given
    stands for the 15 of CUB."""

    def __post_init__(self) -> None:
        """Raises UserError for combinations that have no network."""
        for field in ("keypoints", "options"):
            object.__setattr__(self, field, tuple(getattr(self, field)))  # JSON has lists
        check_fields(self, "--model.")
        if self.family not in FAMILIES and not self.is_own:
            raise UserError(
                f"--model.family is {self.family!r}, it must be one of {', '.join(FAMILIES)}, or your own as "
                "MODULE:CLASS (docs/extending.md)"
            )
        if self.options and not self.is_own:
            raise UserError(f"--model.options are for families of your own, this is {self.family}; leave them out")
        options_of(self.options, "--model.options")
        if self.keypoints and self.family != "gawwn-keypoints":
            raise UserError(
                f"--model.keypoints are for the family gawwn-keypoints, this is {self.family}; leave them out"
            )
        if self.family != "stackgan":
            self._check_other_family()
        if self.stage == 2 and self.image_size == STAGE1_IMAGE_SIZE:
            raise UserError(
                f"--model.stage 2 was asked for images of {self.image_size} pixels, the size it starts from; set "
                "--model.image-size to 128 or 256"
            )
        if self.stage == 2 and self.text_every_layer and not self.text_in_stage2:
            raise UserError(
                "--model.text-every-layer gives Stage-II the text that --model.no-text-in-stage2 withholds; leave one "
                "of them out"
            )
        if self.stage == 2 and self.noise_as_read:
            raise UserError(
                "--model.noise-as-read is Stage-I's, which starts from noise; a Stage-II takes it over with its "
                "Stage-I: leave it out"
            )
        if self.generator_width % (step := self._narrowing()):
            kind = f"{self.recipe} stage-{self.stage}" if self.family == "stackgan" else self.family
            raise UserError(
                f"--model.generator-width is {self.generator_width}; a {kind} generator of "
                f"{self.image_size} pixels halves it down to 1/{step}, so make it a multiple of {step}"
            )

    def _check_other_family(self) -> None:
        defaults = {field.name: field.default for field in fields(self)}
        for field in _STACKGAN_ONLY:
            if (found := getattr(self, field)) != defaults[field]:
                flag = f"--model.{field.replace('_', '-')}"
                raise UserError(f"{flag} is {found!r}, but it is StackGAN's and {self.family} has none; leave it out")
        sizes = self._fixed.image_sizes
        if self.image_size not in sizes:
            raise UserError(
                f"--model.image-size is {self.image_size}, but {self.family} makes images of {sizes[0]} pixels; "
                f"set it to {sizes[0]}"
            )

    def _narrowing(self) -> int:
        """generator_width over the narrowest layer before the image (1 where no layer is narrower)."""
        if (narrowing := self._fixed.narrowing) is not None:
            return narrowing
        if self.stage == 1 and self.recipe == "paper":
            return max(1, self.image_size // 64 * (2 if self.detail_layer else 1))
        if self.stage == 1:
            return self.image_size // 32
        return self.image_size // 64

    @property
    def _fixed(self) -> _Fixed:
        return FAMILIES.get(self.family, _OWN)

    @property
    def is_own(self) -> bool:
        """Whether the family is a user's own, by its importable name."""
        return is_importable(self.family)

    @property
    def title(self) -> str:
        """What a run of it is called in its status lines."""
        return f"stage-{'I' * self.stage}" if self.family == "stackgan" else self.family

    @property
    def augmentations(self) -> int:
        """How many conditioning augmentations draw noise for a picture; one's own families may use one or not."""
        return self.stage if self.family == "stackgan" else int(self.is_own)

    @property
    def placement(self) -> Placement | None:
        """What the networks are conditioned on beside the text; None: nothing."""
        kind = self._fixed.place
        if kind is None:
            return None
        return Placement(kind, (self.keypoints or CUB_PARTS) if kind == "keypoints" else ())

    @property
    def stage2_residual_blocks(self) -> int:
        """residual_blocks with the paper's number for None."""
        if self.residual_blocks is not None:
            return self.residual_blocks
        return 4 if self.image_size == 256 else 2

    @property
    def discriminator_features(self) -> int:
        """How many numbers StackGAN's discriminator has of a picture before it reads the text."""
        return 8 * self.discriminator_width * 4 * 4

    @property
    def discriminator_halvings(self) -> int:
        """How many stride-2 convolutions lead from the image to 4x4."""
        return (self.image_size // 4).bit_length() - 1
