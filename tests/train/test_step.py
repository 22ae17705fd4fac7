"""One training step against a reference written from the paper's formulas, and who may change what in it."""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from distributed.tiny import BASELINES, idle_biases, tiny_model, wake
from random_batch import random_batch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from stackgan_dist.config import Config, TrainingConfig
from stackgan_dist.data.batch import Batch
from stackgan_dist.distributed.gather import gather_alone
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.engines.ddp import DDPEngine
from stackgan_dist.models import ModelConfig, build_discriminator, build_generator
from stackgan_dist.models.adversarial import NonSaturating
from stackgan_dist.runs.metrics import metrics_of
from stackgan_dist.train.losses import LossWeights
from stackgan_dist.train.precision import resolve_precision
from stackgan_dist.train.state import TrainingState, learning_rate
from stackgan_dist.train.step import StepReport, StepSettings, train_step
from stackgan_dist.train.step_metrics import METRICS

ROWS, TEXT_DIM = 4, 6
ALONE = Ranks(0, 1, torch.device("cpu"), gather_alone)
FP64 = resolve_precision("fp64", ALONE.device)
RATE, KL_WEIGHT = 1e-2, 1.5

VARIANTS = {
    "paper": tiny_model(),
    "pytorch": tiny_model(recipe="pytorch"),
    "paper-stage2": tiny_model(stage=2, image_size=128),
    "pytorch-stage2": tiny_model(recipe="pytorch", stage=2, image_size=128),
    "paper-no-ca": tiny_model(conditioning_augmentation=False),
    **BASELINES,
}
INTERPOLATING = ("gan-int-cls", "gawwn-box")
each_variant = pytest.mark.parametrize("model", VARIANTS.values(), ids=VARIANTS)


def _batch(model: ModelConfig, seed: int = 0) -> Batch:
    return random_batch(model, ROWS, TEXT_DIM, seed, between=ROWS // 2 if model.family in INTERPOLATING else 0)


def _state(model: ModelConfig, **training: Any) -> TrainingState:
    training = {"batch_size": ROWS, "seed": 5, "learning_rate": RATE, "kl_weight": KL_WEIGHT, **training}
    training["interpolated_texts"] = model.family in INTERPOLATING
    state = TrainingState(Config(model=model, training=TrainingConfig(**training)), TEXT_DIM, None, ALONE, FP64)
    # The authors' initial weights are so small that D would hardly see its input.
    for network in (state.generator.module, state.discriminator.module):
        if model.family == "df-gan":
            wake(network)
            continue
        for parameter in network.parameters():
            parameter.data *= 3
    return state


class Reference:
    """The step as the paper tells it: no engines, no shared features, no freezing, torch's own batch normalisation."""

    def __init__(self, state: TrainingState, model: ModelConfig) -> None:
        self.g: Any = build_generator(model, TEXT_DIM).double()
        self.d: Any = build_discriminator(model, TEXT_DIM).double()
        self.g.load_state_dict(state.generator.module.state_dict())
        self.d.load_state_dict(state.discriminator.module.discriminator.state_dict())  # type: ignore[union-attr,operator]
        self.model = model
        self.adam_g, self.adam_d = (
            torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=RATE, betas=(0.5, 0.999))
            for net in (self.g, self.d)
        )

    def _condition(self, text: Tensor) -> Tensor:
        if self.model.recipe == "paper":  # and the baselines
            return text
        return F.relu(self.g.conditioning.fc(text)[:, : self.model.condition_dim]).detach()

    def step(self, batch: Batch) -> dict[str, Tensor]:
        real = batch.images.double() / 255 * 2 - 1
        text, wrong, z, eps = (t.double() for t in (batch.text, batch.wrong_text, batch.z, batch.eps))
        place = [] if batch.place is None else [batch.place.double()]
        fakes = self.g(text, z, eps, *place)
        condition = self._condition(text)
        s_r, s_w, s_f = (
            self.d(image, given, *(where[:ROWS] for where in place))
            for image, given in (
                (real, condition[:ROWS]),
                (real, self._condition(wrong)),
                (fakes.image[:ROWS].detach(), condition[:ROWS]),
            )
        )

        def is_real(logits: Tensor) -> Tensor:
            return -torch.log(torch.sigmoid(logits)).mean()

        def is_fake(logits: Tensor) -> Tensor:
            return -torch.log(1 - torch.sigmoid(logits)).mean()

        d_loss = is_real(s_r.conditional) + (is_fake(s_w.conditional) + is_fake(s_f.conditional)) / 2
        penalty = torch.zeros(())
        if self.model.family == "df-gan":
            d_loss = F.relu(1 - s_r.conditional).mean() + sum(F.relu(1 + s.conditional).mean() / 2 for s in (s_w, s_f))
            given = real.clone().requires_grad_(), condition.clone().requires_grad_()
            slopes = torch.autograd.grad(self.d(*given).conditional.sum(), given, create_graph=True)
            penalty = 2 * torch.cat([slope.flatten(1) for slope in slopes], dim=1).norm(dim=1).pow(6).mean()
        if s_r.unconditional is not None:
            d_loss = (is_real(s_r.conditional) + is_real(s_r.unconditional)) / 2 + (
                is_fake(s_w.conditional) + is_fake(s_f.conditional) + is_fake(s_f.unconditional)
            ) / 3
        self.adam_d.zero_grad()
        (d_loss + penalty).backward()
        d_norm = _norm(self.d)
        self.adam_d.step()

        judged = self.d(fakes.image, condition, *place)
        g_loss = -judged.conditional.mean() if self.model.family == "df-gan" else is_real(judged.conditional)
        if judged.unconditional is not None:
            g_loss = g_loss + is_real(judged.unconditional)
        kl = kl_divergence(Normal(fakes.mu, fakes.log_sigma.exp()), Normal(0.0, 1.0)).mean()
        self.adam_g.zero_grad()
        (g_loss + KL_WEIGHT * kl).backward()
        g_norm = _norm(self.g)
        self.adam_g.step()
        return {
            "discriminator_loss": d_loss,
            "generator_loss": g_loss,
            "kl": kl,
            "real": torch.sigmoid(s_r.conditional).mean(),
            "wrong": torch.sigmoid(s_w.conditional).mean(),
            "fake": torch.sigmoid(s_f.conditional).mean(),
            "discriminator_gradient": d_norm,
            "generator_gradient": g_norm,
            **({"penalty": penalty} if self.model.family == "df-gan" else {}),
        }


def _norm(network: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]).norm()


def _weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def test_the_step_knows_of_no_files() -> None:
    """By what a fresh interpreter loads for it."""
    code = "import sys, stackgan_dist.train.step; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "stackgan_dist.train.step" in loaded
    for room in ("fsspec", "stackgan_dist.storage", "stackgan_dist.distributed", "stackgan_dist.data"):
        assert {name for name in loaded if name == room or name.startswith(f"{room}.")} <= {
            "stackgan_dist.data",
            "stackgan_dist.data.batch",
            "stackgan_dist.data.shared_memory",  # by which a batch travels
        }


@each_variant
def test_three_steps_equal_the_reference(model: ModelConfig) -> None:
    state = _state(model)
    reference = Reference(state, model)
    for number in range(3):
        batch = _batch(model, number)
        found, expected = state.step(batch, number, 100), reference.step(batch)
        assert set(expected) == set(metrics_of(StepReport, state.terms))
        for name in expected:
            # Probabilities are reported in float32.
            torch.testing.assert_close(
                getattr(found, name).double(),
                expected[name].detach(),
                rtol=1e-6,
                atol=1e-8,
                msg=f"{name} of step {number} is not the reference's",
            )
    for ours, theirs in (
        (state.generator.module, reference.g),
        (state.discriminator.module.discriminator, reference.d),
    ):
        # A bias before batch normalisation has a gradient of rounding errors, which Adam scales to about 1e-8.
        torch.testing.assert_close(_weights(ours), _weights(theirs), rtol=1e-6, atol=1e-6)


@each_variant
def test_each_update_changes_its_own_network_only(model: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    state = _state(model)
    g, d = state.generator.module, state.discriminator.module
    update = DDPEngine.update
    updated = []

    def watched(engine: DDPEngine, loss: Tensor, rate: float) -> Tensor:
        mine, other = (g, d) if engine is state.generator else (d, g)
        before, others = _weights(mine), _weights(other)
        gradients = {name: None if p.grad is None else p.grad.clone() for name, p in other.named_parameters()}
        norm = update(engine, loss, rate)
        assert all(torch.equal(value, others[name]) for name, value in _weights(other).items())
        for name, parameter in other.named_parameters():
            old = gradients[name]
            assert (parameter.grad is None) if old is None else torch.equal(parameter.grad, old), name
        trained = {name for name, p in mine.named_parameters() if p.requires_grad}
        assert {name for name, value in _weights(mine).items() if not torch.equal(value, before[name])} == trained
        updated.append("G" if mine is g else "D")
        return norm

    monkeypatch.setattr(DDPEngine, "update", watched)
    for number in range(2):
        state.step(_batch(model, number), number, 100)
    assert updated == ["D", "G", "D", "G"]
    assert all(parameter.requires_grad for parameter in d.parameters())


@each_variant
def test_idle_biases_and_no_other_parameters_have_no_gradient(model: ModelConfig) -> None:
    """What tests that compare runs make an exception of, see largest_difference."""
    state = _state(model)
    state.step(_batch(model), 0, 100)
    for network in (state.generator.module, state.discriminator.module):
        gradients = {n: float(p.grad.abs().max()) for n, p in network.named_parameters() if p.grad is not None}
        largest = max(gradients.values())
        assert {name for name, gradient in gradients.items() if gradient < 1e-12 * largest} == set(idle_biases(network))


def test_stage1_stays_frozen_in_stage2() -> None:
    model = VARIANTS["paper-stage2"]
    state = _state(model)
    frozen: nn.Module = state.generator.module.stage1  # type: ignore[assignment]
    before = copy.deepcopy(frozen.state_dict())
    for number in range(2):
        state.step(_batch(model, number), number, 100)
    after = frozen.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_learning_rate_is_halved_at_every_multiple() -> None:
    config = Config(training=TrainingConfig(learning_rate=8e-4, halve_every_epochs=100))
    epochs = (0, 99, 100, 199, 200, 599)
    assert [learning_rate(config, epoch) for epoch in epochs] == [8e-4, 8e-4, 4e-4, 4e-4, 2e-4, 8e-4 / 2**5]
    config = replace(config, training=replace(config.training, halve_every_epochs=0))
    assert learning_rate(config, 599) == 8e-4


@pytest.mark.parametrize(("step", "rate"), [(0, RATE), (5, RATE), (6, RATE / 2), (12, RATE / 4)])
def test_both_networks_learn_at_the_rate_of_the_epoch(step: int, rate: float) -> None:
    state = _state(VARIANTS["paper"], halve_every_epochs=2)
    for engine in (state.generator, state.discriminator):
        assert isinstance(engine, DDPEngine)
    before = [_weights(engine.module) for engine in (state.generator, state.discriminator)]
    state.step(_batch(VARIANTS["paper"]), step, steps_per_epoch=3)
    for engine, old in zip((state.generator, state.discriminator), before, strict=True):
        changes = torch.cat([(value - old[name]).flatten().abs() for name, value in _weights(engine.module).items()])
        # Adam's first step is as long as the learning rate, whatever the gradient.
        torch.testing.assert_close(changes.max(), torch.tensor(rate, dtype=torch.float64), rtol=1e-3, atol=0)


def test_the_moving_average_takes_in_every_step() -> None:
    model = VARIANTS["paper"]
    state = _state(model)
    average = copy.deepcopy(state.ema)
    before = _weights(average.network)
    for number in range(2):
        state.step(_batch(model, number), number, 100)
        average.update(state.generator.module, (number + 1) * ROWS, ROWS)
    assert not any(torch.equal(value, before[name]) for name, value in _weights(average.network).items())
    expected = average.network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in state.ema.network.state_dict().items())


def test_colour_weight_acts_on_stage2_alone() -> None:
    for name, model in VARIANTS.items():
        plain, weighted = _state(model), _state(model, colour_weight=50.0)
        gradients = [state.step(_batch(model), 0, 100).generator_gradient for state in (plain, weighted)]
        assert (gradients[0] != gradients[1]) == name.endswith("stage2")


@pytest.mark.parametrize("coarse", [None, 8])
def test_reconstruction_is_an_error_over_the_rows_of_the_same_pass(coarse: int | None) -> None:
    model = replace(VARIANTS["paper-stage2"], stage1_coarse=coarse)
    weight, batch = 30.0, _batch(model)
    plain, weighted = _state(model), _state(model, reconstruction_weight=weight)
    g: Any = copy.deepcopy(weighted.generator.module)
    reports = [state.step(batch, 0, 100) for state in (plain, weighted)]

    real = batch.images.double() / 127.5 - 1
    fakes = g(*(t.double() for t in (batch.text, batch.z, batch.eps)), real)
    assert fakes.rebuilt is not None
    assert fakes.rebuilt.shape == fakes.image.shape
    d = weighted.discriminator.module.discriminator  # updated by now, as the generator's loss has it
    loss = -F.logsigmoid(d(fakes.image, batch.text.double()).conditional).mean()  # type: ignore[operator]
    prior = Normal(torch.zeros_like(fakes.mu), torch.ones_like(fakes.mu))
    loss = loss + KL_WEIGHT * kl_divergence(Normal(fakes.mu, fakes.log_sigma.exp()), prior).mean()
    loss = loss + weight * (fakes.rebuilt - real).abs().mean()
    loss.backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in g.parameters() if p.grad is not None])
    torch.testing.assert_close(reports[1].generator_gradient, norm)
    assert reports[0].generator_gradient != reports[1].generator_gradient


def test_a_larger_share_weighs_the_gradient_and_not_the_report() -> None:
    model = VARIANTS["paper"]
    reports = []
    for share in (1.0, 2.0):
        state = _state(model)
        settings = StepSettings(
            torch.tensor(0.0),
            torch.tensor(0.0),
            NonSaturating(),
            LossWeights(KL_WEIGHT, 0.0, 0.0),
            FP64,
            share=share,
            generator_share=share,
        )
        reports.append(train_step(state.generator, state.discriminator, _batch(model), settings))
    for name in METRICS:
        factor = 2 if name.endswith("_gradient") else 1
        torch.testing.assert_close(getattr(reports[1], name), factor * getattr(reports[0], name))


def test_a_rehearsal_leaves_no_trace() -> None:
    model = VARIANTS["pytorch-stage2"]
    fresh, rehearsed = _state(model), _state(model)
    rehearsed.rehearse(_batch(model, 9))
    reports = [[state.step(_batch(model, n), n, 100) for n in range(2)] for state in (fresh, rehearsed)]
    for ours, theirs in zip(*reports, strict=True):
        assert all(torch.equal(getattr(ours, name), getattr(theirs, name)) for name in METRICS)
    for ours, theirs in ((fresh.generator, rehearsed.generator), (fresh.discriminator, rehearsed.discriminator)):
        for name, value in ours.module.state_dict().items():
            assert torch.equal(value, theirs.module.state_dict()[name]), name


def test_bf16_keeps_losses_and_weights_in_float32() -> None:
    model = VARIANTS["paper"]
    config = Config(model=model, training=TrainingConfig(batch_size=ROWS))
    precision = resolve_precision("bf16", ALONE.device)
    state = TrainingState(config, TEXT_DIM, None, ALONE, precision)
    report = state.step(_batch(model), 0, 100)
    assert report.discriminator_loss.dtype == report.generator_loss.dtype == report.kl.dtype == torch.float32
    for name in METRICS:
        assert torch.isfinite(getattr(report, name)), name
    assert {p.dtype for p in state.generator.module.parameters()} == {torch.float32}


@pytest.mark.slow
def test_compiled_networks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch.compile captures, run as it was captured: code for a device is made only where there is one."""
    compiled = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled(module, backend="eager"))
    model = VARIANTS["paper"]
    plain, captured = _state(model), _state(model, compile=True)
    for number in range(2):
        reports = [state.step(_batch(model, number), number, 100) for state in (plain, captured)]
        for name in METRICS:
            torch.testing.assert_close(getattr(reports[1], name), getattr(reports[0], name), rtol=1e-12, atol=0)
    assert list(captured.generator.module.state_dict()) == list(plain.generator.module.state_dict())
