"""Train the same runs on 1, 2, 3 and 4 ranks, and print how far they come apart.

    python tests/invariance.py [--ranks 1 2 3 4]

Ten steps in float64 of every kind of network, with a global batch of 7, which no number of ranks from 2 on divides, and
0, 1 or 2 loader workers. Then a run that the largest group began and left in mid-epoch goes on on each other number of
ranks. A figure is the largest difference of any weight, moving average, optimizer moment or batch norm statistic from
those of one rank, relative to the largest value of its tensor.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":  # pytest and torchrun find the packages by themselves
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from distributed.harness import torchrun
from distributed.tiny import final_state, largest_difference
from distributed.trainings import VARIANTS

SCRIPT = str(Path(__file__).with_name("distributed") / "trainings.py")
STEPS = 10
HANDOVER = "begun by {} ranks"


def invariance(data: str, folder: Path, sizes: list[int]) -> dict[str, dict[int, float]]:
    """run -> world size -> largest difference from one rank. `sizes` holds 1; AssertionError when a run fails."""
    for size in sizes:
        _train(size, data, folder / str(size), ["--all", "--epochs", "2", "--only", "invariance"])
    largest = max(sizes)
    begun = folder / "begun"
    _train(largest, data, begun, ["--only", "handover"])
    for size in sorted({1, *sizes} - {largest}):
        shutil.copytree(begun / "handover", folder / str(size) / "handover")
        _train(size, data, folder / str(size), ["--only", "handover"])

    table = {
        variant: {size: _difference(folder / "1" / variant, folder / str(size) / variant) for size in sizes if size > 1}
        for variant in VARIANTS
    }
    table[HANDOVER.format(largest)] = {
        size: _difference(folder / "1" / "alone", folder / str(size) / "handover") for size in sizes if size != largest
    }
    return table


def _train(ranks: int, data: str, out: Path, options: list[str]) -> None:
    log = out.parent / f"{out.name}-{options[-1]}.txt"
    result = torchrun(ranks, SCRIPT, [data, str(out), *options], log, 600)
    assert result.code == 0, result.output


def _difference(alone: Path, shared: Path) -> float:
    ours, theirs = final_state(alone), final_state(shared)
    assert ours["step"] == theirs["step"] == STEPS
    return largest_difference(ours, theirs)


def report(table: dict[str, dict[int, float]], sizes: list[int]) -> str:
    """As a table of Markdown."""
    lines = ["| after 10 steps | " + " | ".join(f"{size} rank{'s'[: size - 1]}" for size in sizes) + " |"]
    lines.append("|---" * (len(sizes) + 1) + "|")
    for name, differences in table.items():
        cells = [f"{differences[size]:.0e}" if size in differences else "-" for size in sizes]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Pack, train, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3, 4])
    options = parser.parse_args()
    from conftest import pack_small

    with tempfile.TemporaryDirectory(prefix="invariance-") as name:
        folder = Path(name)
        pack_small(folder / "painted")
        sizes = sorted({1, *options.ranks})
        print(report(invariance(str(folder / "painted"), folder, sizes), sizes))


if __name__ == "__main__":
    main()
