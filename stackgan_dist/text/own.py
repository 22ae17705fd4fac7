"""A text encoder of a user's own, by importable name; what it returns is checked, since nothing else would notice."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.errors import UserError
from stackgan_dist.importable import describe_failure, make_part
from stackgan_dist.text.protocol import SentenceEncoder

_UNIT = 0.05
"""How far the mean square of an entry may be from 1: as far as rounding to half precision does not reach."""


class OwnEncoder:
    """The encoder that `encoder`, called `name` as MODULE:CLASS, is to the rest of the package; see TextEncoder."""

    def __init__(self, name: str, encoder: SentenceEncoder) -> None:
        if isinstance(encoder.dim, bool) or not isinstance(encoder.dim, int) or encoder.dim < 1:
            raise UserError(f"the text encoder {name} has dim {encoder.dim!r}; it must be a whole number from 1 on")
        self.name, self.dim = name, encoder.dim
        self._encoder = encoder

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """See TextEncoder. Raises UserError where the user's code fails, or returns something else."""
        try:
            embeddings = np.asarray(self._encoder.encode(sentences), dtype=np.float32)
        except UserError:
            raise
        except Exception as error:  # whatever is wrong in it is the user's to mend
            raise UserError(f"the text encoder {self.name} failed: {describe_failure(error)}") from error
        if embeddings.shape != (needed := (len(sentences), self.dim)):
            raise UserError(
                f"the text encoder {self.name} made an array of shape {embeddings.shape} of {len(sentences)} "
                f"sentences; with its dim of {self.dim} it must be {needed}"
            )
        squares = np.square(embeddings).mean(axis=1)
        if wrong := [float(square) for square in squares if not abs(square - 1) <= _UNIT]:  # NaN is wrong too
            raise UserError(
                f"the text encoder {self.name} made an embedding whose entries have a mean square of {wrong[0]:.3g}; "
                "it must be 1, so that networks of any width start alike: multiply a unit vector by the root of dim"
            )
        return embeddings


@functools.cache
def own_encoder(name: str) -> OwnEncoder:
    """The encoder MODULE:CLASS, which is called without arguments; UserError when there is none."""
    return OwnEncoder(name, make_part(name, SentenceEncoder, "the text encoder"))
