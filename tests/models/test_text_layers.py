"""Text at every layer: what the layers compute, whose text they read, and what a frozen Stage-I is left."""

from __future__ import annotations

import copy
import threading
from dataclasses import replace

import pytest
import torch
from distributed.tiny import tiny_model
from torch import nn

from stackgan_dist.distributed.gather import gather_alone
from stackgan_dist.distributed.sync_batchnorm import synchronise_batchnorm
from stackgan_dist.errors import UserError
from stackgan_dist.models import ModelConfig, Stage2Generator, build_generator
from stackgan_dist.models.text_layers import TextBatchNorm, text_for_layers

TEXT_DIM = 6
STAGE1 = tiny_model(text_every_layer=True)
STAGE2 = tiny_model(stage=2, image_size=128, text_every_layer=True)
each_stage = pytest.mark.parametrize("model", [STAGE1, STAGE2], ids=["stage1", "stage2"])


def _inputs(model: ModelConfig, rows: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    text = torch.randn(rows, TEXT_DIM, generator=random)
    z = torch.randn(rows, model.noise_dim, generator=random)
    return text, z, torch.randn(rows, model.augmentations, model.condition_dim, generator=random)


def _text_layers(network: nn.Module) -> list[TextBatchNorm]:
    return [layer for layer in network.modules() if isinstance(layer, TextBatchNorm)]


def test_scale_and_shift_are_linear_in_the_text() -> None:
    layer, plain = TextBatchNorm(nn.BatchNorm2d(3), TEXT_DIM), nn.BatchNorm2d(3)
    x, text = torch.randn(2, 3, 4, 4), torch.randn(2, TEXT_DIM)
    with text_for_layers([layer], text):
        found = layer(x)
    of_text, normalised = layer.of_text(text), plain(x)
    for row in range(2):
        for channel in range(3):
            expected = normalised[row, channel] * (1 + of_text[row, channel]) + of_text[row, 3 + channel]
            torch.testing.assert_close(found[row, channel], expected)


@each_stage
def test_every_batch_norm_of_pictures_that_is_trained_reads_the_text(model: ModelConfig) -> None:
    generator = build_generator(model, TEXT_DIM, tiny_model() if model.stage == 2 else None)
    reading = {id(layer.norm) for layer in _text_layers(generator)}
    own = {id(layer) for layer in generator.modules() if isinstance(layer, nn.BatchNorm2d)}
    if isinstance(generator, Stage2Generator):
        own -= {id(layer) for layer in generator.stage1.modules()}
    assert reading == own
    assert len(own) > 5


@each_stage
def test_it_starts_near_plain_batch_normalisation(model: ModelConfig) -> None:
    """Weights of 0.1 / sqrt(text dim), biases 0; all other weights are drawn as without it."""
    torch.manual_seed(0)
    generator = build_generator(model, 400)
    weights = torch.cat([layer.of_text.weight.flatten() for layer in _text_layers(generator)])
    assert weights.std().item() == pytest.approx(0.1 / 20, rel=0.05)
    assert all(layer.of_text.bias.abs().max() == 0 for layer in _text_layers(generator))


@each_stage
def test_pictures_depend_on_the_text_through_the_layers(model: ModelConfig) -> None:
    """In eval mode rows are alone; with the same condition, what differs is what the layers read."""
    generator = build_generator(model, TEXT_DIM).eval()
    text, z, eps = _inputs(model)
    for network in (generator, *([generator.stage1] if isinstance(generator, Stage2Generator) else [])):
        network.conditioning.fc.weight.data.zero_()  # type: ignore[union-attr]
    before = generator(text, z, eps).image
    text[1] += 1
    changed = (generator(text, z, eps).image - before).abs().amax((1, 2, 3))
    assert (changed > 0).tolist() == [False, True, False, False]


def test_rebuilt_pictures_are_told_their_own_texts() -> None:
    """Rows after the generated ones, in the order of the pictures, of which there may be fewer than texts."""
    generator = build_generator(STAGE2, TEXT_DIM).eval()
    text, z, eps = _inputs(STAGE2)
    pictures = torch.rand(3, 3, 128, 128) * 2 - 1
    fakes = generator(text, z, eps, pictures)
    assert fakes.rebuilt is not None
    assert len(fakes.rebuilt) == 3
    torch.testing.assert_close(fakes.image, generator(text, z, eps).image)
    order = [2, 0, 1, 3]
    other = generator(text[order], z[order], eps[order], pictures[order[:3]])
    torch.testing.assert_close(other.rebuilt, fakes.rebuilt[order[:3]])
    text[0] += 1
    changed = generator(text, z, eps, pictures).rebuilt - fakes.rebuilt
    assert (changed.abs().amax((1, 2, 3)) > 0).tolist() == [True, False, False]


def test_the_frozen_stage1_is_what_it_was_trained_as() -> None:
    """Whichever of the two has it."""
    text, z, eps = _inputs(STAGE2)
    for first, second in ((True, False), (False, True)):
        stage1 = build_generator(replace(STAGE1, text_every_layer=first), TEXT_DIM)
        stage2 = build_generator(
            replace(STAGE2, text_every_layer=second), TEXT_DIM, replace(STAGE1, text_every_layer=first)
        )
        assert isinstance(stage2, Stage2Generator)
        stage2.stage1.load_state_dict(stage1.state_dict())
        expected = stage1.eval()(text, z, eps[:, :1]).image
        torch.testing.assert_close(stage2.train()(text, z, eps).low_resolution, expected)


def test_without_it_names_are_those_of_before() -> None:
    plain = build_generator(tiny_model(), TEXT_DIM)
    assert not any("of_text" in name or ".norm." in name for name in plain.state_dict())


def test_batch_statistics_stay_global() -> None:
    """The batch norm inside is the one that ranks synchronise."""
    generator = synchronise_batchnorm(build_generator(STAGE1, TEXT_DIM), gather_alone)
    assert all(type(layer.norm).__name__ == "_SyncBatchNormCPU" for layer in _text_layers(generator))
    assert not any(type(layer) is nn.BatchNorm2d for layer in generator.modules())


def test_copies_read_their_own_texts() -> None:
    """As the moving average does, of which pictures may be generated in a thread beside."""
    generator = build_generator(STAGE1, TEXT_DIM).eval()
    copied = copy.deepcopy(generator)
    text, z, eps = _inputs(STAGE1)
    networks = (generator, copied)
    expected = [generator(given, z, eps).image for given in (text, -text)]
    found: dict[int, list[bool]] = {0: [], 1: []}

    def work(number: int) -> None:
        for _ in range(20):
            image = networks[number](text if number == 0 else -text, z, eps).image
            found[number].append(torch.equal(image, expected[number]))

    threads = [threading.Thread(target=work, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: [True] * 20, 1: [True] * 20}


def _fail(*_: object) -> None:
    raise ValueError("broken")


def test_no_text_is_left_behind() -> None:
    """Also where a forward pass failed."""
    generator = build_generator(STAGE1, TEXT_DIM)
    text, z, eps = _inputs(STAGE1)
    broken = generator.body[-1].register_forward_hook(_fail)  # type: ignore[union-attr,index]
    with pytest.raises(ValueError, match="broken"):
        generator(text, z, eps)
    broken.remove()
    assert all(layer.text is None for layer in _text_layers(generator))
    generator(text, z, eps)
    assert all(layer.text is None for layer in _text_layers(generator))
    with pytest.raises(AssertionError, match="text_for_layers"):
        _text_layers(generator)[0](torch.zeros(2, 3, 4, 4))


def test_a_stage2_that_is_told_no_text_cannot_read_it() -> None:
    with pytest.raises(UserError, match=r"--model\.no-text-in-stage2"):
        replace(STAGE2, text_in_stage2=False)
    with pytest.raises(UserError, match=r"--model\.text-every-layer"):
        ModelConfig(family="gan-int-cls", text_every_layer=True)
