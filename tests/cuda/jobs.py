"""The parts that start commands: trainings, ranks, benchmarks, scores."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from context import Context, SkippedError
from distributed import tiny

from stackgan_dist.bench import step as step_benchmark

TESTS = Path(__file__).parents[1]


def trainings(context: Context) -> None:
    """The trainer, ended by SIGTERM and started again; then its speed by the loader."""
    context.needs_gpu(or_tiny=True)
    runs = context.out / "runs"
    narrow = tiny.TINY_FLAGS if context.tiny else []

    def command(name: str, epochs: int, *more: str) -> list[str]:
        return [
            sys.executable, "-m", "stackgan_dist.train", "--preset", "painted-stage1", "--data.url", str(context.data),
            "--run.folder", str(runs), "--run.name", name, "--training.epochs", str(epochs), *narrow, *more,
        ]  # fmt: skip

    metrics = runs / "stopped" / "metrics.jsonl"
    passed = 0
    with (context.out / "stopped.txt").open("w") as log:
        process = subprocess.Popen(command("stopped", 30), stdout=log, stderr=subprocess.STDOUT)
        while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        code = process.wait()
        context.note("markers/first exit code", code)
        if not metrics.exists():
            raise AssertionError(f"it ended before its first step: {_end_of(context.out / 'stopped.txt')}")
        passed += code == 75
        code = subprocess.run(command("stopped", 30), stdout=log, stderr=subprocess.STDOUT, check=False).returncode
    context.note("markers/second exit code", code)
    passed += code == 0 and (runs / "stopped" / "DONE").exists()
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    passed += steps == sorted(set(steps))
    context.note("markers", passed)
    for workers in (1, 3):
        name = f"workers-{workers}"
        more = ["--data.device-gb", "0", "--data.workers", str(workers)]
        subprocess.run(command(name, 1 if context.tiny else 15, *more), check=True, stdout=subprocess.DEVNULL)
        last = json.loads((runs / name / "metrics.jsonl").read_text().splitlines()[-1])
        context.note(f"trainings/{workers} workers, img/s", last["images_per_s"])
        context.note(f"trainings/{workers} workers, data wait", last["data_wait"])


def ranks(context: Context) -> None:
    """Trainings of 2 ranks on the one GPU, through gloo, against those of one."""
    context.needs_gpu()
    from distributed.trainings import compared_on

    data = context.out / "small"  # five batches of seven, as the tests of ranks have it
    pack = [
        sys.executable, "-m", "stackgan_dist.pack", "painted", "--out", str(data), "--sizes", "76", "152",
        "--limit", "38", "--samples-per-shard", "8",
    ]  # fmt: skip
    subprocess.run(pack, check=True, stdout=subprocess.DEVNULL)
    for size in (1, 2):
        log = context.out / f"ranks-{size}.txt"
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size),
            str(TESTS / "distributed" / "trainings.py"), str(data), str(context.out / str(size)),
            "--only", "invariance",
        ]  # fmt: skip
        with log.open("w") as file:
            subprocess.run(command, check=True, stdout=file, stderr=file, env=_environment(STACKGAN_BACKEND="gloo"))
    worst = 0.0
    for variant in compared_on(2):
        found = [tiny.final_state(context.out / str(size) / variant) for size in (1, 2)]
        difference = tiny.largest_difference(*found)
        context.note(f"ranks/2, {variant}", difference)
        worst = max(worst, difference)
    context.note("ranks/2", worst)


def bench(context: Context) -> None:
    """`bench step`, and what it says of launches and of the peak."""
    context.needs_gpu(or_tiny=True)
    narrow = ["--width", "4", "--repeats", "1"] if context.tiny else []
    for stage, rows in ((1, 2),) if context.tiny else ((1, 64), (1, 512), (2, 64)):
        name = f"bench/{stage} at {rows}"
        options = ["step", "--stage", str(stage), "--batch", str(rows), "--no-layers", "--no-memory", *narrow]
        for row in _bench(context, name, options):
            for column in ("images/s", "launches", "kernels", "busy"):
                context.note(f"{name}, {row['step']}, {column}", row[column])
            if row["step"] == step_benchmark.CAPTURED:
                context.note(f"{name}, share", row["share of peak"])


def checkpoint(context: Context) -> None:
    """`bench checkpoint`, of the size of a paper's Stage-II."""
    context.needs_gpu(or_tiny=True)
    megabytes = "8" if context.tiny else "1600"
    options = ["checkpoint", "--repeats", "2", "--loop-s", "0.2", "--megabytes", megabytes]
    first, later, *_ = _bench(context, "checkpoint", options)
    context.note("checkpoint/first ms", 1e3 * first["median s"])
    context.note("checkpoint/again ms", 1e3 * later["median s"])


def _bench(context: Context, name: str, options: list[str]) -> list[dict[str, Any]]:
    out = context.out / f"{name.replace('/', '-').replace(' ', '-')}.json"
    where = ["--device", context.device.type, "--json", str(out)]
    command = [sys.executable, "-m", "stackgan_dist.bench", *options, *where]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    rows: list[dict[str, Any]] = json.loads(out.read_text())["tables"][0]["rows"]
    return rows


def too_many_ranks(context: Context) -> None:
    context.needs_gpu()
    count = torch.cuda.device_count() + 1
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "stackgan_dist", "--ranks", str(count), "train", "--data.url", str(context.data),
         "--run.folder", str(context.out / "refused"), *tiny.TINY_FLAGS],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    context.note("too many/exit code", done.returncode)
    said = done.stdout + done.stderr
    context.note("too many/lines", [line for line in said.splitlines() if "visible" in line])
    if done.returncode != 2 or said.count("visible") != 1 or "Traceback" in said:
        raise AssertionError(said[-2000:])
    context.note("too many/s", time.perf_counter() - begin)


def scores(context: Context) -> None:
    """The scores of the run of `trainings`, on the CPU and on the device."""
    context.needs_gpu(or_tiny=True)
    run = context.out.parent / "trainings" / "runs" / "stopped"
    if not (run / "DONE").exists():
        raise SkippedError("the part trainings left no run")
    found, samples = [], "16" if context.tiny else "256"
    for name, variables in (("cpu", {"CUDA_VISIBLE_DEVICES": ""}), ("cuda", {})):
        options = ["--samples", samples, "--splits", "1"]
        command = [sys.executable, "-m", "stackgan_dist.inception_score", str(run), *options]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=_environment(**variables))
        (context.out / f"{name}.txt").write_text(done.stdout)
        rows = [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]
        context.note(f"scores/{name}", rows[-1])
        found.append(float(rows[-1]["mean"]))
    context.note("scores/difference", abs(found[0] - found[1]) / found[0])


def flowers(context: Context) -> None:
    """Both stages of the picture recipe on real pictures, half of the time that is left each; their pictures are kept.

    Stage-II is as large as the set is packed for: of 128 pixels with pictures of 152, of 256 with those of 304.
    """
    context.needs_gpu(or_tiny=True)
    if context.flowers is None:
        raise SkippedError("no --flowers FOLDER")
    if context.left_s < 40:
        raise SkippedError(f"{context.left_s:.0f} s are left")
    sizes = [size for size, packed in ((256, 304), (128, 152)) if (context.flowers / "train" / str(packed)).exists()]
    each_s = (context.left_s - 25) / (2 if sizes else 1)
    _flowers(context, 1, each_s)
    if sizes:
        stage1 = context.out / "flowers" / "stage1"
        _flowers(context, 2, each_s, "--stage1", str(stage1), "--model.image-size", str(sizes[0]))


def _flowers(context: Context, stage: int, seconds: float, *more: str) -> None:
    """A stage, stopped as Slurm does after `seconds`."""
    command = [
        sys.executable, "-m", "stackgan_dist.train", "--preset", f"oxford102-best-stage{stage}", "--data.url",
        str(context.flowers), "--run.folder", str(context.out / "flowers"), "--run.name", f"stage{stage}",
        "--run.sample-steps", "500", *more, *([*tiny.TINY_FLAGS, "--training.epochs", "1"] if context.tiny else []),
    ]  # fmt: skip
    log = context.out / f"stage{stage}.txt"
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.wait()
    context.note(f"flowers/stage {stage}, exit code", process.returncode)
    if process.returncode not in (0, 75):
        raise AssertionError(_end_of(log))
    pictures = sorted((context.out / "flowers" / f"stage{stage}" / "samples").glob("*.png"))
    context.note(f"flowers/stage {stage}, last picture", str(pictures[-1]) if pictures else None)


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-500:]


def _environment(**variables: str) -> dict[str, str]:
    return {**os.environ, **variables}
