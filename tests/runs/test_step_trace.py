"""--run.profile writes a trace of the steps that it names, into the run's folder wherever that is."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from stackgan_dist.config import RunConfig
from stackgan_dist.errors import UserError
from stackgan_dist.runs import step_trace
from stackgan_dist.runs.step_trace import StepTrace
from stackgan_dist.storage.folder import Folder


def _steps(trace: StepTrace, first: int, last: int) -> None:
    for step in range(first, last):
        trace.before(step)
        torch.ones(64, 64) @ torch.ones(64, 64)
        trace.after(step)


def test_a_trace_has_the_steps_and_what_they_did(tmp_path: Path) -> None:
    said: list[str] = []
    _steps(StepTrace(range(3, 6), Folder.at(str(tmp_path)), 0, said.append), 0, 9)
    (file,) = (tmp_path / "profile").iterdir()
    assert file.name == "rank-0-steps-3-5.pt.trace.json.gz"
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    names = [event["name"] for event in events if event.get("ph") == "X"]
    assert names.count("aten::mm") == 3
    assert [name for name in names if name.startswith("step ")] == ["step 3", "step 4", "step 5"]
    assert said == [f"trace of steps 3 to 5: {file} (open it at ui.perfetto.dev)"]


def test_a_start_within_the_steps_traces_what_is_left_and_one_after_them_nothing(tmp_path: Path) -> None:
    for first in (4, 6):
        _steps(StepTrace(range(3, 6), Folder.at(str(tmp_path)), 1, lambda _: None), first, 9)
    assert [file.name for file in (tmp_path / "profile").iterdir()] == ["rank-1-steps-4-5.pt.trace.json.gz"]


def test_a_training_that_ends_within_the_steps_leaves_what_it_took(tmp_path: Path) -> None:
    said: list[str] = []
    trace = StepTrace(range(3, 6), Folder.at(str(tmp_path)), 0, said.append)
    _steps(trace, 0, 5)
    assert not said
    trace.close()
    assert [file.name for file in (tmp_path / "profile").iterdir()] == ["rank-0-steps-3-4.pt.trace.json.gz"]
    trace.close()
    assert len(said) == 1


def test_on_a_store(tmp_path: Path) -> None:
    folder = Folder.at("memory://runs/traced")
    _steps(StepTrace(range(1, 2), folder, 0, lambda _: None), 0, 3)
    assert folder.exists("profile/rank-0-steps-1-1.pt.trace.json.gz")


def test_a_fault_costs_the_trace_alone(tmp_path: Path) -> None:
    (tmp_path / "profile").write_text("a file in its way")
    said: list[str] = []
    _steps(StepTrace(range(0, 2), Folder.at(str(tmp_path)), 0, said.append), 0, 4)
    assert len(said) == 1
    assert said[0].startswith("the trace could not be made (")


def test_a_trace_that_does_not_begin_leaves_no_step_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    label = Mock()
    monkeypatch.setattr(step_trace, "profile", Mock(side_effect=RuntimeError("no profiler")))
    monkeypatch.setattr(step_trace, "record_function", label)
    trace = StepTrace(range(0, 2), Folder.at(str(tmp_path)), 0, said.append)
    _steps(trace, 0, 4)
    trace.close()
    assert said == ["the trace could not be made (RuntimeError: no profiler); training goes on without"]
    assert not label.called


@pytest.mark.parametrize("text", ["50", "50:", ":10", "a:b", "-1:5", "5:0", "5:1001", "1:2:3"])
def test_what_is_no_range_of_steps_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--run.profile is .*; give START:STEPS"):
        _ = RunConfig(profile=text).profiled_steps


def test_the_steps() -> None:
    assert RunConfig(profile="50:10").profiled_steps == range(50, 60)
    assert not RunConfig().profiled_steps
