"""What a training measures, said where it is declared: a metric is a field of the training's report, and no more.

    kl: Tensor = metric("loss", "of the conditioning augmentation, before its weight", "KL {:.3f}")

Its row in metrics.jsonl, its curve in TensorBoard and what explains the curve there, its part of the status line and
whether it is watched for NaN and infinity all follow from that line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

_KEY = "metric"


@dataclass(frozen=True)
class Metric:
    """One number that is reported at every tick, the mean over the steps since the tick before."""

    group: str
    """The curve in TensorBoard is GROUP/NAME."""
    meaning: str
    """What the curve shows, for the run's page in TensorBoard."""
    status: str
    """Its part of the status line, a format of the value; empty: none."""
    term: str = ""
    """The term of the loss that it is about: trainings without that term have None in its place, and no curve."""

    @property
    def is_loss(self) -> bool:
        """Whether it must be finite even under a loss scaler, which makes infinite gradients routine."""
        return self.group == "loss"


def metric(group: str, meaning: str, status: str = "", *, term: str = "") -> Any:
    """A field of a report; see Metric. One of a `term` is None unless it is given by its name."""
    metadata = {_KEY: Metric(group, meaning, status, term)}
    if term:
        return dataclasses.field(default=None, kw_only=True, metadata=metadata)
    return dataclasses.field(metadata=metadata)


def metrics_of(report: type, terms: Collection[str] = ()) -> dict[str, Metric]:
    """The metrics of a report's class, by name, in the order of its fields: those of every training, and of `terms`."""
    metrics: dict[str, Metric] = {field.name: field.metadata[_KEY] for field in dataclasses.fields(report)}
    return {name: one for name, one in metrics.items() if not one.term or one.term in terms}


@dataclass(frozen=True)
class Progress:
    """What every training reports beside its own metrics."""

    images: float = metric("run", "pictures seen so far")
    learning_rate: float = metric("run", "Adam's rate")
    images_per_s: float = metric("speed", "pictures of the global batch trained on in a second")
    data_wait: float = metric("speed", "the share of the time spent waiting for data")
    memory_gb: float = metric("machine", "most memory that any rank has had: device on CUDA, else resident in the host")
    mfu: float | None = metric(
        "speed",
        "model FLOPs utilisation: counted operations of a step over those of the peak measured here",
        term="mfu",
    )
    slowest_rank: float | None = metric("machine", "the rank that holds the others up most", term="ranks")
    lag: float | None = metric(
        "speed", "estimated share of the time that the others could wait for that rank", term="ranks"
    )


TERMS_OF_PROGRESS = ("mfu", "ranks")
"""What is not known of every training: counted operations, more than one rank."""


def status_line(metrics: Mapping[str, Metric], values: Mapping[str, float]) -> str:
    """What a status line says of the `values` of a tick."""
    return " ".join(metric.status.format(values[name]) for name, metric in metrics.items() if metric.status)


def describe_curves(metrics: Mapping[str, Metric], pictures: Mapping[str, str]) -> str:
    """A table in Markdown of what the curves of `metrics` show, those of Progress and the `pictures` included."""
    curves = {
        f"{metric.group}/{name}": metric.meaning
        for name, metric in {**metrics, **metrics_of(Progress, TERMS_OF_PROGRESS)}.items()
    }
    rows = {**curves, **{f"{tag} (image)": meaning for tag, meaning in pictures.items()}}
    table = ["| curve | what it is |", "|---|---|", *(f"| {curve} | {meaning} |" for curve, meaning in rows.items())]
    return "\n".join([*table, "", "Points are means since the point before.", ""])
