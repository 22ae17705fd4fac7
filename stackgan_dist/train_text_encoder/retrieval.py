"""Zero-shot retrieval and classification of held-out classes (Reed et al., arXiv 1605.05395, section 5).

Pure arithmetic on embeddings of pictures and captions; the score of a pair is their product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_AT = 50
_CAPTIONS_AT_ONCE = 4096


@dataclass(frozen=True)
class Retrieval:
    """Shares in [0, 1]; each `chance` is what an order at random reaches on average."""

    ap_at_50: float
    """AP@50: a class is asked for by the mean embedding of all its captions; the share of the 50 best pictures (of all,
    where there are fewer) that are of the class, averaged over classes."""
    ap_at_50_chance: float
    r_at_1: float
    """R@1: share of the single captions whose best picture is of the class of the caption's own picture."""
    r_at_1_chance: float
    r_at_1_own: float
    """Share of the single captions whose best picture is their very own."""
    r_at_1_own_chance: float
    classification: float
    """Share of the pictures whose best class, by the classes' mean captions, is their own, averaged over classes."""
    classification_chance: float

    def lines(self) -> list[str]:
        """The report, a measure a line."""
        rows = (
            ("AP@50, a class by its mean caption", self.ap_at_50, self.ap_at_50_chance),
            ("R@1, a picture of the class by one caption", self.r_at_1, self.r_at_1_chance),
            ("R@1, the very picture by one caption", self.r_at_1_own, self.r_at_1_own_chance),
            ("zero-shot classification of pictures", self.classification, self.classification_chance),
        )
        return [f"{name:<44}{value:7.2%}   (chance {chance:.2%})" for name, value, chance in rows]


def retrieval(images: NDArray[np.float32], labels: NDArray[np.int64], texts: NDArray[np.float32]) -> Retrieval:
    """How well texts find pictures.

    Args:
        images: (P, dim).
        labels: class of every picture, (P,).
        texts: captions of every picture, (P, captions, dim).
    """
    classes, own_class, counts = np.unique(labels, return_inverse=True, return_counts=True)
    of_class = [own_class == number for number in range(len(classes))]
    queries = np.stack([texts[rows].mean(axis=(0, 1), dtype=np.float64) for rows in of_class])
    scores = images.astype(np.float64) @ queries.T  # (P, classes)
    best = np.argsort(-scores, axis=0, kind="stable")[:_AT]
    found = own_class[best] == np.arange(len(classes))
    right = scores.argmax(axis=1) == own_class

    captions = texts.reshape(-1, texts.shape[2])
    own_picture = np.repeat(np.arange(len(images)), texts.shape[1])
    first = np.concatenate(
        [
            (captions[begin : begin + _CAPTIONS_AT_ONCE] @ images.T).argmax(axis=1)
            for begin in range(0, len(captions), _CAPTIONS_AT_ONCE)
        ]
    )
    share = counts / len(labels)
    return Retrieval(
        ap_at_50=float(found.mean()),
        ap_at_50_chance=float(share.mean()),
        r_at_1=float((own_class[first] == own_class[own_picture]).mean()),
        r_at_1_chance=float(np.square(share).sum()),
        r_at_1_own=float((first == own_picture).mean()),
        r_at_1_own_chance=1 / len(images),
        classification=float(np.mean([right[rows].mean() for rows in of_class])),
        classification_chance=1 / len(classes),
    )
