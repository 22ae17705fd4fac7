"""Two ranks that train from an object store behind a failing network, and write their run there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from distributed.forked import run_door
from distributed.tiny import assert_equal, final_state
from stores.faulty_network import Fault, FaultyNetwork, Request
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stackgan_dist.data.index import load_index
from stackgan_dist.storage.files import open_filesystem
from stackgan_dist.storage.folder import Folder

FAULTS = [Fault.SLOW_DOWN, Fault.RESET, Fault.TRUNCATED, Fault.CUT, Fault.WRONG_BYTE, Fault.STALL]
STEPS = 10


def _arguments(data: str, runs: str, name: str, *more: str) -> list[str]:
    return [
        "--data.url", data, "--run.folder", runs, "--run.name", name, "--training.batch-size", "7",
        "--training.epochs", "2", "--run.tick-steps", "1", "--run.sample-captions", "1",
        "--run.checkpoint-steps", "5", "--model.generator-width", "4", "--model.discriminator-width", "4",
        "--model.condition-dim", "4", "--model.noise-dim", "4", "--data.workers", "1", *more,
    ]  # fmt: skip


def _every_tenth(request: Request) -> Fault | None:
    """Of another kind each time; what is written is only refused or cut off (a stored wrong byte would be no fault of
    reading)."""
    if request.number % 10:
        return None
    number = request.number // 10
    return FAULTS[number % len(FAULTS)] if request.method == "GET" else FAULTS[number % 2]


@pytest.fixture(scope="module")
def local(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run as it is from local files."""
    folder = tmp_path_factory.mktemp("local")
    arguments = _arguments(str(packed), str(folder), "run")
    run_door(2, "train", *arguments, log=folder / "log")
    return folder / "run"


@pytest.mark.parametrize("cache", ["ample", "of two shards"])
def test_streamed_through_faults_a_run_is_the_same_bit_for_bit(
    packed: Path, local: Path, tmp_path: Path, network: FaultyNetwork, cache: str
) -> None:
    place = f"s3://bucket/{tmp_path.name}"
    fs, path = open_filesystem(place)
    fs.put(str(packed), f"{path}/painted", recursive=True)
    shard_bytes = max(shard.bytes for shard in load_index(str(packed / "train" / "76")).shards)
    limit = 1.0 if cache == "ample" else 2 * shard_bytes / 1e9

    network.requests.clear()
    network.decide = _every_tenth
    arguments = _arguments(
        f"{place}/painted", f"{place}/runs", "streamed", "--data.cache", str(tmp_path / "cache"),
        "--data.cache-gb", str(limit),
    )  # fmt: skip
    run_door(2, "train", *arguments, log=tmp_path / "log", timeout_s=1800)
    faults = [fault for _, fault in network.requests if fault]
    assert len(faults) >= 6, len(network.requests)
    network.decide = lambda request: None

    if cache == "ample":
        names = [request.target for request in network.of(".tar") if "/train/" in request.target]
        assert len(set(names)) == 5
    else:
        kept = list((tmp_path / "cache").glob("*.*"))
        assert sum(path.stat().st_size for path in kept) <= 2 * shard_bytes

    # The run as it lies on the store is the run as it lies on the disk.
    fs.get(f"{path}/runs/streamed", str(tmp_path / "streamed"), recursive=True)
    assert_equal(final_state(tmp_path / "streamed"), final_state(local))
    names = Folder.at(f"{place}/runs/streamed").names()
    assert {"DONE", "checkpoints", "config.json", "metrics.jsonl", "samples"} < set(names)
    assert ".lock" not in names
    rows = [json.loads(line) for line in (tmp_path / "streamed" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert len([name for name in names if name.startswith("events.out")]) >= 2
    board = EventAccumulator(str(tmp_path / "streamed"), size_guidance={"scalars": 0})
    board.Reload()
    assert [event.step for event in board.Scalars("loss/kl")] == list(range(1, STEPS + 1))
