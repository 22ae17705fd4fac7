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
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, TextIO, get_args

from stackgan_dist.config import Config, to_json
from stackgan_dist.data.cache_folder import default_cache_folder
from stackgan_dist.data.index import Index
from stackgan_dist.errors import UserError
from stackgan_dist.storage.folder import Folder, FolderLike
from stackgan_dist.storage.lease import leased
from stackgan_dist.storage.locks import NoLocksError, try_lock
from stackgan_dist.text.folders import same_encoder

Ending = Literal["DONE", "PREEMPTED"]
ENDINGS: Final[tuple[Ending, ...]] = get_args(Ending)
"""Names of the markers."""
_CONFIG = "config.json"
_WRITTEN = (_CONFIG, "checkpoints", "samples", "metrics.jsonl", "words.txt", *ENDINGS)
"""Names of what a training writes."""


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

    def reads_texts_of(self, other: DataIdentity | Index) -> bool:
        """Whether the embeddings of `other` are of the same encoder and width."""
        return same_encoder(self.text_encoder, other.text_encoder) and self.text_dim == other.text_dim


class RunFolder:
    """The folders and small files of one run."""

    def __init__(self, where: FolderLike) -> None:
        self.root = Folder.at(where)
        """The run's own folder."""
        self.checkpoints = self.root / "checkpoints"
        self.is_remote = self.root.path is None
        self.path = self.root.path or _spool(self.url)
        """Where this node writes: the folder itself, or one from which its files are carried to the store."""
        self.metrics_file = self.path / "metrics.jsonl"

    @property
    def url(self) -> str:
        """Its path or URL, for messages and records."""
        return self.root.url

    @contextmanager
    def owned(
        self,
        patience_s: float = 60.0,
        lost: Callable[[str], None] = lambda _: None,
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[None]:
        """Be the only start that writes here, and remove what a killed one left half written.

        Waits `patience_s` for an earlier start that is about to end; raises UserError if it does not, or if the
        folder cannot be written. On an object store `lost` gets a line about who took over a run that
        seemed to be dead. `check` is called before anything here is touched, and may raise.
        """
        if self.is_remote:
            with leased(self.root, ".lock", patience_s, lost):
                check()
                shutil.rmtree(self.path, ignore_errors=True)
                self.path.mkdir(parents=True)
                with suppress(FileNotFoundError):  # a fresh run has none
                    self.metrics_file.write_bytes(self.root.read(self.metrics_file.name))
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
                lease = leased(self.root, ".lock", patience_s, lost)
            with lease:
                check()
                self.root.remove_temporary()
                yield

    def refuse_foreign(self) -> None:
        """UserError where something lies here that a training would write over or remove, and that none has written."""
        names = self.root.names()
        taken = [name for name in _WRITTEN if name in names]
        if taken and not (self._has_config() or self._has_rows() or self._has_checkpoint()):
            raise UserError(
                f"{self.url} holds {', '.join(taken)}, and neither {_CONFIG}, rows nor checkpoints of a training: that "
                "is something else's; choose another folder or name"
            )

    def _has_config(self) -> bool:
        try:
            content = json.loads(self.root.read(_CONFIG))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
            return False
        # That of an exported model says of which step its weights are.
        return isinstance(content, dict) and {"config", "data"} <= content.keys() and "step" not in content

    def _has_rows(self) -> bool:
        """Whether metrics.jsonl begins with a row of a training; that of a text encoder has no config.json."""
        try:
            first = json.loads(self.root.read(self.metrics_file.name).partition(b"\n")[0])
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
            return False
        return isinstance(first, dict) and {"step", "images"} <= first.keys()

    def _has_checkpoint(self) -> bool:
        return any("commit.json" in (self.checkpoints / name).names() for name in self.checkpoints.names())

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
        self.root.write(_CONFIG, (json.dumps(fields, indent=1) + "\n").encode())

    def ending(self) -> Ending | None:
        """How the last start ended, by the marker that it left; None while one runs, or where one failed."""
        return next((each for each in ENDINGS if self.root.exists(each)), None)

    def mark(self, ending: Ending | None, text: str = "") -> None:
        """Leave the marker of how a start ended; None clears it when a start begins."""
        for name in ENDINGS:
            if name != ending:
                self.root.remove(name)
        if ending is not None:
            self.root.write(ending, f"{text}, {datetime.now(UTC).isoformat()}\n".encode())

    def marker(self) -> tuple[Ending, bytes] | None:
        """The marker and what it says, which is another text for every end."""
        ending = self.ending()
        with suppress(FileNotFoundError):
            return None if ending is None else (ending, self.root.read(ending))
        return None


def _spool(url: str) -> Path:
    """A folder of this node for the run at `url`."""
    return default_cache_folder().parent / "runs" / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]


def find_run(where: FolderLike) -> RunFolder:
    """The run at `where`: the folder itself, or the last stage under it (`runs/demo` -> `runs/demo/stage2`).

    Raises UserError naming the runs nearby when there is none.
    """
    asked = Folder.at(where)
    for candidate in (asked, asked / "stage2", asked / "stage1"):
        if candidate.exists(_CONFIG):
            return RunFolder(candidate)
    # On a disk down to RUNS/NAME/STAGE; on a store, where each listing takes a while, the runs alone.
    near = asked if asked.path is not None and asked.path.is_dir() else asked.parent
    runs = [str(folder) for _, folder in near.walk(1 if asked.path is None else 2) if folder.exists(_CONFIG)]
    known = f"; runs found under {near}: {', '.join(runs)}" if runs else ""
    raise UserError(f"there is no run at {asked} (no {_CONFIG}){known}; train one or give its folder")
