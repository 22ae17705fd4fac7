"""Data for benchmarks that are given none: painted birds, packed for the occasion."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


@contextmanager
def painted_set(sizes: Sequence[int], pictures: int, split: str = "train") -> Iterator[str]:
    """The folder above SPLIT/SIZE/index.json of a set that is gone at the end."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "stackgan_dist.pack", "painted", "--out", folder, "--splits", split]
        command += ["--sizes", *map(str, sizes), "--limit", str(pictures)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        yield folder
