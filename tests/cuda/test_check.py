"""The check on one GPU, small and on a CPU, so that it goes on working; two parts alone need a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # as check.py's parts find each other

import check
import jobs
import parts
import steps
from context import Context, SkippedError
from distributed.tiny import largest_difference
from predictions import EQUAL, PREDICTIONS
from states import FAMILIES, comparable, config_of, fresh_state, take

FOR_A_GPU_ALONE = {"ranks", "too many"}
"""The first runs what tests/distributed run, the second would not be too many."""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all parts write: the scores are of the run of `trainings`."""
    return tmp_path_factory.mktemp("check")


@pytest.mark.parametrize("name", parts.PARTS)
def test_parts_run_small_on_a_cpu(name: str, packed: Path, out: Path) -> None:
    found: dict[str, Any] = {}
    (out / name).mkdir()
    context = Context(torch.device("cpu"), True, out / name, packed, packed, 60.0, found.__setitem__)
    reason = _reason_to_skip(parts.PARTS[name][0], context)
    assert reason == ("needs a GPU" if name in FOR_A_GPU_ALONE else None)
    assert bool(found) == (reason is None)
    if exact := EXACT.get(name):
        assert all(one.holds(found[one.key]) for one in PREDICTIONS if one.key == exact), found
        assert exact in found
    if name == "resume":
        assert found["resume/fp32, deterministic"]


EXACT = {
    "float64": "float64/families", "captured": "captured/bits", "devices": "devices/to cpu", "syncs": "syncs",
    "set": "set/bits", "trainings": "markers", "scores": "scores/difference",
}  # fmt: skip


def _reason_to_skip(part: Callable[[Context], None], context: Context) -> str | None:
    try:
        part(context)
    except SkippedError as skipped:
        return str(skipped)
    return None


def test_a_part_that_fails_or_hangs_does_not_end_the_check(tmp_path: Path) -> None:
    found = check.Found(tmp_path / "found.jsonl")
    codes = {
        "good": "print('fine')",
        "bad": "raise SystemExit('no such kernel')",
        "slow": "import time; time.sleep(60)",
        "skipping": "print('skipped: needs a GPU')",
    }

    def start(name: str, limit_s: int) -> str:
        return check.in_time([sys.executable, "-c", codes[name]], limit_s, {}, tmp_path / name)[0]

    states = check.run_all([(name, 2) for name in codes], start, found)
    assert states == {
        "good": "passed",
        "bad": "FAILED: no such kernel",
        "slow": "ended after 2 s",
        "skipping": "skipped: needs a GPU",
    }
    found.note("captured/64, on", 25_000.0)
    (tmp_path / "found.jsonl").open("a").write('{"key": "cut o')
    found = check.Found(tmp_path / "found.jsonl")
    assert found.read()["part/slow"] == "ended after 2 s"
    text = check.table(found.read(), states)
    assert "| Stage-I at batch 64, captured | 21000 to 28000 img/s | 2.5e+04 img/s | as predicted |" in text
    assert "| waits of the host in 20 steps | at most 0  | - | not measured |" in text


@pytest.mark.parametrize("name", FAMILIES)
def test_rounding_alone_moves_no_weight_as_far_as_a_fault(name: str) -> None:
    """Devices add up in other orders. That must stay far below what the check takes for equal."""
    config = config_of(FAMILIES[name], "fp64")
    random, states = torch.Generator().manual_seed(5), []
    for rounding in (0.0, 4e-16):
        state = fresh_state(config, steps.CPU)
        for engine in (state.generator, state.discriminator):
            for weights in engine.module.parameters():
                noise = torch.randn(weights.shape, generator=random, dtype=weights.dtype)
                weights.data.mul_(1 + rounding * noise)
        take(state, config, range(3), steps.CPU)
        states.append(comparable(state))
    assert largest_difference(*states) < EQUAL / 10


def test_a_bare_machine_lacks_nothing_else(tmp_path: Path) -> None:
    """Whatever the check and the commands that it starts import is torch's, or in the wheels."""
    commands = ["stackgan_dist.train", "stackgan_dist.inception_score", "stackgan_dist.bench", "stackgan_dist.launcher"]
    words = json.dumps([["parts", *commands, "distributed.trainings"], sorted(check.LACKING), sys.path])
    done = subprocess.run([sys.executable, "-c", _BARE, words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


_BARE = """
import importlib, importlib.metadata as metadata, json, re, sys
modules, lacking, sys.path[:] = json.loads(sys.argv[1])
owners = metadata.packages_distributions()

def needed(package, seen):
    if package not in seen:
        seen.add(package)
        try:
            for line in metadata.requires(package) or []:
                if "extra ==" not in line:
                    needed(re.match(r"[\\w.-]+", line)[0].lower().replace("_", "-"), seen)
        except metadata.PackageNotFoundError:
            pass
    return seen

of_torch = needed("numpy", needed("torch", set()))
tops = {name.partition(".")[0] for name in lacking}

class Bare:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        packages = {each.lower().replace("_", "-") for each in owners.get(top, [])}
        if packages and top not in tops and not packages & of_torch and top != "stackgan_dist":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Bare())
for module in modules:
    importlib.import_module(module)
"""


def test_every_prediction_is_measured_by_a_part() -> None:
    """By its key in the source of the parts, or by the pattern that makes it."""
    source = "".join(Path(str(module.__file__)).read_text(encoding="utf-8") for module in (steps, jobs))
    for one in PREDICTIONS:
        head, _, tail = one.key.partition("/")
        assert f'"{one.key}"' in source or any(word in source for word in (f"{head}/", f'/{tail}"')), one.key
