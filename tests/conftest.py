"""Shared by all tests: one small packed data set, packed once, and three runs on it."""

import dataclasses
import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import torch
from distributed.tiny import gaudy, tiny_config, tiny_model, train_alone
from stores.faulty_network import FaultyNetwork, faulty_network
from stores.server import BUCKET, Server, s3_server, variables
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from stackgan_dist.models import stackgan
from stackgan_dist.pack.data_set import pack
from stackgan_dist.pack.recipe import load_recipe
from stackgan_dist.runs.trained import load_trained
from stackgan_dist.storage.files import open_filesystem

os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

# Started in the background (`bash tests/run.sh &`) or under nohup, tests would hand ignored signals on to the runs that
# they start, and a run keeps ignoring what it finds ignored.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Of several workers (pytest-xdist) one runs all tests of a file, and one all those of the real cluster."""

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            folder = file.rpartition("/")[0]
            return folder if folder.endswith("cluster") else file

    return ByFile(config, log)


LONGEST = (
    "tests/cluster/",
    "tests/distributed/",
    "tests/test_score_commands.py",
    "tests/test_generate.py",
    "tests/test_",
)
"""What takes long, longest first; the rest follows."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first, so that no worker is left alone with it at the end."""

    def place(item: pytest.Item) -> int:
        return next((number for number, start in enumerate(LONGEST) if item.nodeid.startswith(start)), len(LONGEST))

    items.sort(key=place)


PICTURES = 38
"""Five batches of 7, and three pictures that are left over."""


def pack_small(folder: Path) -> None:
    """Pack 38 painted birds per split in five shards, at 76 and 152 pixels."""
    recipe = dataclasses.replace(load_recipe("painted"), sizes=(76, 152), samples_per_shard=8)
    pack(recipe, root=None, out=str(folder), workers=1, limit=PICTURES)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What commands keep in the user's cache is kept in a folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a packed set: 38 painted birds per split in five shards, at 76 and 152 pixels.

    All workers of pytest-xdist read the one that the first of them packs.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "packed"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            pack_small(folder / "painted")
            (folder / "complete").touch()
    return folder / "painted"


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
        # Connections are kept by what they were asked for, not by these variables: a test that looked for s3:// without
        # a server has left one without credentials, and the next test has another port.
        forget = open_filesystem(f"s3://{BUCKET}")[0].clear_instance_cache
        forget()
        yield running
        forget()


@pytest.fixture(params=["disk", "memory", "s3"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty folder of the test's own: on a disk, on fsspec's store in memory, on a real S3 server."""
    if request.param == "s3":
        request.getfixturevalue("network")
    yield {
        "disk": str(tmp_path / "root"),
        "memory": f"memory://{tmp_path.name}",
        "s3": f"s3://{BUCKET}/{tmp_path.name}",
    }[request.param]
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(scope="session")
def three_runs(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Stage-I without conditioning augmentation, Stage-I, Stage-II; five steps each, with gaudy pictures."""
    folder = tmp_path_factory.mktemp("three")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stackgan, "initialise", gaudy)
        plain = tiny_model(conditioning_augmentation=False)
        without = train_alone(tiny_config(str(packed), folder, "stage1-no-ca", model=plain), None)
        first = train_alone(tiny_config(str(packed), folder, "stage1"), None)
        stage1 = load_trained(str(first), print)
        model = tiny_model(stage=2, image_size=128)
        second = train_alone(
            tiny_config(str(packed), folder, "stage2", model=model), (stage1.config.model, stage1.weights)
        )
    return without, first, second


@pytest.fixture(scope="session")
def gaudy_stages(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of both stages, five steps each, whose pictures are not grey but gaudy."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stackgan, "initialise", gaudy)
        train_alone(tiny_config(str(packed), folder, "stage1"), None)
        first = load_trained(str(folder / "stage1"), print)
        model = tiny_model(stage=2, image_size=128)
        train_alone(tiny_config(str(packed), folder, "stage2", model=model), (first.config.model, first.weights))
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB; skipped where it cannot be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"needs to mount a tmpfs: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)
