"""Batch norm over ranks with uneven shares equals batch norm over the union of their rows, in float64."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from distributed.forked import run_forked
from torch import nn

from stackgan_dist.distributed import gather, sync_batchnorm
from stackgan_dist.distributed.gather import SmallGather, gather_alone
from stackgan_dist.distributed.sync_batchnorm import synchronise_batchnorm

SHARES = {1: [7], 2: [4, 3], 3: [3, 2, 2]}
SHAPES = [(7, 5), (7, 5, 3, 4)]
PASSES = 2
TOLERANCE = 1e-12


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


def _rank(shares: list[int], folder: str, several_hosts: bool) -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=300))
    rank = dist.get_rank()
    if several_hosts:
        gather._host = lambda: f"host {rank}"
    sync_batchnorm._PART_BYTES = 2 * 5 * 3 * 4 * 8  # two rows of the larger shape
    exchange = SmallGather(300) if len(shares) > 1 else gather_alone
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
    params=[(1, False), (2, False), (3, False), (3, True)],
    ids=["1 rank", "2 ranks", "3 ranks", "3 ranks on several hosts"],
)
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[int, dict]]:
    """What each rank of a group found."""
    world_size, several_hosts = request.param
    folder = str(tmp_path_factory.mktemp("ranks"))
    run_forked(_rank, world_size, SHARES[world_size], folder, several_hosts, log=Path(folder, "log.txt"))
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
