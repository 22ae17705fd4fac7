"""Each measure of the scores beside an independent one, on one rank and on four, and the memory that it takes.

    python tests/score_measures.py [--samples 2000]

Features are drawn from normal distributions, so no picture and no network is needed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from distributed.forked import run_forked
from scipy.spatial.distance import cdist
from scipy.stats import linregress, mannwhitneyu
from torch import Tensor, nn

from stackgan_dist.classifiers.classifier import Classifier
from stackgan_dist.distributed.process_group import process_group
from stackgan_dist.machine import peak_memory_bytes
from stackgan_dist.randomness import Stream, normal, permutation
from stackgan_dist.scores.blocks import SharedFeatures
from stackgan_dist.scores.cmmd import gaussian_discrepancy
from stackgan_dist.scores.comparison import RealSet, compare
from stackgan_dist.scores.frechet import FrechetSums, frechet_distance
from stackgan_dist.scores.picture_sums import FeatureSums
from stackgan_dist.scores.protocol import ScoreProtocol

WIDTH, BATCH, SEED = 64, 50, 0
SIDES = {"generated": 0, "real": 1, "training": 2}


class Width(nn.Module):
    """What `compare` asks of an encoder."""

    feature_width = WIDTH


def features(side: str, begin: int, count: int) -> Tensor:
    """Of pictures `begin` to `begin` + `count`; the generated ones are shifted and narrower."""
    numbers = np.arange(begin, begin + count)
    drawn = normal(SEED, 10**6 + SIDES[side], numbers[:, None], np.arange(WIDTH))
    return torch.from_numpy(0.9 * drawn + 0.1 if side == "generated" else drawn).float()


def measure(out: str, samples: int, kept: int) -> None:
    """On a rank: all measures of `samples` pictures of each side, of which the features of `kept` are kept."""
    torch.set_num_threads(1)
    before = peak_memory_bytes()
    with process_group(600) as ranks:
        sides = {}
        for side in SIDES:
            sums = sides[side] = FeatureSums(WIDTH, min(kept, samples))
            for begin in range(ranks.rank * BATCH, samples, ranks.world_size * BATCH):
                sums.add(torch.arange(begin, begin + BATCH), features(side, begin, BATCH))
            if ranks.distributed:
                torch.distributed.all_reduce(sums.frechet.tensor)
        real = RealSet(sides["real"].frechet, sides["real"].first, sides["training"].first)
        protocol = ScoreProtocol(neighbour_samples=kept, kernel_samples=min(kept, 1_000))
        encoder: Classifier = Width()  # type: ignore[assignment]
        found = compare(sides["generated"], real, encoder, protocol, SEED, ranks)
        units = [SharedFeatures(sides[side].first, ranks, unit=True) for side in ("generated", "real")]
        assert found.kernel is not None
        assert found.memorisation is not None
        values = {
            "Frechet distance": found.frechet.value,
            "Frechet distance of infinitely many": found.frechet_of_infinitely_many,
            "kernel distance (KID)": found.kernel.mean,
            "CMMD": gaussian_discrepancy(units[0], units[1], ranks),
            **{name: estimate.value for name, estimate in found.shares.items()},
            "nearer to training pictures": found.memorisation.nearer.value,
        }
        if ranks.is_main:
            grown = (peak_memory_bytes() - before) / 1e6
            Path(out).write_text(json.dumps({"values": values, "memory": grown}))


def references(samples: int) -> dict[str, float]:
    """The same by other code: torchmetrics, scipy, and numpy by the definitions."""
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    class Flat(nn.Module):
        num_features = WIDTH

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)

    fake, real, training = (features(side, 0, samples).double() for side in SIDES)
    fid = FrechetInceptionDistance(feature=Flat(), input_img_size=(1, 1, WIDTH), normalize=True).set_dtype(
        torch.float64
    )
    first = min(samples, 1_000)
    kid = KernelInceptionDistance(feature=Flat(), subsets=1, subset_size=first).set_dtype(torch.float64)
    for metric, (x, y) in ((fid, (real, fake)), (kid, (real[:first], fake[:first]))):
        metric.update(x, real=True)
        metric.update(y, real=False)

    x, y, z = real.numpy(), fake.numpy(), training.numpy()
    within_x, within_y = (np.sort(cdist(side, side), axis=1) for side in (x, y))
    distances = cdist(y, x)
    narrow, wide, fakes = within_x[:, 3], within_x[:, 5], within_y[:, 3]
    of_fakes, of_reals = cdist(y, z).min(1), cdist(x, z).min(1)

    def line() -> float:
        moments = FrechetSums(WIDTH)
        moments.add(real)
        counts = np.linspace(max(WIDTH + 1, samples // 4), samples, 15).astype(int)
        found = []
        for point, count in enumerate(counts):
            sums = FrechetSums(WIDTH)
            sums.add(fake[permutation(samples, SEED, Stream.SCORE_SUBSET, point)[:count]])
            found.append(frechet_distance(sums, moments))
        return float(linregress(1 / counts, found).intercept)

    def gaussian(a: np.ndarray, b: np.ndarray) -> float:
        a, b = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (a, b))
        return float(np.exp(-cdist(a, b, "sqeuclidean") / 200).mean())

    return {
        "Frechet distance": fid.compute().item(),
        "Frechet distance of infinitely many": line(),
        "kernel distance (KID)": kid.compute()[0].item(),
        "CMMD": 1000 * (gaussian(y, y) + gaussian(x, x) - 2 * gaussian(y, x)),
        "precision": float((distances <= narrow).any(1).mean()),
        "recall": float((distances <= fakes[:, None]).any(0).mean()),
        "density": float((distances <= wide).sum(1).mean() / 5),
        "coverage": float((distances.min(0) <= wide).mean()),
        "nearer to training pictures": float(mannwhitneyu(of_reals, of_fakes).statistic / samples**2),
    }


def main() -> None:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2_000)
    samples = parser.parse_args().samples
    with tempfile.TemporaryDirectory() as folder:

        def on_ranks(ranks: int, count: int, kept: int) -> dict[str, dict[str, float]]:
            file = Path(folder) / "found.json"
            run_forked(measure, ranks, str(file), count, kept, log=Path(folder) / "log")
            return dict(json.loads(file.read_text()))

        alone, four = (on_ranks(ranks, samples, samples)["values"] for ranks in (1, 4))
        others = references(samples)
        print(f"{samples:,} pictures of each kind, {WIDTH} features\n")
        print("| measure | here | differs from the reference by | 1 and 4 ranks differ by |\n|---|---|---|---|")
        for name, value in alone.items():
            print(f"| {name} | {value:.6g} | {_relative(value, others[name])} | {_relative(value, four[name])} |")
        print("\n| features kept | 1,000 pictures | 10,000 pictures |\n|---|---|---|")
        for kept in (1_000, 10_000):
            few, many = (on_ranks(1, count, kept)["memory"] for count in (1_000, 10_000))
            print(f"| {kept:,} | {few:.0f} MB | {many:.0f} MB |")
        sys.stdout.flush()


def _relative(value: float, other: float) -> str:
    return "0" if value == other else f"{abs(value - other) / abs(other):.1e}"


if __name__ == "__main__":
    main()
