"""Inception-v3 against the published layer list and an independent computation of its blocks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stackgan_dist.classifiers.inception_v3 import InceptionV3, Mixed, Pooling, _block_a, _block_e

STEM = """
Conv2d_1a_3x3 3 32 3x3   Conv2d_2a_3x3 32 32 3x3   Conv2d_2b_3x3 32 64 3x3
Conv2d_3b_1x1 64 80 1x1  Conv2d_4a_3x3 80 192 3x3
"""
A = """
branch1x1 {i} 64 1x1      branch5x5_1 {i} 48 1x1      branch5x5_2 48 64 5x5
branch3x3dbl_1 {i} 64 1x1 branch3x3dbl_2 64 96 3x3    branch3x3dbl_3 96 96 3x3   branch_pool {i} {w} 1x1
"""
B = "branch3x3 288 384 3x3 branch3x3dbl_1 288 64 1x1 branch3x3dbl_2 64 96 3x3 branch3x3dbl_3 96 96 3x3"
C = """
branch1x1 768 192 1x1
branch7x7_1 768 {w} 1x1    branch7x7_2 {w} {w} 1x7    branch7x7_3 {w} 192 7x1
branch7x7dbl_1 768 {w} 1x1 branch7x7dbl_2 {w} {w} 7x1 branch7x7dbl_3 {w} {w} 1x7
branch7x7dbl_4 {w} {w} 7x1 branch7x7dbl_5 {w} 192 1x7 branch_pool 768 192 1x1
"""
D = """
branch3x3_1 768 192 1x1   branch3x3_2 192 320 3x3
branch7x7x3_1 768 192 1x1 branch7x7x3_2 192 192 1x7 branch7x7x3_3 192 192 7x1 branch7x7x3_4 192 192 3x3
"""
E = """
branch1x1 {i} 320 1x1      branch3x3_1 {i} 384 1x1     branch3x3_2a 384 384 1x3    branch3x3_2b 384 384 3x1
branch3x3dbl_1 {i} 448 1x1 branch3x3dbl_2 448 384 3x3  branch3x3dbl_3a 384 384 1x3 branch3x3dbl_3b 384 384 3x1
branch_pool {i} 192 1x1
"""
AUX = "conv0 768 128 1x1 conv1 128 768 5x5"
MODULES = [
    ("", STEM),
    *((f"Mixed_5{x}.", A.format(i=i, w=w)) for x, i, w in [("b", 192, 32), ("c", 256, 64), ("d", 288, 64)]),
    ("Mixed_6a.", B),
    *((f"Mixed_6{x}.", C.format(w=w)) for x, w in [("b", 128), ("c", 160), ("d", 160), ("e", 192)]),
    ("AuxLogits.", AUX),
    ("Mixed_7a.", D),
    *((f"Mixed_7{x}.", E.format(i=i)) for x, i in [("b", 1280), ("c", 2048)]),
]


def published_layout(classes: int) -> dict[str, tuple[int, ...]]:
    layout: dict[str, tuple[int, ...]] = {}
    for prefix, table in MODULES:
        words = table.split()
        for name, channels, width, kernel in zip(*[iter(words)] * 4, strict=True):
            height, _, breadth = kernel.partition("x")
            layout[f"{prefix}{name}.conv.weight"] = (int(width), int(channels), int(height), int(breadth))
            for statistic in ("weight", "bias", "running_mean", "running_var"):
                layout[f"{prefix}{name}.bn.{statistic}"] = (int(width),)
            layout[f"{prefix}{name}.bn.num_batches_tracked"] = ()
        if prefix == "AuxLogits.":
            layout |= {"AuxLogits.fc.weight": (classes, 768), "AuxLogits.fc.bias": (classes,)}
    return layout | {"fc.weight": (classes, 2048), "fc.bias": (classes,)}


def scramble(module: nn.Module) -> None:
    """Statistics and affine parameters that a mistake cannot hide behind."""
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, 0, 0.1)  # type: ignore[arg-type]
            nn.init.uniform_(layer.running_var, 0.5, 1.5)  # type: ignore[arg-type]
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.normal_(layer.bias, 0, 0.1)


def test_names_and_shapes_are_the_published_ones() -> None:
    with torch.device("meta"):
        network = InceptionV3()
    found = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert found == published_layout(1000)
    assert sum(p.numel() for p in network.parameters()) == 27_161_264


def test_without_the_side_head() -> None:
    with torch.device("meta"):
        network = InceptionV3(auxiliary_head=False)
    assert sum(p.numel() for p in network.parameters()) == 23_834_568
    assert not any(name.startswith("AuxLogits") for name in network.state_dict())


def test_shapes_and_grid_sizes_at_299() -> None:
    network = InceptionV3(classes=21).eval()
    grids: dict[str, tuple[int, ...]] = {}
    for name in ("Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6a", "Mixed_6e", "Mixed_7a", "Mixed_7c"):
        network.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: grids.update({name: tuple(output.shape[1:])})
        )
    with torch.no_grad():
        output = network(torch.zeros(1, 3, 299, 299))
    assert grids == {
        "Conv2d_2b_3x3": (64, 147, 147),
        "Conv2d_4a_3x3": (192, 71, 71),
        "Mixed_5d": (288, 35, 35),
        "Mixed_6a": (768, 17, 17),
        "Mixed_6e": (768, 17, 17),
        "Mixed_7a": (1280, 8, 8),
        "Mixed_7c": (2048, 8, 8),
    }
    assert output.logits.shape == (1, 21)
    assert output.features.shape == (1, 2048)
    assert output.auxiliary is None


def test_the_side_head_speaks_in_training_only() -> None:
    network = InceptionV3(classes=5).train()
    with torch.no_grad():
        assert network.AuxLogits is not None
        assert network.AuxLogits(torch.zeros(2, 768, 17, 17)).shape == (2, 5)
        output = network(torch.zeros(2, 3, 299, 299))
    assert output.auxiliary is not None
    assert output.auxiliary.shape == (2, 5)


def convolved(block: nn.Module, name: str, x: Tensor) -> Tensor:
    """One layer by hand: correlation by unfolding, then the normalisation written out."""
    state = block.get_submodule(name).state_dict()
    weight = state["conv.weight"]
    height, breadth = weight.shape[2:]
    columns = F.unfold(x, (height, breadth), padding=(height // 2, breadth // 2))
    y = (weight.flatten(1) @ columns).unflatten(2, x.shape[2:])
    column = {key: value[:, None, None] for key, value in state.items() if key.startswith("bn.") and value.ndim}
    y = (y - column["bn.running_mean"]) / (column["bn.running_var"] + 1e-3).sqrt()
    return (y * column["bn.weight"] + column["bn.bias"]).clamp(min=0)


def pooled(x: Tensor, how: str) -> Tensor:
    """3x3 pooling of stride 1 by unfolding."""
    patches = F.unfold(x, 3, padding=1).unflatten(1, (x.shape[1], 9))
    if how == "max":
        return F.unfold(F.pad(x, (1, 1, 1, 1), value=-torch.inf), 3).unflatten(1, (x.shape[1], 9)).amax(2).view_as(x)
    inside = F.unfold(torch.ones_like(x), 3, padding=1).unflatten(1, (x.shape[1], 9)).sum(2)
    return (patches.sum(2) / (9 if how == "counting the padding" else inside)).view_as(x)


@pytest.mark.parametrize("count_padding", [True, False])
def test_block_a_equals_an_independent_computation(count_padding: bool) -> None:
    torch.manual_seed(0)
    block = Mixed(24, _block_a(nn.AvgPool2d(3, 1, 1, count_include_pad=count_padding), 16)).double().eval()
    scramble(block)
    x = torch.randn(2, 24, 6, 5, dtype=torch.float64)
    how = "counting the padding" if count_padding else "inside only"
    expected = [
        convolved(block, "branch1x1", x),
        convolved(block, "branch5x5_2", convolved(block, "branch5x5_1", x)),
        convolved(block, "branch3x3dbl_3", convolved(block, "branch3x3dbl_2", convolved(block, "branch3x3dbl_1", x))),
        convolved(block, "branch_pool", pooled(x, how)),
    ]
    torch.testing.assert_close(block(x), torch.cat(expected, 1), rtol=0, atol=1e-12)


def test_block_e_equals_an_independent_computation() -> None:
    torch.manual_seed(0)
    block = Mixed(16, _block_e(nn.MaxPool2d(3, 1, 1))).double().eval()
    scramble(block)
    x = torch.randn(1, 16, 4, 4, dtype=torch.float64)
    three = convolved(block, "branch3x3_1", x)
    double = convolved(block, "branch3x3dbl_2", convolved(block, "branch3x3dbl_1", x))
    expected = [
        convolved(block, "branch1x1", x),
        convolved(block, "branch3x3_2a", three),
        convolved(block, "branch3x3_2b", three),
        convolved(block, "branch3x3dbl_3a", double),
        convolved(block, "branch3x3dbl_3b", double),
        convolved(block, "branch_pool", pooled(x, "max")),
    ]
    torch.testing.assert_close(block(x), torch.cat(expected, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("pooling", "counts_padding", "last"),
    [("torchvision", True, nn.AvgPool2d), ("tensorflow", False, nn.AvgPool2d), ("fid", False, nn.MaxPool2d)],
)
def test_poolings(pooling: Pooling, counts_padding: bool, last: type[nn.Module]) -> None:
    with torch.device("meta"):
        network = InceptionV3(1008, False, pooling)
    blocks = ["5b", "5c", "5d", "6b", "6c", "6d", "6e", "7b"]
    averages = [network.get_submodule(f"Mixed_{block}.pool") for block in blocks]
    assert [isinstance(pool, nn.AvgPool2d) and pool.count_include_pad for pool in averages] == [counts_padding] * 8
    assert isinstance(network.Mixed_7c.pool, last)
    for block in ("6a", "7a"):
        assert isinstance(network.get_submodule(f"Mixed_{block}.pool"), nn.MaxPool2d)
