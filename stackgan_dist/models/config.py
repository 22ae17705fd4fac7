"""What a StackGAN network is made of: one frozen dataclass, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from stackgan_dist.errors import UserError

Recipe = Literal["paper", "pytorch"]
Stage = Literal[1, 2]
ImageSize = Literal[64, 128, 256]

STAGE1_IMAGE_SIZE: Final = 64  # W0 = H0 in the paper: what Stage-II starts from


@dataclass(frozen=True)
class ModelConfig:
    """The generator and the discriminator of one stage.

    Raises UserError for combinations that have no network.
    """

    recipe: Recipe = "paper"
    """`paper`: arXiv 1612.03242, and the authors' TensorFlow code where the paper is silent. `pytorch`: the
    authors' PyTorch code (their COCO results), except that sigma may be below 1."""

    stage: Stage = 1
    """1: text to a small image. 2: that image and the text again to a large one; Stage-I is frozen inside."""

    image_size: ImageSize = 64
    """Side of the images in pixels. Stage 2 starts from 64 pixels and makes 128 or 256."""

    generator_width: int = 128
    """Gf, the channels that all others of the generator are multiples of (the authors' COCO setting: 192)."""

    discriminator_width: int = 64
    """Df, the same for the discriminator (the authors' COCO setting: 96)."""

    condition_dim: int = 128
    """Dimensions of the text condition c: Ng in the generator and Nd in the discriminator."""

    noise_dim: int = 100
    """Dimensions of the noise z."""

    residual_blocks: int | None = None
    """Residual blocks of the Stage-II generator. None: 4 for 256 pixels, 2 for 128, as in the paper (the authors'
    COCO setting: 2). Stage 1 does not use it."""

    detail_layer: bool = False
    """Give the `paper` Stage-I generator a last layer at the image's own resolution, as `pytorch` has and as its
    authors advise (hanzhanggit/StackGAN issue 10): clearer pictures for a little more time."""

    stage1_skip: bool = False
    """Let the Stage-II generator draw what the enlarged Stage-I image lacks and add it to that image, rather than draw
    all of it anew. Not in the paper (compare arXiv 1506.05751): what Stage-I has learned is there from the first step,
    which short runs need. Stage 1 does not use it."""

    conditioning_augmentation: bool = True
    """Draw c from N(mu, sigma) of the text. False: c = mu and no KL term, the "no CA" of the paper's Table 2."""

    text_in_stage2: bool = True
    """Give the text to the Stage-II generator too. False: it sees only the Stage-I image, the "no text twice" of
    Table 2. Stage 1 does not use it."""

    def __post_init__(self) -> None:
        for field, allowed in (
            ("recipe", get_args(Recipe)),
            ("stage", get_args(Stage)),
            ("image_size", get_args(ImageSize)),
        ):
            if (found := getattr(self, field)) not in allowed:
                raise UserError(f"{field} is {found!r}; choose one of {', '.join(map(str, allowed))}")
        for field in ("generator_width", "discriminator_width", "condition_dim", "noise_dim"):
            if (found := getattr(self, field)) < 1:
                raise UserError(f"{field} is {found}; it needs to be at least 1")
        if self.residual_blocks is not None and self.residual_blocks < 1:
            raise UserError(
                f"residual_blocks is {self.residual_blocks}; it needs to be at least 1, or leave it out for the "
                "paper's number"
            )
        if self.stage == 2 and self.image_size == STAGE1_IMAGE_SIZE:
            raise UserError(
                f"stage 2 was asked for images of {self.image_size} pixels, the size it starts from; set "
                "image_size to 128 or 256"
            )
        if self.generator_width % (step := self._narrowing()):
            raise UserError(
                f"generator_width is {self.generator_width}; a {self.recipe} stage-{self.stage} generator of "
                f"{self.image_size} pixels halves it down to 1/{step}, so make it a multiple of {step}"
            )

    def _narrowing(self) -> int:
        """generator_width over the narrowest layer before the image (1 where no layer is narrower)."""
        if self.stage == 1 and self.recipe == "paper":
            return max(1, self.image_size // 64)
        if self.stage == 1:
            return self.image_size // 32
        return self.image_size // 64

    @property
    def stage2_residual_blocks(self) -> int:
        """residual_blocks with the paper's number for None."""
        if self.residual_blocks is not None:
            return self.residual_blocks
        return 4 if self.image_size == 256 else 2

    @property
    def discriminator_halvings(self) -> int:
        """How many stride-2 convolutions lead from the image to 4x4."""
        return (self.image_size // 4).bit_length() - 1
