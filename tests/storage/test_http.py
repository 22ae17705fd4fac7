"""Sets on plain web servers: read through faults, resumed, refused with what to do; with TLS, and without ranges."""

from __future__ import annotations

import functools
import hashlib
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest
from stores.faulty_network import Fault, FaultyNetwork

from stackgan_dist.config import Config, DataConfig, RunConfig
from stackgan_dist.data.cache import ShardCache
from stackgan_dist.data.dataset import open_packed
from stackgan_dist.data.index import Index, Shard
from stackgan_dist.errors import UserError
from stackgan_dist.storage import stream
from stackgan_dist.storage.files import join, read_bytes, write_bytes
from stackgan_dist.storage.retry import Patience, StoreError

CONTENT = np.random.default_rng(0).bytes(3_000_000)
FAULTS = [
    Fault.SLOW_DOWN, Fault.RESET, Fault.CUT, Fault.TRUNCATED, Fault.STALL, Fault.WRONG_BYTE, Fault.FORBIDDEN,
    Fault.MISSING,
]  # fmt: skip


def _index(content: bytes = CONTENT) -> Index:
    shard = Shard("a b+c.tar", len(content), hashlib.sha256(content).hexdigest(), 1)
    return Index("x", "train", 76, "ngrams", 256, 1, (), 1, (shard,))


def _first(*faults: Fault) -> Callable[[object], Fault | None]:
    left = list(faults)
    return lambda _: left.pop(0) if left else None


@pytest.fixture
def folder(network: FaultyNetwork, monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a folder with one shard, on a server behind a network that can be told to fail."""
    write_bytes("s3://bucket/web/a b+c.tar", CONTENT)
    write_bytes("s3://bucket/web/index.json", _index().to_bytes())
    network.requests.clear()
    monkeypatch.setattr(stream, "_HTTP_TIMEOUT_S", 1)
    return f"{network.endpoint}/bucket/web"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_shard_survives(network: FaultyNetwork, folder: str, tmp_path: Path, fault: Fault) -> None:
    faults = [fault] if fault is Fault.WRONG_BYTE else [fault, fault]
    network.decide = _first(*faults)
    with ShardCache(folder, _index(), tmp_path, 10**9).open(0) as file:
        assert file.read() == CONTENT
    assert [found for _, found in network.requests] == [*faults, None]
    begins = [int(str(request.range).removeprefix("bytes=").partition("-")[0]) for request, _ in network.requests]
    if fault in (Fault.RESET, Fault.CUT, Fault.TRUNCATED, Fault.STALL):
        assert 0 == begins[0] < begins[1] < begins[2]  # it goes on where it broke off
    else:
        assert begins == [0] * (len(faults) + 1)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault.MISSING, "after 3 attempts.*404.*the set may not be complete"),
        (Fault.FORBIDDEN, "after 3 attempts.*403.*Check the credentials"),
        (Fault.SLOW_DOWN, "after 4 attempts.*503.*Check the object and the network"),
    ],
)
def test_a_fault_that_stays_is_named(
    network: FaultyNetwork, folder: str, tmp_path: Path, fault: Fault, message: str
) -> None:
    network.decide = lambda _: fault
    cache = ShardCache(folder, _index(), tmp_path, 10**9, Patience(attempts=4))
    with pytest.raises(StoreError, match=rf"cannot read {folder}/a b\+c\.tar {message}"):
        cache.open(0)


def test_small_files(network: FaultyNetwork, folder: str) -> None:
    network.decide = _first(Fault.SLOW_DOWN, Fault.CUT)
    assert read_bytes(f"{folder}/index.json") == _index().to_bytes()
    with pytest.raises(FileNotFoundError):
        read_bytes(f"{folder}/nothing.json")
    network.decide = lambda _: Fault.FORBIDDEN
    begin = time.monotonic()
    with pytest.raises(StoreError, match=r"after 1 attempt in.*403.*Check the credentials"):
        read_bytes(f"{folder}/index.json")
    assert time.monotonic() - begin < 10


def test_an_object_that_was_replaced_is_refused(folder: str, tmp_path: Path) -> None:
    for other in (CONTENT[:-9], CONTENT + b"more"):
        write_bytes("s3://bucket/web/a b+c.tar", other)
        with pytest.raises(UserError, match=rf"has {len(other)} bytes, the index says 3000000: it was replaced"):
            ShardCache(folder, _index(), tmp_path, 10**9).open(0)


def test_nothing_is_written_there() -> None:
    config = Config(data=DataConfig(url="data/painted"), run=RunConfig(folder="https://example.org/runs"))
    with pytest.raises(UserError, match="which can only be read"):
        config.validate(1)
    with pytest.raises(StoreError, match=r"cannot write http://127\.0\.0\.1:9/x.*can only be read"):
        write_bytes("http://127.0.0.1:9/x", b"")


@contextmanager
def _python_server(folder: Path, context: ssl.SSLContext | None = None, token: str | None = None) -> Iterator[str]:
    """The standard library's server, which knows no ranges; asks for a token if it is told one."""

    class Quiet(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if token is not None and self.headers.get("X-Token") != token:
                self.send_error(401)
            else:
                super().do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"{'https' if context else 'http'}://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_server_without_ranges(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a b+c.tar").write_bytes(CONTENT)
    shard = _index().shards[0]
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / f"{shard.sha256}.{shard.bytes}.part").write_bytes(CONTENT[:1_000_001])  # what a killed fetch left
    with _python_server(root) as url:
        rest = stream.read_http(f"{url}/a b+c.tar", 1_000_001, len(CONTENT), 2**16, {})
        assert b"".join(rest) == CONTENT[1_000_001:]
        with ShardCache(url, _index(), cache, 10**9).open(0) as file:
            assert file.read() == CONTENT
        (root / "a b+c.tar").write_bytes(CONTENT + b"more")
        with pytest.raises(UserError, match="3000004 bytes"):
            ShardCache(url, _index(), tmp_path / "other", 10**9).open(0)


def test_headers_of_fsspec_s_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a b+c.tar").write_bytes(CONTENT)
    (tmp_path / "root/file").write_bytes(b"text")
    with _python_server(tmp_path / "root", token="open") as url:
        cache = ShardCache(url, _index(), tmp_path / "cache", 10**9, Patience(attempts=2))
        with pytest.raises(StoreError, match=r"401.*Check the credentials"):
            cache.open(0)
        with pytest.raises(StoreError, match=r"after 1 attempt .*401.*Check the credentials"):
            read_bytes(f"{url}/file")
        monkeypatch.setitem(fsspec.config.conf, "http", {"headers": {"X-Token": "open"}})
        with ShardCache(url, _index(), tmp_path / "cache", 10**9).open(0) as file:  # a folder is resolved once
            assert file.read() == CONTENT
        assert read_bytes(f"{url}/file") == b"text"


def test_over_tls(packed: Path, tmp_path: Path) -> None:
    """A whole packed set, from a server whose certificate is trusted; from the same one when it is not."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
            "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate,
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    index = open_packed(DataConfig(url=str(packed)), 64).index
    with _python_server(packed, context) as url:
        cache = ShardCache(join(url, "train", "76"), index, tmp_path / "cache", 10**9, Patience(attempts=2))
        with pytest.raises(StoreError, match=r"CERTIFICATE_VERIFY_FAILED.*SSL_CERT_FILE"):
            cache.open(0)
        # What is trusted is decided when a process begins.
        read = (
            "from stackgan_dist.config import DataConfig; from stackgan_dist.data.dataset import open_packed;"
            f"print(open_packed(DataConfig(url={url!r}, cache={str(tmp_path / 'cache')!r}), 64).cache().open(0).name)"
        )
        result = subprocess.run(
            [sys.executable, "-c", read], env={**os.environ, "SSL_CERT_FILE": str(certificate)},
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    assert hashlib.sha256(Path(result.stdout.strip()).read_bytes()).hexdigest() == index.shards[0].sha256
