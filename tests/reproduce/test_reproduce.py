"""`reproduce` from nothing to a table: what is shared, what is done again, what is refused."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image
from small_classifier import small_classifier

from stackgan_dist.cli.doors import command_main
from stackgan_dist.errors import UserError
from stackgan_dist.reproduce import __main__ as reproduce
from stackgan_dist.reproduce import reproduction
from stackgan_dist.reproduce.commands import Command
from stackgan_dist.scores import __main__ as scores

REPOSITORY = Path(__file__).parents[2]


@dataclass
class Done:
    """What was run in this process instead of one of its own, which would import torch each time."""

    commands: list[Command] = field(default_factory=list)

    def run(self, command: Command, ranks: int) -> None:
        assert ranks == 1
        self.commands.append(command)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", [command.module, *command.arguments])
            command_main(command.module).__wrapped__()

    def names(self) -> list[str]:
        """As `train stage1-64`; forgets them."""
        found = []
        for command in self.commands:
            words = list(command.arguments)
            run = words[words.index("--run.name") + 1] if command.module == "train" else Path(words[0]).name
            found.append(command.module if command.module == "train_classifier" else f"{command.module} {run}")
        self.commands.clear()
        return found


def _reproduce(patch: pytest.MonkeyPatch, *words: object) -> None:
    patch.setattr("sys.argv", ["reproduce", *map(str, words)])
    reproduce.main.__wrapped__()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def here() -> Iterator[Done]:
    done = Done()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduction, "run", done.run)
        with small_classifier():
            yield done


@pytest.fixture(scope="module")
def folder(packed: Path, here: Done, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Table 1 of a few painted birds, made at smoke scale; the folder with everything."""
    out = tmp_path_factory.mktemp("reproduce")
    with pytest.MonkeyPatch.context() as patch:
        _reproduce(patch, "table1", "--data", packed, "--scale", "smoke", "--folder", out)
    cells = ["gan-int-cls", "gawwn-box", "gawwn-keypoints", "stage1-64", "stackgan-128"]
    assert here.names() == ["train_classifier", *(f"{verb} {name}" for name in cells for verb in ("train", "scores"))]
    return out / "painted-smoke"


def _arguments(packed: Path, folder: Path, table: str = "table1") -> list[object]:
    return [table, "--data", packed, "--scale", "smoke", "--folder", folder.parent]


def test_the_table_has_the_papers_numbers_beside_those_of_the_runs(folder: Path) -> None:
    table = json.loads((folder / "table1.json").read_text())
    rows = {row["method"]: row for row in table["rows"]}
    assert rows["StackGAN"]["paper"] == [3.70, 0.04]
    assert rows["GAWWN, box"]["paper"] == rows["GAWWN, keypoints"]["paper"] == [3.62, 0.07]
    run = folder / "seed-0" / "stackgan-128"
    recorded = {row["score"]: row for row in map(json.loads, (run / "scores.jsonl").read_text().splitlines())}
    assert rows["StackGAN"]["runs"][0]["scores"] == recorded
    facts = {fact["what"]: fact for fact in table["facts"]}
    assert "fine-tuned on the test classes" in facts["classifier"]["ours"]
    assert facts["data"]["ours"] == "painted: 38 pictures to train on, 38 of the test classes"
    assert facts["image sizes"]["ours"] == "64 px, 128 px, 128 px for 256"
    assert facts["each training"]["ours"] == "64 pictures seen: 2 steps of 32"
    assert not any(fact["is_same"] for fact in facts.values())

    text = (folder / "table1.txt").read_text()
    line = next(line for line in text.splitlines() if line.startswith("StackGAN"))
    score = recorded["inception"]
    assert line.split()[1:7] == ["3.70", "±", "0.04", f"{score['mean']:.2f}", "±", f"{score['std']:.2f}"]
    assert "With the paper's numbers: not comparable (classifier, samples, data" in text
    noise = next(line for line in text.splitlines() if line.startswith("noise"))
    assert 1 <= float(noise.split()[2]) < float(text.partition("real test pictures")[2].split()[1])
    assert (folder / "table1.md").read_text().count("| StackGAN | 3.70 ± 0.04 |") == 1


def test_what_is_done_is_not_done_again_and_tables_share_it(
    packed: Path, folder: Path, here: Done, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _reproduce(monkeypatch, *_arguments(packed, folder))
    assert here.names() == []
    _reproduce(monkeypatch, *_arguments(packed, folder, "table2"), "--plan")
    states = dict(line[6:].rsplit(": ", 1) for line in capsys.readouterr().out.splitlines() if line.startswith("# job"))
    assert states == {
        "classifier": "made",
        "0/stage1-64-no-ca after classifier": "not begun",
        "0/stage1-64 after classifier": "scored",
        "0/stage1-128-no-ca after classifier": "not begun",
        "0/stage1-128 after classifier": "not begun",
        "0/stackgan-128-text-once after classifier 0/stage1-64": "not begun",
        "0/stackgan-128-no-ca after classifier 0/stage1-64-no-ca": "not begun",
        "0/stackgan-128 after classifier 0/stage1-64": "scored",
    }
    _reproduce(monkeypatch, *_arguments(packed, folder, "table2"), "--show")
    assert here.names() == []
    text = (folder / "table2.txt").read_text()
    assert "Not finished: 7 numbers (...)" in text
    assert "One run at this scale: 128x128 StackGAN yes yes and 256x256 StackGAN yes yes." in text


def test_the_table_of_terms_has_nothing_of_the_paper(
    packed: Path, folder: Path, here: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    _reproduce(monkeypatch, *_arguments(packed, folder, "terms"), "--show")
    assert here.names() == []
    for ending in ("txt", "md"):
        text = (folder / f"terms.{ending}").read_text()
        assert "terms of the picture recipe on painted, scale smoke" in text
        assert "paper" not in text
        assert "Stage-I, rows that are read" in text
        assert "Not finished: 7 numbers (...)" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    columns = {row.count("|") for row in rows[:9]}
    assert columns == {10}, "method, IS, px, Frechet, KID, precision, recall, R-precision, diversity"


def test_pictures_of_another_system_stand_below(
    packed: Path, folder: Path, here: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for number in range(20):
        Image.new("RGB", (128, 128), (12 * number, 90, 200 - 9 * number)).save(theirs / f"{number}.png")
    arguments = ["--pictures", theirs, "--against", packed, "--classifier", folder / "classifier.pt"]
    few = ["--splits", 2, "--kernel-samples", 20, "--kernel-block", 10, "--out", tmp_path / "scored"]
    monkeypatch.setattr("sys.argv", ["scores", *map(str, [*arguments, *few])])
    with small_classifier():
        scores.main()
    _reproduce(monkeypatch, *_arguments(packed, folder), "--show", "--beside", tmp_path / "scored")
    assert here.names() == []
    text = (folder / "table1.txt").read_text()
    line = next(line for line in text.splitlines() if line.startswith("theirs"))
    inception, frechet, *_ = (
        json.loads(line) for line in (tmp_path / "scored" / "scores.jsonl").read_text().splitlines()
    )
    assert f"{inception['mean']:.2f} ± {inception['std']:.2f}" in line
    assert f"{frechet['distance']:.1f}" in line
    assert "theirs: pictures of another system, scored as these rows are: comparable with them." in text
    rows = tmp_path / "scored" / "scores.jsonl"
    rows.write_text(rows.read_text().replace('"neighbour_samples": 10000', '"neighbour_samples": 12'))
    _reproduce(monkeypatch, *_arguments(packed, folder), "--show", "--beside", tmp_path / "scored")
    assert "not comparable with these rows (other splits, blocks or neighbours)" in (folder / "table1.txt").read_text()
    with pytest.raises(UserError, match="nowhere has no scores of pictures by this table's classifier"):
        _reproduce(monkeypatch, *_arguments(packed, folder), "--show", "--beside", "nowhere")


def test_scores_that_are_lost_are_made_again_and_a_training_goes_on(
    packed: Path, folder: Path, here: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "painted-smoke"
    shutil.copytree(folder, copy)
    run = copy / "seed-0" / "gan-int-cls"
    whole = (run / "scores.jsonl").read_text().splitlines()
    (run / "scores.jsonl").write_text(f"{whole[0]}\n{whole[1][:40]}")  # killed while it wrote
    (copy / "seed-0" / "stage1-64" / "DONE").unlink()
    _reproduce(monkeypatch, *_arguments(packed, copy))
    assert here.names() == ["scores gan-int-cls", "train stage1-64"]
    # What was measured of real pictures was kept, and gives the same scores.
    rows = [json.loads(line) for line in [*whole, *(run / "scores.jsonl").read_text().splitlines()[2:]]]
    for first, again in zip(rows[: len(whole)], rows[len(whole) :], strict=True):
        assert {name for name in first if first[name] != again[name]} <= {"time", "checkpoint"}


def test_one_cell_needs_what_it_starts_from(
    packed: Path, folder: Path, here: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "painted-smoke"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("table*"))
    cell = [*_arguments(packed, copy, "table2"), "--cell", "stackgan-128-no-ca"]
    with pytest.raises(
        UserError, match=r"0/stackgan-128-no-ca needs 0/stage1-64-no-ca first:\n.*--cell stage1-64-no-ca"
    ) as needed:
        _reproduce(monkeypatch, *cell)
    _reproduce(monkeypatch, *shlex.split(str(needed.value).partition("stackgan_dist.reproduce ")[2]))
    _reproduce(monkeypatch, *cell)
    assert here.names() == [
        "train stage1-64-no-ca", "scores stage1-64-no-ca", "train stackgan-128-no-ca", "scores stackgan-128-no-ca",
    ]  # fmt: skip
    assert not list(copy.glob("table*")), "one cell is not a table"


def test_another_seed_has_a_column_and_the_same_classifier(
    packed: Path, folder: Path, here: Done, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _reproduce(monkeypatch, *_arguments(packed, folder), "--seed", 0, 1, "--plan")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("# job")]
    assert lines[0] == "# job classifier: made"
    assert sum("1/" in line and line.endswith("not begun") for line in lines) == 5
    _reproduce(monkeypatch, *_arguments(packed, folder), "--seed", 0, 1, "--show")
    assert "IS, seed 0" in (text := (folder / "table1.txt").read_text())
    assert "IS, seed 1" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nproc", 0], "--nproc is 0, it must be at least 1"),
        (["--seed", 1, 1], "--seed is '1 1'; it must be one number from 0 on, or several different ones"),
        (["--cell", "nosuch"], "the cells of this table on this data are classifier, gan-int-cls, gawwn-box"),
        (["--scale", "paper"], "--sizes 304"),
        (["--data", "nowhere/painted"], "no shards at nowhere/painted/train/152"),
        (["--classifier", "nosuch.pt"], "no classifier 'nosuch.pt'"),
        (["--folder", "s3://bucket/x"], "a classifier cannot be made in s3://bucket/x/painted-smoke"),
    ],
)
def test_wrong_options_are_user_errors(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], message: str
) -> None:
    with pytest.raises(UserError) as refused:
        _reproduce(monkeypatch, *_arguments(packed, tmp_path / "x"), *arguments)
    assert message in str(refused.value)
    assert not (tmp_path / "painted-smoke").exists()


def test_a_folder_with_another_run_is_refused(
    packed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "painted-smoke"
    shutil.copytree(folder, copy)
    file = copy / "seed-0" / "stage1-64" / "config.json"
    file.write_text(file.read_text().replace('"learning_rate": 0.0008', '"learning_rate": 0.5'))
    with pytest.raises(UserError, match=r"another configuration \(training.learning_rate: 0.0008 here, 0.5 there\)"):
        _reproduce(monkeypatch, *_arguments(packed, copy))
    record = copy / "classifier.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"data_digest": "another"}))
    with pytest.raises(UserError, match="knows the classes of another data set"):
        _reproduce(monkeypatch, *_arguments(packed, copy))


def test_a_command_that_fails_ends_it_and_says_which(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from stackgan_dist.reproduce.runner import run

    with pytest.raises(UserError, match=r"stackgan_dist.scores .*nowhere\nfailed \(exit code 2\)"):
        run(Command("scores", (str(tmp_path / "nowhere"),)), 1)
    assert "there is no run at" in capfd.readouterr().err


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(packed: Path, tmp_path: Path) -> None:
    """The whole process group is killed as soon as the training is done; its scores are made by the second start."""
    words = ["table2", "--data", str(packed), "--scale", "smoke", "--folder", str(tmp_path), "--cell", "stage1-64"]
    command = [sys.executable, "-m", "stackgan_dist.reproduce", *words, "--classifier", "efficientnet-lite0"]
    run = tmp_path / "painted-smoke" / "seed-0" / "stage1-64"
    first = subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not (run / "DONE").exists():
            assert first.poll() is None, shlex.join(command)
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    assert not (run / "scores.jsonl").exists()
    again = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=True)
    assert "[1/1] 0/stage1-64: scores" in again.stdout
    assert "[1/1] 0/stage1-64: train" not in again.stdout
    assert again.stdout.splitlines()[-1] == "[1/1] 0/stage1-64: scored"
