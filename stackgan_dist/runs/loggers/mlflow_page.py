"""A run's page in MLflow: on a tracking server, or in files (MLFLOW_TRACKING_URI)."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunStatus
from mlflow.exceptions import MlflowException

from stackgan_dist.errors import UserError
from stackgan_dist.runs.loggers import Logger, Opening, RunState

_MOST_AT_ONCE = 100
"""Parameters in one request; MLflow's own limit."""
_LONGEST_VALUE = 6_000
"""Characters of a parameter; MLflow's own limit."""
_STATUS: dict[RunState, str] = {"done": "FINISHED", "preempted": "KILLED", "failed": "FAILED"}


class MlflowPage:
    """See Logger. Server and experiment are those of MLflow's own variables (MLFLOW_EXPERIMENT_NAME, ...)."""

    def __init__(self, opening: Opening) -> None:
        self._client = MlflowClient()
        self._reported = 0
        if opening.id is not None and self._goes_on(opening.id):
            self.id = opening.id
            self._reported = max(opening.reported, self._last_step())
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "stackgan_dist")
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        self.id = self._client.create_run(number, run_name=opening.run).info.run_id
        params = [Param(key, str(value)[:_LONGEST_VALUE]) for key, value in opening.config.items()]
        for first in range(0, len(params), _MOST_AT_ONCE):
            self._client.log_batch(self.id, params=params[first : first + _MOST_AT_ONCE])

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """See Logger."""
        if step > self._reported:
            now = int(time.time() * 1000)
            self._client.log_batch(self.id, metrics=[Metric(name, value, now, step) for name, value in values.items()])

    def text(self, tag: str, content: str) -> None:
        """See Logger: an artifact."""
        self._client.log_text(self.id, content, f"{tag}.md")

    def picture(self, tag: str, png: bytes, step: int) -> None:
        """See Logger: an artifact in the folder `tag`."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"step-{step:09d}.png"
            file.write_bytes(png)
            self._client.log_artifact(self.id, str(file), tag)

    def close(self, state: RunState) -> None:
        """See Logger."""
        self._client.set_terminated(self.id, _STATUS[state])

    def _goes_on(self, run: str) -> bool:
        """Whether the run is there, and open again; another store may have been set meanwhile."""
        try:
            self._client.update_run(run, status=RunStatus.to_string(RunStatus.RUNNING))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return True

    def _last_step(self) -> int:
        metrics = self._client.get_run(self.id).data.metrics
        first = min(metrics, default=None)
        return max((one.step for one in self._client.get_metric_history(self.id, first)), default=0) if first else 0


def open_page(opening: Opening) -> Logger:
    """The page of this run: a new one, or that of an earlier start.

    Raises UserError where MLflow's own default store, which needs the whole of MLflow, cannot be used.
    """
    try:
        return MlflowPage(opening)
    except MlflowException as error:
        if "MLFLOW_TRACKING_URI" in os.environ:
            raise
        raise UserError(
            "MLFLOW_TRACKING_URI is not set, and MLflow's default store is not usable here; set it to the URL of a "
            "server, or to file:///FOLDER together with MLFLOW_ALLOW_FILE_STORE=true"
        ) from error
