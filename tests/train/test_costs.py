"""What a step costs, counted without data, is what a real step does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from distributed.tiny import BASELINES, tiny_config, tiny_model, tiny_stage1
from torch.utils.flop_counter import FlopCounterMode

from stackgan_dist.config import Config
from stackgan_dist.data.batch import BatchShape, blank_batch
from stackgan_dist.distributed.gather import gather_alone
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.models import ModelConfig
from stackgan_dist.train.costs import step_cost
from stackgan_dist.train.precision import resolve_precision
from stackgan_dist.train.state import TrainingState

TEXT_DIM = 6
CPU = torch.device("cpu")
MODELS = {
    "stage1": tiny_model(),
    "terms": tiny_model(text_every_layer=True, detail_layer=True),
    "stage2": tiny_model(stage=2, image_size=128, residual_blocks=1),
    **BASELINES,
}


def _state(config: Config) -> tuple[TrainingState, ModelConfig | None]:
    stage1 = tiny_stage1(config.model, TEXT_DIM) if config.model.stage == 2 else None
    ranks = Ranks(0, 1, CPU, gather_alone)
    return TrainingState(config, TEXT_DIM, stage1, ranks, resolve_precision("fp32", CPU)), stage1 and stage1[0]


@pytest.mark.parametrize("name", MODELS)
def test_counted_without_data_as_a_real_step(name: str, tmp_path: Path) -> None:
    config = tiny_config("data", tmp_path, "run", model=MODELS[name], precision="fp32")
    state, stage1 = _state(config)
    rows = range(config.training.batch_size)
    batch = blank_batch(rows, BatchShape.of(config), TEXT_DIM)
    with FlopCounterMode(display=False) as counter:
        state.step(batch, 0, 1)
    cost = step_cost(config, TEXT_DIM, stage1, rows, "cpu")
    assert cost.flop == counter.get_total_flops() > 1e6
    networks = (state.generator.module, state.discriminator.module)
    assert cost.parameters == sum(p.numel() for net in networks for p in net.parameters() if p.requires_grad)
    assert cost.state_bytes > 16 * cost.parameters
    assert cost.saved_bytes > 0


def test_the_form_of_up_sampling_is_that_of_the_device(tmp_path: Path) -> None:
    wide = tiny_config("data", tmp_path, "run", model=tiny_model(), precision="fp32")
    wide = Config(model=ModelConfig(generator_width=96, discriminator_width=4), training=wide.training)
    on_cpu, on_cuda = (step_cost(wide, TEXT_DIM, None, range(4), kind) for kind in ("cpu", "cuda"))
    assert on_cpu.flop < on_cuda.flop
    assert on_cpu.parameters == on_cuda.parameters


def test_what_is_kept_grows_with_the_rows_and_weights_do_not(tmp_path: Path) -> None:
    config = tiny_config("data", tmp_path, "run", precision="fp32")
    few, many = (step_cost(config, TEXT_DIM, None, range(n), "cpu") for n in (8, 16))
    assert many.saved_bytes == pytest.approx(2 * few.saved_bytes, rel=0.02)
    assert many.state_bytes == few.state_bytes
