"""The networks of a configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from stackgan_dist.errors import UserError
from stackgan_dist.importable import describe_failure, known_part, make_part, options_of
from stackgan_dist.models.config import FAMILIES, ModelConfig
from stackgan_dist.models.family import Discriminator, Family, Generator
from stackgan_dist.models.stackgan import StackGAN

N = TypeVar("N", bound=nn.Module)


def open_family(config: ModelConfig) -> Family:
    """The family of `config`; UserError where a user's own cannot be imported, or does not take its options."""
    if config.is_own:
        own: Family = make_part(
            config.family, Family, "--model.family", **options_of(config.options, "--model.options")
        )
        return own
    known: Family = known_part(FAMILIES[config.family].where)()
    return known


def build_generator(config: ModelConfig, text_dim: int, stage1_config: ModelConfig | None = None) -> Generator:
    """The generator of `config` for text embeddings of `text_dim`, with fresh weights.

    `stage1_config` says what the frozen Stage-I inside a Stage-II generator is made of, normally what it was trained
    with; None takes the same settings as `config`. Its weights are fresh too: load trained ones into `.stage1`.

    Raises UserError where the two stages cannot share their noise, or a user's own family makes no generator.
    """
    family = open_family(config)
    if isinstance(family, StackGAN):
        return family.generator(config, text_dim, stage1_config)
    return _built(lambda: family.generator(config, text_dim), Generator, config)


def build_discriminator(config: ModelConfig, text_dim: int) -> Discriminator:
    """The discriminator of `config` for text embeddings of `text_dim`, with fresh weights."""
    return _built(lambda: open_family(config).discriminator(config, text_dim), Discriminator, config)


def _built(build: Callable[[], N], kind: type[N], config: ModelConfig) -> N:
    """What `build` makes, which has to be of `kind` where the family is a user's own."""
    if not config.is_own:
        return build()
    what = kind.__name__.lower()
    try:
        network = build()
    except UserError:
        raise
    except Exception as error:  # whatever is wrong in it is the user's to mend
        raise UserError(f"{config.family} cannot make its {what}: {describe_failure(error)}") from error
    if not isinstance(network, kind):
        raise UserError(
            f"{config.family}.{what} made a {type(network).__name__}; it must be a {kind.__name__}, as "
            "stackgan_dist.models has it (docs/extending.md)"
        )
    return network
