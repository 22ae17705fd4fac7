"""The frame of the benchmarks: turns, tables, JSON, the machine, the front door."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stackgan_dist.bench import __main__ as bench
from stackgan_dist.bench.machine import describe_in_a_line, describe_machine, in_own_process
from stackgan_dist.bench.report import Report, Table, write_json
from stackgan_dist.bench.timing import Timing, in_turns
from stackgan_dist.errors import UserError
from stackgan_dist.machine import peak_memory_bytes


def test_ways_take_turns_and_the_warm_up_is_not_counted() -> None:
    called: list[str] = []
    timings = in_turns({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, repeats=3, warm_up=2)
    assert "".join(called) == "ab" * 5
    assert [len(timing.seconds) for timing in timings.values()] == [3, 3]


def test_a_ratio_is_the_median_over_rounds() -> None:
    plain, fast = Timing((2.0, 30.0, 4.0), (2.0, 3.0, 4.0)), Timing((1.0, 10.0, 4.0), (2.0, 1.0, 1.0))
    assert fast.times_less_cpu_than(plain) == 3.0
    assert fast.times_faster_than(plain) == 2.0
    assert plain.cells(images=8) == {"median s": 4.0, "min s": 2.0, "max s": 30.0, "images/s": 2.0}


def test_a_table_lines_up_and_its_json_keeps_the_numbers(tmp_path: Path) -> None:
    table = Table("Ways", [{"way": "plain", "s": 1234.5678}, {"way": "x", "s": 0.123456}], ["A note."])
    assert str(table).splitlines() == [
        "Ways",
        "",
        "| way   |     s |",
        "|-------|-------|",
        "| plain | 1,235 |",
        "| x     | 0.123 |",
        "",
        "A note.",
    ]
    write_json(Report({"cpu": "abacus"}, [table]), "ways", str(tmp_path / "ways.json"))
    content = json.loads((tmp_path / "ways.json").read_text())
    assert content["tables"][0]["rows"][0]["s"] == 1234.5678
    assert (content["benchmark"], content["machine"]) == ("ways", {"cpu": "abacus"})


def test_json_that_cannot_be_written_names_the_flag(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--json"):
        write_json(Report({}, []), "ways", str(tmp_path / "file" / "below.json"))


def test_the_machine_is_known() -> None:
    facts = describe_machine()
    assert facts["cpu"]
    assert facts["threads"] == torch.get_num_threads()
    assert str(torch.__version__) in describe_in_a_line(facts)


def test_peaks_of_memory_are_of_their_own_processes() -> None:
    here = bytearray(b"x") * 600_000_000  # of this process, hence not of the child
    small, large = (in_own_process(_take, size) for size in (1, 200_000_000))
    assert len(here) > large > small + 190_000_000


def _take(size: int) -> int:
    held = bytearray(b"x") * size
    assert len(held) == size
    return peak_memory_bytes()


def test_the_door_lists_benchmarks_without_torch(tmp_path: Path) -> None:
    code = "import sys; from stackgan_dist.bench.__main__ import main; main(); assert 'torch' not in sys.modules"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    assert all(name in found.stdout for name in bench.BENCHMARKS)


def test_an_unknown_benchmark_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "luck"])
    with pytest.raises(SystemExit) as end:
        bench.main()
    assert end.value.code == 2
    assert "There are step" in capsys.readouterr().err
