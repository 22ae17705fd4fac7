"""StackGAN trained on clusters: streamed, exact on any number of ranks, and impossible to lose.

    import stackgan_dist

    generator = stackgan_dist.load("runs/demo")
    pictures = generator.generate("a small red bird", count=4)

docs/python.md goes through it. Importing it loads no torch: what needs that is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stackgan_dist.api.data_set import DataSet, Example, open_dataset
    from stackgan_dist.api.text_to_image import StagedImages, TextToImage, load
    from stackgan_dist.data.batch import Batch
    from stackgan_dist.errors import UserError
    from stackgan_dist.generation.grid import side_by_side

__version__ = "0.2.0.dev0"

__all__ = [
    "Batch",
    "DataSet",
    "Example",
    "StagedImages",
    "TextToImage",
    "UserError",
    "__version__",
    "load",
    "open_dataset",
    "side_by_side",
]

_MODULES = {
    "Batch": "data.batch",
    "DataSet": "api.data_set",
    "Example": "api.data_set",
    "StagedImages": "api.text_to_image",
    "TextToImage": "api.text_to_image",
    "UserError": "errors",
    "load": "api.text_to_image",
    "open_dataset": "api.data_set",
    "side_by_side": "generation.grid",
}
"""Where each name is, below the package (PEP 562)."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value  # asked for once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
