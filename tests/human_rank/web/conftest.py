"""A study of three runs, and copies of it without votes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from stackgan_dist.human_rank import __main__ as human_rank


@pytest.fixture(scope="session")
def built_study(three_runs: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five sentences and an attention check, three methods."""
    out = tmp_path_factory.mktemp("web") / "study"
    with pytest.MonkeyPatch.context() as patch:
        names = ["Stage-I without CA", "Stage-I", "Stage-II"]
        arguments = ["build", "--runs", *three_runs, "--names", *names, "--out", out]
        arguments += ["--captions-per-class", 1, "--sentences", 5, "--attention-checks", 1]
        patch.setattr("sys.argv", ["human_rank", *map(str, arguments)])
        human_rank.main()
    return out


@pytest.fixture
def study(built_study: Path, tmp_path: Path) -> Path:
    """A copy that nobody has rated yet."""
    return Path(shutil.copytree(built_study, tmp_path / "study"))


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What `human_rank report ARGUMENTS` prints."""

    def door(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["human_rank", "report", *map(str, arguments)])
        capsys.readouterr()
        human_rank.main()
        return capsys.readouterr().out

    return door
