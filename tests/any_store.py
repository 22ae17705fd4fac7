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
from stackgan_dist.storage.files import (
    append_line,
    exists,
    join,
    list_names,
    read_bytes,
    read_range,
    remove,
    write_bytes,
)

SHARD_BYTES = 32 * 10**6


def try_store(url: str) -> None:
    """AssertionError, or a store's error, when something is not as it should be."""
    assert list_names(url) == [], f"{url} is not empty"
    file = join(url, "a", "b", "file")
    for content in (b"one", b"two"):
        write_bytes(file, content)
        assert read_bytes(file) == content
    for row in "12":
        append_line(join(url, "rows"), row)
    assert read_bytes(join(url, "rows")) == b"1\n2\n"
    assert exists(join(url, "a"))
    assert list_names(url) == ["a", "rows"]
    for _ in range(2):
        remove(join(url, "a"))
    assert list_names(url) == ["rows"]
    assert not exists(file)
    try:
        read_bytes(file)
    except FileNotFoundError:
        pass
    else:
        raise AssertionError(f"{file} was removed and can be read")
    print("files are written, replaced, read, listed and removed")

    content = np.random.default_rng(0).bytes(SHARD_BYTES)
    shard = Shard("shard.tar", SHARD_BYTES, hashlib.sha256(content).hexdigest(), 1)
    index = Index("x", "train", 76, "ngrams", 256, 1, (), 1, (shard,))
    write_bytes(join(url, shard.name), content)
    assert read_range(join(url, shard.name), 1000, 7) == content[1000:1007]
    with tempfile.TemporaryDirectory() as cache:
        Path(cache, f"{shard.sha256}.{SHARD_BYTES}.part").write_bytes(content[: SHARD_BYTES // 3])
        begin = time.perf_counter()
        with ShardCache(url, index, Path(cache), 10**9).open(0) as fetched:
            assert fetched.read() == content
        seconds = time.perf_counter() - begin
    print(
        f"the rest of a shard is fetched: {SHARD_BYTES * 2 / 3e6:.0f} MB at {SHARD_BYTES * 2 / 3e6 / seconds:.0f} MB/s"
    )
    remove(url)
    assert list_names(url) == []


if __name__ == "__main__":
    try_store(sys.argv[1])
