"""Object storage as it is: a real server behind a network that fails in every way it can."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stores.faulty_network import Fault, FaultyNetwork, Request

from stackgan_dist.data.cache import ShardCache
from stackgan_dist.data.index import Index, Shard, load_index
from stackgan_dist.errors import UserError
from stackgan_dist.pack.data_set import pack
from stackgan_dist.pack.recipe import Recipe
from stackgan_dist.pack.sources.webdataset import WebDatasetTars
from stackgan_dist.storage import connect, retry
from stackgan_dist.storage.files import exists, join, open_filesystem, read_bytes, remove, write_bytes
from stackgan_dist.storage.folder import Folder
from stackgan_dist.storage.retry import Patience, StoreError

SIZE = 3_000_000
COUNT = 3
RECOVERED = [Fault.SLOW_DOWN, Fault.RESET, Fault.CUT, Fault.TRUNCATED, Fault.STALL, Fault.WRONG_BYTE]


@pytest.fixture
def folder(network: FaultyNetwork, request: pytest.FixtureRequest) -> str:
    """A folder of the test's own on the server."""
    return f"s3://bucket/{request.node.name.replace('[', '-').rstrip(']')}"


@pytest.fixture(autouse=True)
def short_timeouts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A stall is found out after 1 s."""
    monkeypatch.setitem(connect.S3_TIMEOUTS, "read_timeout", 1)
    yield
    open_filesystem("s3://bucket")[0].clear_instance_cache()


def _shards(folder: str) -> tuple[Index, list[bytes]]:
    """Three shards of random bytes, uploaded."""
    contents = [np.random.default_rng(number).bytes(SIZE) for number in range(COUNT)]
    shards = []
    for number, content in enumerate(contents):
        write_bytes(join(folder, f"{number}.tar"), content)
        shards.append(Shard(f"{number}.tar", SIZE, hashlib.sha256(content).hexdigest(), 1))
    return Index("x", "train", 76, "ngrams", 256, 1, (), COUNT, tuple(shards)), contents


def _first(*faults: Fault, where: Callable[[Request], bool] = lambda _: True) -> Callable[[Request], Fault | None]:
    """The first requests meet these faults."""
    left = list(faults)
    return lambda request: left.pop(0) if left and where(request) else None


def _read(cache: ShardCache, number: int) -> bytes:
    with cache.open(number) as file:
        return file.read()


def test_files_on_the_server(folder: str) -> None:
    file = join(folder, "a", "b", "file")
    assert not exists(file)
    write_bytes(file, b"one")
    Folder.at(folder).append_line("rows", "1")
    Folder.at(folder).append_line("rows", "2")
    assert read_bytes(join(folder, "rows")) == b"1\n2\n"
    assert (Folder.at(folder).read_settled("a/b/file"), exists(file), exists(join(folder, "a"))) == (b"one", True, True)
    assert Folder.at(folder).names() == ["a", "rows"]
    remove(join(folder, "a"))
    remove(join(folder, "a"))
    assert Folder.at(folder).names() == ["rows"]
    with pytest.raises(FileNotFoundError):
        read_bytes(file)


@pytest.mark.parametrize("fault", [*RECOVERED, Fault.EXPIRED_LISTING], ids=lambda fault: fault.name)
def test_small_files_survive(network: FaultyNetwork, folder: str, fault: Fault) -> None:
    file, content = join(folder, "file"), bytes(range(256)) * 100
    network.decide = _first(fault, fault)
    write_bytes(file, content)
    network.decide = _first(fault, fault)
    digest = hashlib.sha256(content).digest()
    assert read_bytes(file, lambda data: hashlib.sha256(data).digest() == digest) == content
    network.decide = _first(fault, where=lambda request: "list-type" in request.target)
    assert Folder.at(folder).names() == ["file"]
    assert fault in {found for _, found in network.requests}


def test_an_unsigned_file_is_read_until_two_readings_agree(network: FaultyNetwork, folder: str) -> None:
    write_bytes(join(folder, "file"), b"an index")
    network.decide = _first(Fault.WRONG_BYTE, where=lambda request: request.method == "GET")
    assert Folder.at(folder).read_settled("file") == b"an index"


@pytest.mark.parametrize("fault", [*RECOVERED, Fault.FORBIDDEN, Fault.MISSING], ids=lambda fault: fault.name)
def test_a_shard_survives(network: FaultyNetwork, folder: str, tmp_path: Path, fault: Fault) -> None:
    index, contents = _shards(folder)
    network.requests.clear()
    # The same wrong byte twice would be what lies there.
    faults = [fault] if fault is Fault.WRONG_BYTE else [fault, fault]
    network.decide = _first(*faults)
    cache = ShardCache(folder, index, tmp_path, 10**9)
    assert [_read(cache, number) for number in range(COUNT)] == contents
    gets = network.of("0.tar")
    assert [found for _, found in network.requests][: len(faults)] == faults
    begins = [int(str(get.range).removeprefix("bytes=").partition("-")[0]) for get in gets]
    if fault in (Fault.RESET, Fault.CUT, Fault.TRUNCATED, Fault.STALL):
        assert 0 <= begins[0] < begins[1] < begins[2]  # it goes on where it broke off
    else:
        assert begins == [0] * (len(faults) + 1)


@pytest.mark.parametrize(
    ("fault", "attempts", "advice"),
    [
        (Fault.SLOW_DOWN, 4, "Check the object and the network"),
        (Fault.STALL, 4, "ReadTimeout.*Check the object and the network"),
        (Fault.FORBIDDEN, 3, "AccessDenied.*Check the credentials.*AWS_ACCESS_KEY_ID"),
        (Fault.MISSING, 3, "NoSuchKey.*the set may not be complete"),
    ],
)
def test_a_fault_that_stays_is_named(
    network: FaultyNetwork, folder: str, tmp_path: Path, fault: Fault, attempts: int, advice: str
) -> None:
    index, _ = _shards(folder)
    network.decide = lambda request: fault
    cache = ShardCache(folder, index, tmp_path, 10**9, Patience(attempts=4))
    begin = time.monotonic()
    with pytest.raises(StoreError, match=rf"cannot read {folder}/1\.tar after {attempts} attempts .*{advice}"):
        cache.open(1)
    assert time.monotonic() - begin < 30


def test_the_time_is_bounded(network: FaultyNetwork, folder: str, tmp_path: Path) -> None:
    index, _ = _shards(folder)
    network.decide = lambda request: Fault.SLOW_DOWN
    network.requests.clear()
    begin = time.monotonic()
    with pytest.raises(StoreError, match=r"after \d attempts? in \d+ s; .*SlowDown"):
        ShardCache(folder, index, tmp_path, 10**9, Patience(attempts=100, total_s=2)).open(1)
    assert 2 < time.monotonic() - begin < 60
    assert 1 <= len(network.requests) <= 5  # one where the machine is so busy that it takes all the time


def test_an_endpoint_without_an_address(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, _ = _shards(folder)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://no-such-host.invalid:1")
    with pytest.raises(StoreError, match=rf"cannot read {folder}/1\.tar after 2 attempts .*AWS_ENDPOINT_URL"):
        ShardCache(folder, index, tmp_path, 10**9, Patience(attempts=2)).open(1)
    open_filesystem("s3://bucket")[0].clear_instance_cache()
    monkeypatch.setattr(retry, "_PATIENCE", Patience(attempts=2))
    with pytest.raises(StoreError, match=rf"cannot read {folder}/file after 2 attempts .*AWS_ENDPOINT_URL"):
        read_bytes(join(folder, "file"))


def test_an_object_that_changed_is_refused(folder: str, tmp_path: Path) -> None:
    index, contents = _shards(folder)
    cache = ShardCache(folder, index, tmp_path, 10**9)
    write_bytes(join(folder, "0.tar"), contents[0][:-1] + b"?")
    with pytest.raises(UserError, match=r"0\.tar has sha256 .*fetched 2 times.*altered"):
        cache.open(0)
    write_bytes(join(folder, "1.tar"), contents[1][:-1])
    with pytest.raises(UserError, match=r"1\.tar has 2999999 bytes, the index says 3000000: it was replaced"):
        cache.open(1)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("fault", [Fault.STALL, Fault.SLOW_DOWN], ids=lambda fault: fault.name)
def test_a_wait_does_not_hold_up_signals(network: FaultyNetwork, folder: str, tmp_path: Path, fault: Fault) -> None:
    """Whether the store stalls in mid-body or a pause between two attempts is due."""
    connect.S3_TIMEOUTS["read_timeout"] = 15
    index, _ = _shards(folder)
    network.decide = lambda request: fault
    arrived: list[float] = []
    previous = signal.signal(signal.SIGTERM, lambda *_: arrived.append(time.monotonic()))
    sent: list[float] = []

    def send() -> None:
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
        network.decide = lambda request: None

    timer = threading.Timer(1.5, send)
    timer.start()
    try:
        with suppress(StoreError):  # unless the fault was over in time
            ShardCache(folder, index, tmp_path, 10**9, Patience(attempts=4, total_s=3)).open(1)
    finally:
        timer.join()
        signal.signal(signal.SIGTERM, previous)
    assert arrived[0] - sent[0] < 1


def _foreign_tar(path: Path, samples: int) -> None:
    with tarfile.open(path, "w") as tar:
        for number in range(samples):
            buffer = io.BytesIO()
            Image.new("RGB", (40, 30), (number * 20, 0, 0)).save(buffer, "JPEG")
            key = f"{path.stem}{number}"
            for name, content in ((f"{key}.jpg", buffer.getvalue()), (f"{key}.txt", b"a red thing")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def test_foreign_tars_are_packed_from_the_store(network: FaultyNetwork, folder: str, tmp_path: Path) -> None:
    """Through faults nothing is rejected; what has been listed is not listed again, unless it was replaced."""
    local, out = tmp_path / "tars", tmp_path / "out"
    local.mkdir()
    for name in ("a", "b"):
        _foreign_tar(local / f"{name}.tar", 5)
        write_bytes(join(folder, f"{name}.tar"), (local / f"{name}.tar").read_bytes())
    faults = [Fault.SLOW_DOWN, Fault.RESET, Fault.CUT, Fault.TRUNCATED]
    network.requests.clear()
    network.decide = lambda request: faults[request.number % 4] if request.number % 3 == 0 else None
    source = WebDatasetTars(folder, test_fraction=0.0)
    source.keep_listing(str(out / ".pack-listing"))
    there = WebDatasetTars(str(local), test_fraction=0.0)
    listed = source.records("train")
    assert listed == there.records("train")
    assert [source.picture(record) for record in listed] == [there.picture(record) for record in listed]
    assert {fault for _, fault in network.requests} > {*faults}

    network.decide = lambda _: None
    network.requests.clear()
    again = WebDatasetTars(folder, test_fraction=0.0)
    again.keep_listing(str(out / ".pack-listing"))
    assert again.records("train") == listed
    assert not [request for request in network.of(".tar") if request.method == "GET" and request.range]
    _foreign_tar(local / "b.tar", 6)
    write_bytes(join(folder, "b.tar"), (local / "b.tar").read_bytes())
    assert again.records("train") == there.records("train") != listed

    recipe = Recipe("own", "webdataset", "ngrams", sizes=(16,), splits=("train",), options={"test_fraction": 0.0})
    pack(recipe, root=folder, out=str(out), workers=1)
    pack(recipe, root=str(local), out=str(tmp_path / "local"), workers=1)
    assert load_index(str(out / "train/16")).shards == load_index(str(tmp_path / "local/train/16")).shards
    assert not (out / ".pack-listing").exists()
    write_bytes(join(folder, "b.tar"), (local / "b.tar").read_bytes()[:1500])
    with pytest.raises(UserError, match=r"b\.tar is cut short"):
        WebDatasetTars(folder, test_fraction=0.0).records("train")
