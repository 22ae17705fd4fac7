"""Text encoders: sentences in, embeddings out. The index of a data set names the one that made its embeddings."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.errors import UserError

PUBLISHED = "published"
"""In place of an encoder's name: the embeddings that a data set's publisher gives."""


class SentenceError(UserError):
    """A sentence that an encoder cannot encode."""


class TextEncoder(Protocol):
    """A frozen sentence encoder."""

    name: str
    """The registry's name for it; written into the index of every data set that it encodes."""
    dim: int
    """Width of an embedding."""

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings (len(sentences), dim), float32, of mean square 1 per entry; batches internally.

        Raises SentenceError for a sentence that it cannot encode.
        """
        ...


ENCODERS = {
    "ngrams": "stackgan_dist.text.ngrams:NgramEncoder",
    "minilm": "stackgan_dist.text.minilm:MiniLMEncoder",
}
"""Name -> "module:class"; the class is called without arguments."""


def check_encoder(name: str) -> None:
    """Raises UserError when no encoder is called `name`."""
    if name == PUBLISHED:
        raise UserError(
            "the embeddings of this data set were published without an encoder for other sentences; to draw new "
            "sentences, pack it with --encoder minilm and train on that"
        )
    if name not in ENCODERS:
        raise UserError(f"unknown text encoder {name!r}; known encoders: {', '.join(ENCODERS)}")


def load_encoder(name: str) -> TextEncoder:
    """The encoder called `name`; UserError when it is unknown, or what it needs is not there."""
    check_encoder(name)
    module, _, attribute = ENCODERS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)()
