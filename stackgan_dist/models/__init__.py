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
    from stackgan_dist.models.build import Discriminator, Generator, build_discriminator, build_generator
    from stackgan_dist.models.outputs import Fakes, Logits
    from stackgan_dist.models.stage1 import Stage1Generator
    from stackgan_dist.models.stage2 import Stage2Generator

__all__ = [
    "Discriminator",
    "Fakes",
    "Generator",
    "Logits",
    "ModelConfig",
    "Placement",
    "Stage1Generator",
    "Stage2Generator",
    "build_discriminator",
    "build_generator",
]

_MODULES = {"Fakes": "outputs", "Logits": "outputs", "Stage1Generator": "stage1", "Stage2Generator": "stage2"}
"""Of those that are not in build.py."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'build')}"), name)
