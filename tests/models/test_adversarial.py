"""The adversarial losses against values worked out by hand, and the penalty against an independent computation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from distributed.tiny import wake
from half_precision import each_precision
from torch import Tensor, nn

from stackgan_dist.errors import UserError
from stackgan_dist.models import Judgement, Logits, ModelConfig, build_discriminator
from stackgan_dist.models.adversarial import Hinge, MatchingAwareHinge, NonSaturating, SlopePenalty, open_loss
from stackgan_dist.models.config import LOSSES
from stackgan_dist.models.matching import MatchingAware


def logits(*probabilities: float) -> Tensor:
    return torch.logit(torch.tensor(probabilities, dtype=torch.float64))


NOTHING: Any = None
"""What the losses of the package have no use for: fakes and real pictures."""


def as_real(logits: Tensor) -> Tensor:
    return NonSaturating().real(logits).mean()


def as_fake(logits: Tensor) -> Tensor:
    return NonSaturating().fake(logits).mean()


def discriminator_loss(real: Logits, wrong: Logits, fake: Logits) -> Tensor:
    return NonSaturating().discriminator(Judgement(real, wrong, fake, texts=None))


def generator_loss(fake: Logits) -> Tensor:
    return NonSaturating().generator(fake, NOTHING, NOTHING)


REAL = Logits(logits(0.5, 0.25), logits(0.8, 0.8))
WRONG = Logits(logits(0.75, 0.5), logits(0.1, 0.1))
FAKE = Logits(logits(0.5, 0.5), logits(0.2, 0.4))


def conditional_only(scores: Logits) -> Logits:
    return Logits(scores.conditional, None)


def test_cross_entropy() -> None:
    assert as_real(logits(0.5, 0.25)).item() == pytest.approx(1.5 * math.log(2))
    assert as_fake(logits(0.75, 0.5)).item() == pytest.approx(1.5 * math.log(2))


def test_discriminator_halves_the_two_ways_to_be_fake() -> None:
    found = discriminator_loss(*map(conditional_only, (REAL, WRONG, FAKE)))
    assert found.item() == pytest.approx((1.5 + (1.5 + 1) / 2) * math.log(2))


def test_discriminator_with_unconditional_scores() -> None:
    real = 1.5 * math.log(2) - math.log(0.8)
    fake = 1.5 * math.log(2) + math.log(2) - (math.log(0.8) + math.log(0.6)) / 2
    assert discriminator_loss(REAL, WRONG, FAKE).item() == pytest.approx(real / 2 + fake / 3)


def test_the_real_images_of_wrong_pairs_are_not_called_fake() -> None:
    other = WRONG._replace(unconditional=logits(0.9, 0.9))
    assert torch.equal(discriminator_loss(REAL, WRONG, FAKE), discriminator_loss(REAL, other, FAKE))


def test_generator_is_non_saturating_and_sums_its_heads() -> None:
    assert generator_loss(conditional_only(FAKE)).item() == pytest.approx(math.log(2))
    unconditional = -(math.log(0.2) + math.log(0.4)) / 2
    assert generator_loss(FAKE).item() == pytest.approx(math.log(2) + unconditional)
    hopeless = torch.tensor([-100.0], requires_grad=True)
    generator_loss(Logits(hopeless, None)).backward()
    assert hopeless.grad is not None
    assert hopeless.grad.item() == pytest.approx(-1.0)


def test_hinge_by_hand() -> None:
    real, wrong, fake = (Logits(torch.tensor(values), None) for values in ([0.5, 3.0], [-0.5, -2.0], [-1.0, 2.0]))
    found = Hinge().discriminator(Judgement(real, wrong, fake, texts=None))
    assert found.item() == pytest.approx((0.5 + 0) / 2 + ((0.5 + 0) / 2 + (0 + 3) / 2) / 2)
    assert Hinge().generator(fake, NOTHING, NOTHING).item() == pytest.approx(-0.5)


@pytest.mark.parametrize("loss", [NonSaturating(), Hinge()], ids=["non-saturating", "hinge"])
@each_precision
def test_half_precision_is_widened(loss: Any, given: torch.dtype, computed: torch.dtype) -> None:
    scores = Logits(torch.tensor([300.0, -300.0], dtype=given), None)
    lost = loss.discriminator(Judgement(scores, scores, scores, texts=None))
    assert lost.dtype == loss.generator(scores, NOTHING, NOTHING).dtype == computed
    # Half of it for the matching pairs and for each of the others, none of it lost in half precision.
    assert lost.item() == (300.0 if isinstance(loss, NonSaturating) else 301.0)


def test_means_over_rows_of_parts_make_the_mean_of_the_whole() -> None:
    """So that ranks with unequal shares can weight their losses by their rows."""
    rows = logits(0.1, 0.6, 0.7, 0.2, 0.9)
    assert (3 * as_real(rows[:3]) + 2 * as_real(rows[3:])).item() / 5 == pytest.approx(as_real(rows).item())


def test_the_penalty_of_a_linear_discriminator_by_hand() -> None:
    """Its gradient is its weights: 3 by the picture and 4 by the text are a slope of 5."""

    class Linear(nn.Module):
        def features(self, image: Tensor) -> Tensor:
            return 3 * image[:, 0, 0, 0]

        def score(self, features: Tensor, condition: Tensor) -> Logits:
            return Logits(features + 4 * condition[:, 0], None)

    judged = MatchingAware(Linear(), steepness=True)(  # type: ignore[arg-type]
        torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), torch.zeros(2, 5), torch.zeros(2, 5)
    )
    assert judged.squared_slopes.tolist() == [25.0, 25.0]
    assert SlopePenalty(2.0, 6.0)(judged.squared_slopes).item() == 2 * 5**6
    assert MatchingAwareHinge.penalty == (2.0, 6.0)


def _df_gan() -> tuple[MatchingAware, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    config = ModelConfig(family="df-gan", generator_width=2, discriminator_width=2)
    network = MatchingAware(build_discriminator(config, 5).double(), steepness=True)
    wake(network)
    pictures = (torch.randn(3, 3, 64, 64, dtype=torch.float64) for _ in range(2))
    texts = (torch.randn(3, 5, dtype=torch.float64) for _ in range(2))
    return network, (*pictures, *texts)


def test_slopes_are_those_of_each_row_alone() -> None:
    network, (real, fake, text, wrong) = _df_gan()
    found = network(real, fake, text, wrong).squared_slopes

    def score(picture: Tensor, sentence: Tensor) -> Tensor:
        return network.discriminator(picture[None], sentence[None]).conditional[0]

    for row in range(3):
        by_picture, by_text = torch.func.grad(score, (0, 1))(real[row], text[row])
        assert found[row].item() == pytest.approx(
            (by_picture.square().sum() + by_text.square().sum()).item(), rel=1e-12
        )


def test_the_gradient_of_the_penalty_is_the_difference_quotient() -> None:
    """It goes twice through the discriminator."""
    network, given = _df_gan()
    penalty = SlopePenalty(2.0, 6.0)
    parameters = [network.discriminator.encode[1].residual[0].weight, network.discriminator.join[0].weight]  # type: ignore[union-attr,index]
    # Larger, so that what the penalty is differs from zero by more than rounding.
    for parameter in network.parameters():
        parameter.data *= 2
    penalty(network(*given).squared_slopes).backward()
    for parameter in parameters:
        assert parameter.grad is not None
        entry, step = (0, 1, 1, 1), 1e-6
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter[entry] += sign * step
            values.append(penalty(network(*given).squared_slopes).item())
            with torch.no_grad():
                parameter[entry] -= sign * step
        expected = (values[0] - values[1]) / (2 * step)
        assert parameter.grad[entry].item() == pytest.approx(expected, rel=1e-5)


def test_slopes_are_float32_under_autocast() -> None:
    network, given = _df_gan()
    network, given = network.float(), tuple(tensor.float() for tensor in given)
    expected = network(*given)
    with torch.autocast("cpu", torch.bfloat16):
        found = network(*given)
    assert torch.equal(found.squared_slopes, expected.squared_slopes)
    assert torch.equal(found.real.conditional, expected.real.conditional)
    assert found.fake.conditional.dtype == torch.bfloat16


def test_losses_have_names() -> None:
    assert {name: type(open_loss(name)).__name__ for name in LOSSES} == {
        "non-saturating": "NonSaturating", "hinge": "Hinge", "matching-aware-hinge": "MatchingAwareHinge",
    }  # fmt: skip
    with pytest.raises(UserError, match="there is no module there_is_none"):
        open_loss("there_is_none:Loss")
