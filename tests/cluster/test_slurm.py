"""The jobs of slurm/ on a real Slurm of four nodes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT
from hosts import wait_for_text
from slurm_cluster import SlurmCluster

START_S = 240.0
"""Longest wait for ranks to come up: a busy machine imports torch slowly."""

STEPS_PER_EPOCH = 6
"""Of the tiny run."""

Submit = Callable[..., str]


@pytest.fixture
def submit(slurm: SlurmCluster, tmp_path: Path) -> Submit:
    """Submit a job of slurm/, with this interpreter and its output in tmp_path/out."""

    def submit_job(*arguments: str) -> str:
        return slurm.sbatch(f"--output={tmp_path}/out", *arguments, cwd=ROOT, PYTHON=sys.executable)

    return submit_job


def steps(run: Path) -> list[int]:
    """The steps in a run's metrics, in order of writing."""
    return [round(json.loads(line)["step"]) for line in (run / "metrics.jsonl").read_text().splitlines()]


def with_epochs(tiny: list[str], epochs: int) -> list[str]:
    """Options of a longer run; the later flag wins."""
    return [*tiny, "--training.epochs", str(epochs)]


def test_four_nodes_train_one_stage1_and_paths_count_from_where_it_was_submitted(
    slurm: SlurmCluster, tiny: list[str], tmp_path: Path
) -> None:
    number = slurm.sbatch(
        "--output=out", "--nodes=4", str(ROOT / "slurm/stage1.sh"), *tiny, "--run.folder", ".",
        cwd=tmp_path, PYTHON=sys.executable,
    )  # fmt: skip
    job = slurm.wait(number, START_S)
    output = (tmp_path / "out").read_text()
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "0"), output
    assert "4 rank(s)" in output
    assert (tmp_path / "stage1" / "DONE").exists()
    assert steps(tmp_path / "stage1") == [1, 2, 3, 4, 5, 6]


def test_a_warned_or_preempted_job_saves_and_resumes_until_the_run_is_done(
    slurm: SlurmCluster, submit: Submit, tiny: list[str], tmp_path: Path
) -> None:
    job = submit("--nodes=2", "--partition=main", "slurm/stage1.sh", *with_epochs(tiny, 20))
    out = tmp_path / "out"
    wait_for_text(out, "step 3/", START_S)
    slurm.run("scancel", "--batch", "--signal=USR1", job)  # what --signal=B:USR1 does before the time limit
    wait_for_text(out, "resumed at step", START_S)
    first = steps(tmp_path / "stage1")[-1]

    wait_for_text(out, f"step {first + 1}/", START_S)
    urgent = submit("--nodes=4", "--exclusive", "--partition=urgent", "--output=/dev/null", "--wrap", "sleep 1")
    assert slurm.wait(urgent, START_S)["JobState"] == "COMPLETED"

    last = slurm.wait(job, START_S)
    output = out.read_text()
    assert (last["JobState"], last["Restarts"]) == ("COMPLETED", "2"), output
    assert output.count("resumed at step") == 2, output
    assert steps(tmp_path / "stage1") == list(range(1, 121)), "every step once"


def test_scancel_leaves_nothing_behind(slurm: SlurmCluster, submit: Submit, tiny: list[str], tmp_path: Path) -> None:
    """Two GPUs, as Slurm sees them, are two ranks."""
    job = submit("--nodes=1", "--gpus-per-node=2", "slurm/stage1.sh", *with_epochs(tiny, 10_000))
    wait_for_text(tmp_path / "out", "step 2/", START_S)
    assert "2 rank(s)" in (tmp_path / "out").read_text()
    assert slurm.processes(job)
    slurm.run("scancel", job)
    assert slurm.wait(job, 30)["JobState"] == "CANCELLED"
    end = time.monotonic() + 30
    while slurm.processes(job) and time.monotonic() < end:
        time.sleep(0.2)
    assert slurm.processes(job) == []
    time.sleep(6)  # as long as a requeued job would stay away
    assert slurm.job(job)["JobState"] == "CANCELLED"
    assert not (tmp_path / "stage1" / "DONE").exists()


def test_stage2_without_stage1_fails_once_and_says_why(
    slurm: SlurmCluster, submit: Submit, tiny: list[str], tmp_path: Path
) -> None:
    nowhere = tmp_path / "nowhere"
    options = [*tiny, "--preset", "demo-stage2", "--run.name", "stage2"]
    # The marker of an earlier start, which must not send this one back to the queue.
    (tmp_path / "stage2").mkdir()
    (tmp_path / "stage2" / "PREEMPTED").write_text("step 5 of 6\n")
    job = slurm.wait(submit("--nodes=1", "slurm/stage2.sh", *options, "--stage1", str(nowhere)), START_S)
    output = (tmp_path / "out").read_text()
    assert (job["JobState"], job["Restarts"]) == ("FAILED", "0"), output
    assert "Stage-II needs a trained Stage-I" in output
    assert str(nowhere) in output


def pipeline(slurm: SlurmCluster, folder: Path, *arguments: str, **environment: str) -> list[str]:
    """Submit the chain, each job with its output in folder/JOBNAME; the ids of the four jobs."""
    environment = {**slurm.environment, "SBATCH_OUTPUT": f"{folder}/%x", "PYTHON": sys.executable, **environment}
    command = ["bash", "slurm/pipeline.sh", *arguments]
    submitted = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return [line.split()[1].rstrip(":") for line in submitted.stdout.splitlines()]


def test_a_pipeline_whose_first_job_fails_leaves_the_queue(slurm: SlurmCluster, tmp_path: Path) -> None:
    states = [slurm.wait(job, START_S)["JobState"] for job in pipeline(slurm, tmp_path, "nosuch")]
    assert states == ["FAILED", "CANCELLED", "CANCELLED", "CANCELLED"]
    assert "nosuch" in (tmp_path / "pack").read_text()


@pytest.mark.slow
def test_a_pipeline_goes_from_pictures_to_a_score(slurm: SlurmCluster, tmp_path: Path) -> None:
    jobs = pipeline(
        slurm, tmp_path, "demo", "--limit", "48",
        DATA=str(tmp_path / "data"),
        RUNS=str(tmp_path / "runs"),
        TRAIN_OPTIONS="--training.epochs 1 --training.batch-size 8 --model.generator-width 4",
        SCORE_OPTIONS="--samples 40 --splits 2",
    )  # fmt: skip
    states = [slurm.wait(job, 2 * START_S)["JobState"] for job in jobs]
    assert states == ["COMPLETED"] * 4, (tmp_path / "stage2").read_text()
    score = json.loads((tmp_path / "runs/demo/stage2/scores.jsonl").read_text())
    assert score["score"] == "inception"
    assert score["samples"] == 40


@pytest.mark.slow
def test_a_job_that_reaches_its_time_limit_twice_finishes(
    slurm: SlurmCluster, submit: Submit, tiny: list[str], tmp_path: Path
) -> None:
    begin = time.monotonic()
    probe = submit("--nodes=2", "slurm/stage1.sh", *with_epochs(tiny, 10_000), "--run.name", "probe")
    wait_for_text(tmp_path / "out", "step 2/", START_S)
    start_s = time.monotonic() - begin
    begin, before = time.monotonic(), len(steps(tmp_path / "probe"))
    time.sleep(20)
    steps_per_s = (len(steps(tmp_path / "probe")) - before) / (time.monotonic() - begin)
    slurm.run("scancel", probe)
    assert slurm.wait(probe, 30)["JobState"] == "CANCELLED"

    # Limits are whole minutes, and Slurm looks at them every 30 s: it warns up to half a minute early. A start must
    # reach its training before the warning, however slow the machine is today.
    minutes, warning_s = (2, 30) if start_s < 25 else (3, 60)
    longest_s = 60 * minutes - warning_s
    assert start_s < longest_s - 40, f"a start takes {start_s:.0f} s, and nothing of a life would be left to train in"
    epochs = math.ceil(2.6 * (longest_s - start_s) * steps_per_s / STEPS_PER_EPOCH)
    begin = time.monotonic()
    limits = ("--nodes=2", f"--time={minutes}", f"--signal=B:USR1@{warning_s}")
    job = submit(*limits, "slurm/stage1.sh", *with_epochs(tiny, epochs), "--run.checkpoint-steps", "100000")
    last = slurm.wait(job, 1200)
    output = (tmp_path / "out").read_text()
    assert last["JobState"] == "COMPLETED", output
    limits_reached = output.count("warned by Slurm: saving")
    assert int(last["Restarts"]) == limits_reached >= 2, output
    assert output.count("resumed at step") == limits_reached, "every life trained"
    assert steps(tmp_path / "stage1") == list(range(1, epochs * STEPS_PER_EPOCH + 1)), "every step once"
    took = f"{epochs * STEPS_PER_EPOCH} steps, {time.monotonic() - begin:.0f} s; a start takes {start_s:.0f} s"
    print(f"\n--time={minutes}, warned {warning_s} s before: {limits_reached} time limits reached, {took} to step 2")


@pytest.mark.slow
def test_a_table_is_made_by_a_job_for_each_cell(slurm: SlurmCluster, painted: Path, tmp_path: Path) -> None:
    pack = ["-m", "stackgan_dist.pack", "painted", "--out", str(painted), "--sizes", "76", "152", "--limit", "48"]
    subprocess.run([sys.executable, *pack, "--splits", "test"], cwd=ROOT, check=True, capture_output=True)
    # Two nodes for each job: ranks train and score together.
    environment = {**slurm.environment, "SBATCH_OUTPUT": f"{tmp_path}/%x-%j", "PYTHON": sys.executable}
    words = ["table1", "--data", str(painted), "--scale", "smoke", "--folder", str(tmp_path)]
    command = ["bash", "slurm/reproduce.sh", *words, "--classifier", "efficientnet-lite0"]
    submitted = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    jobs = [line.split()[1].rstrip(":") for line in submitted.stdout.splitlines()]
    assert len(jobs) == 6
    states = [slurm.wait(job, 600)["JobState"] for job in jobs]
    output = "".join(file.read_text() for file in sorted(tmp_path.glob("reproduce-cell-*")))
    assert states == ["COMPLETED"] * 6, output
    table = (tmp_path / "painted-smoke" / "table1.txt").read_text()
    assert "..." not in table, "every row has its number"
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert len(again.stdout.splitlines()) == 1, "what is finished is not submitted again"
