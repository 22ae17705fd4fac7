"""What a text encoder is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.errors import UserError


class SentenceError(UserError):
    """A sentence that an encoder cannot encode."""


class SentenceEncoder(Protocol):
    """What a text encoder of a user's own has to have."""

    dim: int
    """Width of an embedding."""

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings (len(sentences), dim), float32, of mean square 1 per entry; batches internally.

        A sentence has the same embedding whatever others it comes with. Raises SentenceError for a sentence that it
        cannot encode.
        """
        ...


class TextEncoder(SentenceEncoder, Protocol):
    """A frozen sentence encoder."""

    name: str
    """Its identity, written into the index of every data set that it encodes: the registry's name, one with the digest
    of a trained encoder's file or folder (hf-NAME-DIGEST), or MODULE:CLASS of a user's own."""
