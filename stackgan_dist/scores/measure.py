"""All scores of a run: Inception Score, Frechet distance, kernel distance, R-precision and diversity.

Generating is what a score costs, so every picture is generated once and measured four ways; diversity alone takes
pictures of its own, some of each sentence. The sums of the real
pictures are made once and serve every checkpoint. Ranks add what they have; any number of them gives the same scores.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from stackgan_dist.classifiers.classifier import Classifier
from stackgan_dist.data.dataset import PackedSet
from stackgan_dist.data.pictures import RealPictures, noise_pictures
from stackgan_dist.distributed.collectives import sum_over_ranks, with_progress
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.generation.generate import GeneratedBatch
from stackgan_dist.ranges import Range
from stackgan_dist.runs.cached import cached_or_made
from stackgan_dist.scores.diversity import DiversitySums, diversity_of_generated, diversity_of_real
from stackgan_dist.scores.frechet import FrechetSums, frechet_distance
from stackgan_dist.scores.inception import InceptionScore, InceptionScoreSums
from stackgan_dist.scores.kernel import FirstFeatures, KernelDistance, squared_discrepancy
from stackgan_dist.scores.overlap import made_ahead
from stackgan_dist.scores.r_precision import Candidates, TextMap, TextMapSums, candidate_captions
from stackgan_dist.scores.subject import OpenSubject

ROWS = ("inception", "frechet", "kernel", "r precision", "diversity")
"""The scores in the order of their rows in scores.jsonl."""
NOISE_PICTURES = 200
"""At most so many pictures of noise are scored; they are all alike to a classifier."""


@dataclass(frozen=True)
class ScoreProtocol:
    """What decides the scores besides the run, the captions and the classifier."""

    samples: Annotated[int, Range(at_least=1)] = 30_000
    """The number of pictures to generate; the paper's is 30,000."""
    splits: Annotated[int, Range(at_least=1)] = 10
    """Inception Score: the samples are divided into this many consecutive parts; the score is the mean of theirs, its
    error their standard deviation."""
    kernel_samples: Annotated[int, Range(at_least=2)] = 5_000
    """KID: this many of the generated and of the real pictures are compared, or as many as there are; it bounds the
    memory."""
    kernel_block: Annotated[int, Range(at_least=2)] = 1_000
    """KID: this many pictures of either side are compared at a time; the distance is the mean over these blocks."""
    wrong_captions: Annotated[int, Range(at_least=1)] = 99
    """R-precision: this many sentences of other classes stand beside the picture's own one."""
    wrong_pool: Annotated[int, Range(at_least=1)] = 1_000
    """R-precision: the wrong sentences are chosen among this many."""
    map_pictures: Annotated[int, Range(at_least=1)] = 10_000
    """R-precision: the map from features to texts is fitted to at most this many training pictures."""
    diversity_sentences: Annotated[int, Range(at_least=1)] = 50
    """Diversity: pictures of this many sentences are compared, and as many groups of real pictures of one class."""
    diversity_pictures: Annotated[int, Range(at_least=2)] = 8
    """Diversity: this many pictures of each sentence."""


@dataclass(frozen=True)
class Scores:
    """The scores of one checkpoint, and what real pictures of the same captions' split, and noise, reach."""

    inception: InceptionScore
    inception_of_real: InceptionScore
    """Of fewer pictures, as a rule, which makes it lower than that of as many would be."""
    inception_of_noise: InceptionScore
    """Of pictures of uniform noise: the score's lower end."""
    frechet: float
    """Frechet distance of the generated pictures from the real ones: FID, when the classifier is the FID network."""
    frechet_pictures: int
    """Real pictures; the samples are the other side."""
    kernel: KernelDistance
    r_precision: float
    """Share of pictures that are nearest to their own sentence."""
    r_precision_of_real: float
    """The same of the real pictures: the most that can be expected."""
    diversity: float
    """How much the pictures of one sentence differ, see DiversitySums."""
    diversity_of_real: float | None
    """The same of real pictures of one class; None where too few are of one."""

    def named(self) -> dict[str, float]:
        """The numbers to plot, by name."""
        return {
            "inception": self.inception.mean,
            "frechet": self.frechet,
            "kernel": self.kernel.mean,
            "r_precision": self.r_precision,
            "diversity": self.diversity,
        }


class GeneratedSums:
    """All that is kept of generated pictures, however many they are.

    Args:
        protocol: how many they will be.
        classifier: what to measure with.
        candidates: sentences to choose wrong ones from.
        text_map: from the classifier's features to texts.
        kept: pictures whose features are kept, for KID.
    """

    def __init__(
        self, protocol: ScoreProtocol, classifier: Classifier, candidates: Candidates, text_map: TextMap, kept: int
    ) -> None:
        self._classifier, self._candidates, self._text_map = classifier, candidates, text_map
        self.inception = InceptionScoreSums(protocol.samples, protocol.splits, classifier.classes)
        self.frechet = FrechetSums(classifier.feature_width)
        self.kernel = FirstFeatures(kept, classifier.feature_width)
        self.matches = torch.zeros(1, dtype=torch.float64)

    def add(self, batch: GeneratedBatch) -> None:
        """Classify some samples and add what was found."""
        prediction = self._classifier.predict(batch.images)
        features = prediction.features.cpu()
        self.inception.add(batch.numbers, prediction.logits)
        self.frechet.add(features)
        self.kernel.add(batch.numbers, features)
        self.matches += self._candidates.matches(self._text_map, batch.numbers, features, batch.captions)

    def merge(self, ranks: Ranks) -> None:
        """Add up what all ranks have, but for the features, which stay where they are."""
        for tensor in (self.inception.tensor, self.frechet.tensor, self.matches):
            sum_over_ranks(tensor, ranks)


class RealSide:
    """What generated pictures are compared with: real ones of the captions' split, and a map made of training pictures.

    Args:
        subject: whose data to take.
        classifier: what to measure with.
        protocol: how much of everything.
        ranks: all of them take part.
        folder: where what is measured of real pictures is kept, for other runs on the same data. None: nowhere.
    """

    def __init__(
        self,
        subject: OpenSubject,
        classifier: Classifier,
        protocol: ScoreProtocol,
        ranks: Ranks,
        folder: str | None = None,
    ) -> None:
        self._classifier, self._protocol, self._ranks = classifier, protocol, ranks
        settings, width = subject.subject, classifier.feature_width
        pool = candidate_captions(subject.captions.captions(), protocol.wrong_pool, settings.seed)
        self.candidates = Candidates(
            torch.stack([torch.from_numpy(caption.embedding) for caption in pool]),
            [caption.class_name for caption in pool],
            protocol.wrong_captions,
            settings.seed,
        )
        training, real = subject.training(), subject.captions
        count = real.index.samples
        self.block = min(protocol.kernel_block, protocol.samples, count)
        kept = min(protocol.kernel_samples, protocol.samples, count) // self.block * self.block
        noise = min(protocol.samples, NOISE_PICTURES)

        identity = {
            "protocol": dataclasses.asdict(protocol),
            **classifier.describe(),
            "image_size": subject.trained.config.model.image_size,
            "captions_digest": real.index.digest,
            "training_digest": training.index.digest,
            "seed": settings.seed,
            "batch_size": settings.batch_size,
        }
        found = cached_or_made(folder, identity, lambda: self._measured(subject, training, kept, noise), ranks)

        self.text_map = TextMap(found["map_mean"], found["map_text_mean"], found["map_weight"])
        self.inception = self._inception_sums(count, found["inception"]).result()
        self.inception_of_noise = self._inception_sums(noise, found["inception_of_noise"]).result()
        self.frechet = FrechetSums(width)
        self.frechet.tensor.copy_(found["frechet"])
        self.kernel = FirstFeatures(kept, width)
        if ranks.is_main:
            self.kernel.add(torch.arange(kept), found["kernel"])
        self.r_precision = found["matches"].item() / count
        self.diversity = DiversitySums(found["diversity"])

    def _inception_sums(self, pictures: int, sums: Tensor | None = None) -> InceptionScoreSums:
        found = InceptionScoreSums(pictures, min(self._protocol.splits, pictures), self._classifier.classes)
        if sums is not None:
            found.tensor.copy_(sums)
        return found

    def _measured(self, subject: OpenSubject, training: PackedSet, kept: int, noise: int) -> dict[str, Tensor]:
        """All that is measured of real pictures and of noise, merged over the ranks."""
        classifier, ranks, settings = self._classifier, self._ranks, subject.subject
        size, width = subject.trained.config.model.image_size, classifier.feature_width
        text_map = self._fit(
            RealPictures(training.captions(), size, settings.batch_size, settings.seed, self._protocol.map_pictures),
            subject.captions.index.text_dim,
        )
        real = RealPictures(subject.captions.captions(), size, settings.batch_size, settings.seed)
        frechet, kernel = FrechetSums(width), FirstFeatures(kept, width)
        inception, inception_of_noise = self._inception_sums(real.count), self._inception_sums(noise)
        matches = torch.zeros(1, dtype=torch.float64)
        batches = made_ahead(real.batches(ranks.rank, ranks.world_size), ranks.device)
        for batch in with_progress(batches, "real pictures", real.count, ranks):
            prediction = classifier.predict(batch.images)
            inception.add(batch.numbers, prediction.logits)
            frechet.add(prediction.features.cpu())
            kernel.add(batch.numbers, prediction.features)
            matches += self.candidates.matches(text_map, batch.numbers, prediction.features, batch.captions)
        blank = noise_pictures(noise, size, settings.batch_size, settings.seed, ranks.rank, ranks.world_size)
        for nothing in with_progress(blank, "noise", noise, ranks):
            inception_of_noise.add(nothing.numbers, classifier.logits(nothing.images))
        rows = kernel.rows(0, kept)
        for tensor in (inception.tensor, inception_of_noise.tensor, frechet.tensor, rows, matches):
            sum_over_ranks(tensor, ranks)
        protocol = self._protocol
        diversity = diversity_of_real(subject, protocol.diversity_sentences, protocol.diversity_pictures, ranks)
        return {
            "map_mean": text_map.mean,
            "map_text_mean": text_map.text_mean,
            "map_weight": text_map.weight,
            "inception": inception.tensor,
            "inception_of_noise": inception_of_noise.tensor,
            "frechet": frechet.tensor,
            "kernel": rows.float(),
            "matches": matches,
            "diversity": diversity.tensor,
        }

    def _fit(self, pictures: RealPictures, text_dim: int) -> TextMap:
        sums = TextMapSums(self._classifier.feature_width, text_dim)
        batches = made_ahead(pictures.batches(self._ranks.rank, self._ranks.world_size), self._ranks.device)
        for batch in with_progress(batches, "training pictures", pictures.count, self._ranks):
            sums.add(self._classifier.features(batch.images).cpu(), torch.from_numpy(batch.mean_text))
        sum_over_ranks(sums.tensor, self._ranks)
        return sums.solve()

    def score(self, subject: OpenSubject) -> Scores:
        """Generate the samples of `subject` and measure them; every rank gets the scores."""
        protocol, ranks = self._protocol, self._ranks
        sums = GeneratedSums(protocol, self._classifier, self.candidates, self.text_map, self.kernel.count)
        pictures = subject.generated(protocol.samples, ranks)
        batches = made_ahead(pictures.batches(ranks.rank, ranks.world_size), ranks.device)
        for batch in with_progress(batches, f"step {subject.trained.step:,}", protocol.samples, ranks):
            sums.add(batch)
        sums.merge(ranks)
        diversity = diversity_of_generated(
            subject, protocol.diversity_sentences, protocol.diversity_pictures, ranks
        ).mean
        assert diversity is not None  # there is at least one sentence
        return Scores(
            sums.inception.result(),
            self.inception,
            self.inception_of_noise,
            frechet_distance(sums.frechet, self.frechet),
            self.frechet.count,
            self._kernel_distance(sums.kernel),
            sums.matches.item() / protocol.samples,
            self.r_precision,
            diversity,
            self.diversity.mean,
        )

    def _kernel_distance(self, generated: FirstFeatures) -> KernelDistance:
        blocks = range(generated.count // self.block)
        distances = torch.zeros(len(blocks), dtype=torch.float64)
        for number in blocks:
            sides = [self._gathered(side, number) for side in (generated, self.kernel)]
            if number % self._ranks.world_size == self._ranks.rank:
                distances[number] = squared_discrepancy(*sides)
        sum_over_ranks(distances, self._ranks)
        return KernelDistance.of_blocks(distances, self.block)

    def _gathered(self, side: FirstFeatures, number: int) -> Tensor:
        # Every row is on one rank and zero on the others: the sum is exact.
        rows = side.rows(number * self.block, (number + 1) * self.block)
        sum_over_ranks(rows, self._ranks)
        return rows


def report_rows(scores: Scores, identity: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows for scores.jsonl, one for each score, each with the `identity` of run, classifier and protocol."""
    values: tuple[dict[str, Any], ...] = (
        {
            **dataclasses.asdict(scores.inception),
            "mean_of_real_pictures": scores.inception_of_real.mean,
            "mean_of_noise": scores.inception_of_noise.mean,
        },
        {"distance": scores.frechet, "real_pictures": scores.frechet_pictures},
        dataclasses.asdict(scores.kernel),
        {"share": scores.r_precision, "share_of_real_pictures": scores.r_precision_of_real},
        {"deviation": scores.diversity, "deviation_of_real_pictures": scores.diversity_of_real},
    )
    return [{"score": name, **value, **identity} for name, value in zip(ROWS, values, strict=True)]
