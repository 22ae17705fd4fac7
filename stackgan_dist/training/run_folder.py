"""The folder of a run: its configuration, metrics, checkpoints, pictures, and how it ended.

runs/NAME/config.json      the resolved configuration and the data's digest
          metrics.jsonl    one row a tick
          events.out.*     the same for TensorBoard
          checkpoints/     step-000001000/ ...
          samples/         step-000001000.png ...
          .lock            held by the start that writes here
          DONE, PREEMPTED  how the last start ended; launch/ and slurm/ decide by it
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stackgan_dist.config import Config, to_json
from stackgan_dist.data.index import Index
from stackgan_dist.data.storage import remove_temporary, write_bytes
from stackgan_dist.errors import UserError

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
    """Paths and small files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.json"
        self.metrics_file = path / "metrics.jsonl"
        self.checkpoints = str(path / "checkpoints")
        self.samples = path / "samples"

    @contextmanager
    def owned(self, patience_s: float = 60.0) -> Iterator[None]:
        """Be the only start that writes here, and remove what a killed one left half written.

        Waits `patience_s` for an earlier start that is about to end; raises UserError if it does not, or if the
        folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("a+")
        except OSError as error:
            raise UserError(
                f"cannot write to {self.path}: {error.strerror}; choose another --run.folder or --run.name"
            ) from error
        with lock as handle:
            deadline = time.monotonic() + patience_s
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        handle.seek(0)
                        raise UserError(
                            f"{self.path} is in use by another start of this run ({handle.read().strip()}); "
                            "end that one, or choose another --run.name"
                        ) from None
                    time.sleep(0.2)
            handle.truncate(0)
            handle.write(f"process {os.getpid()} on {os.uname().nodename}\n")
            handle.flush()
            remove_temporary(str(self.path))
            yield

    def write_config(self, config: Config, index: Index) -> None:
        """Write config.json."""
        fields = {
            "config": json.loads(to_json(config)),
            "data": dataclasses.asdict(DataIdentity.of(index)),
        }
        write_bytes(str(self.config_file), (json.dumps(fields, indent=1) + "\n").encode())

    def mark(self, ending: Ending | None, text: str = "") -> None:
        """Leave the marker of how a start ended; None clears it when a start begins."""
        for name in ("DONE", "PREEMPTED"):
            if name != ending:
                (self.path / name).unlink(missing_ok=True)
        if ending is not None:
            write_bytes(str(self.path / ending), (text + "\n").encode())


def find_run(path: str) -> RunFolder:
    """The run at `path`: the folder itself, or the last stage under it (`runs/demo` -> `runs/demo/stage2`).

    Raises UserError naming the runs nearby when there is none.
    """
    folder = Path(path)
    for candidate in (folder, folder / "stage2", folder / "stage1"):
        if (candidate / "config.json").is_file():
            return RunFolder(candidate)
    near = folder if folder.is_dir() else folder.parent
    runs = sorted(str(config.parent) for config in near.glob("**/config.json")) if near.is_dir() else []
    known = f"; runs found under {near}: {', '.join(runs)}" if runs else ""
    raise UserError(f"there is no run at {path} (no config.json){known}; train one or give its folder")
