"""A short form of tests/chaos.py; its docstring says what is proven."""

import signal
from pathlib import Path

from chaos import chaos, report

OLD = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP)
"""Of which the seed makes three that are all different."""


def test_three_kills(packed: Path, tmp_path: Path) -> None:
    """By this seed: SIGKILL to a rank, SIGKILL to torchrun in the middle of a checkpoint, SIGTERM to torchrun; the
    first two starts are followed at once by the next."""
    tally = chaos(str(packed), tmp_path / "runs", kills=3, seed=16, ranks=3, forking=True, signals=OLD)
    assert tally.kills.total() == 3
    assert tally.steps_counted > 0
    print(report(tally, 3))
