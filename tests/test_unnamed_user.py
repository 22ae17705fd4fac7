"""Commands of a user whom the machine has no name and no home for, as in containers that run as any uid."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stackgan_dist.machine import user_name

UID = 54321

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


def _become_unnamed() -> None:
    os.setgroups([])
    os.setgid(UID)
    os.setuid(UID)


def _become_unnamed_by_real_uid() -> None:
    """The right to read files stays: an interpreter below /root can be read by nobody else."""
    os.setresuid(UID, 0, 0)


def _run(folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    named = ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME")
    environment = {name: value for name, value in os.environ.items() if name not in named}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[1]), "TMPDIR": str(folder / "tmp")}

    def run(become: Callable[[], None], *arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, *arguments]
        return subprocess.run(
            line, cwd=folder, env=environment, preexec_fn=become, capture_output=True, text=True, timeout=600
        )

    try:
        can_read = run(_become_unnamed, "-c", "import stackgan_dist.cli.doors").returncode == 0
    except PermissionError:
        can_read = False
    return run(_become_unnamed if can_read else _become_unnamed_by_real_uid, *map(str, command))


@pytest.fixture(scope="module")
def folder(packed: Path) -> Iterator[Path]:
    """That user's own, with a packed set; pytest's folders are root's alone."""
    with pytest.raises(KeyError):
        pwd.getpwuid(UID)
    folder = Path(tempfile.mkdtemp(prefix="unnamed-", dir="/tmp"))
    (folder / "tmp").mkdir()
    shutil.copytree(packed, folder / "painted")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, UID, UID)
    yield folder
    shutil.rmtree(folder)


def test_training_and_what_follows_it(folder: Path) -> None:
    config = ["--data.url", "painted", "--data.workers", 1, "--training.batch-size", 8, "--training.epochs", 1]
    model = ["--model.generator-width", 8, "--model.discriminator-width", 8]
    run = ["--run.folder", "runs", "--run.name", "r"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2]
    for command in (
        [*torchrun, "-m", "stackgan_dist.train", "--preset", "demo-stage1", *config, *model, *run],
        ["-m", "stackgan_dist.colour_agreement", "runs/r", "--samples", 8],
        ["-m", "stackgan_dist.generate", "--run", "runs/r", "--count", 1, "a red bird"],
    ):
        done = _run(folder, *command)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    assert (folder / "runs" / "r" / "DONE").exists()
    assert (folder / "runs" / "r" / "scores.jsonl").exists()
    assert not (folder / "~").exists()


def test_the_uid_is_the_name(folder: Path) -> None:
    done = _run(folder, "-c", "from stackgan_dist.machine import user_name; print(user_name())")
    assert done.stdout == f"{UID}\n"
    assert user_name() == "root"


def test_a_home_that_is_not_known(folder: Path) -> None:
    load = "from stackgan_dist.classifiers.classifier import load_classifier; load_classifier('~/weights.pth')"
    done = _run(folder, "-c", load)
    assert "UserError: no classifier '~/weights.pth'" in done.stderr
