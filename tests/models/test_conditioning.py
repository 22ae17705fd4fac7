"""Conditioning augmentation against its formulas, written out for one layer with known weights."""

from __future__ import annotations

import pytest
import torch

from stackgan_dist.models import ModelConfig
from stackgan_dist.models.conditioning import ConditioningAugmentation


def layer_with(config: ModelConfig, outputs: list[float]) -> ConditioningAugmentation:
    """One whose fully connected layer gives `outputs` for every text."""
    layer = ConditioningAugmentation(config, text_dim=3)
    with torch.no_grad():
        layer.fc.weight.zero_()
        layer.fc.bias.copy_(torch.tensor(outputs))
    return layer


def test_paper_draws_with_mu_and_log_sigma_as_they_come() -> None:
    condition = layer_with(ModelConfig(condition_dim=2), [-1.0, 2.0, -0.5, 0.25])(
        torch.ones(1, 3), torch.tensor([[2.0, -1.0]])
    )
    assert condition.mu.tolist() == [[-1.0, 2.0]]
    assert condition.log_sigma.tolist() == [[-0.5, 0.25]]
    expected = torch.tensor([[-1.0 + 2 * 0.60653066, 2.0 - 1.28402542]])
    torch.testing.assert_close(condition.c, expected)


def test_pytorch_rectifies_mu_and_halves_an_unbounded_log_variance() -> None:
    config = ModelConfig(recipe="pytorch", condition_dim=2)
    layer = layer_with(config, [-1.0, 2.0, -0.5, 0.5])
    condition = layer(torch.ones(1, 3), torch.tensor([[2.0, -1.0]]))
    assert condition.mu.tolist() == [[0.0, 2.0]]
    assert condition.log_sigma.tolist() == [[-0.25, 0.25]]
    torch.testing.assert_close(condition.c, torch.tensor([[2 * 0.77880078, 2.0 - 1.28402542]]))
    assert layer.mean(torch.ones(1, 3)).tolist() == [[0.0, 2.0]]


def test_without_augmentation_c_is_mu_and_the_reported_distribution_is_the_prior() -> None:
    layer = layer_with(ModelConfig(condition_dim=2, conditioning_augmentation=False), [-1.0, 2.0])
    condition = layer(torch.ones(1, 3), torch.tensor([[5.0, 5.0]]))
    assert condition.c.tolist() == [[-1.0, 2.0]]
    assert condition.mu.tolist() == condition.log_sigma.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(("augment", "parameters"), [(True, 262_400), (False, 131_200)])
def test_parameters(augment: bool, parameters: int) -> None:
    layer = ConditioningAugmentation(ModelConfig(conditioning_augmentation=augment), text_dim=1024)
    assert sum(weight.numel() for weight in layer.parameters()) == parameters
