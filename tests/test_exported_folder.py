"""Every command that takes a run takes an exported folder, on a disk or at a URL, and makes the same of both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from distributed.tiny import TINY_FLAGS
from PIL import Image
from small_classifier import small_classifier

from stackgan_dist.cli.doors import command_main
from stackgan_dist.human_rank.web import serve
from stackgan_dist.storage.folder import Folder

Runs = tuple[Path, Path, Path]
SENTENCE = "a small red bird"


def _call(command: str, *arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [command, *map(str, arguments)])
        try:
            command_main(command)()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


@pytest.fixture(scope="module")
def files(three_runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The content of the folders of Stage-I and Stage-II."""
    out = tmp_path_factory.mktemp("exported")
    for run in three_runs[1:]:
        assert _call("export", run, "--out", out / run.name, "--texts", 1, "--count", 1) == 0
    return {run.name: {path.name: path.read_bytes() for path in (out / run.name).iterdir()} for run in three_runs[1:]}


@pytest.fixture(params=["disk", "memory"])
def exported(
    request: pytest.FixtureRequest, files: dict[str, dict[str, bytes]], tmp_path: Path
) -> Iterator[dict[str, str]]:
    """Where the two lie."""
    root = str(tmp_path / "models") if request.param == "disk" else f"memory://{tmp_path.name}"
    for name, content in files.items():
        for file, data in content.items():
            Folder.at(f"{root}/{name}").write(file, data)
    yield {name: f"{root}/{name}" for name in files}
    fsspec.filesystem("memory").store.clear()


def _same_pictures(ours: Path, theirs: Path) -> None:
    names = {path.relative_to(theirs) for path in theirs.rglob("*.png")} - {Path("nearest.png")}  # of a discriminator
    assert names
    assert {path.relative_to(ours) for path in ours.rglob("*.png")} == names
    for name in names:
        assert Image.open(ours / name).tobytes() == Image.open(theirs / name).tobytes(), name


def test_generate_and_figures(exported: dict[str, str], three_runs: Runs, packed: Path, tmp_path: Path) -> None:
    for command, flags in (
        ("generate", [SENTENCE, "--count", 2]),
        ("figures", ["--data", packed, "--count", 2, "--texts", 2]),
    ):
        for name, run in (("ours", exported["stage2"]), ("theirs", three_runs[2])):
            assert _call(command, run, *flags, "--out", tmp_path / command / name) == 0
        _same_pictures(tmp_path / command / "ours", tmp_path / command / "theirs")
    assert "an exported generator has no discriminator" in (tmp_path / "figures" / "ours" / "index.html").read_text()
    assert _call("generate", exported["stage1"], SENTENCE, "--count", 1) == 0
    assert any("generated" in path for path in Folder.at(exported["stage1"]).files_below())


def _scored(run: object, packed: Path) -> dict[str, dict[str, Any]]:
    flags = ["--samples", 4, "--splits", 2, "--batch-size", 4, "--kernel-block", 2, "--wrong-captions", 3]
    with small_classifier():
        assert _call("scores", run, "--data", packed, *flags) == 0
    rows = [json.loads(line) for line in Folder.at(str(run)).read("scores.jsonl").splitlines()]
    rows = [{key: value for key, value in row.items() if key not in ("checkpoint", "time")} for row in rows]
    return {row["score"]: row for row in rows if row.get("samples", 4) == 4}


@pytest.mark.parametrize("exported", ["memory"], indirect=True)
def test_scores(exported: dict[str, str], three_runs: Runs, packed: Path) -> None:
    assert _scored(exported["stage1"], packed) == _scored(three_runs[1], packed)


def test_people_rank_it_and_try_sentences_on_it(
    exported: dict[str, str], three_runs: Runs, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--data", packed, "--captions-per-class", 1, "--sentences", 2, "--images", 1, "--names", "I", "II"]
    for name, runs in (("ours", exported.values()), ("theirs", three_runs[1:])):
        assert _call("human_rank", "build", "--runs", *runs, *flags, "--out", tmp_path / name) == 0
    _same_pictures(tmp_path / "ours", tmp_path / "theirs")
    served: list[Any] = []
    monkeypatch.setattr(serve, "serve_pages", lambda *given, **_: served.append(given[:2]))
    assert _call("human_rank", "serve", exported["stage2"]) == 0
    assert served == [(None, exported["stage2"])]


def test_trainings_start_from_it(exported: dict[str, str], packed: Path, tmp_path: Path) -> None:
    common = ["--data.url", packed, "--run.folder", tmp_path / "runs", "--training.epochs", 1, *TINY_FLAGS]
    assert _call("train", *common, "--run.name", "tuned", "--init-from", exported["stage1"]) == 0
    second = ["--model.stage", 2, "--model.image-size", 128, "--stage1", exported["stage1"]]
    assert _call("train", *common, *second, "--run.name", "second") == 0
