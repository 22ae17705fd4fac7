"""A short form of tests/chaos.py; its docstring says what is proven."""

from pathlib import Path

from chaos import chaos, report


def test_three_kills(packed: Path, tmp_path: Path) -> None:
    """By this seed: SIGKILL to a rank, SIGKILL to torchrun in the middle of a checkpoint, SIGTERM to torchrun; the
    first two starts are followed at once by the next."""
    tally = chaos(str(packed), tmp_path / "runs", kills=3, seed=16, ranks=3, forking=True)
    assert tally.kills.total() == 3
    assert tally.steps_counted > 0
    print(report(tally, 3))
