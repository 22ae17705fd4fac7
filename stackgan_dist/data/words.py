"""The words of the captions that a generator was trained on: a sentence without any of them is foreign to it.

A training leaves them in words.txt in its run's folder, a word a line; runs of older versions have none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from stackgan_dist.data.dataset import PackedSet
from stackgan_dist.data.shard import OpenShards
from stackgan_dist.text.ngrams import SMALL_WORDS

WORDS_NAME = "words.txt"
_PICTURES = 10_000
"""At most, since of a remote set every shard that is read for it may have to be fetched."""
_WITHOUT_BLANKS = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
"""Letters of scripts that put no blanks between words: each counts as a word."""


def words_of(sentence: str) -> set[str]:
    """The words that say something, without regard to case."""
    words: set[str] = set()
    for token in re.findall(r"\w+", sentence.casefold()):
        letters = _WITHOUT_BLANKS.findall(token)
        words.update(letters or [token])
    return words - SMALL_WORDS


def words_of_captions(data: PackedSet) -> list[str]:
    """Those of the captions of a data set, sorted; of a large one those of its first shards."""
    words: set[str] = set()
    shards, pictures = OpenShards(data.index, data.cache(), keep=1), 0
    for number in range(len(data.index.shards)):
        if pictures >= _PICTURES:
            break
        reader = shards[number]
        for sample in range(len(reader.keys)):
            for caption in reader.meta(sample)["captions"]:
                words |= words_of(caption)
        pictures += len(reader.keys)
    shards.close()
    return sorted(words)


def foreign(sentences: Iterable[str], known: frozenset[str]) -> list[str]:
    """Those of the sentences that have words, but none of the `known` ones."""
    return [sentence for sentence in sentences if (words := words_of(sentence)) and not words & known]
