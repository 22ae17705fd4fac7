"""An S3 user who may not list: the store answers 403 for what is not there, and that is explained."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest
from stores.faulty_network import Fault, FaultyNetwork, Request

from stackgan_dist.config import DataConfig
from stackgan_dist.data.dataset import open_packed
from stackgan_dist.data.index import packed_folders
from stackgan_dist.errors import EXIT_USER_ERROR
from stackgan_dist.pack.sources.files import Files
from stackgan_dist.pack.sources.webdataset import WebDatasetTars
from stackgan_dist.runs.checkpoint import Checkpointer, committed_steps, find_newest
from stackgan_dist.runs.folder import find_run
from stackgan_dist.storage.folder import Folder
from stackgan_dist.storage.retry import StoreError

ADVICE = r"after 1 attempt in .*(PermissionError|403).*without s3:ListBucket, S3 answers 403 for what is not there"


@pytest.fixture
def top(network: FaultyNetwork, packed: Path, tmp_path: Path) -> Folder:
    """A packed set and the beginning of a run, on a store that lets nobody list from now on."""
    top = Folder.at(f"s3://bucket/{tmp_path.name}")
    for file in sorted((packed / "train/76").iterdir()):
        top.write(f"painted/train/76/{file.name}", file.read_bytes())
    top.write("runs/one/DONE", b"")
    known = {f"/bucket/{tmp_path.name}/{name}" for name in top.files_below()}

    def decide(request: Request) -> Fault | None:
        path, _, query = request.target.partition("?")
        if "list-type" in query or (request.method in ("GET", "HEAD") and unquote(path) not in known):
            return Fault.FORBIDDEN
        return None

    network.decide = decide
    return top


@pytest.mark.parametrize(
    "use",
    [
        lambda top: top.read("nothing"),
        lambda top: top.read_settled("nothing"),
        lambda top: top.exists("nothing"),
        lambda top: top.append_line("nothing", "a row"),
        lambda top: top.names(),
        lambda top: top.sizes(),
        lambda top: top.files_below(),
        lambda top: top.remove("runs"),
        lambda top: list(top.walk(1)),
        lambda top: top.is_there(),
        lambda top: top.marks("nothing"),
        lambda top: find_run(top / "runs/two"),
        lambda top: find_newest(top / "runs/one/checkpoints", print),
        lambda top: committed_steps(top / "runs/one/checkpoints"),
        lambda top: packed_folders(top / "painted"),
        lambda top: open_packed(DataConfig(url=(top / "painted").url), 128),
        lambda top: Files((top / "painted").url, "own", "pictures").has("nothing"),
        lambda top: Files((top / "painted").url, "own", "pictures").names(),
        lambda top: WebDatasetTars((top / "painted/train/76").url).records("train"),
    ],
)
def test_a_refusal_names_the_permission(top: Folder, use: Callable[[Folder], object]) -> None:
    with pytest.raises(StoreError, match=ADVICE):
        use(top)


def test_what_is_there_is_read_and_written(top: Folder, tmp_path: Path) -> None:
    data = DataConfig(url=(top / "painted").url, cache=str(tmp_path / "cache"))
    packed = open_packed(data, 64)
    with packed.cache().open(0) as shard:
        assert len(shard.read()) == packed.index.shards[0].bytes
    top.write("runs/one/file", b"content")


def test_a_save_is_reported_as_failed(top: Folder) -> None:
    said: list[str] = []
    checkpointer = Checkpointer(top / "runs/one/checkpoints", keep_last=1, milestone_steps=0, report=said.append)
    checkpointer.save(1, {"step": 1})
    checkpointer.wait()
    (line,) = said
    assert "checkpoint of step 1 could not be written" in line
    assert "ListBucket" in line


@pytest.mark.parametrize(
    "command",
    [
        "pack verify {top}/painted",
        "pack verify {top}/painted/train/152",
        "pack reshard {top}/painted --out {top}/new --shards 2",
        "pack painted --out {top}/new --splits train --sizes 8 --limit 4 --workers 1",
        "pack webdataset --root {top}/painted --out {top}/new --workers 1",
        "runs ending {top}/runs/one PREEMPTED",
        "generate sentence --run {top}/runs/one",
        "train --data.url {top}/painted --run.folder {top}/runs --run.name new --training.batch-size 7",
        "train --data.url {top}/nothing --run.folder {top}/runs --run.name new",
    ],
)
def test_commands_end_with_one_message(
    top: Folder, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *arguments = command.format(top=top).split()
    monkeypatch.setattr("sys.argv", [name, *arguments])
    package = "" if name == "generate" else ".__main__"
    with pytest.raises(SystemExit) as end:
        importlib.import_module(f"stackgan_dist.{name}{package}").main()
    assert end.value.code == EXIT_USER_ERROR
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "s3:ListBucket" in message
    assert "Traceback" not in message
