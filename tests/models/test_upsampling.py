"""Every form of up-sampling and convolution is the same function, forward and backward; the choice is a fixed rule."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from stackgan_dist.models import ModelConfig, build_generator, upsampling
from stackgan_dist.models.upsampling import FORMS, Form, UpsampleConv, choose_form, forms_taken

each_form = pytest.mark.parametrize("form", FORMS)


def _gradients(function: object, x: Tensor, weight: Tensor, upstream: Tensor) -> list[Tensor]:
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    found = function(x, weight)  # type: ignore[operator]
    return [found.detach(), *torch.autograd.grad(found, (x, weight), upstream)]


def _enlarge_and_convolve(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)


@each_form
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 3), (4, 4), (9, 11)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_forms_are_nearest_and_3x3(form: Form, height: int, width: int, memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, height, width, dtype=torch.float64).to(memory_format=memory_format)
    weight = torch.randn(3, 5, 3, 3, dtype=torch.float64)
    upstream = torch.randn(2, 3, 2 * height, 2 * width, dtype=torch.float64).to(memory_format=memory_format)
    expected = _gradients(_enlarge_and_convolve, x, weight, upstream)
    for ours, theirs in zip(_gradients(FORMS[form], x, weight, upstream), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@each_form
def test_forms_are_equal_to_1e_6_in_float32(form: Form) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(4, 128, 8, 8), 0.02 * torch.randn(96, 128, 3, 3)
    upstream = torch.randn(4, 96, 16, 16)
    expected = _gradients(_enlarge_and_convolve, x.double(), weight.double(), upstream.double())
    for ours, theirs in zip(_gradients(FORMS[form], x, weight, upstream), expected, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-6


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_minimal_form_keeps_only_its_input_for_the_gradient(memory_format: torch.memory_format) -> None:
    x = torch.randn(2, 5, 4, 4).to(memory_format=memory_format).requires_grad_()
    weight = torch.randn(3, 5, 3, 3, requires_grad=True)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        FORMS["minimal"](x, weight)
    assert {tensor.data_ptr() for tensor in kept} == {x.data_ptr(), weight.data_ptr()}


def test_the_rule() -> None:
    assert choose_form("cpu", 512, 4) == choose_form("cpu", 128, 32) == "minimal"
    assert choose_form("cpu", 64, 32) == choose_form("cpu", 3, 32) == choose_form("cpu", 32, 4) == "transposed"
    # Where nothing was measured.
    assert choose_form("cuda", 512, 4) == choose_form("cpu", 512, 4, autocast=True) == "plain"
    assert choose_form("cuda", 512, 8) == choose_form("cpu", 512, 8, autocast=True) == "transposed"


def test_a_layer_takes_the_form_of_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def watched(form: Form) -> object:
        def compute(x: Tensor, weight: Tensor) -> Tensor:
            taken.append(form)
            return _enlarge_and_convolve(x, weight)

        return compute

    monkeypatch.setattr(upsampling, "FORMS", {form: watched(form) for form in FORMS})
    for outputs in (96, 3):
        UpsampleConv(2, outputs)(torch.zeros(1, 2, 4, 4))
    with torch.autocast("cpu", torch.bfloat16):
        UpsampleConv(2, 96)(torch.zeros(1, 2, 4, 4))
    assert taken == ["minimal", "transposed", "plain"]


def test_what_is_taken_can_be_told() -> None:
    config = ModelConfig(generator_width=32)
    generator = build_generator(config, 8).eval()
    text, z, eps = torch.zeros(1, 8), torch.zeros(1, config.noise_dim), torch.zeros(1, 1, config.condition_dim)
    assert forms_taken(generator, text, z, eps) == [
        "256 -> 128 at 4x4: minimal",
        "128 -> 64 at 8x8: transposed",
        "64 -> 32 at 16x16: transposed",
        "32 -> 3 at 32x32: transposed",
    ]
    assert forms_taken(generator, text, z, eps)  # the hooks of the first call are gone


def test_the_weight_stays_a_3x3_one() -> None:
    assert {name: tuple(w.shape) for name, w in UpsampleConv(5, 3).state_dict().items()} == {"weight": (3, 5, 3, 3)}


@each_form
def test_gradients_are_computed_under_the_autocast_of_the_forward_pass(form: Form) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(2, 8, 4, 4), torch.randn(6, 8, 3, 3)

    def forward(x: Tensor, weight: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return FORMS[form](x, weight)

    upstream = torch.randn(2, 6, 8, 8).bfloat16()
    exact = _gradients(_enlarge_and_convolve, x, weight, upstream.float())
    for ours, theirs in zip(_gradients(forward, x, weight, upstream), exact, strict=True):
        assert (ours.float() - theirs).norm() < 0.02 * theirs.norm()
