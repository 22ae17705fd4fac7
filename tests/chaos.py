"""Kill a run again and again, and prove that nothing of it is lost.

    python tests/chaos.py --kills 40 --seed 0 [--ranks 3] [--engine deepspeed]

A small run whose ranks and torchrun agents get SIGKILL, SIGTERM and SIGSTOP at random moments (start-up, training,
the middle of a checkpoint's write) is started again by hand each time. At its end every value of its last checkpoint
must be bit-equal to that of a run that was never broken, the history that counts must hold every planned row once and
nothing else, and no process and no half-written file may be left.

Each start's ranks write down what they train on before they do ("traces"), and their disk is made slow, so that kills
find checkpoints half written.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

if __name__ == "__main__":  # pytest and torchrun find the packages by themselves
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from distributed.forked import run_door
from distributed.harness import Launch
from distributed.tiny import BATCH, assert_equal, final_state

from stackgan_dist.data.index import load_index
from stackgan_dist.data.plan import Plan
from stackgan_dist.runs.checkpoint import committed_steps, list_steps

SLOW_FSYNC_S = 0.05
TIMEOUT_S = 15
"""A stopped rank is taken for lost after this long."""
PATIENCE_S = 120
"""Whatever is left of a start so long after its kill is a fault. (A rank that is stopped is taken for lost by its peers
after TIMEOUT_S, and killed by torchrun 30 s later. A torchrun that is stopped has to be killed by hand.)"""
FOREVER = 100_000
"""Epochs, while kills go on."""


@dataclass
class Tally:
    """What the kills cost."""

    kills: Counter[str] = field(default_factory=Counter)
    to_next_step_s: list[float] = field(default_factory=list)
    steps_trained: int = 0
    steps_counted: int = 0


class Run:
    """A run that is started with a certain number of ranks, each start with a trace of its own."""

    def __init__(self, folder: Path, data: str, ranks: int, engine: str, forking: bool) -> None:
        self.path = folder / "run"
        self._folder, self._data, self.ranks, self._engine = folder, data, ranks, engine
        self._forking = forking
        self._starts = 0
        folder.mkdir(parents=True)

    def start(self, epochs: int = FOREVER) -> Launch:
        """The next start."""
        self._starts += 1
        trace = str(self._folder / f"trace-{self._starts:04d}")
        args = [trace, *flags(self._data, self._folder, epochs), "--engine", self._engine]
        log = self._folder / f"log-{self._starts:04d}.txt"
        script = str(Path(__file__).with_name("chaos_rank.py"))
        return Launch(self.ranks, script, args, log, shutdown_s=5, forking=self._forking)

    def newest_trace(self) -> Path:
        """Rank 0's of the last start."""
        return self._folder / f"trace-{self._starts:04d}-rank-0.jsonl"

    def traces(self, rank: int) -> list[dict[int, list[list[int]]]]:
        """For each start that got so far, step -> the (shard, sample) that `rank` trained on."""
        return [
            rows
            for number in range(1, self._starts + 1)
            if (rows := read_trace(self._folder / f"trace-{number:04d}-rank-{rank}.jsonl"))
        ]

    def is_writing(self) -> bool:
        """Whether a checkpoint is half written right now."""
        checkpoints = self.path / "checkpoints"
        return any(not (folder / "commit.json").exists() for folder in checkpoints.glob("step-*"))

    def leftovers(self) -> list[Path]:
        """Files and folders that only a broken write leaves."""
        unfinished = set(list_steps(str(self.path / "checkpoints"))) - set(
            committed_steps(str(self.path / "checkpoints"))
        )
        return [*self.path.rglob("*.tmp"), *(self.path / "checkpoints" / f"step-{step:09d}" for step in unfinished)]


def flags(data: str, folder: Path, epochs: int) -> list[str]:
    """Of stackgan_dist.train: a run of a few thousand weights that checkpoints all the time.

    It has all terms of the picture recipe, hence every kind of state that a run can have.
    """
    values = {
        "data.url": data, "data.workers": 1, "run.folder": folder, "run.name": "run", "run.tick-steps": 1,
        "run.checkpoint-steps": 4, "run.timeout-s": TIMEOUT_S, "run.sample-captions": 1, "training.epochs": epochs,
        "training.batch-size": BATCH, "training.halve-every-epochs": 0, "model.generator-width": 4,
        "model.discriminator-width": 4, "model.condition-dim": 4, "model.noise-dim": 4,
        "training.contrastive-weight": 1, "training.generator-contrastive-weight": 1,
        "training.reading-weight": 40, "training.reading-kl-weight": 0.05,
    }  # fmt: skip
    pairs = [part for name, value in values.items() for part in (f"--{name}", str(value))]
    return [*pairs, "--model.text-every-layer"]


def read_trace(path: Path) -> dict[int, list[list[int]]]:
    """step -> rows; a line that a kill cut short is no line."""
    rows = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        rows[entry["step"]] = entry["samples"]
    return rows


STORM = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGSTOP)
"""What processes are sent, each as likely as it stands here."""


def break_it(
    run: Run, launch: Launch, chance: random.Random, tally: Tally, signals: Sequence[signal.Signals]
) -> tuple[float, str]:
    """Wait for a random moment, signal a random process; returns when, and which signal went to whom."""
    moment = chance.choices(["starting", "training", "writing"], [1, 3, 3])[0]
    steps, pause_s = chance.randint(1, 8), chance.uniform(0, 0.2)
    number = chance.choice(signals)
    target = chance.choice(["torchrun", *range(run.ranks)])
    if moment == "starting":
        time.sleep(30 * pause_s)
    else:
        launch.until(lambda: len(read_trace(run.newest_trace())) >= steps)
        if moment == "writing":
            launch.until(run.is_writing)
        time.sleep(pause_s)
    ranks = launch.ranks()
    if isinstance(target, int) and target >= len(ranks):  # it has not started yet
        target = "torchrun"
    process = ranks[target] if isinstance(target, int) else launch.agent.pid
    kind = f"{number.name} to {'torchrun' if target == 'torchrun' else 'a rank'}"
    try:
        os.kill(process, number)
    except ProcessLookupError:  # it ended by itself in this very moment: a fault of the run
        raise AssertionError(f"{kind}: it was gone:\n{launch.output}") from None
    tally.kills[f"{kind} while {moment}"] += 1
    return time.monotonic(), kind


def settle(launch: Launch, torchrun_is_stopped: bool) -> None:
    """Wait until nothing of a broken start is left; only a torchrun that was stopped has to be killed by hand."""
    if torchrun_is_stopped:
        launch.kill()
        return
    deadline = time.monotonic() + PATIENCE_S
    while launch.agent.poll() is None or launch.processes():
        if time.monotonic() > deadline:
            left, output = launch.processes(), launch.output
            raise AssertionError(f"still there after {PATIENCE_S} s: {left}\n{output}")
        time.sleep(0.05)


def check_history(run: Run, plan: Plan, ranks: int, tally: Tally) -> None:
    """Every planned row stands exactly once in the history that counts, and in its order."""
    per_rank = [run.traces(rank) for rank in range(ranks)]
    # A start that resumes at step r takes back all that was trained from r on.
    counted: list[dict[int, list[list[int]]]] = []
    for starts in per_rank:
        history: dict[int, list[list[int]]] = {}
        for rows in starts:
            first = min(rows)
            assert sorted(rows) == list(range(first, max(rows) + 1)), "a start left out a step"
            assert first == 0 or first - 1 in history, f"a start resumed at {first} without its past"
            history = {step: samples for step, samples in history.items() if step < first} | rows
        counted.append(history)
    last = len(counted[0])
    assert last % plan.steps_per_epoch == 0
    for step in range(last):
        rows = [tuple(place) for history in counted for place in history[step]]
        assert rows == plan.locate(step, range(BATCH)), f"step {step} was trained on {rows}"
    for first in range(0, last, plan.steps_per_epoch):
        epoch = range(first, first + plan.steps_per_epoch)
        seen = {tuple(place) for step in epoch for history in counted for place in history[step]}
        assert len(seen) == BATCH * plan.steps_per_epoch, "a sample came twice in an epoch"
    metrics = [json.loads(line)["step"] for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert metrics == list(range(1, last + 1)), "metrics.jsonl has not every step once"
    tally.steps_counted = last
    tally.steps_trained = sum(len(rows) for rows in per_rank[0])


def chaos(
    data: str,
    folder: Path,
    *,
    kills: int,
    seed: int,
    ranks: int,
    engine: str = "ddp",
    forking: bool = False,
    signals: Sequence[signal.Signals] = STORM,
) -> Tally:
    """Break a run `kills` times, let it end, and compare it with one that was left alone.

    AssertionError if any of it was lost. `forking` makes the starts short (distributed/forking_torchrun.py), and kills
    find none of them.
    """
    chance, tally = random.Random(seed), Tally()
    run = Run(folder / "broken", data, ranks, engine, forking)
    index = load_index(f"{data}/train/76", how_to_make="pack it")
    plan = Plan([shard.samples for shard in index.shards], 0, BATCH)
    launches: list[Launch] = []

    def start(epochs: int = FOREVER) -> Launch:
        launches.append(run.start(epochs))
        return launches[-1]

    try:
        launch, epochs = start(), FOREVER
        for number in range(1, kills + 1):
            killed_at, kind = break_it(run, launch, chance, tally, signals)
            broken = launch
            # An operator who starts again at once must not harm the run either: the new start waits for the old.
            at_once = chance.random() < 0.3 and "SIGSTOP" not in kind and number < kills
            if at_once:
                launch = start()
            settle(broken, kind == "SIGSTOP to torchrun")
            if number == kills:
                reached = (committed_steps(str(run.path / "checkpoints")) or [0])[-1]
                epochs = reached // plan.steps_per_epoch + 2
            if not at_once:
                launch = start(epochs)
            launch.until(lambda: bool(read_trace(run.newest_trace())))
            tally.to_next_step_s.append(time.monotonic() - killed_at)
            print(f"kill {number}: {kind}", flush=True)
        result = launch.wait(300)
        assert result.code == 0, result.output
        assert (run.path / "DONE").exists()
        assert not run.leftovers(), run.leftovers()
        settle(launch, False)
        check_history(run, plan, ranks, tally)

        unbroken = [*flags(data, folder / "unbroken", epochs), "--engine", engine]
        run_door(ranks, "train", *unbroken, log=folder / "unbroken.txt")
        assert_equal(final_state(run.path), final_state(folder / "unbroken" / "run"))
    finally:
        for launch in launches:
            launch.kill()
    return tally


def report(tally: Tally, ranks: int) -> str:
    """What was survived and what it cost."""
    lines = [f"{tally.kills.total()} kills survived on {ranks} ranks:"]
    lines += [f"  {count:3d} x {kind}" for kind, count in sorted(tally.kills.items())]
    wasted = tally.steps_trained - tally.steps_counted
    seconds = tally.to_next_step_s
    lines += [
        f"{tally.steps_counted} steps ({tally.steps_counted * BATCH} images) count, {wasted} were computed again "
        f"({wasted * BATCH} images, {wasted / tally.kills.total():.1f} steps a kill)",
        f"from kill to next training step: median {statistics.median(seconds):.1f} s, worst {max(seconds):.1f} s",
        "the last checkpoint is bit-equal to the unbroken run's; every planned row counts exactly once; "
        "no process and no half-written file is left",
    ]
    return "\n".join(lines)


def main() -> None:
    """Pack, break, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--engine", choices=["ddp", "deepspeed"], default="ddp")
    options = parser.parse_args()
    from conftest import pack_small

    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        pack_small(folder / "painted")
        tally = chaos(
            str(folder / "painted"),
            folder,
            kills=options.kills,
            seed=options.seed,
            ranks=options.ranks,
            engine=options.engine,
        )
    print(report(tally, options.ranks))


if __name__ == "__main__":
    main()
