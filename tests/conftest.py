"""Shared by all tests: one small packed data set, packed once."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from stores.faulty_network import FaultyNetwork, faulty_network
from stores.server import Server, s3_server, variables

from stackgan_dist.packing.data_set import pack
from stackgan_dist.packing.recipe import load_recipe

os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

PICTURES = 38
"""Five batches of 7, and three pictures that are left over."""


def pack_small(folder: Path) -> None:
    """Pack 38 painted birds per split in five shards, at 76 and 152 pixels."""
    recipe = dataclasses.replace(load_recipe("painted"), sizes=(76, 152), samples_per_shard=8)
    pack(recipe, root=None, out=str(folder), workers=1, limit=PICTURES)


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a packed set: 38 painted birds per split in five shards, at 76 and 152 pixels."""
    folder = tmp_path_factory.mktemp("data") / "painted"
    pack_small(folder)
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real S3 server with one bucket."""
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def network(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyNetwork]:
    """What lies between this process and the server; s3:// goes through it."""
    with faulty_network(server.port) as running:
        for name, value in variables(running.endpoint).items():
            monkeypatch.setenv(name, value)
        yield running
