"""A step with all terms, against plain formulas: the contrastive term, rows that are read, text at every layer."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from distributed.tiny import tiny_model
from random_batch import random_batch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from stackgan_dist.config import Config, TrainingConfig
from stackgan_dist.data.batch import Batch
from stackgan_dist.data.plan import rows_of_rank
from stackgan_dist.distributed.gather import gather_alone
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.engines.ddp import DDPEngine
from stackgan_dist.models import ModelConfig
from stackgan_dist.models.adversarial import NonSaturating
from stackgan_dist.runs.metrics import metrics_of
from stackgan_dist.train.losses import LossWeights
from stackgan_dist.train.precision import resolve_precision
from stackgan_dist.train.state import TrainingState, learning_rate, rows_read
from stackgan_dist.train.step import StepReport, StepSettings, train_step

ROWS, TEXT_DIM, POOL = 5, 6, 8
ALONE = Ranks(0, 1, torch.device("cpu"), gather_alone)
FP64 = resolve_precision("fp64", ALONE.device)
RATE = 1e-2
WEIGHTS: dict[str, float] = {
    "kl_weight": 1.5, "contrastive_weight": 0.7, "generator_contrastive_weight": 0.4, "reading_weight": 3.0,
    "reading_kl_weight": 0.2,
}  # fmt: skip
STAGE1 = tiny_model(text_every_layer=True, noise_as_read=True)
STAGE2 = tiny_model(stage=2, image_size=128, text_every_layer=True)


def _batch(seed: int = 0, model: ModelConfig = STAGE1) -> Batch:
    return random_batch(model, ROWS, TEXT_DIM, seed, pool=POOL)


def _state(model: ModelConfig = STAGE1, precision: Any = FP64, **training: Any) -> TrainingState:
    weights = {**WEIGHTS, "reading_weight": WEIGHTS["reading_weight"] if model.stage == 1 else 0.0}
    settings = {"batch_size": ROWS, "seed": 5, "learning_rate": RATE, **weights, **training}
    config = Config(model=model, training=TrainingConfig(**settings))
    state = TrainingState(config, TEXT_DIM, None, ALONE, precision)
    # The authors' initial weights are so small that D would hardly see its input.
    for engine in (state.generator, state.discriminator):
        for name, parameter in engine.module.named_parameters():
            if not name.startswith(("reader", "contrastive")):
                parameter.data *= 3
    return state


def _error(head: Any, features: Tensor, text: Tensor, batch: Batch) -> list[Tensor]:
    """-log of the softmax of each row's own text over it and those of the pool that are not excluded."""

    def unit(vector: Tensor) -> Tensor:
        return vector / vector.square().sum().sqrt()

    assert batch.pool is not None
    assert batch.excluded is not None
    scale = min(head.log_scale.exp(), torch.tensor(30.0, dtype=torch.float64))
    errors = []
    for row in range(ROWS):
        picture = unit(head.embed(features[row].flatten()))
        own = (scale * picture @ unit(head.text(text[row]))).exp()
        others = [
            (scale * picture @ unit(head.text(other.double()))).exp()
            for other, excluded in zip(batch.pool, batch.excluded[row], strict=True)
            if not excluded
        ]
        errors.append(-torch.log(own / (own + sum(others))))
    return errors


class Reference:
    """Stage-I's step with every term written out."""

    def __init__(self, state: TrainingState) -> None:
        self.g, self.d = copy.deepcopy(state.generator.module), copy.deepcopy(state.discriminator.module)
        self.adam_g, self.adam_d = (
            torch.optim.Adam(network.parameters(), lr=RATE, betas=(0.5, 0.999)) for network in (self.g, self.d)
        )
        self.as_read = state._config.model.noise_as_read
        self.kept = [(torch.zeros(4).double(), torch.ones(4).double())] * 1024

    def step(self, batch: Batch) -> dict[str, Tensor]:
        g: Any = self.g.generator
        d: Any = self.d.discriminator
        real = batch.images.double() / 255 * 2 - 1
        text, wrong = batch.text.double(), batch.wrong_text.double()

        # Rows 0, 2 and 4 are read, the others drawn from what was read in the steps before.
        z, eps, readings = [], [], {}
        for row in range(ROWS):
            of_row, noise = batch.z[row].double(), batch.eps[row].double()
            if row % 2 == 0:
                mu, log_sigma = self.g.reader(real[row : row + 1], text[row : row + 1])  # type: ignore[operator]
                readings[row] = mu, log_sigma
                mu, sigma = mu[0], log_sigma[0].exp()
                noise = noise if self.as_read else torch.zeros_like(noise)
            else:
                mu, sigma = self.kept[int(Normal(0.0, 1.0).cdf(of_row[0]) * 1024)]
            z.append(mu + sigma * of_row)
            eps.append(noise)
        if self.as_read:
            read = [(mu[0].detach(), log_sigma[0].exp().detach()) for mu, log_sigma in readings.values()]
            self.kept = [*self.kept, *read][-1024:]
        fakes = g.from_code(text, torch.stack(z), torch.stack(eps))

        def log_odds(logits: Any, sign: float) -> Tensor:
            return -F.logsigmoid(sign * logits.conditional).mean()

        pairs = (
            log_odds(d(real, text), 1)
            + (log_odds(d(real, wrong), -1) + log_odds(d(fakes.image.detach(), text), -1)) / 2
        )
        real_errors = _error(self.d.contrastive, d.features(real), text, batch)
        contrastive = torch.stack(real_errors).mean()
        self.adam_d.zero_grad()
        (pairs + WEIGHTS["contrastive_weight"] * contrastive).backward()
        self.adam_d.step()

        fooled = log_odds(d(fakes.image, text), 1)
        kl = kl_divergence(Normal(fakes.mu, fakes.log_sigma.exp()), Normal(0.0, 1.0)).mean()
        fake_errors = _error(self.d.contrastive, d.features(fakes.image), text, batch)
        worse = sum(max(f - r.detach(), 0 * f) for f, r in zip(fake_errors, real_errors, strict=True)) / ROWS
        redrawing = sum((fakes.image[row] - real[row]).abs().mean() for row in readings) / len(readings)
        reading_kl = sum(
            kl_divergence(Normal(mu, log_sigma.exp()), Normal(0.0, 1.0)).sum() for mu, log_sigma in readings.values()
        ) / len(readings)
        loss = fooled + WEIGHTS["kl_weight"] * kl + WEIGHTS["generator_contrastive_weight"] * worse
        loss = loss + WEIGHTS["reading_weight"] * redrawing + WEIGHTS["reading_kl_weight"] * reading_kl
        self.adam_g.zero_grad()
        loss.backward()
        self.adam_g.step()
        return {
            "discriminator_loss": pairs, "generator_loss": fooled, "kl": kl, "contrastive": contrastive,
            "redrawing": redrawing, "reading_kl": reading_kl,
        }  # fmt: skip


def _weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


@pytest.mark.parametrize("as_read", [True, False])
def test_three_steps_equal_the_reference(as_read: bool) -> None:
    state = _state(replace(STAGE1, noise_as_read=as_read))
    reference = Reference(state)
    for number in range(3):
        batch = _batch(number)
        batch.z[1, 0], batch.z[3, 0] = 3.5, 4.0  # of the rows that were read last
        report, expected = state.step(batch, number, 100), reference.step(batch)
        for name, value in expected.items():
            torch.testing.assert_close(
                getattr(report, name), value.detach(), rtol=1e-6, atol=1e-8, msg=f"{name} of step {number} differs"
            )
    for ours, theirs in ((state.generator.module, reference.g), (state.discriminator.module, reference.d)):
        # A bias before batch normalisation has a gradient of rounding errors, which Adam scales to about 1e-8.
        torch.testing.assert_close(_weights(ours), _weights(theirs), rtol=1e-6, atol=1e-6)


def test_the_share_of_rows_that_pick_their_own_text() -> None:
    """Texts that nearly point where the pictures do are picked by some rows and not by others."""
    state, batch = _state(), _batch()
    head: Any = copy.deepcopy(state.discriminator.module.contrastive)
    d: Any = copy.deepcopy(state.discriminator.module.discriminator)
    report = state.step(batch, 0, 100)
    logits = head(d.features(batch.images.double() / 127.5 - 1), batch.text.double(), batch.pool.double())  # type: ignore[union-attr]
    expected = [
        all(logits[row, 0] > logits[row, 1 + other] for other in range(POOL) if not batch.excluded[row, other])  # type: ignore[index]
        for row in range(ROWS)
    ]
    assert report.own_text_real is not None
    assert report.own_text_real.item() == pytest.approx(sum(expected) / ROWS)
    assert report.own_text_fake is not None
    assert 0 <= report.own_text_fake.item() <= 1


def test_the_head_learns_from_real_pictures_alone() -> None:
    """Its gradient is that of the real pictures' error, and what G's update leaves of it."""
    state, batch = _state(), _batch()
    judge: Any = state.discriminator.module
    features = judge.discriminator.features(batch.images.double() / 127.5 - 1).detach()
    error = torch.stack(_error(judge.contrastive, features, batch.text.double(), batch)).mean()
    expected = torch.autograd.grad(WEIGHTS["contrastive_weight"] * error, list(judge.contrastive.parameters()))
    state.step(batch, 0, 100)
    for parameter, gradient in zip(judge.contrastive.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-6, atol=1e-10)


def test_each_update_changes_its_own_networks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The head goes with D, the reader with G."""
    state = _state()
    g, d = state.generator.module, state.discriminator.module
    update = DDPEngine.update
    updated = []

    def watched(engine: DDPEngine, loss: Tensor, rate: float) -> Tensor:
        mine, other = (g, d) if engine is state.generator else (d, g)
        before, others = _weights(mine), _weights(other)
        norm = update(engine, loss, rate)
        assert all(torch.equal(value, others[name]) for name, value in _weights(other).items())
        assert all(not torch.equal(value, before[name]) for name, value in _weights(mine).items())
        updated.append("G" if mine is g else "D")
        return norm

    monkeypatch.setattr(DDPEngine, "update", watched)
    for number in range(2):
        state.step(_batch(number), number, 100)
    assert updated == ["D", "G", "D", "G"]


def test_a_rank_without_rows_that_are_read_has_gradients_of_zero() -> None:
    """Of the reader's; other ranks wait for them."""
    state = _state()
    weights = LossWeights.of(TrainingConfig(**WEIGHTS))  # type: ignore[arg-type]
    settings = StepSettings(
        torch.tensor(RATE),
        torch.tensor(RATE),
        NonSaturating(),
        weights,
        FP64,
        share=1.0,
        generator_share=1.0,
        read_first=ROWS,
        read_share=0.0,
    )
    before = _weights(state.generator.module.reader)  # type: ignore[arg-type]
    report = train_step(state.generator, state.discriminator, _batch(), settings)
    assert report.redrawing is not None
    assert report.redrawing.item() == 0.0
    assert all(torch.isfinite(p).all() for p in state.generator.module.parameters())
    for name, parameter in state.generator.module.reader.named_parameters():  # type: ignore[union-attr,operator]
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() == 0, name
        assert torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("batch_size", [2, 7, 8])
def test_even_rows_of_the_global_batch_are_read_on_any_ranks(batch_size: int) -> None:
    """And the mean over ranks of what their shares weigh is a mean over those rows."""
    for world_size in range(1, batch_size + 1):
        read, weighed = [], 0.0
        for rank in range(world_size):
            rows, of_rank = rows_of_rank(batch_size, rank, world_size), rows_read(batch_size, rank, world_size)
            mine = list(rows[of_rank.first :: 2])
            read += mine
            weighed += of_rank.share * sum(mine) / max(1, len(mine)) / world_size
        assert read == list(range(0, batch_size, 2))
        assert weighed == pytest.approx(sum(read) / len(read))


@pytest.mark.parametrize("model", [STAGE1, STAGE2], ids=["stage1", "stage2"])
def test_half_precision_keeps_the_terms_in_float32(model: ModelConfig) -> None:
    state = _state(model, resolve_precision("bf16", ALONE.device), reconstruction_weight=10.0 * (model.stage - 1))
    report = state.step(_batch(model=model), 0, 100)
    weights = LossWeights.of(state._config.training)
    names = metrics_of(StepReport, weights.present)
    assert ("redrawing" in names) == (model.stage == 1)
    for name in names:
        value = getattr(report, name)
        assert torch.isfinite(value), name
        if names[name].is_loss:
            assert value.dtype == torch.float32, name


def test_terms_that_are_left_out_are_not_reported() -> None:
    state = _state(contrastive_weight=0.0, generator_contrastive_weight=0.0)
    report = state.step(_batch()._replace(pool=None, excluded=None), 0, 100)
    assert report.contrastive is report.own_text_real is report.own_text_fake is None
    assert report.redrawing is not None
    assert LossWeights.of(state._config.training).present == {"kl", "reading", "reading_kl"}


def test_first_weights_are_the_same_with_and_without_terms() -> None:
    """Those of G and D."""
    plain = tiny_model()
    with_terms, without = (
        _state(plain, **dict.fromkeys(names, 0.0))
        for names in ((), ("contrastive_weight", "generator_contrastive_weight", "reading_weight"))
    )
    for ours, theirs in (
        (with_terms.generator.module.generator, without.generator.module),
        (with_terms.discriminator.module.discriminator, without.discriminator.module.discriminator),
    ):
        torch.testing.assert_close(_weights(ours), _weights(theirs), rtol=0, atol=0)  # type: ignore[arg-type]


def test_texts_between_two_have_no_picture_to_be_read_or_picked() -> None:
    """The generator's extra rows take no part in the terms, and the batch's own rows take the same one."""
    state, more = _state(interpolated_texts=True), 2
    batch = _batch()
    longer = batch._replace(
        **{
            name: torch.cat([value, value[:more]])
            for name, value in batch._asdict().items()
            if name in ("text", "z", "eps")
        }
    )
    report = state.step(longer, 0, 100)
    reader: Any = _state().generator.module.reader
    real = batch.images.double() / 127.5 - 1
    mu, log_sigma = reader(real[::2], batch.text.double()[::2])
    expected = kl_divergence(Normal(mu, log_sigma.exp()), Normal(0.0, 1.0)).sum(1).mean()
    assert report.reading_kl is not None
    torch.testing.assert_close(report.reading_kl, expected.detach())
    assert math.isfinite(report.generator_gradient.item())


def test_the_average_and_what_is_drawn_are_of_the_generator_alone() -> None:
    state = _state()
    state.step(_batch(), 0, 100)
    names = state.generator.module.generator.state_dict().keys()  # type: ignore[union-attr,operator]
    assert state.ema.network.state_dict().keys() == names
    assert state.sample_generators["raw"] is state.generator.module.generator
    assert state.state_dict()["ema"].keys() == names
    assert any(name.startswith("reader.") for name in state.state_dict()["generator"]["network"])


def test_a_rehearsal_leaves_no_trace() -> None:
    fresh, rehearsed = _state(), _state()
    rehearsed.rehearse(_batch(9))
    reports = [[state.step(_batch(n), n, 100) for n in range(2)] for state in (fresh, rehearsed)]
    for ours, theirs in zip(*reports, strict=True):
        assert ours.redrawing == theirs.redrawing
        assert ours.contrastive == theirs.contrastive
    for engine, other in ((fresh.generator, rehearsed.generator), (fresh.discriminator, rehearsed.discriminator)):
        for name, value in engine.module.state_dict().items():
            assert torch.equal(value, other.module.state_dict()[name]), name


@pytest.mark.slow
def test_compiled_networks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """See test_step.py; batches of another size that were captured before would make sizes symbols."""
    torch.compiler.reset()
    compiled = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled(module, backend="eager"))
    plain, captured = _state(), _state(compile=True)
    for number in range(2):
        reports = [state.step(_batch(number), number, 100) for state in (plain, captured)]
        for name in metrics_of(StepReport, LossWeights.of(plain._config.training).present):
            torch.testing.assert_close(getattr(reports[1], name), getattr(reports[0], name), rtol=1e-12, atol=0)
    torch.compiler.reset()


def test_the_rate_falls_linearly_over_the_last_part() -> None:
    config = Config(training=TrainingConfig(learning_rate=2.0, halve_every_epochs=0, epochs=10, linear_decay=0.5))
    assert [learning_rate(config, epochs) for epochs in (0, 5, 7.5, 10)] == pytest.approx([2.0, 2.0, 1.05, 0.1])
    halved = replace(config, training=replace(config.training, halve_every_epochs=5))
    assert learning_rate(halved, 7.5) == pytest.approx(1.05 / 2)
