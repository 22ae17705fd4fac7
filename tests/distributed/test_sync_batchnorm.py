"""Batch norm over ranks with uneven shares equals batch norm over the union of their rows, in float64.

That of CUDA devices is shown with references in the place of torch's kernels, which no CPU has; with the kernels
themselves it is in tests/cuda.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from distributed.forked import run_forked
from torch import nn

from stackgan_dist.distributed import gather, sync_batchnorm
from stackgan_dist.distributed.device_batchnorm import DeviceBatchNorm
from stackgan_dist.distributed.gather import DeviceGather, Gather, SmallGather, gather_alone
from stackgan_dist.distributed.sync_batchnorm import synchronise_batchnorm

SHARES = {1: [7], 2: [4, 3], 3: [3, 2, 2]}
SHAPES = [(7, 5), (7, 5, 3, 4)]
PASSES = 2
TOLERANCE = 1e-12


def _rows_but_channels(x: torch.Tensor) -> list[int]:
    return [axis for axis in range(x.dim()) if axis != 1]


def _spread(vector: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return vector.view(1, -1, *[1] * (like.dim() - 2))


def _stats(x: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    axes = _rows_but_channels(x)
    return x.mean(axes), (x.var(axes, unbiased=False) + eps).rsqrt()


def _gather_stats(
    x: torch.Tensor,
    means: torch.Tensor,
    inverse_stds: torch.Tensor,
    running_mean: torch.Tensor,
    running_var: torch.Tensor,
    momentum: float,
    eps: float,
    counts: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    assert counts.dtype == running_mean.dtype
    assert counts.dim() == 1
    weights = counts[:, None] / counts.sum()
    mean = (weights * means).sum(0)
    variance = (weights * (inverse_stds**-2 - eps + (means - mean) ** 2)).sum(0)
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(variance * counts.sum() / (counts.sum() - 1), momentum)
    return mean, (variance + eps).rsqrt()


def _elemt(x: torch.Tensor, weight, bias, mean, inverse_std, eps: float) -> torch.Tensor:  # type: ignore[no-untyped-def]
    return (x - _spread(mean, x)) * _spread(inverse_std * weight, x) + _spread(bias, x)


def _backward_reduce(grad, x, mean, inverse_std, weight, for_x, for_weight, for_bias):  # type: ignore[no-untyped-def]
    axes = _rows_but_channels(x)
    sum_grad, sum_centred = grad.sum(axes), (grad * (x - _spread(mean, x))).sum(axes)
    return sum_grad, sum_centred, sum_centred * inverse_std if for_weight else None, sum_grad if for_bias else None


def _backward_elemt(grad, x, mean, inverse_std, weight, sum_grad, sum_centred, counts):  # type: ignore[no-untyped-def]
    assert counts.dtype == torch.int32
    centred = (x - _spread(mean, x)) * _spread(inverse_std**2 * sum_centred / counts.sum(), x)
    return (grad - _spread(sum_grad / counts.sum(), x) - centred) * _spread(inverse_std * weight, x)


KERNELS = {
    "batch_norm_stats": _stats,
    "batch_norm_gather_stats_with_counts": _gather_stats,
    "batch_norm_elemt": _elemt,
    "batch_norm_backward_reduce": _backward_reduce,
    "batch_norm_backward_elemt": _backward_elemt,
}
"""What torch's kernels of these names compute (aten/src/ATen/native/cuda/Normalization.cu), with their arguments."""


def _network(shape: tuple[int, ...]) -> nn.Module:
    norm: nn.Module = nn.BatchNorm1d(5) if len(shape) == 2 else nn.BatchNorm2d(5)
    nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    return nn.Sequential(norm, nn.Tanh()).double()


def _rows(shape: tuple[int, ...], number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs that are not centred, and the gradients of their outputs."""
    generator = torch.Generator().manual_seed(number)
    inputs = torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + 5
    return inputs, torch.randn(shape, generator=generator, dtype=torch.float64)


def _train(network: nn.Module, shape: tuple[int, ...], rows: slice) -> dict[str, torch.Tensor]:
    """Outputs, input gradients, parameter gradients and statistics of this share of the rows."""
    found = {}
    for number in range(PASSES):
        inputs, grads = _rows(shape, number)
        x = inputs[rows].requires_grad_()
        y = network(x)
        y.backward(grads[rows])
        found |= {f"output {number}": y.detach(), f"input gradient {number}": x.grad}
    found |= {f"sum {name}": parameter.grad for name, parameter in network.named_parameters()}
    found |= {f"same {name}": buffer for name, buffer in network.named_buffers()}
    network.eval()
    return found | {"evaluated": network(_rows(shape, PASSES)[0][rows]).detach()}


def _exchange(kind: str) -> Gather:
    if kind == "alone":
        return gather_alone
    if kind == "devices":
        for name, reference in KERNELS.items():
            setattr(torch, name, reference)
        return DeviceGather(dist.new_group())
    if kind == "several hosts":
        rank = dist.get_rank()
        gather._host = lambda: f"host {rank}"
    return SmallGather(300)


def _rank(shares: list[int], folder: str, kind: str) -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=300))
    rank = dist.get_rank()
    sync_batchnorm._PART_BYTES = 2 * 5 * 3 * 4 * 8  # two rows of the larger shape
    exchange = _exchange(kind)
    first = sum(shares[:rank])
    found = {
        len(shape): _train(
            synchronise_batchnorm(_network(shape), exchange), shape, slice(first, first + shares[rank])
        )
        for shape in SHAPES
    }  # fmt: skip
    torch.save(found, f"{folder}/rank-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(
    scope="module",
    params=[(1, "alone"), (2, "one host"), (3, "one host"), (3, "several hosts"), (2, "devices"), (3, "devices")],
    ids=lambda param: f"{param[0]} {param[1]}",
)
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[int, dict]]:
    """What each rank of a group found."""
    world_size, kind = request.param
    folder = str(tmp_path_factory.mktemp("ranks"))
    run_forked(_rank, world_size, SHARES[world_size], folder, kind, log=Path(folder, "log.txt"))
    return [torch.load(Path(folder) / f"rank-{rank}.pt", weights_only=True) for rank in range(world_size)]


@pytest.mark.parametrize("shape", SHAPES, ids=["1d", "2d"])
def test_equals_the_union_of_the_rows(parts: list[dict[int, dict]], shape: tuple[int, ...]) -> None:
    union = _train(_network(shape), shape, slice(None))
    assert union["same 0.num_batches_tracked"] == PASSES
    for name, expected in union.items():
        shares = [part[len(shape)][name] for part in parts]
        if name.startswith("same"):
            found = shares[0]
            assert all(torch.equal(share, found) for share in shares), f"{name} differs between ranks"
        else:
            found = torch.stack(shares).sum(0) if name.startswith("sum") else torch.cat(shares)
        torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE, msg=lambda m, n=name: f"{n}: {m}")


def test_names_and_parameters_are_kept() -> None:
    plain = _network((7, 5))
    parameters, names = list(plain.parameters()), list(plain.state_dict())
    network = synchronise_batchnorm(plain, gather_alone)
    assert list(network.state_dict()) == names
    assert all(ours is theirs for ours, theirs in zip(network.parameters(), parameters, strict=True))
    assert not any(type(layer) in (nn.BatchNorm1d, nn.BatchNorm2d) for layer in network.modules())


def test_devices_have_their_own_and_a_single_one_keeps_torchs() -> None:
    class Gather(DeviceGather):
        def __init__(self) -> None:
            pass

    assert type(synchronise_batchnorm(_network((7, 5)), Gather())[0]) is DeviceBatchNorm  # type: ignore[index]
    assert type(synchronise_batchnorm(_network((7, 5)), None)[0]) is nn.BatchNorm1d  # type: ignore[index]


def test_frozen_weights_of_devices_get_no_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, reference in KERNELS.items():
        monkeypatch.setattr(torch, name, reference, raising=False)

    class Alone(DeviceGather):
        def __init__(self) -> None:
            pass

        def __call__(self, part: torch.Tensor) -> torch.Tensor:
            return part[None]

        def add_up(self, part: torch.Tensor) -> torch.Tensor:
            return part

    shape = (7, 5, 3, 4)
    plain, ours = _network(shape).requires_grad_(False), synchronise_batchnorm(_network(shape), Alone())
    ours.requires_grad_(False)
    found = []
    for network in (plain, ours):
        x = _rows(shape, 0)[0].to(memory_format=torch.channels_last).requires_grad_()
        network(x).sum().backward()
        assert all(parameter.grad is None for parameter in network.parameters())
        found.append(x.grad)
    torch.testing.assert_close(*found, rtol=TOLERANCE, atol=TOLERANCE)
