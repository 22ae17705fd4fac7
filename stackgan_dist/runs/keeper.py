"""The shell of every training: going on where it stopped, reports, checkpoints, stopping together, and its end.

A loop makes a step, hands what was measured to its keeper, and asks it to tick and to save; the keeper knows when that
is due. Every rank has a keeper and makes the same calls, rank 0 alone writes.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntFlag
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import torch
from PIL import Image

from stackgan_dist.config import RunConfig
from stackgan_dist.distributed.collectives import sum_over_ranks
from stackgan_dist.distributed.process_group import Ranks, broadcast_bytes, explained_peer_loss, main_first
from stackgan_dist.distributed.stop import StopRequest
from stackgan_dist.errors import UserError
from stackgan_dist.runs.checkpoint import Checkpointer, FoundCheckpoint, committed_steps, find_newest, from_bytes
from stackgan_dist.runs.folder import Ending, RunFolder
from stackgan_dist.runs.loggers import RunState
from stackgan_dist.runs.metrics import Metric
from stackgan_dist.runs.monitor import NO_PAGES, Monitor, Pages, WaitClock
from stackgan_dist.runs.probe import Probe
from stackgan_dist.runs.stragglers import RankNumbers, slowest
from stackgan_dist.runs.utilisation import Work, peak_memory_of

T = TypeVar("T")

_COUNT_AFTER_S = 20.0
"""A training counts its operations at the first tick after so long: it takes a second, too much for short ones."""
_HOST_BYTES = 64


class Identity(Protocol):
    """What must be the same when a training goes on."""

    def content(self) -> dict[str, Any]:
        """What every checkpoint holds of it: plain values, beside `step`, `world_size` and `state`."""
        ...

    def differences(self, content: Mapping[str, Any], where: str) -> list[str]:
        """In what the checkpoint `where` with this `content` is of another training: "name: ours here, theirs there".

        Raises UserError when the content is of another version.
        """
        ...


class State(Protocol):
    """What a training changes."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values. Every rank calls it; it is whole on rank 0."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what rank 0's `state_dict` returned, on every rank."""
        ...


@dataclass(frozen=True)
class WritePolicy:
    """How often a training writes, and what it keeps."""

    tick_steps: int
    checkpoint_steps: int
    keep_last: int
    """Checkpoints besides the milestones."""
    milestone_steps: int = 0
    """Checkpoints at multiples of this are kept for good; 0: none."""
    picture_steps: int = 0
    """Between two pictures; 0: none."""
    tick_s: float = 0.0
    """At least so many seconds lie between two ticks."""
    write_s: float = 0.0
    """At least so many lie between two checkpoints, and between two pictures."""

    @classmethod
    def of(cls, run: RunConfig, device: torch.device) -> WritePolicy:
        """That of a GAN's training on `device`."""
        quick = device.type == "cuda"  # a step takes milliseconds there
        return cls(
            run.tick_steps,
            run.checkpoint_steps,
            run.keep_last,
            run.milestone_steps,
            picture_steps=run.sample_steps,
            tick_s=run.min_tick_s if run.min_tick_s is not None else 1.0 * quick,
            write_s=run.min_write_s if run.min_write_s is not None else 30.0 * quick,
        )


class May(IntFlag):
    """What may be done after a step, by rank 0's clock; it travels with the step's report, so that all ranks do it."""

    TICK = 1
    SAVE = 2
    SHOW = 4


ALL = May.TICK | May.SAVE | May.SHOW


@dataclass(frozen=True)
class Training:
    """What a keeper has to know of a training."""

    title: str
    """What it is called on the terminal."""
    last_step: int
    batch_size: int
    """Of the global batch."""
    identity: Identity
    metrics: Mapping[str, Metric]
    writes: WritePolicy
    advice: str
    """What to change when a loss or gradient is not finite."""
    scales_loss: bool = False
    """Whether a loss scaler makes infinite gradients routine: then losses alone are watched."""
    pages: Pages = NO_PAGES
    """Where it is shown beside its folder."""
    work: Callable[[], Work] | None = None
    """Counts the work of a step and measures the device; None: there is no utilisation."""


def resume(identity: Identity, state: State, folder: RunFolder, ranks: Ranks) -> tuple[int, list[str]]:
    """Load the newest good checkpoint of `folder` on every rank.

    Returns the step to go on with, 0 for a fresh training, and what there is to say about it on rank 0. Raises
    UserError when the checkpoint is of another training.
    """
    messages: list[str] = []
    found: list[FoundCheckpoint | None] = []  # on rank 0, which sends it
    with explained_peer_loss("while starting"):
        main_first(lambda: found.append(find_newest(folder.checkpoints, messages.append)), ranks)
        data = broadcast_bytes(found[0].data if found and found[0] else None, ranks)
    if data is None:
        return 0, messages
    content = from_bytes(data, f"the newest checkpoint of {folder.url}")
    if changed := identity.differences(content, folder.checkpoints.url):
        raise UserError(
            f"{folder.url} holds a run of another configuration ({'; '.join(changed)}); "
            "choose another --run.name, or go back to that configuration"
        )
    state.load_state_dict(content["state"])
    step = int(content["step"])
    messages.append(f"resumed at step {step:,}, saved on {content['world_size']} rank(s), now {ranks.world_size}")
    return step, messages


class Keeper:
    """Keeps one training, from the step that it was resumed at to its end. Use it in a `with` statement.

    Args:
        training: what is kept.
        state: what its checkpoints hold.
        first_step: where `resume` found it.
        folder: of the run.
        ranks: who takes part.
        stop: whether this rank was asked to stop.
    """

    def __init__(
        self, training: Training, state: State, first_step: int, folder: RunFolder, ranks: Ranks, stop: StopRequest
    ) -> None:
        self._training, self._state, self._folder, self._ranks, self._stop = training, state, folder, ranks, stop
        self._clock = WaitClock()
        metrics = training.metrics.items()
        self._watched = [name for name, metric in metrics if metric.is_loss or not training.scales_loss]
        """What must be finite."""
        self._sums = dict.fromkeys(training.metrics, 0.0)
        self._summed = 0
        self.stopped = False
        """Whether any rank was asked to stop, which all of them know from the same step on."""
        self._may = ALL
        self._last = dict.fromkeys(May, time.monotonic())
        self._ending: Ending | None = None
        self._begin = time.monotonic()
        self._work: Work | None = None
        self._probe = Probe(ranks.device) if ranks.distributed else None
        self._of_ranks: Sequence[RankNumbers] = ()
        self._hosts = _hosts(ranks) if ranks.distributed else []
        self._monitor: Monitor | None = None
        if ranks.is_main:
            self._monitor = Monitor(
                folder, first_step, training.last_step, training.batch_size, training.title, training.metrics,
                training.pages,
            )  # fmt: skip
        self._checkpointer = Checkpointer(
            folder.checkpoints,
            keep_last=training.writes.keep_last,
            milestone_steps=training.writes.milestone_steps,
            report=self.say,
            before_commit=self._monitor.wait if self._monitor else lambda: None,
        )
        if ranks.is_main:
            self._checkpointer.remove_unfinished()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._checkpointer.wait()
        finally:
            if self._monitor is not None:
                done: RunState = "done" if self._ending == "DONE" else "preempted"
                self._monitor.close("failed" if self._ending is None else done)

    def say(self, message: str) -> None:
        """One line on rank 0's terminal."""
        if self._monitor is not None:
            self._monitor.say(message)

    def text(self, tag: str, content: str) -> None:
        """A text in TensorBoard and on other pages."""
        if self._monitor is not None:
            self._monitor.text(tag, content)

    def watch(self, batches: Iterable[T]) -> Iterator[T]:
        """`batches`, timed from now on while they make the training wait."""
        self._clock = WaitClock()
        return self._clock.watch(batches)

    def attempt(self, what: str, work: Callable[[], T]) -> T | None:
        """What `work` returns, done by rank 0 alone; None where it fails, which is said once.

        For what is only shown: no fault of it may end a training.
        """
        if self._monitor is None:
            return None
        try:
            return work()
        except Exception as error:
            more = f" ({type(error).__name__}: {error}); training goes on without"
            self._monitor.say_once(f"{what} could not be made", more)
            return None

    def pauses_at(self, step: int) -> bool:
        """Whether something is due after `step` steps: all of them must be known to be sound before it is done."""
        writes = self._training.writes
        every = (writes.tick_steps, writes.checkpoint_steps, writes.picture_steps)
        return any(self._is_due(step, steps) for steps in every)

    @property
    def may(self) -> May:
        """What may be done after the step that is under way, by this rank's clock; rank 0's counts."""
        now, writes = time.monotonic(), self._training.writes
        pauses = {May.TICK: writes.tick_s, May.SAVE: writes.write_s, May.SHOW: writes.write_s}
        may = May(0)
        for what, pause_s in pauses.items():
            if self._ranks.is_main and now - self._last[what] >= pause_s:
                may |= what
        return may

    def own_numbers(self, step: int) -> RankNumbers | None:
        """What this rank measured by itself, for the exchange of the last of `step` steps; None where no tick is due.

        Call it once a step.
        """
        if self._probe is not None:
            self._probe.step()
        if not self._is_due(step, self._training.writes.tick_steps):
            return None
        probe_s = 0.0 if self._probe is None else self._probe.lap()
        return RankNumbers(self._clock.waited, probe_s, float(peak_memory_of(self._ranks.device)))

    def take(
        self,
        step: int,
        means: Mapping[str, float],
        *,
        stop: bool,
        may: May = ALL,
        of_ranks: Sequence[RankNumbers] = (),
    ) -> None:
        """Take in what all ranks measured in step number `step`, from 0, and whether any of them was asked to `stop`.

        `may` is what rank 0's said before that step; `of_ranks` is what each of them measured by itself, at the steps
        where `own_numbers` asks for it.

        Raises UserError, naming the last good checkpoint, when a loss or a gradient is not finite.
        """
        if not all(math.isfinite(means[name]) for name in self._watched):
            raise UserError(self._not_finite(step, means))
        for name, value in means.items():
            self._sums[name] += value
        self._summed += 1
        self._of_ranks = of_ranks or self._of_ranks
        self.stopped = self.stopped or stop
        self._may = may

    def tick(self, step: int, learning_rate: float) -> None:
        """Report the steps since the last tick, where that is due after `step` steps."""
        if not (self._is_due(step, self._training.writes.tick_steps, May.TICK) or self.stopped):
            return
        self._last[May.TICK] = time.monotonic()
        elapsed_s, waited = self._clock.lap()
        if self._monitor is not None:
            means = {name: value / self._summed for name, value in self._sums.items()}
            means["learning_rate"] = learning_rate
            machine, note = self._machine(elapsed_s)
            self._monitor.tick(step, means, elapsed_s, self._summed, waited, machine, note)
        self._sums = dict.fromkeys(self._sums, 0.0)
        self._summed, self._of_ranks = 0, ()

    def _machine(self, elapsed_s: float) -> tuple[dict[str, float], str]:
        """What is known of memory, utilisation and ranks since the last tick, and a word about a rank that lags."""
        of_ranks = [one.memory_bytes for one in self._of_ranks]
        memory = max(of_ranks) if of_ranks else peak_memory_of(self._ranks.device)
        machine, note = {"memory_gb": memory / 1e9}, ""
        if self._work is None and self._training.work and time.monotonic() - self._begin > _COUNT_AFTER_S:
            self._work = self.attempt("model FLOPs utilisation", self._training.work)
        if self._work is not None:
            machine["mfu"] = self._work.utilisation(self._summed, elapsed_s)
        if len(self._of_ranks) > 1:
            straggler = slowest(self._of_ranks)
            machine |= {"slowest_rank": straggler.rank, "lag": straggler.lag}
            note = straggler.describe(self._hosts[straggler.rank])
        return machine, note

    def save(self, step: int) -> None:
        """Write a checkpoint in the background, where that is due after `step` steps."""
        if not (self._is_due(step, self._training.writes.checkpoint_steps, May.SAVE) or self.stopped):
            return
        self._last[May.SAVE] = time.monotonic()
        with explained_peer_loss(f"while saving step {step:,}"):
            state = self._state.state_dict()  # a collective, where ranks hold parts of it
        if self._monitor is not None:
            self._monitor.hand_over()
            content = self._training.identity.content()
            content = {"step": step, **content, "world_size": self._ranks.world_size, "state": state}
            self._checkpointer.save(step, content)

    def picture(self, step: int, tag: str, make: Callable[[], Image.Image]) -> None:
        """Show a picture, where that is due after `step` steps; ask for it after `save`, so that no fault costs steps.

        A stop does not wait for one.
        """
        monitor = self._monitor
        if monitor is not None and self._is_due(step, self._training.writes.picture_steps, May.SHOW):
            self._last[May.SHOW] = time.monotonic()
            self.attempt(f"pictures ({tag}/)", lambda: monitor.picture(step, tag, make()))

    def stop_before(self, step: int) -> None:
        """Stop before step number `step` is taken, where nobody waits for this rank; what was done so far is saved."""
        self.stopped = True
        self.save(step)

    def close(self, step: int) -> Ending:
        """End after `step` steps; returns how. The marker is left only once the last checkpoint is safe."""
        training, folder = self._training, self._folder
        self._checkpointer.wait()
        ending: Ending = "DONE" if step >= training.last_step else "PREEMPTED"
        if self._ranks.is_main:
            if step not in committed_steps(folder.checkpoints):
                raise UserError(f"the last checkpoint (step {step}) could not be written; free space, then start again")
            folder.mark(ending, f"step {step} of {training.last_step}")
        self._ending = ending
        reason = f" on {self._stop.cause}" if self._stop.raised else ""
        self.say(f"{ending} at step {step:,} of {training.last_step:,}{reason}; checkpoint in {folder.checkpoints}")
        return ending

    def _is_due(self, step: int, every: int, what: May | None = None) -> bool:
        """Whether it is, by the number of steps and, for `what`, by the time since the last one."""
        last, milestones = self._training.last_step, self._training.writes.milestone_steps
        if every == 0 or not (step % every == 0 or step == last):
            return False
        is_milestone = what is May.SAVE and milestones > 0 and step % milestones == 0
        return what is None or what in self._may or step == last or is_milestone

    def _not_finite(self, step: int, means: Mapping[str, float]) -> str:
        self._checkpointer.wait()
        checkpoints = committed_steps(self._folder.checkpoints)
        values = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
        good = f"the last checkpoint is of step {checkpoints[-1]}" if checkpoints else "there is no checkpoint yet"
        return (
            f"a loss or gradient is not finite at step {step} ({values}); nothing of it was saved, {good} in "
            f"{self._folder.checkpoints}. {self._training.advice}"
        )


def _hosts(ranks: Ranks) -> list[str]:
    """The name of each rank's host; every rank has to call it."""
    name = socket.gethostname().encode()[:_HOST_BYTES]
    names = torch.zeros(ranks.world_size, _HOST_BYTES)
    names[ranks.rank, : len(name)] = torch.tensor(list(name), dtype=torch.float32)
    sum_over_ranks(names, ranks)
    return [bytes(int(byte) for byte in row if byte).decode(errors="replace") for row in names.tolist()]
