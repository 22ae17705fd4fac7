"""Checkpoints under attack: whatever happens to the files, the newest good one is found and the rest is named."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import pickle
import resource
import signal
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from stackgan_dist.errors import UserError
from stackgan_dist.runs import checkpoint
from stackgan_dist.runs.checkpoint import (
    Checkpointer,
    FoundCheckpoint,
    committed_steps,
    find_newest,
    from_bytes,
    list_steps,
    non_finite,
    read_checkpoint,
    to_bytes,
    to_host,
)
from stackgan_dist.runs.folder import RunFolder
from stackgan_dist.runs.trained import trained_from
from stackgan_dist.storage.files import read_bytes
from stackgan_dist.storage.folder import Folder

NOBODY = 65534


def _state(step: int) -> dict[str, Any]:
    return {"step": step, "weights": torch.full((1000,), float(step)), "nested": {"list": [torch.ones(2), 3, None]}}


class Run:
    """A folder of checkpoints, and what was said about it."""

    def __init__(self, url: str, keep_last: int = 3, milestone_steps: int = 0) -> None:
        self.url = url
        self.said: list[str] = []
        self.checkpointer = Checkpointer(
            url, keep_last=keep_last, milestone_steps=milestone_steps, report=self.said.append
        )

    def save(self, *steps: int) -> None:
        for step in steps:
            self.checkpointer.save(step, _state(step))
        self.checkpointer.wait()

    def newest(self) -> int | None:
        """The step of the newest that verifies; its content is what was saved."""
        found = find_newest(self.url, self.said.append)
        if found is None:
            return None
        content = from_bytes(found.data, found.url)
        assert content["step"] == found.step
        assert torch.equal(content["weights"], _state(found.step)["weights"])
        return found.step

    def newest_step(self) -> int:
        """The same, whatever its content."""
        found = find_newest(self.url, self.said.append)
        assert found is not None
        return found.step

    def file(self, step: int, name: str) -> Path:
        return Path(self.url) / f"step-{step:09d}" / name


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(str(tmp_path / "checkpoints"))


def _truncate(at: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(at * len(data))]


def _flip(at: float) -> Callable[[bytes], bytes]:
    def flip(data: bytes) -> bytes:
        place = int(at * (len(data) - 1))
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    return flip


@pytest.mark.parametrize("url", ["{tmp}/checkpoints", "memory://test-checkpoint/{tmp}"], ids=["local", "object store"])
def test_what_is_saved_is_found(tmp_path: Path, url: str) -> None:
    run = Run(url.format(tmp=tmp_path))
    assert run.newest() is None
    run.save(1, 2)
    assert run.newest() == 2
    assert not run.said


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        *[(_truncate(at / 16), r"has \d+ bytes of state, \d+ were committed") for at in range(16)],
        *[(_truncate(at), r"has \d+ bytes of state, \d+ were committed") for at in (0.001, 0.999)],
        (lambda data: data + b"\0", r"has \d+ bytes of state, \d+ were committed"),
        *[(_flip(at), "its sha256 is not the committed one") for at in (0, 0.3, 0.6, 1)],
    ],
)
def test_damaged_states_are_named_and_passed_over(run: Run, damage: Callable[[bytes], bytes], reason: str) -> None:
    run.save(1, 2, 3)
    state = run.file(3, "state.pt")
    state.write_bytes(damage(state.read_bytes()))
    assert run.newest() == 2
    assert len(run.said) == 1
    assert "passed over" in run.said[0]
    assert "step-000000003" in run.said[0]
    with pytest.raises(UserError, match=reason):
        read_checkpoint(str(state.parent))


@pytest.mark.parametrize(
    "record",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"{}", b'{"step": 3}', b'{"step": "x", "bytes": 1, "sha256": ""}'],
)
def test_damaged_records_are_named_and_passed_over(run: Run, record: bytes) -> None:
    run.save(1, 2, 3)
    run.file(3, "commit.json").write_bytes(record)
    assert run.newest() == 2
    assert "step-000000003 has an unreadable commit.json" in run.said[0]


def test_missing_files_are_named_and_passed_over(run: Run) -> None:
    run.save(1, 2, 3)
    run.file(3, "commit.json").unlink()
    run.file(2, "state.pt").unlink()
    assert run.newest() == 1
    assert ["never committed" in run.said[0], "lost its state.pt" in run.said[1]] == [True, True]


def test_all_damaged_is_no_fresh_start(run: Run) -> None:
    run.save(1, 2)
    for step in (1, 2):
        run.file(step, "state.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"none of them is whole; the newest: .*step-000000002 has 0 bytes of state"):
        run.newest()
    assert len(run.said) == 2
    for step in (1, 2):  # as a first save that was killed leaves it
        run.file(step, "commit.json").unlink()
    assert run.newest() is None


@pytest.mark.parametrize("name", ["commit.json", "state.pt"])
def test_what_cannot_be_read_is_not_passed_over(run: Run, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """An older one would be gone on from, and this one removed; it may be whole."""
    run.save(1, 2)
    read = Folder.read

    def failing(folder: Folder, what: str, *arguments: Any) -> bytes:
        if what == name and "000000002" in folder.url:
            raise OSError(116, "Stale file handle")
        return read(folder, what, *arguments)

    monkeypatch.setattr(Folder, "read", failing)
    with pytest.raises(UserError, match="Stale file handle"):
        run.newest()
    assert run.said == []


def test_a_record_of_a_directory_is_no_crash(run: Run) -> None:
    run.save(1, 2)
    run.file(2, "commit.json").unlink()
    run.file(2, "commit.json").mkdir()
    assert run.newest() == 1
    assert "cannot be read" in run.said[0]


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_code_in_a_checkpoint_is_never_executed(run: Run, tmp_path: Path, form: str) -> None:
    """Not even when its record is right: whoever can write one can write the other."""
    canary = tmp_path / "executed"

    class Trap:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return (Path.touch, (canary,))

    buffer = io.BytesIO()
    torch.save({"state": Trap()}, buffer) if form == "torch" else pickle.dump({"state": Trap()}, buffer)
    pickle.loads(pickle.dumps(Trap()))
    assert canary.exists()  # the trap works, elsewhere
    canary.unlink()
    with pytest.raises(UserError, match="holds no state of tensors and plain values"):
        from_bytes(buffer.getvalue(), "this file")
    assert not canary.exists()


def test_the_newest_are_kept_and_the_milestones(tmp_path: Path) -> None:
    run = Run(str(tmp_path / "checkpoints"), keep_last=2, milestone_steps=10)
    run.save(*range(5, 46, 5))
    assert list_steps(run.url) == [10, 20, 30, 40, 45]
    assert run.newest() == 45


def test_a_snapshot_does_not_change_while_it_is_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torch.zeros(1000)
    written = Folder.write_file

    def late(folder: Folder, name: str, fill: Any) -> None:
        weights.fill_(9)
        written(folder, name, fill)

    monkeypatch.setattr(Folder, "write_file", late)
    run.checkpointer.save(1, {"weights": weights})
    run.checkpointer.wait()
    assert weights[0] == 9
    assert not from_bytes(read_checkpoint(str(run.file(1, ""))).data, "")["weights"].any()


@pytest.mark.parametrize("url", ["{tmp}/checkpoints", "memory://test-checkpoint/{tmp}"], ids=["local", "object store"])
def test_the_file_is_what_it_was_before_it_was_streamed(tmp_path: Path, url: str) -> None:
    """Byte for byte a torch file packed in memory, and the record is of just these bytes."""
    run = Run(url.format(tmp=tmp_path))
    run.save(5)
    found = find_newest(run.url, run.said.append)
    assert found is not None
    assert found.data == to_bytes(_state(5))
    record = json.loads(read_bytes(f"{found.url}/commit.json"))
    assert record == {"step": 5, "bytes": len(found.data), "sha256": hashlib.sha256(found.data).hexdigest()}


def test_writing_takes_no_second_copy_of_the_state(run: Run) -> None:
    """The file is never whole in memory: what is written is the snapshot itself."""
    state = {"weights": torch.zeros(2**22)}
    run.checkpointer.save(1, state)
    run.checkpointer.wait()
    tracemalloc.start()
    try:
        run.checkpointer.save(2, state)
        run.checkpointer.wait()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert run.newest_step() == 2
    assert peak < state["weights"].nbytes / 4


@pytest.mark.parametrize("cores", [1, 3])
def test_to_host_copies_everything_by_any_number_of_threads(monkeypatch: pytest.MonkeyPatch, cores: int) -> None:
    monkeypatch.setattr(checkpoint, "cores_of_this_rank", lambda: cores)
    parts = [torch.randn(n) for n in range(8)]
    old = to_host(parts)
    changed = [part + 1 for part in parts]
    copy = to_host(changed, old)
    assert [part.data_ptr() for part in copy] == [part.data_ptr() for part in old]
    assert all(map(torch.equal, copy, changed))


def test_a_copy_lies_in_memory_as_the_original_does() -> None:
    weight = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert to_host(weight).stride() == weight.stride()


def test_to_host_copies_everything() -> None:
    state = _state(3)
    copy = to_host(state)
    state["weights"].zero_()
    state["nested"]["list"][0].zero_()
    assert copy["weights"][0] == 3
    assert copy["nested"]["list"][0][0] == 1
    assert copy["nested"]["list"][1:] == [3, None]


def test_a_snapshot_is_written_over_once_it_is_safe(run: Run) -> None:
    """Every checkpoint holds its own state, also where the next one's parts have other shapes, types or names."""
    states = [
        {"a": torch.full((3,), 1.0), "b": [torch.ones(2), torch.ones(2)]},
        {"a": torch.full((3,), 2.0), "b": [torch.full((2,), 2.0), torch.ones(2)]},
        {"a": torch.full((3,), 3, dtype=torch.int64), "b": [torch.ones(5)], "c": torch.zeros(1)},
    ]
    places = []
    for step, state in enumerate(states):
        run.checkpointer.save(step, state)
        assert run.checkpointer._snapshot is not None
        places.append(run.checkpointer._snapshot["a"].data_ptr())
    run.checkpointer.wait()
    assert places[0] == places[1] != places[2]
    for step, state in enumerate(states):
        found = from_bytes(read_checkpoint(str(run.file(step, ""))).data, "")
        assert found.keys() == state.keys()
        assert torch.equal(found["a"], state["a"])
        assert found["a"].dtype == state["a"].dtype
        assert all(map(torch.equal, found["b"], state["b"]))


class Killed(BaseException):
    """The process ends here, for the files."""


@pytest.mark.parametrize("writes", [0, 1])
def test_leftovers_of_a_killed_save_are_removed_at_the_next_start(
    run: Run, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """Killed before the state, or before the record, had its name."""
    run.save(1)

    def cut_short(folder: Folder, name: str, _: Any) -> None:
        path = Path(folder.url_of(name))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f".{path.name}.abc.tmp").write_bytes(b"half")
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Folder, ["write_file", "write"][writes], cut_short)
        with pytest.raises(Killed):
            run.checkpointer._write(2, _state(2))
    run.file(1, ".state.pt.xyz.tmp").write_bytes(b"half")
    assert list_steps(run.url) == [1, 2]
    assert committed_steps(run.url) == [1]
    assert run.newest() == 1

    again = Run(run.url)
    again.checkpointer.remove_unfinished()
    assert sorted(path.name for path in Path(run.url).rglob("*")) == ["commit.json", "state.pt", "step-000000001"]
    again.save(2)
    assert again.newest() == 2
    assert not again.said


def test_a_damaged_checkpoint_of_a_step_is_replaced(run: Run) -> None:
    run.save(1, 2)
    run.file(2, "state.pt").write_bytes(b"damaged")
    assert run.newest() == 1
    run.save(2)
    assert run.newest() == 2


def test_a_record_never_stands_beside_another_state(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the two files of a step that was saved before: the old record must be gone."""
    run.save(1, 2)

    def killed(folder: Folder, name: str, fill: Any) -> None:
        raise Killed

    monkeypatch.setattr(Folder, "write_file", killed)
    with pytest.raises(Killed):
        run.checkpointer._write(2, _state(2))
    assert committed_steps(run.url) == [1]


def test_a_full_disk_is_reported_and_the_last_checkpoint_stays(small_disk: Path) -> None:
    run = Run(str(small_disk / "checkpoints"))
    run.save(1)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(48 * 1024))
    run.checkpointer.save(2, _state(2) | {"more": torch.zeros(10_000)})
    run.checkpointer.wait()
    assert len(run.said) == 1
    assert "checkpoint of step 2 could not be written" in run.said[0]
    assert "No space left on device" in run.said[0]
    assert "training goes on" in run.said[0]
    assert list_steps(run.url) == [1]  # nothing half written is left
    assert not list(small_disk.rglob("*.tmp"))
    ballast.unlink()
    run.save(3)
    assert run.newest() == 3


@pytest.mark.parametrize("numbers", [1000, 10**6], ids=["at the end", "amid tensors"])
def test_a_file_that_may_not_grow_is_reported(run: Run, numbers: int) -> None:
    """The same by a limit of the process, which needs no mount."""
    run.save(1)
    state = _state(2) | {"more": [torch.zeros(numbers), torch.zeros(numbers)]}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        run.checkpointer.save(2, state)
        run.checkpointer.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, previous)
    assert "checkpoint of step 2 could not be written" in run.said[0]
    assert "File too large" in run.said[0]
    assert list_steps(run.url) == [1]
    assert run.newest() == 1


@contextlib.contextmanager
def _as_nobody() -> Iterator[None]:
    """Root may write anywhere; what it gives up in here is the system's own leave to."""
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)


def test_a_folder_that_may_not_be_written_to_is_reported(run: Run) -> None:
    run.save(1)
    Path(run.url).chmod(0o555)
    with _as_nobody():
        run.save(2)
    Path(run.url).chmod(0o755)
    assert "checkpoint of step 2 could not be written" in run.said[0]
    assert "Permission denied" in run.said[0]
    assert "training goes on" in run.said[0]
    assert list_steps(run.url) == [1]
    assert run.newest() == 1
    run.save(3)
    assert run.newest() == 3


def test_a_save_waits_for_the_one_before(run: Run) -> None:
    run.save(*range(1, 9))
    assert list_steps(run.url) == [6, 7, 8]
    assert not run.said


def test_the_record_is_plain_to_read(run: Run) -> None:
    run.save(4)
    record = json.loads(run.file(4, "commit.json").read_text())
    assert sorted(record) == ["bytes", "sha256", "step"]
    assert (record["step"], record["bytes"]) == (4, run.file(4, "state.pt").stat().st_size)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_checkpoint_of_numbers_that_are_not_finite_is_written(tmp_path: Path, value: float) -> None:
    """Such as the running variance of a batch of one row, whose losses are finite all the while."""
    checkpointer = Checkpointer(str(tmp_path), keep_last=3, milestone_steps=0, report=print)
    checkpointer.save(1, _state(1))
    bad = {"ema": {"norm.running_var": torch.tensor([1.0, value])}, "count": torch.tensor(3), "plain": [1, "a"]}
    checkpointer.save(2, bad)
    with pytest.raises(UserError, match=r"at step 2 .* not finite in 1 tensors \(ema.norm.running_var\)"):
        checkpointer.wait()
    checkpointer.wait()  # it is said once
    assert committed_steps(str(tmp_path)) == [1]
    assert non_finite(_state(1)) == []


def test_a_committed_checkpoint_of_such_numbers_generates_nothing(tmp_path: Path) -> None:
    state = {"ema": {"weight": torch.tensor([math.nan])}, "generator": {"network": {"weight": torch.ones(1)}}}
    found = FoundCheckpoint("runs/old/step-1", 1, to_bytes({"state": state}))
    with pytest.raises(UserError, match=r"runs/old/step-1 holds numbers that are not finite \(1 tensors, weight among"):
        trained_from(found, RunFolder(tmp_path))
