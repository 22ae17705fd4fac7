"""A captured step trains bit for bit as one that is not; on CPUs by the same buffers and tensors, without a graph.

With a graph it is in tests/cuda.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed.tiny import BATCH, assert_equal, flat, tiny_config, tiny_model
from torch import Tensor, nn

from stackgan_dist.config import Config
from stackgan_dist.data.batch import Batch, BatchShape, blank_batch
from stackgan_dist.distributed.gather import gather_alone
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.engines.ddp import DDPEngine
from stackgan_dist.errors import UserError
from stackgan_dist.models import ModelConfig
from stackgan_dist.runs.checkpoint import to_host
from stackgan_dist.runs.metrics import metrics_of
from stackgan_dist.train.captured import captures, in_one_piece
from stackgan_dist.train.losses import LossWeights
from stackgan_dist.train.precision import Precision, resolve_precision
from stackgan_dist.train.state import TrainingState
from stackgan_dist.train.step import StepReport
from stackgan_dist.train.step_metrics import Reports

ALONE = Ranks(0, 1, torch.device("cpu"), gather_alone)
TEXT_DIM = 6
STEPS_PER_EPOCH = 2
"""The rate is halved after each epoch."""
MODELS = {
    "stage1": tiny_model(),
    "terms": tiny_model(text_every_layer=True, noise_as_read=True),
    "gan-int-cls": tiny_model(family="gan-int-cls"),
}


def _config(model: ModelConfig, capture: str, **changes: Any) -> Config:
    config = tiny_config("unused", Path("unused"), "run", model=model, precision="fp32")
    training = dataclasses.replace(config.training, capture=capture, **changes)
    return dataclasses.replace(config, training=training)


def _state(config: Config) -> TrainingState:
    state = TrainingState(config, TEXT_DIM, None, ALONE, resolve_precision("fp32", ALONE.device))
    state.rehearse(blank_batch(range(BATCH), BatchShape.of(config), TEXT_DIM))
    return state


def _batch(config: Config, number: int) -> Batch:
    random = torch.Generator().manual_seed(number)
    blank = blank_batch(range(BATCH), BatchShape.of(config), TEXT_DIM)
    parts = []
    for part in blank:
        if part is None or part.dtype in (torch.int64, torch.bool):
            parts.append(part)
        elif part.dtype == torch.uint8:
            parts.append(torch.randint(0, 256, part.shape, generator=random, dtype=torch.uint8))
        else:
            parts.append(torch.randn(part.shape, generator=random))
    return Batch(*parts)


def _train(state: TrainingState, config: Config, steps: range) -> list[dict[str, float]]:
    """What was measured in each step."""
    metrics = metrics_of(StepReport, LossWeights.of(config.training).present)
    reports = Reports(ALONE, 1.0, metrics=metrics)
    for step in steps:
        reports.put(step, state.step(_batch(config, step), step, STEPS_PER_EPOCH), stop=False)
    return [agreed.means for agreed in reports.read(everything=True)]


@pytest.mark.parametrize("name", MODELS)
def test_it_trains_the_same_bits_and_goes_on_from_either(name: str) -> None:
    """The rate changes, a checkpoint is saved and loaded in the middle, by a run of the other kind."""
    found = []
    for first, second in (("off", "off"), ("on", "off"), ("off", "on"), ("on", "on")):
        begun = _config(MODELS[name], first)
        state = _state(begun)
        measured = _train(state, begun, range(3))
        saved = to_host(state.state_dict())
        going_on = _config(MODELS[name], second)
        state = _state(going_on)
        state.load_state_dict(saved)
        measured += _train(state, going_on, range(3, 6))
        found.append((measured, dict(flat(to_host(state.state_dict()), ""))))
    for measured, final in found[1:]:
        assert measured == found[0][0]
        assert_equal(final, found[0][1])


def test_a_replay_finds_all_that_changes_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch, learning rate, weights, moments and average lie where they lay, also after loading a checkpoint."""
    config = _config(MODELS["terms"], "on")
    places: list[list[int]] = []
    take = TrainingState._take

    def noted(state: TrainingState, batch: Batch) -> Any:
        places.append([part.data_ptr() for part in batch if part is not None])
        return take(state, batch)

    monkeypatch.setattr(TrainingState, "_take", noted)
    state = _state(config)
    assert len(places) == 1  # the rehearsal

    def addresses() -> list[int]:
        engines = (state.generator, state.discriminator)
        rates = (state._settings.learning_rate, state._settings.discriminator_learning_rate)
        tensors: list[Tensor] = [*rates, *state.ema.network.state_dict().values()]
        for engine, rate in zip(engines, rates, strict=True):
            assert isinstance(engine, DDPEngine)
            tensors += engine.module.state_dict().values()
            tensors += [value for entries in engine._optimizer.state.values() for value in entries.values()]
            assert all(group["lr"] is rate for group in engine._optimizer.param_groups)
        return [tensor.data_ptr() for tensor in tensors]

    before = addresses()
    _train(state, config, range(2))
    saved = to_host(state.state_dict())
    _train(state, config, range(2, 3))
    state.load_state_dict(saved)
    _train(state, config, range(2, 4))
    assert addresses() == before
    assert len(places) == 6
    assert all(place == places[0] for place in places)


def test_the_learning_rate_in_a_tensor_is_the_number() -> None:
    """As every run before it had it: a float64 tensor loses no bit of it on a CPU."""
    weights = []
    for as_tensor in (False, True):
        torch.manual_seed(0)
        engine = DDPEngine(nn.Linear(5, 3), ALONE, (0.5, 0.999), scale_loss=False)
        rate = torch.zeros((), dtype=torch.float64)
        for step in range(4):
            number = 2e-4 * 0.7**step
            rate.fill_(number)
            loss = engine(torch.randn(4, 5, generator=torch.Generator().manual_seed(step))).square().sum()
            engine.update(loss, rate if as_tensor else number)
        weights.append(dict(flat(engine.state_dict(), "")))
    assert_equal(weights[0], weights[1])


def test_a_report_in_one_piece_is_the_same_report() -> None:
    config = _config(MODELS["terms"], "off")
    report = _state(config).step(_batch(config, 0), 0, 1)
    piece = in_one_piece(report)
    for field in dataclasses.fields(report):
        ours, theirs = getattr(report, field.name), getattr(piece, field.name)
        assert (ours is None) == (theirs is None), field.name
        if ours is not None:
            assert float(ours) == float(theirs), field.name
    assert piece.real.untyped_storage().data_ptr() == piece.kl.untyped_storage().data_ptr()


def _cases() -> Iterator[tuple[str, str, int, dict[str, Any], Precision, bool | str]]:
    cuda = Precision(torch.float32, torch.bfloat16, "cuda")
    fp16 = Precision(torch.float32, torch.float16, "cuda")
    yield "one GPU", "auto", 1, {}, cuda, True
    yield "one GPU, off", "off", 1, {}, cuda, False
    yield "two GPUs", "auto", 2, {}, cuda, False
    yield "two GPUs, on", "on", 2, {}, cuda, "it is for a single CUDA device, and these are 2"
    yield "fp16", "auto", 1, {}, fp16, False
    yield "fp16, on", "on", 1, {}, fp16, "fp16's loss scaler"
    yield "DeepSpeed", "auto", 1, {"engine": "deepspeed"}, cuda, False
    yield "DeepSpeed, on", "on", 1, {"engine": "deepspeed"}, cuda, "--engine deepspeed"
    yield "compiled", "auto", 1, {"compile": True}, cuda, False


@pytest.mark.parametrize("case", list(_cases()), ids=lambda case: case[0])
def test_when_a_run_captures(case: tuple[str, str, int, dict[str, Any], Precision, bool | str]) -> None:
    _, capture, world_size, changes, precision, expected = case
    config = _config(MODELS["stage1"], capture, **{k: v for k, v in changes.items() if k == "compile"})
    if "engine" in changes:
        config = dataclasses.replace(config, engine=changes["engine"])
    ranks = Ranks(0, world_size, torch.device("cuda"), None)
    if isinstance(expected, str):
        with pytest.raises(UserError, match=f"--training.capture on: {expected}"):
            captures(config, ranks, precision)
    else:
        assert captures(config, ranks, precision) is expected


def test_on_a_cpu_only_where_it_is_asked_for() -> None:
    precision = resolve_precision("fp32", ALONE.device)
    found = [captures(_config(MODELS["stage1"], mode), ALONE, precision) for mode in ("auto", "on", "off")]
    assert found == [False, True, False]
