"""Loader processes that are forks of a server: the same batches out of shared memory, and an end with their rank."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed.tiny import TINY_FLAGS, assert_equal, final_state
from stores.server import BUCKET

from stackgan_dist.data.kept import Kept
from stackgan_dist.data.loader_processes import start_method
from stackgan_dist.storage.files import open_filesystem

BEGIN = """
    import multiprocessing.forkserver
    import os
    from stackgan_dist.config import DataConfig
    from stackgan_dist.data.batch import BatchShape
    from stackgan_dist.data.dataset import open_packed
    from stackgan_dist.data.loader import StepDataset, in_time, make_loader
    from stackgan_dist.data.plan import Plan
    from stackgan_dist.data.text_pool import TextPool

    class Dying(StepDataset):
        def __getitem__(self, step):
            if step == 2:
                os.kill(os.getpid(), 9)
            return super().__getitem__(step)

    def dataset(kind=StepDataset, texts=True):
        data = open_packed(DataConfig(url={url!r}), 64)
        plan = Plan([shard.samples for shard in data.index.shards], 0, 8)
        pool = TextPool.read(data.index, data.cache(), 0, 2) if texts else None
        shape = BatchShape(64, 2, 4, 1, 4, pool=16 if texts else 0)
        return kind(data.index, plan, data.cache(), range(8), shape, 64, 10**8, pool=pool)

    def sums(batch):
        return [float(t.double().sum()) for t in batch if t is not None]

    def process_ids(batches):
        workers = batches.gi_frame.f_locals["iterator"]._workers
        return [multiprocessing.forkserver._forkserver._forkserver_pid, *(worker.pid for worker in workers)]

    if __name__ == "__main__":
"""


def _script(folder: Path, packed: Path | str, body: str) -> list[str]:
    """The command of a script: processes that are no forks read it again."""
    path = folder / "script.py"
    path.write_text(textwrap.dedent(BEGIN.format(url=str(packed))) + textwrap.indent(textwrap.dedent(body), "    "))
    return [sys.executable, str(path)]


def _said(folder: Path, packed: Path | str, body: str) -> list[str]:
    done = subprocess.run(_script(folder, packed, body), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()


def test_batches_are_those_of_forks_and_the_memory_is_shared(packed: Path, tmp_path: Path) -> None:
    by_forks, by_server, filled, once_more = _said(
        tmp_path,
        packed,
        """
        print([sums(batch) for batch in make_loader(dataset(), 2, 12, 2)])
        of_server = dataset()
        print([sums(batch) for batch in make_loader(of_server, 2, 12, 2, "forkserver")])
        print(sum(number in of_server._store.pictures for number in range(of_server._index.samples)))
        print([sums(batch) for batch in make_loader(of_server, 2, 12, 1, "forkserver")])
        """,
    )
    assert by_forks == by_server == once_more
    assert int(filled) > 30  # of 38 pictures: 80 rows were read


def test_a_set_on_an_object_store_is_read_by_processes_of_their_own_connections(
    packed: Path, network: object, tmp_path: Path
) -> None:
    """The rank has one open by then, of the index; the shards are not in the cache yet."""
    url = f"s3://{BUCKET}/{tmp_path.name}"
    open_filesystem(url)[0].put(str(packed), url, recursive=True)
    there, here = _said(
        tmp_path,
        url,
        """
        print([sums(batch) for batch in make_loader(dataset(texts=False), 0, 8, 2, "forkserver")])
        print([sums(batch) for batch in make_loader(dataset(texts=False), 0, 8, 0)])
        """,
    )
    assert here == there


def test_a_process_that_is_killed_is_told_in_a_line(packed: Path, tmp_path: Path) -> None:
    *_, last = _said(
        tmp_path,
        packed,
        """
        try:
            for batch in in_time(make_loader(dataset(Dying), 0, 5, 1, "forkserver"), 60, lambda: False):
                print("a batch")
        except Exception as error:
            print(type(error).__name__, error)
        """,
    )
    assert last.startswith("RankError a loader process is gone")
    assert "--data.workers 0" in last


@contextmanager
def _waiting(folder: Path, packed: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process that has read one batch and reads the others once it is told to; and its server and loader's."""
    body = """
    batches = in_time(make_loader(dataset(), 0, 20, 2, "forkserver"), 60, lambda: False)
    next(batches)
    print(*process_ids(batches), flush=True)
    input()
    print(len(list(batches)))
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(_script(folder, packed, body), **pipes) as rank:  # type: ignore[call-overload]
        try:
            yield rank, [int(number) for number in rank.stdout.readline().split()]
        finally:
            rank.kill()


def test_signals_to_all_processes_stop_none_of_them(packed: Path, tmp_path: Path) -> None:
    """As torchrun and Slurm send them; the rank decides what a signal is to it."""
    with _waiting(tmp_path, packed) as (rank, others):
        assert len(others) == 3
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
            for process in others:
                os.kill(process, number)
        time.sleep(0.5)
        out, _ = rank.communicate("go on\n", timeout=60)
        assert rank.returncode == 0
        assert out.split() == ["19"]
        _assert_gone(others)


def test_they_end_with_a_rank_that_is_killed(packed: Path, tmp_path: Path) -> None:
    with _waiting(tmp_path, packed) as (rank, others):
        assert all(_lives(process) for process in others)
        rank.kill()
        rank.wait()
        _assert_gone(others)


def _assert_gone(processes: list[int]) -> None:
    end = time.monotonic() + 30
    while any(_lives(process) for process in processes):
        assert time.monotonic() < end, f"of {processes} live {[each for each in processes if _lives(each)]}"
        time.sleep(0.05)


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


TRAIN = """
    import sys
    from stackgan_dist.train import feed
    from stackgan_dist.train.__main__ import main

    if __name__ == "__main__":
        feed.start_method = lambda device: {method!r}
        main()
"""


def test_a_training_has_the_same_bits(packed: Path, tmp_path: Path) -> None:
    """The method that CUDA has, on a CPU: with the contrastive term, whose reserve is not sent to the processes."""
    states = []
    for method in ("fork", "forkserver"):
        script = tmp_path / "train.py"
        script.write_text(textwrap.dedent(TRAIN.format(method=method)))
        flags = [*TINY_FLAGS[:-1], "1", "--data.url", str(packed), "--run.folder", str(tmp_path), "--run.name", method]
        flags += ["--training.contrastive-weight", "1", "--training.epochs", "1"]
        done = subprocess.run([sys.executable, str(script), *flags], capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        states.append(final_state(tmp_path / method))
    assert_equal(*states)


def test_cuda_has_the_server_unless_no_socket_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start_method(torch.device("cpu")) == "fork"
    assert start_method(torch.device("cuda", 0)) == "forkserver"
    long = tmp_path / ("x" * 95)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    assert capsys.readouterr().err == ""
    assert start_method(torch.device("cuda", 0)) == "fork"
    assert "loader processes are forks of a process that uses CUDA: $TMPDIR has" in capsys.readouterr().err


@pytest.mark.parametrize("memory", ["with a descriptor", "without"])
def test_what_is_kept_is_seen_by_a_fork(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if memory == "without":  # as on macOS
        monkeypatch.delattr(os, "memfd_create", raising=False)
    kept: Kept[np.uint8] = Kept(3, (2, 2), np.uint8)
    child = os.fork()
    if not child:
        kept[1] = np.full((2, 2), 7, np.uint8)
        os._exit(0)
    os.waitpid(child, 0)
    assert [number in kept for number in range(3)] == [False, True, False]
    assert kept.content[1].tolist() == [[7, 7], [7, 7]]
    assert not kept.content[[0, 2]].any()
    elsewhere = pickle.loads(pickle.dumps(kept))
    assert [number in elsewhere for number in range(3)] == [False] * 3
