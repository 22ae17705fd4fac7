"""A text encoder of one's own: counts of letter pairs under a fixed random projection.

PYTHONPATH=examples stackgan pack painted --encoder own_encoder:LetterPairs --sizes 76 --out data/pairs
stackgan train --data.url data/pairs --preset demo-stage1
STACKGAN_ALLOW=own_encoder PYTHONPATH=examples stackgan generate runs/demo/stage1 "a small red bird"
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.text import SentenceError


class LetterPairs:
    """See stackgan_dist.text.SentenceEncoder."""

    dim = 64
    _BUCKETS = 1024

    def __init__(self) -> None:
        self._projection = np.random.default_rng(0).standard_normal((self._BUCKETS, self.dim))

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings (len(sentences), dim) of mean square 1; each depends on its own sentence alone."""
        counts = np.zeros((len(sentences), self._BUCKETS))
        for row, sentence in enumerate(sentences):
            for pair in pairwise(sentence.lower()):
                counts[row, zlib.crc32("".join(pair).encode()) % self._BUCKETS] += 1
            if not counts[row].any():
                raise SentenceError(f"the sentence {sentence!r} has fewer than two letters; give one that describes")
        projected = counts @ self._projection
        scale: NDArray[np.float32] = np.sqrt(np.mean(np.square(projected), axis=1, keepdims=True))
        return (projected / scale).astype(np.float32)
