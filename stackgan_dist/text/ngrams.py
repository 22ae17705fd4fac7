"""Hashed n-grams: a text encoder without weights, downloads or dependencies, the same on every machine.

A sentence is cut into phrases; every content word, and every pair of content words that stand close together in a
phrase, is hashed to a fixed Gaussian vector, and the vectors are added (random indexing, Kanerva et al. 2000). The
pairs are what binds "yellow" to "belly". It knows nothing of meaning: for captions of a small vocabulary it does,
for people's captions use "minilm".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.randomness import normal
from stackgan_dist.text import SentenceError

_PHRASE_ENDS = frozenset(("and", "but", "or", "with", "while", "whose", "that", "which", "has", "have", "it", "its"))
_ARTICLES_AND_FORMS_OF_BE = ("a", "an", "the", "this", "these", "those", "is", "are", "was", "were", "be", "being")
_SMALL_WORDS = ("of", "in", "on", "at", "to", "for", "from", "by", "as", "very")
_STOP_WORDS = frozenset((*_ARTICLES_AND_FORMS_OF_BE, *_SMALL_WORDS))
SMALL_WORDS = _STOP_WORDS | _PHRASE_ENDS
"""English words that say nothing of a picture by themselves."""
_TOKEN = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[.,;:!?()]")

_PAIR_REACH = 3
"""How many content words apart the words of a pair may be: 2 in "a bird on a wire is red"."""
_PAIR_WEIGHT = 2.0
"""A pair against a single word: what a part looks like says more than which words occur."""


class NgramEncoder:
    """The encoder "ngrams". Instances hold no state but a cache of feature vectors."""

    name = "ngrams"
    dim = 256

    def __init__(self) -> None:
        self._vectors: dict[str, NDArray[np.float32]] = {}

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings (len(sentences), dim), float32, of mean square 1 per entry.

        "Yellow belly" and "its bellies are yellow" give the same features. Raises SentenceError for a sentence without
        a single content word.
        """
        result = np.empty((len(sentences), self.dim), dtype=np.float32)
        for row, sentence in enumerate(sentences):
            total = np.zeros(self.dim, dtype=np.float32)
            for feature, weight in _features(sentence):
                total += weight * self._vector(feature)
            scale = float(np.sqrt(np.mean(np.square(total))))
            if scale == 0.0:
                raise SentenceError(
                    f"the sentence {sentence!r} has no word to encode; give one that describes a picture, "
                    'e.g. "a red bird with a yellow belly"'
                )
            result[row] = total / scale
        return result

    def _vector(self, feature: str) -> NDArray[np.float32]:
        if feature not in self._vectors:
            number = int.from_bytes(blake2b(feature.encode(), digest_size=8).digest(), "little")
            self._vectors[feature] = normal(np.uint64(number), np.arange(self.dim)).astype(np.float32)
        return self._vectors[feature]


def _features(sentence: str) -> Iterator[tuple[str, float]]:
    for phrase in _phrases(sentence):
        for place, word in enumerate(phrase):
            yield word, 1.0
            for other in phrase[place + 1 : place + 1 + _PAIR_REACH]:
                # Unordered, so that "white wings" and "its wings are white" agree.
                yield "+".join(sorted((word, other))), _PAIR_WEIGHT


def _phrases(sentence: str) -> Iterator[list[str]]:
    phrase: list[str] = []
    for token in _TOKEN.findall(sentence.lower()):
        if token in _PHRASE_ENDS or not token[0].isalnum():
            yield phrase
            phrase = []
        elif token not in _STOP_WORDS:
            phrase.append(_singular(token))
    yield phrase


def _singular(word: str) -> str:
    """`word` without the plural's ending: wings, bellies, bunches; not grass, iris, crocus."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
