"""Whether a store does what is asked of one: `python tests/any_store.py URL`, a folder in which nothing lies yet.

For stores that the tests do not start a server of, such as gs:// and az://, with their emulators or the real ones
(docs/object_stores.md). Writes, reads, lists and removes files there, and fetches a shard of which a part is here.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from stackgan_dist.data.cache import ShardCache
from stackgan_dist.data.index import Index, Shard
from stackgan_dist.storage.folder import Folder

SHARD_BYTES = 32 * 10**6
NAMES = ("pk1", "pk[1]", "pk*", "pk?", "{pk1}", "!pk", "pk#1", "pk 1", "pk%201", "pk\u00fc")
"""As patterns, some of these mean others."""


def try_store(url: str) -> None:
    """AssertionError, or a store's error, when something is not as it should be."""
    folder = Folder.at(url)
    assert folder.names() == [], f"{url} is not empty"
    for content in (b"one", b"two"):
        folder.write("a/b/file", content)
        assert folder.read("a/b/file") == content
    for row in "12":
        folder.append_line("rows", row)
    assert folder.read("rows") == b"1\n2\n"
    assert folder.exists("a")
    assert folder.names() == ["a", "rows"]
    for _ in range(2):
        folder.remove("a")
    assert folder.names() == ["rows"]
    assert not folder.exists("a/b/file")
    try:
        folder.read("a/b/file")
    except FileNotFoundError:
        pass
    else:
        raise AssertionError(f"{folder.url_of('a/b/file')} was removed and can be read")
    for name in NAMES:
        folder.write(f"{name}/file", name.encode())
    for name in NAMES:
        assert folder.read(f"{name}/file") == name.encode()
        folder.remove(name)
        assert name not in folder.names()
    assert folder.names() == ["rows"]
    print("files are written, replaced, read, listed and removed")

    content = np.random.default_rng(0).bytes(SHARD_BYTES)
    shard = Shard("shard.tar", SHARD_BYTES, hashlib.sha256(content).hexdigest(), 1)
    index = Index("x", "train", 76, "ngrams", 256, 1, (), 1, (shard,))
    folder.write(shard.name, content)
    assert folder.read_range(shard.name, 1000, 7) == content[1000:1007]
    with tempfile.TemporaryDirectory() as cache:
        Path(cache, f"{shard.sha256}.{SHARD_BYTES}.part").write_bytes(content[: SHARD_BYTES // 3])
        begin = time.perf_counter()
        with ShardCache(folder, index, Path(cache), 10**9).open(0) as fetched:
            assert fetched.read() == content
        seconds = time.perf_counter() - begin
    print(
        f"the rest of a shard is fetched: {SHARD_BYTES * 2 / 3e6:.0f} MB at {SHARD_BYTES * 2 / 3e6 / seconds:.0f} MB/s"
    )
    for name in folder.names():
        folder.remove(name)
    assert folder.names() == []


if __name__ == "__main__":
    try_store(sys.argv[1])
