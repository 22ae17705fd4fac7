"""A trace of some steps of a training by torch's profiler, for Perfetto or TensorBoard: `--run.profile START:STEPS`.

It is written into the run's folder, on an object store as well: profile/rank-0-steps-50-59.pt.trace.json.gz.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from stackgan_dist.storage.folder import Folder


class StepTrace:
    """Traces `steps`, those of them that this start takes. A fault costs the trace, and no training.

    Args:
        steps: their numbers, from 0; empty: none.
        folder: of the run.
        rank: whose trace it is.
        say: gets a line about where the trace is, or why there is none.
    """

    def __init__(self, steps: range, folder: Folder, rank: int, say: Callable[[str], None]) -> None:
        self._steps, self._folder, self._rank, self._say = steps, folder, rank, say
        self._profile: profile | None = None
        self._label: record_function | None = None
        """What the profiler calls the step that is being taken."""
        self._first = self._last = 0
        """Of those that were traced."""

    def before(self, step: int) -> None:
        """Call it before step number `step`."""
        if step in self._steps:
            if self._profile is None:
                self._attempt(lambda: self._begin(step))
            if self._profile is not None:
                self._label = record_function(f"step {step}")
                self._label.__enter__()

    def after(self, step: int) -> None:
        """Call it after step number `step`."""
        if self._profile is None:
            return
        if self._label is not None:
            self._label.__exit__(None, None, None)
        self._last = step
        if step + 1 not in self._steps:
            self._attempt(self._write)

    def close(self) -> None:
        """Call it after the last step: a training that ends within the steps leaves a trace of those that it took."""
        if self._profile is not None:
            self._attempt(self._write)

    def _begin(self, step: int) -> None:
        activities = [ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(ProfilerActivity.CUDA)
        traced = profile(activities=activities, record_shapes=True, profile_memory=True)
        traced.start()
        self._profile, self._first = traced, step

    def _write(self) -> None:
        traced, self._profile = self._profile, None
        assert traced is not None
        traced.stop()
        first, last = self._first, self._last
        name = f"profile/rank-{self._rank}-steps-{first}-{last}.pt.trace.json.gz"
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "trace.json.gz"
            traced.export_chrome_trace(str(file))
            self._folder.write(name, file.read_bytes())
        self._say(f"trace of steps {first} to {last}: {self._folder.url_of(name)} (open it at ui.perfetto.dev)")

    def _attempt(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:
            self._profile, self._steps = None, range(0)
            self._say(f"the trace could not be made ({type(error).__name__}: {error}); training goes on without")
