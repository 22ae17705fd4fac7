"""Checkpoints: atomic, verified, written in the background by rank 0.

A checkpoint is a folder `step-000001000/` with `state.pt` and `commit.json`. The commit record holds the size and
sha256 of the state and is written last, so a checkpoint without one, or whose bytes do not match it, does not count.
Reading takes the newest one that verifies and says which it passed over and why.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import torch
from torch import Tensor

from stackgan_dist.errors import UserError
from stackgan_dist.machine import cores_of_this_rank
from stackgan_dist.storage.folder import Folder, FolderLike
from stackgan_dist.storage.retry import StoreError

_PREFIX = "step-"
_STATE = "state.pt"
_COMMIT = "commit.json"
_COPYING_THREADS = 4
"""At most: a few cores fill the memory's bandwidth."""


@dataclass(frozen=True)
class FoundCheckpoint:
    """A checkpoint that verified."""

    url: str
    step: int
    data: bytes
    """The content of state.pt, for `from_bytes`."""


class Checkpointer:
    """Writes the checkpoints of a run, one at a time, in the background.

    Args:
        where: the folder of the run's checkpoints.
        keep_last: how many of the newest are kept.
        milestone_steps: those at multiples of this are kept for good; 0: none.
        report: gets a line about a save that failed; training goes on then.
        before_commit: waits, in the background, for what must be as safe as the checkpoint.
    """

    def __init__(
        self,
        where: FolderLike,
        *,
        keep_last: int,
        milestone_steps: int,
        report: Callable[[str], None],
        before_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder = Folder.at(where)
        self._keep_last = keep_last
        self._milestone_steps = milestone_steps
        self._report = report
        self._before_commit = before_commit
        self._thread: threading.Thread | None = None
        self._snapshot: dict[str, Any] | None = None  # of the last save, to be written over by the next
        self._fault: UserError | None = None  # of the last save, where training must not go on

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Copy `state` to host memory and write it in the background; waits only for a save that is under way."""
        self.wait()
        self._snapshot = snapshot = to_host(state, self._snapshot)
        # Not a daemon: the interpreter must not end in the middle of a write.
        self._thread = threading.Thread(target=self._write, args=(step, snapshot), name="checkpoint")
        self._thread.start()

    def remove_unfinished(self) -> None:
        """Remove what a killed save left: folders without a commit record, and temporary files."""
        try:
            committed = committed_steps(self._folder)
            for step in list_steps(self._folder):
                if step in committed:
                    checkpoint_of(self._folder, step).remove_temporary()
                else:
                    self._folder.remove(_name(step))
        except Exception as error:  # they cost space, not the run
            self._report(f"unfinished checkpoints could not be removed from {self._folder}: {error}")

    def wait(self) -> None:
        """Wait until the save under way, if any, is committed or has failed.

        Raises UserError where its state held numbers that are not finite, of which no checkpoint is written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    def _write(self, step: int, snapshot: dict[str, Any]) -> None:
        folder = checkpoint_of(self._folder, step)
        if names := non_finite(snapshot):
            self._fault = UserError(
                f"at step {step:,} the training's state is not finite in {len(names)} tensors ({', '.join(names[:3])}"
                f"{', ...' if len(names) > 3 else ''}), so no checkpoint of it was written to {self._folder}; those "
                "that lie there are good. Lower the learning rate, or raise the batch size, then start again"
            )
            return
        try:
            # A damaged checkpoint of this step may lie here: its record must not stand beside the new state.
            folder.remove(_COMMIT)
            written = _HashedFile()
            folder.write_file(_STATE, partial(written.save, snapshot))
            self._before_commit()
            commit = {"step": step, "bytes": written.bytes, "sha256": written.sha256.hexdigest()}
            folder.write(_COMMIT, json.dumps(commit).encode())
        except Exception as error:  # a full disk must not end a run that can go on
            self._report(f"checkpoint of step {step} could not be written to {folder}: {error}; training goes on")
            with suppress(Exception):  # what could not be written may not be removable either
                self._folder.remove(_name(step))
            return
        try:
            self._remove_old(step)
        except Exception as error:
            self._report(f"old checkpoints could not be removed from {self._folder}: {error}")

    def _remove_old(self, newest: int) -> None:
        committed = [step for step in committed_steps(self._folder) if step <= newest]
        for step in committed[: -self._keep_last]:
            if not (self._milestone_steps and step % self._milestone_steps == 0):
                # The record goes first: what is half removed must not look whole.
                checkpoint_of(self._folder, step).remove(_COMMIT)
                self._folder.remove(_name(step))


class _HashedFile:
    """A torch file whose bytes are counted and hashed on their way: a second copy would take memory and time.

    torch hands over whole tensors, and neither hashing nor writing one keeps other threads of Python waiting.
    """

    def __init__(self) -> None:
        self.sha256, self.bytes = hashlib.sha256(), 0
        self._fault: OSError | None = None

    def save(self, state: dict[str, Any], file: BinaryIO) -> None:
        """Write `state` to `file`."""
        self._file = file
        try:
            torch.save(state, self)  # type: ignore[arg-type]
        except RuntimeError:
            if self._fault is None:
                raise
            # torch tries to end its file all the same, and then says that its end is not where it should be.
            raise self._fault from None

    def write(self, data: bytes | memoryview) -> int:
        """See BinaryIO."""
        self.sha256.update(data)
        self.bytes += len(data)
        try:
            return self._file.write(data)
        except OSError as fault:
            self._fault = fault
            raise

    def flush(self) -> None:
        """See BinaryIO."""
        self._file.flush()


def list_steps(where: FolderLike) -> list[int]:
    """Steps that have a checkpoint in the folder `where`, ascending, whether it verifies or not."""
    names = [name.removeprefix(_PREFIX) for name in Folder.at(where).names() if name.startswith(_PREFIX)]
    return sorted(int(name) for name in names if name.isdigit())


def committed_steps(where: FolderLike) -> list[int]:
    """Those of `list_steps` that have a commit record."""
    folder = Folder.at(where)
    return [step for step in list_steps(folder) if _COMMIT in checkpoint_of(folder, step).names()]


class UnreadableError(UserError):
    """A checkpoint of which nothing is known, since it cannot be read: it may be good."""


class NotCommittedError(UserError):
    """A checkpoint that its writer did not finish."""


def find_newest(where: FolderLike, report: Callable[[str], None]) -> FoundCheckpoint | None:
    """The newest checkpoint in the folder `where` that verifies; `report` gets a line on each one skipped.

    None where nothing was ever committed. Raises UserError where one cannot be read, since going on from an older one
    would lose steps, and where checkpoints were committed and all are damaged, since starting again would lose all.
    """
    folder = Folder.at(where)
    damaged: list[UserError] = []
    for step in reversed(list_steps(folder)):
        try:
            return read_checkpoint(checkpoint_of(folder, step))
        except (StoreError, UnreadableError):
            raise
        except UserError as error:
            report(f"passed over: {error}")
            if not isinstance(error, NotCommittedError):
                damaged.append(error)
    if damaged:
        raise UserError(
            f"{folder} has checkpoints, and none of them is whole; the newest: {damaged[0]}. Bring one back, or, to "
            "start again from nothing, remove that folder or choose another --run.name"
        )
    return None


def is_checkpoint(folder: Folder) -> bool:
    """Whether `folder` is that of one committed checkpoint, which need not verify."""
    return folder.exists(_COMMIT)


def read_checkpoint(where: FolderLike) -> FoundCheckpoint:
    """The checkpoint at `where`, verified against its commit record; UserError with the reason if it does not."""
    folder = Folder.at(where)
    try:
        step, size, sha256 = _parse(folder.read(_COMMIT, _is_record))
    except FileNotFoundError:
        raise NotCommittedError(f"checkpoint {folder} was never committed ({_COMMIT} is missing)") from None
    except OSError as error:
        raise _unreadable(folder, _COMMIT, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"checkpoint {folder} has an unreadable {_COMMIT}: {error}") from error
    try:
        data = folder.read(_STATE, lambda data: hashlib.sha256(data).hexdigest() == sha256)
    except FileNotFoundError:
        raise UserError(f"checkpoint {folder} has lost its {_STATE}") from None
    except OSError as error:
        raise _unreadable(folder, _STATE, error) from error
    if len(data) != size:
        raise UserError(f"checkpoint {folder} has {len(data)} bytes of state, {size} were committed")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(f"checkpoint {folder} is damaged: its sha256 is not the committed one")
    return FoundCheckpoint(folder.url, step, data)


def _unreadable(folder: Folder, name: str, error: OSError) -> UserError:
    """A folder in the place of a file is damage; all else may pass: permissions, a disk or a network that fails."""
    kind = UserError if isinstance(error, IsADirectoryError | NotADirectoryError) else UnreadableError
    return kind(f"checkpoint {folder} has a {name} that cannot be read: {error}")


def _parse(record: bytes) -> tuple[int, int, str]:
    """Step, bytes and sha256 of a commit record; ValueError, KeyError or TypeError when it is none."""
    commit = json.loads(record)
    return int(commit["step"]), int(commit["bytes"]), str(commit["sha256"])


def _is_record(data: bytes) -> bool:
    try:
        _parse(data)
    except (ValueError, KeyError, TypeError):
        return False
    return True


def checkpoint_of(folder: Folder, step: int) -> Folder:
    """The checkpoint of `step` among those of a run, `folder`."""
    return folder / _name(step)


def _name(step: int) -> str:
    return f"{_PREFIX}{step:09d}"


def to_bytes(state: dict[str, Any]) -> bytes:
    """`state`, tensors and plain values, as the bytes of a torch file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def from_bytes(data: bytes, where: str) -> dict[str, Any]:
    """The inverse of `to_bytes`, on the CPU; nothing in `data` is executed. UserError naming `where` if it is none."""
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"{where} holds no state of tensors and plain values: {error}") from error
    return state


def non_finite(value: Any, name: str = "") -> list[str]:
    """Names of the tensors of a nested state that hold NaN or infinity, as "ema.stage1.weight"."""
    if isinstance(value, Tensor):
        return [] if not value.is_floating_point() or bool(value.isfinite().all()) else [name]
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    return [found for key, item in items for found in non_finite(item, f"{name}.{key}" if name else str(key))]


def to_host(value: Any, into: Any = None, *, pinned: bool = True) -> Any:
    """A copy of a nested state in host memory, which later updates do not change.

    An earlier copy that nobody needs any more may be given as `into`: tensors are written over those of it that have
    their shape and type, since fresh memory comes in pages that the system has to clear first. What lies on CUDA comes
    into memory that is `pinned`, to which a device writes many times as fast, and which torch keeps for good.
    """
    copies: list[tuple[Tensor, Tensor]] = []
    host = _host_memory(value, into, copies, pinned)
    on_device = [pair for pair in copies if pair[1].is_cuda]
    if on_device:
        _fill(on_device)
        torch.cuda.synchronize(on_device[0][1].device)
    in_memory = [pair for pair in copies if not pair[1].is_cuda]
    threads = min(_COPYING_THREADS, cores_of_this_rank())
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(_fill, [in_memory[number::threads] for number in range(threads)]))
    return host


def _fill(copies: list[tuple[Tensor, Tensor]]) -> None:
    for to, of in copies:
        to.copy_(of, non_blocking=True)  # where `of` is on a device, to wait once for all of them


def _host_memory(value: Any, into: Any, copies: list[tuple[Tensor, Tensor]], pinned: bool) -> Any:
    """Like `value`, with tensors in host memory that are still to be filled: (to, of) is added to `copies`."""
    if isinstance(value, Tensor):
        if not (isinstance(into, Tensor) and (into.shape, into.dtype) == (value.shape, value.dtype)):
            into = torch.empty_like(value, device="cpu", pin_memory=pinned and value.is_cuda)
        copies.append((into, value.detach()))
        return into
    if isinstance(value, dict):
        known = into if isinstance(into, dict) else {}
        return {key: _host_memory(item, known.get(key), copies, pinned) for key, item in value.items()}
    if isinstance(value, list | tuple):
        parts = into if isinstance(into, list | tuple) and len(into) == len(value) else [None] * len(value)
        return type(value)(_host_memory(item, part, copies, pinned) for item, part in zip(value, parts, strict=True))
    return value
