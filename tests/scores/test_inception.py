"""Scores against torchmetrics and numpy, and the promise that ranks do not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stackgan_dist.errors import UserError
from stackgan_dist.scores.frechet import FrechetSums, frechet_distance
from stackgan_dist.scores.inception import InceptionScoreSums
from stackgan_dist.scores.r_precision import TextMapSums


def scored(logits: Tensor, splits: int, numbers: Tensor | None = None) -> InceptionScoreSums:
    sums = InceptionScoreSums(len(logits), splits, logits.shape[1])
    sums.add(torch.arange(len(logits)) if numbers is None else numbers, logits)
    return sums


def original_protocol(logits: Tensor, splits: int) -> NDArray[np.float64]:
    """The score per split by the published formula, in numpy, on consecutive slices."""
    exp = np.exp(logits.double().numpy())
    p = exp / exp.sum(1, keepdims=True)
    scores = []
    for i in range(splits):
        part = p[i * len(p) // splits : (i + 1) * len(p) // splits]
        scores.append(np.exp((part * (np.log(part) - np.log(part.mean(0, keepdims=True)))).sum(1).mean()))
    return np.array(scores)


class Flat(nn.Module):
    """Hands torchmetrics the numbers that it is given as pictures: the test's own 'features'."""

    num_features = 6

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


@pytest.mark.parametrize(("samples", "splits"), [(60, 10), (61, 10), (10, 3), (7, 7), (50, 1)])
def test_score_equals_the_original_protocol(samples: int, splits: int) -> None:
    logits = torch.randn(samples, 20, generator=torch.Generator().manual_seed(samples)) * 3
    result = scored(logits, splits).result()
    reference = original_protocol(logits, splits)
    np.testing.assert_allclose(result.per_split, reference, rtol=1e-12)
    assert result.mean == pytest.approx(reference.mean(), rel=1e-12)
    if splits > 1:
        assert result.std == pytest.approx(reference.std(), rel=1e-9)


def test_score_equals_torchmetrics() -> None:
    from torchmetrics.image.inception import InceptionScore  # seconds, which not every worker needs

    logits = torch.randn(200, 6, dtype=torch.float64) * 2
    reference = InceptionScore(feature=Flat(), splits=10)
    reference.update(logits)
    torch.manual_seed(3)
    mean, std = reference.compute()
    torch.manual_seed(3)
    order = torch.randperm(len(logits))  # torchmetrics shuffles before it splits
    result = scored(logits[order], splits=10).result()
    assert result.mean == pytest.approx(mean.item(), rel=1e-9)
    assert result.std == pytest.approx(std.item() * math.sqrt(9 / 10), rel=1e-9)  # theirs has n - 1


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_any_partition_over_ranks_gives_the_same_score(ranks: int) -> None:
    torch.manual_seed(0)
    logits = torch.randn(103, 11) * 4
    whole = scored(logits, splits=5).result()
    shuffled = torch.randperm(103)
    merged = InceptionScoreSums(103, 5, 11)
    for rank in range(ranks):
        part = InceptionScoreSums(103, 5, 11)
        for batch in shuffled[rank::ranks].split(7):
            part.add(batch, logits[batch])
        merged.tensor += part.tensor
    np.testing.assert_allclose(merged.result().per_split, whole.per_split, rtol=1e-12)


def test_uniform_predictions_score_one() -> None:
    assert scored(torch.full((40, 50), 2.5), splits=4).result().per_split == pytest.approx([1.0] * 4, abs=1e-12)


def test_balanced_certain_predictions_score_the_number_of_classes() -> None:
    logits = torch.eye(20).repeat(6, 1) * 1e5
    result = scored(logits, splits=3).result()
    assert result.per_split == pytest.approx([20.0] * 3, rel=1e-12)
    assert result.std == pytest.approx(0.0, abs=1e-12)


def test_one_split_has_no_spread_and_says_so() -> None:
    result = scored(torch.randn(30, 5), splits=1).result()
    assert math.isnan(result.std)
    assert "±" not in str(result)
    assert "30 samples, 1 split)" in str(result)


def test_half_precision_logits_are_widened_before_the_softmax() -> None:
    logits = (torch.randn(40, 9) * 5).bfloat16()
    assert scored(logits, 2).result().per_split == scored(logits.double(), 2).result().per_split


def test_fewer_samples_than_splits_is_a_user_error() -> None:
    with pytest.raises(UserError, match="9 samples in 10 splits"):
        InceptionScoreSums(9, 10, 5)


def test_lost_and_doubled_samples_are_found() -> None:
    logits = torch.randn(20, 5)
    lost = InceptionScoreSums(20, 2, 5)
    lost.add(torch.arange(19), logits[:19])
    with pytest.raises(RuntimeError, match="19 of 20"):
        lost.result()
    doubled = torch.arange(20)
    doubled[3] = 4
    sums = scored(logits, 2, doubled)
    with pytest.raises(RuntimeError, match="twice"):
        sums.result()


def test_wrong_shapes_and_numbers_are_refused() -> None:
    sums = InceptionScoreSums(20, 2, 5)
    with pytest.raises(ValueError, match="logits"):
        sums.add(torch.arange(3), torch.randn(3, 6))
    with pytest.raises(ValueError, match=r"\[0, 20\)"):
        sums.add(torch.tensor([20]), torch.randn(1, 5))


def test_nan_logits_are_a_user_error() -> None:
    logits = torch.randn(20, 5)
    logits[7, 2] = math.nan
    sums = scored(logits, 2)
    with pytest.raises(UserError, match="NaN"):
        sums.result()


def frechet(a: Tensor, b: Tensor) -> float:
    sums = [FrechetSums(a.shape[1]) for _ in range(2)]
    for one, features in zip(sums, (a, b), strict=True):
        for batch in features.split(16):
            one.add(batch)
    return frechet_distance(*sums)


def test_frechet_distance_equals_torchmetrics() -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    torch.manual_seed(1)
    mix = torch.randn(6, 6, dtype=torch.float64)
    real, fake = torch.randn(90, 6).double() @ mix + 1, torch.randn(70, 6).double() * 1.5
    reference = FrechetInceptionDistance(feature=Flat(), input_img_size=(1, 1, 6), normalize=True).set_dtype(
        torch.float64
    )
    reference.update(real, real=True)
    reference.update(fake, real=False)
    assert frechet(real, fake) == pytest.approx(reference.compute().item(), rel=1e-6)


def test_frechet_distance_of_known_gaussians() -> None:
    """Features whose sample moments are exact: means 3 apart in one direction, deviations 1 and 2 in every one."""
    corners = torch.cat([torch.eye(4), -torch.eye(4)]).double()
    unit = corners * math.sqrt(7 / 2)  # 8 points: unbiased covariance is exactly the identity
    shift = torch.tensor([3.0, 0, 0, 0]).double()
    assert frechet(unit, 2 * unit + shift) == pytest.approx(9 + 4 * (1 - 2) ** 2, rel=1e-12)


def test_frechet_distance_of_singular_covariances_keeps_its_digits() -> None:
    """Fewer pictures than features. The eigenvalues that should be zero cost 1e-5 if they are left in."""
    torch.manual_seed(2)
    features = torch.rand(40, 200, dtype=torch.float64)
    assert frechet(features, features) == pytest.approx(0.0, abs=1e-9)
    assert frechet(features, features + 0.5) == pytest.approx(200 * 0.25, rel=1e-10)
    assert frechet(features, features.flip(0) * 2) == pytest.approx(
        features.mean(0).square().sum().item() + features.var(0).sum().item(), rel=1e-10
    )


def test_frechet_sums_merge_over_ranks() -> None:
    torch.manual_seed(4)
    real, fake = torch.rand(60, 12), torch.rand(80, 12) ** 2
    whole = frechet(real, fake)
    for ranks in (2, 4):
        a, b = FrechetSums(12), FrechetSums(12)
        for rank in range(ranks):
            for total, features in ((a, real), (b, fake)):
                part = FrechetSums(12)
                part.add(features[rank::ranks])
                total.tensor += part.tensor
        assert (a.count, b.count) == (60, 80)
        assert frechet_distance(a, b) == pytest.approx(whole, rel=1e-12)


def test_frechet_distance_refuses_what_it_cannot_compare() -> None:
    good = FrechetSums(3)
    good.add(torch.rand(5, 3))
    with pytest.raises(UserError, match="at least 2 pictures on either side, found 0"):
        frechet_distance(good, FrechetSums(3))
    wider = FrechetSums(4)
    wider.add(torch.rand(5, 4))
    with pytest.raises(ValueError, match="3 and 4"):
        frechet_distance(good, wider)
    broken = FrechetSums(3)
    broken.add(torch.full((5, 3), math.nan))
    with pytest.raises(UserError, match="NaN"):
        frechet_distance(good, broken)


def test_sums_are_made_where_the_classifier_computes() -> None:
    """A device that keeps shapes and no numbers stands for CUDA: nothing can be copied from it to the host."""
    there = torch.device("meta")
    frechet, texts, inception = FrechetSums(4), TextMapSums(4, 3), InceptionScoreSums(8, 2, 5)
    frechet.add(torch.zeros(2, 4, device=there))
    texts.add(torch.zeros(2, 4, device=there), torch.zeros(2, 3))
    inception.tensor = inception.tensor.to(there)
    assert {frechet.tensor.device, texts.tensor.device} == {there}
    assert frechet.tensor.dtype == texts.tensor.dtype == torch.float64


def test_no_sum_is_left_to_the_order_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """index_add_ adds on CUDA as threads arrive."""

    def refused(*_: object) -> None:
        pytest.fail("index_add_ in a sum")

    sums = InceptionScoreSums(8, 2, 5)
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "index_add_", refused)
        sums.add(torch.arange(8), torch.randn(8, 5))
    assert sums.tensor[:, -2].tolist() == [4, 4]
    assert sums.tensor[:, -1].tolist() == [6, 22]
