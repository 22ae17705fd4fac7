"""How fast it is here: `python -m stackgan_dist.bench step|loader|checkpoint|score|scaling|preset`.

Each measures the plain way beside the fast one in the same run, in turns, and prints a table; --json FILE keeps it.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from stackgan_dist.cli.doors import front_door, parse_options
from stackgan_dist.errors import UserError
from stackgan_dist.near_names import did_you_mean

BENCHMARKS = {
    "step": "the plain training step beside the fast one",
    "loader": "batches by Pillow, by simplejpeg and from memory",
    "checkpoint": "what a save costs the training",
    "score": "generating and classifying in turns, and at the same time",
    "preset": "what each preset takes: memory and operations counted, GPU-hours and a batch estimated",
    "scaling": "1, 2 and 4 ranks on this machine, and a model of many nodes",
}
"""Name -> what it measures. stackgan_dist/bench/NAME.py holds `Options`, a dataclass with a field `json`, and
`run(options) -> Report`. Only the one that is asked for is imported: they need torch, and --help does not."""


@front_door
def main() -> None:
    """Find the benchmark, parse its options, run it, print."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "--help-all"):
        print("usage: python -m stackgan_dist.bench NAME [OPTIONS]\n")
        print(__doc__)
        print("\n".join(f"  {known:<12}{what}" for known, what in BENCHMARKS.items()))
        print("\nOptions: python -m stackgan_dist.bench NAME --help")
        sys.exit(0)
    if name not in BENCHMARKS:
        raise UserError(
            f"there is no benchmark called {name}.{did_you_mean(name, BENCHMARKS)} There are {', '.join(BENCHMARKS)}"
        )
    benchmark = importlib.import_module(f"stackgan_dist.bench.{name}")
    options: Any = parse_options(benchmark.Options, f"bench {name}", benchmark.__doc__, arguments=rest)

    from stackgan_dist.bench.machine import describe_in_a_line
    from stackgan_dist.bench.report import write_json

    report = benchmark.run(options)
    print(describe_in_a_line(report.machine))
    for table in report.tables:
        print(f"\n{table}")
    if options.json is not None:
        write_json(report, name, options.json)


if __name__ == "__main__":
    main()
