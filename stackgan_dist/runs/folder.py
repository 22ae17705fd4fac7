"""The folder of a run: its configuration, metrics, checkpoints, pictures, and how it ended.

runs/NAME/config.json      the resolved configuration and the data's digest
          metrics.jsonl    one row a tick
          events.out.*     the same for TensorBoard
          checkpoints/     step-000001000/ ...
          samples/         step-000001000.png ...
          .lock            held by the start that writes here
          DONE, PREEMPTED  how the last start ended; launch/ and slurm/ decide by it

The same names lie on an object store when the folder is on one. What grows there, rows and events, is written on
this node first, and carried over in whole files (upload.py); .lock is a lease then (lease.py), as on a file system that
has no locks.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from stackgan_dist.config import Config, to_json
from stackgan_dist.data.cache_folder import default_cache_folder
from stackgan_dist.data.index import Index
from stackgan_dist.errors import UserError
from stackgan_dist.storage.files import (
    exists,
    join,
    list_names,
    local_path,
    read_bytes,
    remove,
    remove_temporary,
    write_bytes,
)
from stackgan_dist.storage.lease import leased
from stackgan_dist.storage.locks import NoLocksError, try_lock

Ending = Literal["DONE", "PREEMPTED"]


@dataclass(frozen=True)
class DataIdentity:
    """What a run and its checkpoints remember of their data set."""

    name: str
    digest: str
    """sha256 of the index."""
    text_encoder: str
    text_dim: int

    @classmethod
    def of(cls, index: Index) -> DataIdentity:
        """The identity of the set with this index."""
        return cls(index.name, index.digest, index.text_encoder, index.text_dim)


class RunFolder:
    """Places and small files of one run, in a folder or at a URL."""

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        path = local_path(self.url)
        self.is_remote = path is None
        self.path = path or _spool(self.url)
        """Where this node writes: the folder itself, or one from which its files are carried to the URL."""
        self.metrics_file = self.path / "metrics.jsonl"
        self.checkpoints = join(self.url, "checkpoints")

    @contextmanager
    def owned(self, patience_s: float = 60.0, lost: Callable[[str], None] = lambda _: None) -> Iterator[None]:
        """Be the only start that writes here, and remove what a killed one left half written.

        Waits `patience_s` for an earlier start that is about to end; raises UserError if it does not, or if the
        folder cannot be written. On an object store `lost` is told who took over a run that seemed to be dead.
        """
        if self.is_remote:
            with leased(join(self.url, ".lock"), patience_s, lost):
                shutil.rmtree(self.path, ignore_errors=True)
                self.path.mkdir(parents=True)
                with suppress(FileNotFoundError):  # a fresh run has none
                    self.metrics_file.write_bytes(read_bytes(join(self.url, self.metrics_file.name)))
                try:
                    yield
                finally:
                    shutil.rmtree(self.path, ignore_errors=True)
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("a+")
        except OSError as error:
            raise UserError(
                f"cannot write to {self.path}: {error.strerror}; choose another --run.folder or --run.name"
            ) from error
        with lock as handle:
            try:
                self._lock(handle, patience_s)
                lease: AbstractContextManager[None] = nullcontext()
            except NoLocksError:
                lease = leased(join(self.url, ".lock"), patience_s, lost)
            with lease:
                remove_temporary(str(self.path))
                yield

    def _lock(self, handle: TextIO, patience_s: float) -> None:
        deadline = time.monotonic() + patience_s
        while not try_lock(handle):
            if time.monotonic() > deadline:
                handle.seek(0)
                raise UserError(
                    f"{self.path} is in use by another start of this run ({handle.read().strip()}); "
                    "end that one, or choose another --run.name"
                )
            time.sleep(0.2)
        handle.truncate(0)
        handle.write(f"process {os.getpid()} on {os.uname().nodename}\n")
        handle.flush()

    def write_config(self, config: Config, index: Index) -> None:
        """Write config.json."""
        fields = {
            "config": json.loads(to_json(config)),
            "data": dataclasses.asdict(DataIdentity.of(index)),
        }
        write_bytes(join(self.url, "config.json"), (json.dumps(fields, indent=1) + "\n").encode())

    def ending(self) -> Ending | None:
        """How the last start ended, by the marker that it left; None while one runs, or where one failed."""
        endings: tuple[Ending, ...] = ("DONE", "PREEMPTED")
        return next((each for each in endings if exists(join(self.url, each))), None)

    def mark(self, ending: Ending | None, text: str = "") -> None:
        """Leave the marker of how a start ended; None clears it when a start begins."""
        for name in ("DONE", "PREEMPTED"):
            if name != ending:
                remove(join(self.url, name))
        if ending is not None:
            write_bytes(join(self.url, ending), (text + "\n").encode())


def _spool(url: str) -> Path:
    """A folder of this node for the run at `url`."""
    return default_cache_folder().parent / "runs" / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


def find_run(url: str) -> RunFolder:
    """The run at `url`: the folder itself, or the last stage under it (`runs/demo` -> `runs/demo/stage2`).

    Raises UserError naming the runs nearby when there is none.
    """
    for candidate in (url, join(url, "stage2"), join(url, "stage1")):
        if exists(join(candidate, "config.json")):
            return RunFolder(candidate)
    folder = local_path(url)
    if folder is None:
        near = url.rstrip("/").rpartition("/")[0]
        runs = [name for name in list_names(near) if exists(join(near, name, "config.json"))]
    else:
        near = str(folder if folder.is_dir() else folder.parent)
        runs = sorted(str(config.parent) for config in Path(near).glob("**/config.json"))
    known = f"; runs found under {near}: {', '.join(runs)}" if runs else ""
    raise UserError(f"there is no run at {url} (no config.json){known}; train one or give its folder")
