"""The losses against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from half_precision import each_precision
from torch import Tensor

from stackgan_dist.train.losses import (
    colour_difference,
    kl_divergence,
    own_text_error,
    own_text_excess,
    own_text_share,
    reading_divergence,
    reconstruction_error,
    redrawing_error,
)


def logits(*probabilities: float) -> Tensor:
    return torch.logit(torch.tensor(probabilities, dtype=torch.float64))


def test_kl_against_torch_and_the_prior() -> None:
    torch.manual_seed(0)
    mu, log_sigma = torch.randn(2, 3, 4, dtype=torch.float64)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(
        normal(mu, log_sigma.exp()), normal(torch.zeros_like(mu), torch.ones_like(mu))
    )
    assert kl_divergence(mu, log_sigma).item() == pytest.approx(expected.mean().item())
    assert kl_divergence(torch.zeros(3, 4), torch.zeros(3, 4)).item() == 0.0
    by_hand = (0.5 * (1 + 1 - 1) + (0.5 * (math.e**2 - 1) - 1)) / 2  # (mu 1, sigma 1) and (mu 0, sigma e)
    assert kl_divergence(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])).item() == pytest.approx(by_hand)


def test_colour_difference_against_numpy() -> None:
    image, low = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.rand(2, 3, 4, 4, dtype=torch.float64)
    expected = 0.0
    for large, small in zip(image.flatten(2).numpy(), low.flatten(2).numpy(), strict=True):
        expected += np.square(large.mean(1) - small.mean(1)).sum() / 2
        expected += 5 * np.square(np.cov(large, bias=True) - np.cov(small, bias=True)).sum() / 2
    assert colour_difference(image, low).item() == pytest.approx(expected)


def test_the_same_picture_enlarged_has_the_same_colours() -> None:
    low = torch.rand(2, 3, 4, 4)
    assert colour_difference(low.repeat_interleave(2, 2).repeat_interleave(2, 3), low).item() < 1e-12
    assert colour_difference(low.flip(1), low).item() > 1e-3


def test_reconstruction_error_by_hand() -> None:
    assert reconstruction_error(torch.tensor([[[[1.0, -1.0]]]]), torch.tensor([[[[0.5, 1.0]]]])).item() == 1.25


@each_precision
def test_half_precision_is_widened(given: torch.dtype, computed: torch.dtype) -> None:
    values = torch.tensor([300.0, -300.0], dtype=given)
    losses = (
        kl_divergence(values, values / 300),
        colour_difference(values.expand(1, 3, 2, 2), values.expand(1, 3, 2, 2)),
        reconstruction_error(values.expand(1, 3, 2, 2), values.expand(1, 3, 2, 2)),
    )
    assert [loss.dtype for loss in losses] == [computed] * 3
    assert all(loss.isfinite() for loss in losses)


PICKS = torch.tensor([[0.5, 2.0, -1.0], [1.0, 0.0, 0.5]], dtype=torch.float64)
"""Logits of two rows with their own text and with a pool of two."""
EXCLUDED = torch.tensor([[True, False], [False, False]])


def test_own_text_error_by_hand() -> None:
    """-log of the own text's share; what is excluded is not in the sum."""
    first = -math.log(math.exp(0.5) / (math.exp(0.5) + math.exp(-1)))
    second = -math.log(math.e / (math.e + 1 + math.exp(0.5)))
    assert own_text_error(PICKS, EXCLUDED).tolist() == pytest.approx([first, second])


def test_a_row_whose_whole_pool_is_excluded_has_nothing_to_learn() -> None:
    picks = PICKS.clone().requires_grad_()
    error = own_text_error(picks, torch.ones(2, 2, dtype=torch.bool))
    assert error.tolist() == [0.0, 0.0]
    error.sum().backward()
    assert picks.grad is not None
    assert picks.grad.abs().max() == 0


def test_texts_that_are_excluded_get_no_gradient() -> None:
    picks = PICKS.clone().requires_grad_()
    own_text_error(picks, EXCLUDED).sum().backward()
    assert picks.grad is not None
    assert (picks.grad[:, 1:] == 0).tolist() == EXCLUDED.tolist()


def test_own_text_excess_is_what_real_pictures_do_better() -> None:
    fake = torch.tensor([3.0, 1.0, 2.0], requires_grad=True)
    real = torch.tensor([1.0, 2.0, 1.5], requires_grad=True)
    excess = own_text_excess(fake, real)
    assert excess.item() == pytest.approx((2.0 + 0.0 + 0.5) / 3)
    excess.backward()
    assert fake.grad is not None
    assert fake.grad.tolist() == pytest.approx([1 / 3, 0, 1 / 3])
    assert real.grad is None


def test_own_text_share() -> None:
    assert own_text_share(PICKS, EXCLUDED).item() == 1.0  # the first row's better text is excluded
    assert own_text_share(PICKS, torch.zeros(2, 2, dtype=torch.bool)).item() == 0.5


def test_redrawing_error_by_hand() -> None:
    redrawn, pictures = torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    redrawn[0] = 0.5
    pictures[1, 0] = -1.0
    assert redrawing_error(redrawn, pictures).item() == pytest.approx((0.5 + 1 / 3) / 2)


def test_reading_divergence_is_summed_over_dimensions() -> None:
    mu, log_sigma = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(
        normal(mu, log_sigma.exp()), normal(torch.zeros_like(mu), torch.ones_like(mu))
    )
    assert reading_divergence(mu, log_sigma).item() == pytest.approx(expected.sum(1).mean().item())


def test_no_rows_are_no_error() -> None:
    """A rank may have none of the rows that are read."""
    nothing = torch.zeros(0, 3, 4, 4, requires_grad=True)
    losses = redrawing_error(nothing, nothing), reading_divergence(nothing.flatten(1), nothing.flatten(1))
    assert [loss.item() for loss in losses] == [0.0, 0.0]
    sum(losses).backward()  # type: ignore[union-attr]
    assert nothing.grad is not None


def test_half_precision_of_the_terms_is_widened() -> None:
    picks, none = torch.tensor([[300.0, 299.0]], dtype=torch.float16), torch.zeros(1, 1, dtype=torch.bool)
    picture = torch.ones(1, 3, 2, 2, dtype=torch.bfloat16)
    losses = (
        own_text_error(picks, none), redrawing_error(picture, -picture), reading_divergence(picks, picks / 300)
    )  # fmt: skip
    assert all(loss.dtype == torch.float32 and loss.isfinite().all() for loss in losses)
