"""Pages in W&B and MLflow, offline: every step once however often a run was started, and no fault that ends one."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stackgan_dist.config import LoggerName
from stackgan_dist.errors import UserError
from stackgan_dist.runs import loggers
from stackgan_dist.runs.folder import RunFolder
from stackgan_dist.runs.loggers import background
from stackgan_dist.runs.metrics import metrics_of
from stackgan_dist.runs.monitor import Monitor, Pages
from stackgan_dist.train.step import StepReport

METRICS = metrics_of(StepReport)


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


def _run(folder: Path, service: LoggerName, first_step: int, last_step: int, state: Any) -> None:
    folder.mkdir(exist_ok=True)
    pages = Pages((service,), "birds", {"training.batch_size": 4, "model.keypoints": (), "run.profile": None})
    monitor = Monitor(RunFolder(folder), first_step, 8, 4, "stage-I", METRICS, pages)
    monitor.text("curves", "| curve | what it is |")
    for step in range(first_step + 1, last_step + 1):
        means = {name: float(step) for name in (*METRICS, "learning_rate")}
        monitor.tick(step, means, 1.0, 1, 0.25, {"memory_gb": 1.5, "mfu": 0.4})
        monitor.picture(step, "samples", Image.new("RGB", (8, 6), (step, 0, 255)))
    monitor.close(state)


def _records(file: Path) -> Iterator[bytes]:
    """Of a .wandb file: 7 bytes, then LevelDB's log format in blocks of 32 KiB."""
    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (room := 32_768 - at % 32_768) < 7:
            at += room
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def _settled(file: Path) -> list[Any]:
    """Its records, once W&B's own process has written the last one."""
    from wandb.proto import wandb_internal_pb2

    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        records = []
        for data in _records(file):
            records.append(wandb_internal_pb2.Record())
            records[-1].ParseFromString(data)
        if records and records[-1].WhichOneof("record_type") == "exit":
            return records
        time.sleep(0.1)
    raise AssertionError(f"{file} has no end")


def test_wandb_has_each_step_once_over_two_starts(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="the wandb extra is not installed")
    run = tmp_path / "run"
    _run(run, "wandb", 0, 6, "failed")
    name = (run / "wandb.id").read_text().strip()
    _run(run, "wandb", 4, 8, "done")
    files = sorted((run / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))
    assert len(files) == 2
    losses, pictures = [], []
    for file in files:
        for record in _settled(file):
            row = {"/".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
            losses += [(record.history.step.num, float(row["loss/kl"]))] if "loss/kl" in row else []
            pictures += [record.history.step.num] if "samples/_type" in row else []
            if row:
                assert float(row["speed/mfu"]) == 0.4
    assert losses == [(step, step) for step in range(1, 9)]
    assert pictures == list(range(1, 9))


def test_mlflow_has_each_step_once_over_two_starts(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the mlflow extra is not installed")
    run = tmp_path / "run"
    _run(run, "mlflow", 0, 6, "preempted")
    client, name = mlflow.MlflowClient(), (run / "mlflow.id").read_text().strip()
    assert client.get_run(name).info.status == "KILLED"
    _run(run, "mlflow", 4, 8, "done")
    found = client.get_run(name)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "birds"
    assert found.data.params["training.batch_size"] == "4"
    for curve in ("loss/kl", "run/learning_rate"):
        history = [(one.step, one.value) for one in client.get_metric_history(name, curve)]
        assert history == [(step, step) for step in range(1, 9)]
    assert found.data.metrics["machine/memory_gb"] == 1.5
    assert len(client.list_artifacts(name, "samples")) == 8
    # A run that begins anew has a page of its own.
    _run(run, "mlflow", 0, 2, "done")
    assert (run / "mlflow.id").read_text().strip() != name
    assert client.get_run(name).data.metrics["loss/kl"] == 8


def test_without_a_server_mlflow_s_variable_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the mlflow extra is not installed")

    def unusable(*_: object) -> None:
        raise mlflow.exceptions.MlflowException("no such store")

    monkeypatch.setattr("stackgan_dist.runs.loggers.mlflow_page.MlflowClient", unusable)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    _run(tmp_path, "mlflow", 0, 2, "done")
    assert "mlflow fails (UserError: MLFLOW_TRACKING_URI is not set" in capsys.readouterr().out


def test_a_service_that_fails_ends_nothing_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        id = "x"

        def __getattr__(self, name: str) -> Any:
            raise ConnectionError("no route to the server")

    monkeypatch.setattr("stackgan_dist.runs.monitor.open_page", lambda *_: Broken())
    _run(tmp_path, "wandb", 0, 8, "done")
    said = capsys.readouterr().out
    assert said.count("wandb fails (ConnectionError: no route to the server); training goes on") == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 8


def test_a_service_that_is_slow_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: object) -> None:
        time.sleep(5)

    monkeypatch.setattr("stackgan_dist.runs.monitor.open_page", never)
    monkeypatch.setattr(background, "_GOODBYE_S", 0.1)
    monkeypatch.setattr(background, "_MOST_WAITING", 4)
    began = time.monotonic()
    _run(tmp_path, "mlflow", 0, 8, "done")
    assert time.monotonic() - began < 3
    assert capsys.readouterr().out.count("mlflow fails (TimeoutError: it has 4 entries to take yet") == 1


def test_a_service_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"--run.log wandb needs the wandb extra: pip install 'stackgan_dist\[wandb\]'"):
        loggers.check_installed(("wandb",))
