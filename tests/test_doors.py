"""Bad input at the front doors: one message that says what to change, exit code 2, no traceback, no hanging rank."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed.forked import run_door
from distributed.harness import torchrun

from stackgan_dist.cli.doors import COMMANDS, command_main, front_door
from stackgan_dist.errors import EXIT_USER_ERROR

MODEL = [
    "--model.generator-width", "4", "--model.discriminator-width", "4",
    "--model.condition-dim", "4", "--model.noise-dim", "4",
]  # fmt: skip
LENGTH = [
    "--training.batch-size", "8", "--training.epochs", "1", "--training.captions-per-text", "1",
    "--run.sample-captions", "1", "--data.workers", "0",
]  # fmt: skip
HANG_S = 60

Door = Callable[..., str]


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    signal.alarm(HANG_S)  # ends pytest: better than a test that waits for ever
    yield
    signal.alarm(0)


def run(patch: pytest.MonkeyPatch, module: str, *arguments: object) -> int:
    """`python -m stackgan_dist.MODULE ARGUMENTS` in this process; its exit code."""
    patch.setattr("sys.argv", [module, *map(str, arguments)])
    try:
        command_main(module)()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


@pytest.mark.parametrize("module", COMMANDS)
def test_help_that_nobody_reads_ends_silently(
    module: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python -m stackgan_dist.MODULE --help | head`."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as unread:
        monkeypatch.setattr(sys, "stdout", unread)
        assert run(monkeypatch, module, "--help") == 128 + signal.SIGPIPE
    assert capfd.readouterr().err == ""


def test_other_pipes_that_break_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    @front_door
    def broken() -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        broken()


def test_help_shows_commands_one_a_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "130")
    for arguments in ((), ("verify",), ("reshard",)):
        assert run(monkeypatch, "pack", *arguments, "--help-all") == 0
        shown = capsys.readouterr().out
        assert shown.lstrip().startswith(" ".join(["usage: python -m stackgan_dist.pack", *arguments, "[-h]"]))
        if not arguments:
            begins = [line.split()[3] for line in shown.splitlines() if line.startswith("    python -m stackgan_dist")]
            assert begins == ["RECIPE", "verify", "reshard"]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Door:
    """Call a front door, see that it refuses, and return its only message."""

    def door(module: str, *arguments: object) -> str:
        capsys.readouterr()
        code = run(monkeypatch, module, *arguments)
        message = capsys.readouterr().err
        assert code == EXIT_USER_ERROR, message
        assert message.count("error: ") == 1, message
        assert message.startswith("error: ")
        assert "Traceback" not in message
        return message

    return door


@pytest.fixture(scope="module")
def runs(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with finished runs of both stages, `one` and `two`."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        common = [*MODEL, *LENGTH, "--data.url", packed, "--run.folder", folder]
        assert run(patch, "train", *common, "--run.name", "one") == 0
        stage2 = ["--model.stage", "2", "--model.image-size", "128", "--stage1", folder / "one"]
        assert run(patch, "train", *common, *stage2, "--run.name", "two") == 0
    return folder


def reindexed(packed: Path, out: Path, **changes: Any) -> Path:
    """A copy of the packed set with other fields in its indices."""
    shutil.copytree(packed, out)
    for file in out.glob("*/*/index.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return out


@pytest.fixture
def train(refused: Door, packed: Path, tmp_path: Path) -> Door:
    """The training door with a small good configuration; further arguments override it."""

    def door(*arguments: object) -> str:
        return refused(
            "train", *MODEL, *LENGTH, "--data.url", packed,
            "--run.folder", tmp_path / "runs", "--run.name", "x", *arguments,
        )  # fmt: skip

    return door


class TestTrain:
    def test_no_shards_yet(self, train: Door, tmp_path: Path) -> None:
        message = train("--data.url", tmp_path / "painted")
        assert f"no shards at {tmp_path}/painted/train/76 (index.json is missing)" in message
        assert f"python -m stackgan_dist.pack painted --out {tmp_path}/painted --sizes 76" in message
        assert not (tmp_path / "runs").exists()

    def test_the_command_for_missing_shards_works(self, train: Door, tmp_path: Path, monkeypatch: Any) -> None:
        message = train("--data.url", tmp_path / "painted")
        command = message.splitlines()[1].split()
        assert command[:4] == ["python", "-m", "stackgan_dist.pack", "painted"]
        assert run(monkeypatch, "pack", *command[3:], "--limit", "20", "--splits", "train", "--workers", "1") == 0
        assert "no shards" not in train("--data.url", tmp_path / "painted", "--training.batch-size", "21")

    def test_shards_of_another_size(self, train: Door, packed: Path) -> None:
        message = train("--model.image-size", "256", "--model.generator-width", "8")
        assert f"no shards at {packed}/train/304" in message
        assert "--sizes 304" in message

    def test_an_index_of_another_schema(self, train: Door, packed: Path, tmp_path: Path) -> None:
        message = train("--data.url", reindexed(packed, tmp_path / "set", schema=9))
        assert "has schema 9, this version reads schema 1; pack the data set again" in message

    def test_fewer_samples_than_the_batch(self, train: Door) -> None:
        message = train("--training.batch-size", "39")
        assert "holds 38 samples, fewer than one global batch of 39; lower --training.batch-size" in message

    def test_a_test_split_of_another_encoder_costs_the_grids_no_run(
        self, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Training captions are shown instead, and it is said before the first step."""
        shutil.copytree(packed, tmp_path / "set")
        index = tmp_path / "set" / "test" / "76" / "index.json"
        index.write_text(json.dumps({**json.loads(index.read_text()), "text_encoder": "minilm", "text_dim": 384}))
        flags = [*MODEL, *LENGTH, "--data.url", tmp_path / "set", "--run.folder", tmp_path, "--run.name", "run"]
        assert run(monkeypatch, "train", *flags) == 0
        said = capsys.readouterr().out
        assert "has texts of minilm (384)" in said.split("step 1/")[0]
        assert (tmp_path / "run" / "DONE").exists()
        assert list((tmp_path / "run" / "samples").iterdir())

    def test_stage2_of_an_unfinished_stage1_is_told_its_step(
        self,
        runs: Path,
        packed: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        flags = [*MODEL, *LENGTH, "--data.url", packed, "--run.folder", tmp_path, "--run.name", "two"]
        flags += ["--model.stage", "2", "--model.image-size", "128", "--stage1"]
        assert run(monkeypatch, "train", *flags, runs / "one") == 0
        assert "is not DONE" not in capsys.readouterr().out
        shutil.copytree(runs / "one", tmp_path / "one")
        (tmp_path / "one" / "DONE").rename(tmp_path / "one" / "PREEMPTED")
        assert run(monkeypatch, "train", *flags, tmp_path / "one", "--run.name", "three") == 0
        assert "one is not DONE; Stage-II starts from its step 4" in capsys.readouterr().out

    def test_more_ranks_than_rows(self, train: Door, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in (("WORLD_SIZE", "9"), ("LOCAL_RANK", "0"), ("MASTER_ADDR", "127.0.0.1")):
            monkeypatch.setenv(name, value)
        assert "9 ranks share a global batch of 8 rows" in train()

    def test_other_ranks_keep_quiet(
        self, packed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("RANK", "1")
        for name, value in (("WORLD_SIZE", "9"), ("LOCAL_RANK", "0"), ("MASTER_ADDR", "127.0.0.1")):
            monkeypatch.setenv(name, value)
        for arguments in (["--training.batch-size", "8"], ["--no-such-option"], ["--preset", "cub"]):
            assert run(monkeypatch, "train", *arguments) == EXIT_USER_ERROR
        assert capsys.readouterr() == ("", "")

    @pytest.mark.parametrize("arguments", [["--preset", "cub"], ["--preset=cub"], ["--preset"]])
    def test_an_unknown_preset(self, train: Door, arguments: list[str]) -> None:
        assert " Known presets: painted-stage1, painted-stage2" in train(*arguments)

    def test_an_unknown_option(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(monkeypatch, "train", "--training.batchsize", "8") == EXIT_USER_ERROR
        message = capsys.readouterr().err
        assert "--training.batchsize" in message
        assert "--training.batch-size" in message  # the one that was meant
        assert "Traceback" not in message

    def test_a_network_that_does_not_exist(self, train: Door) -> None:
        assert "make it a multiple of 4" in train("--model.generator-width", "6", "--model.image-size", "256")

    def test_stage2_without_stage1(self, train: Door) -> None:
        message = train("--model.stage", "2", "--model.image-size", "128")
        assert "give its run folder with --stage1" in message

    def test_a_missing_stage1(self, train: Door, runs: Path) -> None:
        message = train("--model.stage", "2", "--model.image-size", "128", "--stage1", runs / "nowhere")
        assert f"Stage-II needs a trained Stage-I (--stage1): there is no run at {runs}/nowhere" in message
        assert f"runs found under {runs}: {runs}/one, {runs}/two" in message

    def test_a_stage2_run_given_as_stage1(self, train: Door, runs: Path) -> None:
        message = train("--model.stage", "2", "--model.image-size", "128", "--stage1", runs / "two")
        assert f"--stage1 {runs}/two is a stage-II run; give a Stage-I run" in message

    def test_a_stage1_without_checkpoint(self, train: Door, runs: Path, tmp_path: Path) -> None:
        shutil.copytree(runs / "one", tmp_path / "young")
        shutil.rmtree(tmp_path / "young" / "checkpoints")
        message = train("--model.stage", "2", "--model.image-size", "128", "--stage1", tmp_path / "young")
        assert "has no checkpoint yet; train it, or wait for its first checkpoint" in message

    def test_a_stage1_of_other_noise(self, train: Door, runs: Path) -> None:
        message = train(
            "--model.stage", "2", "--model.image-size", "128", "--model.noise-dim", "5", "--stage1", runs / "one"
        )
        assert "noise_dim is 5 in stage 2 and 4 in the stage-1 generator" in message

    def test_a_stage1_of_another_encoder(self, train: Door, runs: Path, packed: Path, tmp_path: Path) -> None:
        other = reindexed(packed, tmp_path / "set", text_encoder="minilm", text_dim=384)
        message = train(
            "--model.stage", "2", "--model.image-size", "128", "--stage1", runs / "one", "--data.url", other
        )
        assert "was trained on texts of ngrams (256)" in message
        assert "has texts of minilm (384); pack it with --encoder ngrams" in message

    def test_a_run_of_another_configuration(self, train: Door, runs: Path) -> None:
        before = {path: path.read_bytes() for path in (runs / "one").rglob("*") if path.is_file()}
        message = train("--run.folder", runs, "--run.name", "one", "--training.learning-rate", "0.5")
        assert (
            f"{runs}/one holds a run of another configuration (training.learning_rate: 0.5 here, 0.0002 there)"
            in message
        )
        assert "choose another --run.name" in message
        for name in ("config.json", "metrics.jsonl"):
            assert (runs / "one" / name).read_bytes() == before[runs / "one" / name]

    def test_a_run_of_other_data(self, train: Door, runs: Path, packed: Path, tmp_path: Path) -> None:
        other = reindexed(packed, tmp_path / "set", recipe={"seed": 9})
        message = train("--run.folder", runs, "--run.name", "one", "--data.url", other)
        assert "digest of the data's index" in message

    def test_never_resume(self, train: Door, runs: Path) -> None:
        message = train("--run.folder", runs, "--run.name", "one", "--resume", "never")
        assert f"{runs}/one has checkpoints and --resume is never; choose another --run.name" in message

    @pytest.mark.parametrize("at", ["", "x"])
    def test_a_run_folder_that_cannot_be_written(self, train: Door, tmp_path: Path, at: str) -> None:
        path = tmp_path / "runs" / at
        path.parent.mkdir(exist_ok=True)
        path.write_text("a file where the run is to be")
        message = train()
        assert f"cannot write to {tmp_path}/runs/x: " in message
        assert "--run.folder" in message

    @pytest.mark.parametrize("free_kib", [0, 8, 24, 40])
    def test_a_full_disk(self, small_disk: Path, free_kib: int, packed: Path, monkeypatch: Any, capfd: Any) -> None:
        (small_disk / "ballast").write_bytes(bytes((64 - free_kib) * 1024))
        arguments = [*MODEL, *LENGTH, "--data.url", packed, "--run.folder", small_disk, "--run.name", "x"]
        assert run(monkeypatch, "train", *arguments) == EXIT_USER_ERROR
        said = capfd.readouterr()
        assert "Traceback" not in said.err
        assert said.err.count("error") == 1, said.err
        assert "free" in said.err

    def test_fp16_on_a_cpu(self, train: Door) -> None:
        assert "--training.precision fp16 needs a CUDA device; on a CPU take fp32" in train(
            "--training.precision", "fp16"
        )

    def test_a_damaged_shard(
        self, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shutil.copytree(packed, tmp_path / "set")
        for shard in (tmp_path / "set" / "train" / "76").glob("*.tar"):
            shard.write_bytes(shard.read_bytes()[:-1] + b"?")
        arguments = [*MODEL, *LENGTH, "--data.url", tmp_path / "set", "--run.folder", tmp_path / "runs"]
        assert run(monkeypatch, "train", *arguments, "--data.workers", "1") == EXIT_USER_ERROR
        message = capsys.readouterr().err
        assert message.startswith("error on rank 0: at step 0: ")
        assert message.count("the index says") == 1
        assert "Traceback" not in message

    def test_a_run_that_is_over_may_be_started_again(
        self, runs: Path, packed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = [*MODEL, *LENGTH, "--data.url", packed, "--run.folder", runs, "--run.name", "one"]
        assert run(monkeypatch, "train", *arguments) == 0
        assert "DONE at step 4 of 4" in capsys.readouterr().out
        assert (runs / "one" / "DONE").exists()


class TestGenerate:
    @pytest.fixture
    def generate(self, refused: Door, runs: Path, tmp_path: Path) -> Door:
        def door(*arguments: object, run: object = "") -> str:
            return refused("generate", "--run", run or runs / "one", "--out", tmp_path / "out", *arguments)

        return door

    @pytest.mark.parametrize("sentence", ["", "   ", "\t\n"])
    def test_an_empty_caption(self, generate: Door, sentence: str, tmp_path: Path) -> None:
        message = generate("a red bird", sentence)
        assert 'sentence 2 is empty; say what to generate, e.g. "a small red bird"' in message
        assert not (tmp_path / "out").exists()

    def test_a_caption_without_words(self, generate: Door) -> None:
        assert "has no word to encode" in generate("!!! ?")

    def test_nothing_to_draw(self, generate: Door) -> None:
        assert "there is nothing to generate; give one or more sentences" in generate()
        assert "--count is 0, it must be at least 1" in generate("a red bird", "--count", "0")

    def test_a_missing_run(self, generate: Door, tmp_path: Path) -> None:
        message = generate("a red bird", run=tmp_path / "nowhere")
        assert f"there is no run at {tmp_path}/nowhere (no config.json)" in message

    def test_a_folder_of_runs(self, generate: Door, runs: Path) -> None:
        assert f"runs found under {runs}: {runs}/one, {runs}/two" in generate("a red bird", run=runs)

    def test_a_damaged_checkpoint(self, generate: Door, runs: Path, tmp_path: Path) -> None:
        shutil.copytree(runs / "one", tmp_path / "one")
        (state,) = (tmp_path / "one" / "checkpoints").glob("*/state.pt")
        state.write_bytes(state.read_bytes()[:-1])
        assert "has no checkpoint yet" not in generate("a red bird", run=state.parent)
        assert "bytes of state" in generate("a red bird", run=state.parent)

    def test_a_folder_that_cannot_be_written(self, generate: Door, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("a file")
        assert f"cannot write to {tmp_path}/out: File exists; give another folder with --out" in generate("a red bird")

    @pytest.mark.parametrize("device", ["cuda:7", "abacus"])
    def test_a_device_that_is_not_there(self, generate: Door, device: str) -> None:
        assert f"--device {device} cannot be used" in generate("a red bird", "--device", device)


class TestScores:
    @pytest.fixture(params=["inception_score", "colour_agreement"])
    def score(self, request: pytest.FixtureRequest, refused: Door, runs: Path) -> Door:
        def door(*arguments: object, run: object = "") -> str:
            return refused(request.param, run or runs / "one", "--samples", "4", *arguments)

        return door

    def test_no_samples(self, score: Door) -> None:
        assert "--samples is 0, it must be at least 1" in score("--samples", "0")

    def test_empty_batches(self, score: Door) -> None:
        assert "--batch-size is 0, it must be at least 1" in score("--batch-size", "0")

    def test_a_missing_run(self, score: Door, tmp_path: Path) -> None:
        assert f"there is no run at {tmp_path}/nowhere" in score(run=tmp_path / "nowhere")

    def test_captions_of_another_encoder(self, score: Door, packed: Path, tmp_path: Path) -> None:
        other = reindexed(packed, tmp_path / "set", text_encoder="minilm", text_dim=384)
        message = score("--data", other)
        assert (
            "has texts of minilm (384), the run was trained on ngrams (256); pack it with --encoder ngrams" in message
        )

    def test_a_split_that_is_not_packed(self, score: Door, packed: Path) -> None:
        message = score("--split", "validation")
        assert f"no shards at {packed}/validation/76" in message
        assert "python -m stackgan_dist.pack painted" in message

    def test_splits_and_samples(self, refused: Door, runs: Path) -> None:
        message = refused("inception_score", runs / "one", "--samples", "4", "--splits", "5")
        assert "4 samples in 5 splits" in message
        assert "ask for more samples" in message

    def test_a_missing_weights_file(self, refused: Door, runs: Path, tmp_path: Path) -> None:
        message = refused("inception_score", runs / "one", "--classifier", tmp_path / "inception.pth")
        assert f"{tmp_path}/inception.pth" in message

    def test_colours_of_other_data(self, refused: Door, runs: Path, packed: Path, tmp_path: Path) -> None:
        other = reindexed(packed, tmp_path / "set", name="oxford102")
        message = refused("colour_agreement", runs / "one", "--data", other)
        assert "only painted birds have known colours" in message
        assert "stackgan_dist.inception_score" in message

    def test_a_run_folder_that_cannot_be_written_loses_no_score(
        self, refused: Door, runs: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(runs / "one", tmp_path / "one")
        (tmp_path / "one" / "scores.jsonl").mkdir()
        message = refused("colour_agreement", tmp_path / "one", "--samples", "2")
        assert "cannot write to" in message
        assert '"score": "colour agreement"' in message


class TestPack:
    def test_an_unknown_recipe(self, refused: Door) -> None:
        assert "there is no recipe called 'nosuch'; known: coco, cub, folder, oxford102, painted" in refused(
            "pack", "nosuch"
        )

    def test_a_source_without_its_files(self, refused: Door, tmp_path: Path) -> None:
        message = refused("pack", "oxford102", "--root", tmp_path, "--out", tmp_path / "out")
        assert str(tmp_path) in message
        assert not (tmp_path / "out").exists()


def _told_once(output: str, message: str) -> None:
    said = [line for line in output.splitlines() if line.startswith("error")]
    assert len(said) == 1, output
    assert message in output.partition(said[0])[2] or message in said[0]
    # torchrun ends with a traceback of its own; there is none of ours.
    assert not re.search(r'File ".*stackgan_dist/(?!.*site-packages).*", line', output), output


def test_two_ranks_tell_it_once(packed: Path, tmp_path: Path) -> None:
    arguments = [*MODEL, *LENGTH, "--data.url", "nowhere/painted", "--run.folder", str(tmp_path / "runs")]
    result = torchrun(2, "stackgan_dist.train", arguments, tmp_path / "log", timeout_s=HANG_S - 10)
    assert result.code != 0
    _told_once(result.output, "python -m stackgan_dist.pack painted --out nowhere/painted")


def test_two_ranks_that_have_met_tell_it_once(packed: Path, tmp_path: Path) -> None:
    arguments = [*MODEL, *LENGTH, "--data.url", str(packed), "--run.folder", "/dev/null", "--run.name", "x"]
    with pytest.raises(AssertionError, match="exit codes") as failure:
        run_door(2, "train", *arguments, log=tmp_path / "log", timeout_s=HANG_S - 10)
    assert str(EXIT_USER_ERROR) in str(failure.value).splitlines()[0]
    _told_once((tmp_path / "log").read_text(), "cannot write to /dev/null/x")


def test_deepspeed_that_is_not_installed_is_answered_with_the_command(
    refused: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)  # as if it were not there
    message = refused("train", "--engine", "deepspeed")
    assert "python -m pip install 'stackgan_dist[deepspeed]'" in message
    assert "--engine ddp" in message


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--training.precision", "fp64"], "--training.precision fp64 is for --engine ddp"),
        (["--training.precision", "fp16"], "--training.precision fp16 is for --engine ddp"),
        (["--deepspeed-config", "zero3"], "none of zero1, zero2"),
    ],
)
def test_deepspeed_is_checked_before_anything_starts(refused: Door, flags: list[str], expected: str) -> None:
    assert expected in refused("train", "--engine", "deepspeed", *flags)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EFBIG, errno.EIO, errno.ESTALE, errno.ENOSPC])
def test_a_fault_of_the_disk_is_one_line(capsys: pytest.CaptureFixture[str], code: int) -> None:
    @front_door
    def main() -> None:
        raise OSError(code, os.strerror(code), "/runs/one/DONE")

    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == EXIT_USER_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert "/runs/one/DONE" in line
    assert os.strerror(code) in line


def test_a_file_that_is_missing_through_a_fault_of_the_code_keeps_its_traceback() -> None:
    @front_door
    def main() -> None:
        Path("nowhere").read_bytes()

    with pytest.raises(FileNotFoundError):
        main()
