"""What a joint embedding is learned from, once: frozen features of all pictures, and all captions.

Ranks share the work by whole batches; every rank then holds all of it. Features are kept in a file, named by all that
decides them, so that other trainings and restarts need no picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stackgan_dist.classifiers.classifier import NetworkClassifier
from stackgan_dist.classifiers.labelled_pictures import LabelledPictures
from stackgan_dist.data.captions import CaptionSet
from stackgan_dist.data.dataset import PackedSet
from stackgan_dist.distributed.collectives import sum_over_ranks, with_progress
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.errors import RankError, UserError
from stackgan_dist.runs.cached import kept_or_made
from stackgan_dist.storage.files import join
from stackgan_dist.text import SentenceError, TextEncoder
from stackgan_dist.text.char_cnn_rnn import spell

_PICTURES_AT_ONCE = 32


@dataclass(frozen=True)
class Pictures:
    """All pictures of a set, in the order of its shards."""

    features: Tensor
    """(P, views, width), float32, on the CPU."""
    labels: NDArray[np.int64]
    """(P,): place of each one's class among the index's."""


class _Texts(NamedTuple):
    numbers: Tensor
    embeddings: Tensor


def look_at_pictures(
    packed: PackedSet, image_size: int, views: int, seed: int, classifier: NetworkClassifier, folder: str, ranks: Ranks
) -> Pictures:
    """The features of `views` views of every picture (its middle, then crops at random, some mirrored).

    They are taken from a file below `folder` where they have been computed before, and put there otherwise.
    """
    identity = {
        "data_digest": packed.index.digest,
        "image_size": image_size,
        "views": views,
        "seed": seed,
        "classifier_sha256": classifier.weights_sha256,
    }

    def look() -> dict[str, Tensor]:
        return _look(packed, image_size, views, seed, classifier, ranks)

    found = kept_or_made(join(folder, "image-features"), identity, look, ranks)
    return Pictures(found["features"], found["labels"].numpy())


def _look(
    packed: PackedSet, image_size: int, views: int, seed: int, classifier: NetworkClassifier, ranks: Ranks
) -> dict[str, Tensor]:
    pictures = LabelledPictures(packed.captions(), image_size, _PICTURES_AT_ONCE, 0.0, seed)
    features = torch.zeros(len(pictures), views, classifier.feature_width)
    labels = torch.zeros(len(pictures), dtype=torch.int64)
    batches = pictures.views(views, ranks.rank, ranks.world_size)
    title = f"{packed.index.split} pictures"
    seen = torch.zeros(len(pictures), dtype=torch.int64)
    for batch in with_progress(batches, title, len(pictures) * views, ranks):
        features[batch.numbers, seen[batch.numbers]] = classifier.features(batch.images).cpu()
        labels[batch.numbers] = batch.labels
        seen[batch.numbers] += 1
    sum_over_ranks(features, ranks)
    sum_over_ranks(labels, ranks)
    if not features.isfinite().all():
        raise UserError("the classifier gave NaN or Inf for some pictures: its weights are damaged")
    return {"features": features, "labels": labels}


def spelled_captions(packed: PackedSet) -> Tensor:
    """All captions as characters, (P, captions, LENGTH), uint8. Raises SentenceError for one without any."""
    captions = packed.captions()
    return torch.from_numpy(np.stack([spell(captions.texts(number)[0]) for number in range(len(captions))]))


def embedded_captions(packed: PackedSet, encoder: TextEncoder, ranks: Ranks) -> Tensor:
    """All captions by `encoder`, (P, captions, dim), float32: as they were packed, if by this encoder."""
    captions = packed.captions()
    whole = torch.zeros(len(captions), captions.index.captions_per_image, encoder.dim)
    batches = _encoded(captions, encoder, ranks)
    for batch in with_progress(batches, f"captions of {captions.index.split} pictures", len(captions), ranks):
        whole[batch.numbers] = batch.embeddings
    sum_over_ranks(whole, ranks)
    return whole


def _encoded(captions: CaptionSet, encoder: TextEncoder, ranks: Ranks) -> Iterator[_Texts]:
    for begin in range(ranks.rank * _PICTURES_AT_ONCE, len(captions), ranks.world_size * _PICTURES_AT_ONCE):
        numbers = range(begin, min(begin + _PICTURES_AT_ONCE, len(captions)))
        texts = [captions.texts(number) for number in numbers]
        if captions.index.text_encoder == encoder.name:
            rows = np.stack([embeddings for _, embeddings in texts])
        else:
            try:
                rows = encoder.encode([sentence for sentences, _ in texts for sentence in sentences])
            except SentenceError as error:
                raise RankError(f"{captions.index.name}: {error}") from error
        yield _Texts(torch.tensor(numbers), torch.from_numpy(rows).reshape(len(texts), -1, encoder.dim))
