"""The networks against the published ones (parameters, arithmetic) and against what the training step expects."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stackgan_dist.models import (
    Discriminator,
    Fakes,
    Generator,
    Logits,
    ModelConfig,
    Stage2Generator,
    build_discriminator,
    build_generator,
    upsampling,
)

COCO: dict[str, Any] = {"generator_width": 192, "discriminator_width": 96, "residual_blocks": 2}
TINY: dict[str, Any] = {"generator_width": 8, "discriminator_width": 4, "condition_dim": 6, "noise_dim": 5}
TEXT_DIM = 10
SIZES = [(1, 64), (1, 128), (1, 256), (2, 128), (2, 256)]
every_network = pytest.mark.parametrize(
    ("recipe", "stage", "image_size"), [(recipe, *size) for recipe in ("paper", "pytorch") for size in SIZES]
)


def parameters(network: nn.Module, trainable_only: bool = False) -> int:
    return sum(w.numel() for w in network.parameters() if w.requires_grad or not trainable_only)


def tiny(**settings: Any) -> tuple[Generator, Discriminator]:
    torch.manual_seed(0)
    config = ModelConfig(**TINY, **settings)
    return build_generator(config, TEXT_DIM), build_discriminator(config, TEXT_DIM)


def noise(rows: int, stage: int, **kwargs: Any) -> tuple[Tensor, Tensor, Tensor]:
    """text, z, eps."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(rows, TEXT_DIM), (rows, TINY["noise_dim"]), (rows, stage, TINY["condition_dim"])]
    text, z, eps = (torch.randn(shape, generator=generator, **kwargs) for shape in shapes)
    return text, z, eps


# The layers are those of the authors' codes: their numbers of parameters, and of multiplications.


@pytest.mark.parametrize(
    ("settings", "generator", "with_stage1", "discriminator"),
    [
        ({}, 14_264_192, 14_264_192, 4_029_824),
        ({"stage": 2, "image_size": 256}, 26_290_080, 26_290_080 + 14_264_192, 48_603_520),
        ({"recipe": "pytorch"}, 10_301_248, 10_301_248, 5_715_713),
        ({"recipe": "pytorch", "stage": 2, "image_size": 256}, 26_290_080, 36_591_328, 71_269_122),
        ({"recipe": "pytorch", **COCO}, 20_020_832, 20_020_832, 12_407_425),
        (
            {"recipe": "pytorch", "stage": 2, "image_size": 256, **COCO},
            37_130_480,
            37_130_480 + 20_020_832,
            159_889_538,
        ),
        ({"stage": 2, "image_size": 128}, 16_831_168, 16_831_168 + 14_264_192, None),
    ],
)
def test_parameters_are_the_authors(
    settings: dict[str, Any], generator: int, with_stage1: int, discriminator: int | None
) -> None:
    config = ModelConfig(**settings)
    with torch.device("meta"):
        g, d = build_generator(config, 1024), build_discriminator(config, 1024)
    assert parameters(g, trainable_only=True) == generator
    assert parameters(g) == with_stage1
    if discriminator is not None:
        assert parameters(d) == discriminator


@pytest.mark.parametrize(
    ("settings", "generator", "discriminator"),
    [
        ({}, 2.0538, 0.2441),
        ({"stage": 2, "image_size": 256}, 23.1269 + 2.0538, 5.5897),
        ({"recipe": "pytorch"}, 2.4381, 0.3020),
        ({"recipe": "pytorch", "stage": 2, "image_size": 256}, 25.5649, 6.3188),
        ({"recipe": "pytorch", **COCO}, 5.4688, 0.6606),
        ({"recipe": "pytorch", "stage": 2, "image_size": 256, **COCO}, 40.8305 + 5.4688, 14.1275),
    ],
)
def test_arithmetic_is_the_authors(
    settings: dict[str, Any], generator: float, discriminator: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward GFLOP per image, with up-sampling and convolution as the two steps that they are in those codes."""
    monkeypatch.setattr(upsampling, "choose_form", lambda *_, **__: "plain")
    g_gflop, d_gflop = _gflop(ModelConfig(**settings))
    assert g_gflop == pytest.approx(generator, abs=1.1e-4)
    assert d_gflop == pytest.approx(discriminator, abs=6e-5)


@pytest.mark.parametrize(("form", "products"), [("transposed", 16), ("minimal", 9)])
def test_up_sampling_takes_16_or_9_of_36_products(form: str, products: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upsampling, "choose_form", lambda *_, **__: "plain")
    plain, _ = _gflop(ModelConfig())
    monkeypatch.setattr(upsampling, "choose_form", lambda *_, **__: form)
    folded, _ = _gflop(ModelConfig())
    channels_and_sides = [(1024, 512, 8), (512, 256, 16), (256, 128, 32), (128, 3, 64)]
    up_sampling = sum(2 * 9 * few * many * side**2 for many, few, side in channels_and_sides) / 1e9
    # The minimal form's nine kernels are a product of 9 x 9 with the weight, once for all rows.
    kernels = sum(2 * 9 * 9 * few * many for many, few, _ in channels_and_sides) / 1e9 if form == "minimal" else 0
    assert plain - folded == pytest.approx(up_sampling * (1 - products / 36) - kernels, rel=1e-6)


def _gflop(config: ModelConfig) -> tuple[float, float]:
    with torch.device("meta"):
        g, d = build_generator(config, 1024).eval(), build_discriminator(config, 1024).eval()
        text = torch.empty(1, 1024)
        z, eps = torch.empty(1, config.noise_dim), torch.empty(1, config.stage, config.condition_dim)
        with FlopCounterMode(display=False) as of_generator:
            image = g(text, z, eps).image
        condition = text if config.recipe == "paper" else torch.empty(1, config.condition_dim)
        with FlopCounterMode(display=False) as of_discriminator:
            d(image, condition)
    return of_generator.get_total_flops() / 1e9, of_discriminator.get_total_flops() / 1e9


RESIDUAL = "conv1 bn {a} conv3 bn {a} conv3 bn {a}"


@pytest.mark.parametrize(
    ("settings", "generator", "discriminator"),
    [
        (
            {},
            f"fc fc bn {RESIDUAL} up bn {RESIDUAL} up bn {{a}} up bn {{a}} up tanh",
            f"conv4 {{a}} conv4 bn {{a}} conv4 bn {{a}} conv4 bn {RESIDUAL} fc {{a}} conv1 bn {{a}} conv4",
        ),
        (
            {"recipe": "pytorch"},
            "fc fc bn {a}" + " up bn {a}" * 4 + " conv3 tanh",
            "conv4 {a}" + " conv4 bn {a}" * 3 + " conv3 bn {a} conv4",
        ),
        (
            {"stage": 2, "image_size": 256, "residual_blocks": 1},
            "fc conv3 {a} conv4 bn {a} conv4 bn {a} conv3 bn {a} conv3 bn {a} conv3 bn {a}"
            + " up bn {a}" * 4
            + " conv3 tanh",
            "conv4 {a}" + " conv4 bn {a}" * 5 + f" conv1 bn {{a}} conv1 bn {RESIDUAL} fc {{a}} conv1 bn {{a}} conv4",
        ),
        (
            {"recipe": "pytorch", "stage": 2, "image_size": 256, "residual_blocks": 1},
            None,
            "conv4 {a}" + " conv4 bn {a}" * 5 + " conv3 bn {a} conv3 bn {a} conv3 bn {a} conv4 conv4",
        ),
    ],
)
def test_layers_in_the_order_they_run(settings: dict[str, Any], generator: str | None, discriminator: str) -> None:
    with torch.device("meta"):
        config = ModelConfig(**TINY, **settings)
        g, d = build_generator(config, TEXT_DIM), build_discriminator(config, TEXT_DIM)
        ran: list[str] = []
        for layer in (*g.modules(), *d.modules()):
            if not list(layer.children()):
                layer.register_forward_hook(lambda layer, _, __: ran.append(_short(layer)))
        text, z = torch.empty(2, TEXT_DIM), torch.empty(2, config.noise_dim)
        eps = torch.empty(2, config.stage, config.condition_dim)
        image = g(text, z, eps).image
        of_generator = ran.copy()
        ran.clear()
        d(image, text if config.recipe == "paper" else torch.empty(2, config.condition_dim))
    if config.stage == 2:  # Stage-I runs first, and ends in its tanh
        of_generator = of_generator[of_generator.index("tanh") + 1 :]
        # The text's layer runs where its output is needed; in the list it stands first.
        of_generator.remove("fc")
        of_generator.insert(0, "fc")
    if generator is not None:
        assert " ".join(of_generator) == generator.format(a="relu")
    assert " ".join(name for name in ran if name != "same") == discriminator.format(a="leaky")


def _short(layer: nn.Module) -> str:
    if isinstance(layer, upsampling.UpsampleConv):
        return "up"
    if isinstance(layer, nn.Conv2d):
        return f"conv{layer.kernel_size[0]}"
    names = {nn.Linear: "fc", nn.ReLU: "relu", nn.LeakyReLU: "leaky", nn.Tanh: "tanh", nn.Identity: "same"}
    return names.get(type(layer), "bn")


# What the training step expects.


@every_network
def test_shapes_and_ranges(recipe: str, stage: int, image_size: int) -> None:
    g, d = tiny(recipe=recipe, stage=stage, image_size=image_size)
    text, z, eps = noise(2, stage)
    with torch.no_grad():
        fakes = g(text, z, eps)
        condition = g.discriminator_condition(text)
        features = d.features(fakes.image)
        scores = d.score(features, condition)
    assert isinstance(fakes, Fakes)
    assert fakes.image.shape == (2, 3, image_size, image_size)
    assert fakes.image.abs().max() <= 1
    assert fakes.mu.shape == fakes.log_sigma.shape == (2, 6)
    assert features.shape == (2, 32, 4, 4)
    assert scores.conditional.shape == (2,)
    if stage == 1:
        assert fakes.low_resolution is None
    else:
        assert fakes.low_resolution is not None
        assert fakes.low_resolution.shape == (2, 3, 64, 64)
    assert condition.shape == ((2, TEXT_DIM) if recipe == "paper" else (2, 6))
    if recipe == "pytorch" and stage == 2:
        assert scores.unconditional is not None
        assert scores.unconditional.shape == (2,)
    else:
        assert scores.unconditional is None


@pytest.mark.parametrize("recipe", ["paper", "pytorch"])
@pytest.mark.parametrize(
    ("stage", "image_size", "variant"),
    [
        *((*size, {}) for size in SIZES),
        (1, 64, {"conditioning_augmentation": False}),
        (2, 128, {"conditioning_augmentation": False}),
        (2, 128, {"text_in_stage2": False}),
        (2, 128, {"stage1_skip": True}),
        (2, 128, {"stage1_coarse": 8}),
    ],
)
def test_gradients_reach_every_trainable_parameter_and_no_other(
    recipe: str, stage: int, image_size: int, variant: dict[str, bool]
) -> None:
    g, d = tiny(recipe=recipe, stage=stage, image_size=image_size, **variant)
    text, z, eps = noise(3, stage)
    fakes = g(text, z, eps)
    scores = d(fakes.image, g.discriminator_condition(text))
    logits = [logit for logit in scores if logit is not None]
    (sum(logit.sum() for logit in logits) + fakes.mu.sum() + fakes.log_sigma.sum()).backward()

    missed = [
        name
        for network in (g, d)
        for name, weight in network.named_parameters()
        if weight.requires_grad and (weight.grad is None or not torch.any(weight.grad != 0))
    ]
    assert missed == []
    assert [w for w in g.parameters() if not w.requires_grad and w.grad is not None] == []


def test_the_condition_of_the_pytorch_discriminator_carries_no_gradient() -> None:
    for stage, image_size in ((1, 64), (2, 128)):
        g, _ = tiny(recipe="pytorch", stage=stage, image_size=image_size)
        text, z, eps = noise(2, stage)
        condition = g.discriminator_condition(text)
        assert not condition.requires_grad
        torch.testing.assert_close(condition, g(text, z, eps).mu)


def test_stage1_inside_stage2_never_changes() -> None:
    g, _ = tiny(stage=2, image_size=128)
    assert isinstance(g, Stage2Generator)
    before = {name: value.clone() for name, value in g.stage1.state_dict().items()}
    g.train()
    assert g.training
    assert g.decode.training
    assert not any(module.training for module in g.stage1.modules())
    g(*noise(3, 2)).image.sum().backward()
    torch.optim.SGD([w for w in g.parameters() if w.requires_grad], lr=0.1).step()
    assert all(torch.equal(before[name], value) for name, value in g.stage1.state_dict().items())
    g.eval()
    assert not g.decode.training


def test_stage2_gives_each_stage_its_own_noise() -> None:
    g, _ = tiny(stage=2, image_size=128)
    assert isinstance(g, Stage2Generator)
    text, z, eps = noise(2, 2)
    g.eval()
    with torch.no_grad():
        first = g(text, z, eps)
        stage1 = g.stage1(text, z, eps[:, :1])
        changed = eps.clone()
        changed[:, 1] += 1
        second = g(text, z, changed)
    assert first.low_resolution is not None
    assert second.low_resolution is not None
    assert torch.equal(first.low_resolution, stage1.image)
    assert torch.equal(second.low_resolution, stage1.image)
    assert not torch.equal(first.image, second.image)


def test_a_skip_starts_from_the_enlarged_stage1_image() -> None:
    g, _ = tiny(stage=2, image_size=128, stage1_skip=True)
    assert isinstance(g, Stage2Generator)
    nn.init.zeros_(g.decode[-1].weight)  # type: ignore[arg-type]
    with torch.no_grad():
        fakes = g(*noise(2, 2))
    assert fakes.low_resolution is not None
    enlarged = nn.functional.interpolate(fakes.low_resolution, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(fakes.image, enlarged)


def test_a_coarse_start_shows_stage2_no_more_than_its_pixels() -> None:
    g, _ = tiny(stage=2, image_size=128, stage1_coarse=8)
    plain, _ = tiny(stage=2, image_size=128)
    assert isinstance(g, Stage2Generator)
    text, z, eps = noise(2, 2)
    pictures = torch.rand(2, 3, 128, 128) * 2 - 1
    blocks = nn.functional.avg_pool2d(pictures, 16).repeat_interleave(16, 2).repeat_interleave(16, 3)
    assert torch.equal(g(text, z, eps, pictures).low_resolution, g.stage1(text, z, eps[:, :1]).image)
    for network, same in ((g, True), (plain, False)):
        network.eval()
        with torch.no_grad():
            ours, theirs = (network(text, z, eps, given).rebuilt for given in (pictures, blocks))
        assert ((ours - theirs).abs().max() < 1e-4 * ours.abs().max()) == same


def test_pictures_are_rebuilt_like_stage1_images_with_their_own_text() -> None:
    g, _ = tiny(stage=2, image_size=128, stage1_skip=True, stage1_coarse=16)
    assert isinstance(g, Stage2Generator)
    g.eval()
    text, z, eps = noise(2, 2)
    with torch.no_grad():
        fakes = g(text, z, eps)
        assert fakes.low_resolution is not None
        assert fakes.rebuilt is None
        again = g(text, z, eps, fakes.low_resolution.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert again.rebuilt is not None
    torch.testing.assert_close(again.image, fakes.image)
    torch.testing.assert_close(again.rebuilt, fakes.image)


def test_without_text_in_stage2_the_text_only_acts_through_the_stage1_image() -> None:
    g, _ = tiny(stage=2, image_size=128, text_in_stage2=False)
    assert isinstance(g, Stage2Generator)
    text, z, eps = noise(2, 2)
    g.eval()
    with torch.no_grad():
        fakes = g(text, z, eps)
        assert fakes.low_resolution is not None
        again = g.decode(g.refine(g.join(g.encode(fakes.low_resolution)))).tanh()
    assert torch.equal(fakes.image, again)
    assert not fakes.mu.any()
    assert not fakes.log_sigma.any()


def test_stage1_may_follow_another_configuration() -> None:
    torch.manual_seed(0)
    stage1 = ModelConfig(**{**TINY, "generator_width": 12}, recipe="pytorch")
    g = build_generator(ModelConfig(**TINY, stage=2, image_size=128), TEXT_DIM, stage1)
    assert isinstance(g, Stage2Generator)
    g.stage1.load_state_dict(build_generator(stage1, TEXT_DIM).state_dict())
    assert g(*noise(2, 2)).image.shape == (2, 3, 128, 128)


@pytest.mark.parametrize("recipe", ["paper", "pytorch"])
def test_features_are_those_of_forward(recipe: str) -> None:
    g, d = tiny(recipe=recipe, stage=2, image_size=128)
    text, z, eps = noise(2, 2)
    d.eval()
    with torch.no_grad():
        image, condition = g(text, z, eps).image, g.discriminator_condition(text)
        at_once, in_parts = d(image, condition), d.score(d.features(image), condition)
    assert isinstance(at_once, Logits)
    assert torch.equal(at_once.conditional, in_parts.conditional)


@pytest.mark.parametrize("recipe", ["paper", "pytorch"])
def test_scores_depend_on_the_text(recipe: str) -> None:
    g, d = tiny(recipe=recipe)
    text, z, eps = noise(2, 1)
    with torch.no_grad():
        features = d.eval().features(g(text, z, eps).image)
        own = d.score(features, g.discriminator_condition(text)).conditional
        other = d.score(features, g.discriminator_condition(-text)).conditional
    assert not torch.equal(own, other)


# Number formats and memory formats.


@pytest.mark.parametrize("recipe", ["paper", "pytorch"])
@pytest.mark.parametrize(("stage", "image_size"), [(1, 64), (2, 128)])
def test_float64_channels_last_and_bfloat16_agree(recipe: str, stage: int, image_size: int) -> None:
    """In eval mode on the same weights: rounding apart, the format of a number or a tensor changes nothing."""
    g, d = tiny(recipe=recipe, stage=stage, image_size=image_size)
    g, d = g.double().eval(), d.double().eval()
    text, z, eps = noise(2, stage, dtype=torch.float64)

    def run() -> tuple[Tensor, Tensor]:
        image = g(text, z, eps).image
        return image, d(image, g.discriminator_condition(text)).conditional

    with torch.no_grad():
        expected_image, expected_logits = run()
        assert expected_image.dtype == expected_logits.dtype == torch.float64
        g, d = g.to(memory_format=torch.channels_last), d.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        image, logits = run()
        torch.testing.assert_close(image, expected_image, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(logits, expected_logits, rtol=1e-12, atol=1e-12)
        g, d, text, z, eps = g.float(), d.float(), text.float(), z.float(), eps.float()
        with torch.autocast("cpu", torch.bfloat16):
            image, logits = run()
    scale = expected_image.abs().max().item()
    torch.testing.assert_close(image.double(), expected_image, rtol=0, atol=0.05 * scale)
    assert logits.isfinite().all()


@pytest.mark.parametrize(("stage", "image_size"), [(1, 64), (2, 128)])
def test_bfloat16_trains(stage: int, image_size: int) -> None:
    g, d = tiny(recipe="pytorch", stage=stage, image_size=image_size)
    with torch.autocast("cpu", torch.bfloat16):
        text, z, eps = noise(2, stage)
        logits = d(g(text, z, eps).image, g.discriminator_condition(text)).conditional
    logits.float().sum().backward()
    for weight in (*g.parameters(), *d.parameters()):
        if weight.grad is not None:
            assert weight.grad.dtype == torch.float32
            assert weight.grad.isfinite().all()
