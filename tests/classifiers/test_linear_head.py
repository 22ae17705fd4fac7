"""The last layer: the best one there is, found alike on any ranks."""

from __future__ import annotations

import math
import threading

import pytest
import torch
from torch import Tensor

from stackgan_dist.classifiers.linear_head import fit_head
from stackgan_dist.errors import UserError


def alone(_: Tensor) -> None:
    """The sum over one rank."""


def blobs(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three overlapping classes in five dimensions of unequal spread."""
    torch.manual_seed(seed)
    labels = torch.arange(count) % 3
    middles = torch.tensor([[0.0, 0, 0, 0, 0], [2, 0, 0, 0, 0], [0, 2, 0, 0, 0]])
    return (middles[labels] + torch.randn(count, 5)) * torch.tensor([1.0, 10, 0.1, 1, 1]) + 5, labels


def on_ranks(features: Tensor, labels: Tensor, ranks: int) -> list[tuple[Tensor, Tensor]]:
    """Every rank's layer; ranks are threads that wait for each other at every sum."""
    barrier = threading.Barrier(ranks)
    shared: list[Tensor] = [torch.empty(0)] * ranks
    found: list[tuple[Tensor, Tensor]] = [(torch.empty(0), torch.empty(0))] * ranks

    def run(rank: int) -> None:
        def add_up(tensor: Tensor) -> None:
            shared[rank] = tensor.clone()
            barrier.wait()
            tensor.copy_(torch.stack(shared).sum(0))
            barrier.wait()

        found[rank] = fit_head(features[rank::ranks], labels[rank::ranks], 3, 0.01, add_up)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_it_is_where_the_gradient_vanishes() -> None:
    features, labels = blobs(90)
    weight, bias = fit_head(features, labels, 3, 0.01, alone)
    x = features.double()
    layer = torch.cat([weight, bias[:, None]], dim=1).double().requires_grad_()
    deviation = x.std(dim=0, correction=0)
    loss = torch.nn.functional.cross_entropy(x @ layer[:, :-1].T + layer[:, -1], labels)
    bias_of_scaled = layer[:, -1] + layer[:, :-1] @ x.mean(0)
    (loss + 0.005 * ((layer[:, :-1] * deviation).square().sum() + bias_of_scaled.square().sum())).backward()
    assert layer.grad is not None
    assert layer.grad.abs().max() < 1e-5


def test_it_tells_classes_apart() -> None:
    features, labels = blobs(300)
    weight, bias = fit_head(features, labels, 3, 0.01, alone)
    unseen, truth = blobs(300, seed=1)
    assert ((unseen @ weight.T + bias).argmax(1) == truth).double().mean() > 0.75


@pytest.mark.parametrize("ranks", [2, 4])
def test_any_number_of_ranks_finds_the_same(ranks: int) -> None:
    features, labels = blobs(91)
    weight, bias = fit_head(features, labels, 3, 0.01, alone)
    for other_weight, other_bias in on_ranks(features, labels, ranks):
        torch.testing.assert_close(other_weight, weight, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(other_bias, bias, rtol=1e-5, atol=1e-6)


def test_features_that_do_not_vary_do_no_harm() -> None:
    features, labels = blobs(60)
    weight, _ = fit_head(torch.cat([features, torch.ones(60, 1)], dim=1), labels, 3, 0.01, alone)
    assert weight.isfinite().all()


def test_no_pictures_and_no_numbers_are_user_errors() -> None:
    with pytest.raises(UserError, match="no pictures to train"):
        fit_head(torch.empty(0, 5), torch.empty(0).long(), 3, 0.01, alone)
    with pytest.raises(UserError, match="NaN"):
        fit_head(torch.full((4, 5), math.nan), torch.arange(4) % 3, 3, 0.01, alone)


def test_a_class_without_pictures_has_a_best_value_too() -> None:
    features, labels = blobs(90)
    weight, bias = fit_head(features, labels, 4, 0.01, alone)
    assert weight.isfinite().all()
    assert (features @ weight.T + bias).argmax(1).max() < 3
    assert bias.abs().max() < 50
