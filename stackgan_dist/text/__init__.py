"""Text encoders: sentences in, embeddings out. The index of a data set names the one that made its embeddings."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.errors import UserError


class TextEncoder(Protocol):
    """A frozen sentence encoder."""

    name: str
    """The registry's name for it; written into the index of every data set that it encodes."""
    dim: int
    """Width of an embedding."""

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings (len(sentences), dim), float32, of mean square 1 per entry; batches internally."""
        ...


ENCODERS = {
    "ngrams": "stackgan_dist.text.ngrams:NgramEncoder",
    "minilm": "stackgan_dist.text.minilm:MiniLMEncoder",
}
"""Name -> "module:class"; the class is called without arguments."""


def load_encoder(name: str) -> TextEncoder:
    """The encoder called `name`; UserError when it is unknown or its extra is not installed."""
    if name not in ENCODERS:
        raise UserError(f"unknown text encoder {name!r}; known encoders: {', '.join(ENCODERS)}")
    module, _, attribute = ENCODERS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)()
