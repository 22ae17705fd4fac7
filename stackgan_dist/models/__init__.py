"""StackGAN's networks and those it is compared with, as plain modules: no files, no process groups, no logging.

`build_generator` and `build_discriminator` are the way in. The weights start from torch's global random numbers, so
seed them first.

A configuration needs none of torch, which takes seconds to load: the networks are loaded when they are asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from stackgan_dist.models.config import ModelConfig, Placement

if TYPE_CHECKING:
    from stackgan_dist.models.adversarial import AdversarialLoss, PairLoss, SlopePenalty
    from stackgan_dist.models.build import build_discriminator, build_generator
    from stackgan_dist.models.family import Discriminator, Family, Generator
    from stackgan_dist.models.outputs import Fakes, Judgement, Logits
    from stackgan_dist.models.stage1 import Stage1Generator
    from stackgan_dist.models.stage2 import Stage2Generator

__all__ = [
    "AdversarialLoss",
    "Discriminator",
    "Fakes",
    "Family",
    "Generator",
    "Judgement",
    "Logits",
    "ModelConfig",
    "PairLoss",
    "Placement",
    "SlopePenalty",
    "Stage1Generator",
    "Stage2Generator",
    "build_discriminator",
    "build_generator",
]

_MODULES = {
    **dict.fromkeys(("Fakes", "Judgement", "Logits"), "outputs"),
    **dict.fromkeys(("Discriminator", "Family", "Generator"), "family"),
    **dict.fromkeys(("AdversarialLoss", "PairLoss", "SlopePenalty"), "adversarial"),
    "Stage1Generator": "stage1",
    "Stage2Generator": "stage2",
}
"""Of those that are not in build.py."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'build')}"), name)
