"""What decides scores besides the pictures, the captions and the networks that judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from stackgan_dist.ranges import Range


@dataclass(frozen=True)
class ScoreProtocol:
    """What decides the scores besides the run, the captions and the classifier."""

    samples: Annotated[int, Range(at_least=1)] = 30_000
    """The number of pictures to generate; the paper's is 30,000. Of pictures that are there already, at most so many
    are scored."""
    splits: Annotated[int, Range(at_least=1)] = 10
    """Inception Score: the samples are divided into this many consecutive parts; the score is the mean of theirs, its
    error their standard deviation."""
    kernel_samples: Annotated[int, Range(at_least=2)] = 5_000
    """KID: this many of the generated and of the real pictures are compared, or as many as there are; it bounds the
    memory."""
    kernel_block: Annotated[int, Range(at_least=2)] = 1_000
    """KID: this many pictures of either side are compared at a time; the distance is the mean over these blocks."""
    neighbour_samples: Annotated[int, Range(at_least=2)] = 10_000
    """Precision, recall, density, coverage, nearness to training pictures, CMMD and the extrapolated Frechet distance:
    this many pictures of each kind are compared, or as many as there are; it bounds the memory."""
    wrong_captions: Annotated[int, Range(at_least=1)] = 99
    """R-precision: this many sentences of other classes stand beside the picture's own one, or as many as there are."""
    wrong_pool: Annotated[int, Range(at_least=1)] = 1_000
    """R-precision: the wrong sentences are chosen among this many."""
    map_pictures: Annotated[int, Range(at_least=1)] = 10_000
    """R-precision: the map from features to texts is fitted to at most this many training pictures; the nearest
    training pictures are looked for among as many."""
    diversity_sentences: Annotated[int, Range(at_least=1)] = 50
    """Diversity: pictures of this many sentences are compared, and as many groups of real pictures of one class."""
    diversity_pictures: Annotated[int, Range(at_least=2)] = 8
    """Diversity: this many pictures of each sentence."""

    @property
    def compared(self) -> int:
        """Pictures of either side whose features are kept, to be compared one by one."""
        return max(self.kernel_samples, self.neighbour_samples)
