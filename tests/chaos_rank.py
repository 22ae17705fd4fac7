"""A rank of tests/chaos.py: stackgan_dist.train that writes down its rows first, on a slow disk.

torchrun tests/chaos_rank.py TRACE [flags of stackgan_dist.train]
"""

import json
import os
import sys
import time

from chaos import SLOW_FSYNC_S

from stackgan_dist.data.batch import Batch
from stackgan_dist.train.__main__ import main
from stackgan_dist.train.state import TrainingState
from stackgan_dist.train.step import StepReport

_step, _fsync = TrainingState.step, os.fsync


def _traced_step(state: TrainingState, batch: Batch, step: int, steps_per_epoch: int) -> StepReport:
    line = json.dumps({"step": step, "samples": batch.samples.tolist()}) + "\n"
    os.write(_trace, line.encode())
    return _step(state, batch, step, steps_per_epoch)


def _slow_fsync(file: int) -> None:
    time.sleep(SLOW_FSYNC_S)
    _fsync(file)


def _rehearse(state: TrainingState, batch: Batch) -> None:
    TrainingState.step = _step  # type: ignore[method-assign]
    _rehearse_untraced(state, batch)
    TrainingState.step = _traced_step  # type: ignore[method-assign]


if __name__ == "__main__":
    _trace = os.open(f"{sys.argv.pop(1)}-rank-{os.environ['RANK']}.jsonl", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    _rehearse_untraced = TrainingState.rehearse
    TrainingState.rehearse = _rehearse  # type: ignore[method-assign]
    os.fsync = _slow_fsync  # type: ignore[assignment]
    main()
