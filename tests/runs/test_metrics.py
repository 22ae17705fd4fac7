"""A metric is one field: its curve, its part of the status line, and whether it is watched follow from it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from stackgan_dist.runs.folder import RunFolder
from stackgan_dist.runs.metrics import describe_curves, metric, metrics_of, status_line
from stackgan_dist.runs.monitor import Monitor
from stackgan_dist.train import step_metrics
from stackgan_dist.train.step import StepReport
from stackgan_dist.train_text_encoder import training

PROGRESS_TAGS = {"run/images", "run/learning_rate", "speed/images_per_s", "speed/data_wait"}


@dataclass
class _Report(StepReport):
    """The step's, and a new one."""

    contrast: float = metric("loss", "how well pictures and texts are told apart", "contrast {:.1f}")


def test_a_new_metric_is_one_line(tmp_path: Path, capsys: object) -> None:
    metrics = metrics_of(_Report)
    assert list(metrics)[-1] == "contrast"
    assert metrics["contrast"].is_loss
    values = {name: float(number) for number, name in enumerate(metrics)}
    assert status_line(metrics, values).endswith("KL 5.000 contrast 8.0")
    assert "| loss/contrast | how well pictures and texts are told apart |" in describe_curves(metrics, {})
    monitor = Monitor(RunFolder(tmp_path), 0, 1, 4, "test", metrics)
    monitor.tick(1, {**values, "learning_rate": 0.1}, 1.0, 1, 0.0)
    monitor.close()
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    assert board.Scalars("loss/contrast")[0].value == 8


def test_the_tags_of_a_gan_s_curves_and_which_of_them_are_losses() -> None:
    """They are what people's dashboards and earlier runs have."""
    assert {f"{one.group}/{name}" for name, one in step_metrics.METRICS.items()} == {
        "loss/discriminator_loss", "loss/generator_loss", "loss/kl", "discriminator/real", "discriminator/wrong",
        "discriminator/fake", "gradient_norm/discriminator_gradient", "gradient_norm/generator_gradient",
    }  # fmt: skip
    losses = {name for name, one in step_metrics.METRICS.items() if one.is_loss}
    assert losses == {"discriminator_loss", "generator_loss", "kl"}


def test_the_tags_and_the_status_line_of_a_text_encoder_s_training() -> None:
    assert {f"{one.group}/{name}" for name, one in training.METRICS.items()} == {
        "loss/joint_embedding", "accuracy/pictures", "accuracy/texts", "gradient_norm/gradient",
    }  # fmt: skip
    values = {"joint_embedding": 1.5, "pictures": 0.25, "texts": 0.5, "gradient": 1.0}
    assert status_line(training.METRICS, values) == "loss 1.5000, matched 25% of pictures, 50% of texts"


def test_every_curve_and_picture_is_explained() -> None:
    table = describe_curves(step_metrics.METRICS, {"samples": "fixed sentences"})
    for name, one in step_metrics.METRICS.items():
        assert f"| {one.group}/{name} | {one.meaning} |" in table
    for tag in PROGRESS_TAGS:
        assert f"| {tag} | " in table
    assert "| samples (image) | fixed sentences |" in table


def test_every_field_of_a_report_is_a_metric() -> None:
    terms = {"penalty", "contrastive", "reading"}
    assert list(metrics_of(StepReport, terms)) == [field.name for field in dataclasses.fields(StepReport)]


def test_a_term_that_is_left_out_has_no_curves() -> None:
    """And reports of before, given by place, still are reports."""
    assert metrics_of(StepReport) == step_metrics.METRICS
    of_reading = metrics_of(StepReport, {"kl", "reading"}).keys() - step_metrics.METRICS.keys()
    assert of_reading == {"redrawing", "reading_kl"}
    report = StepReport(*(Tensor(number) for number in range(len(step_metrics.METRICS))))
    assert report.contrastive is None
