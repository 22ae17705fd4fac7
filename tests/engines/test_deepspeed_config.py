"""What a DeepSpeed configuration may say, and what it is completed to. Needs no DeepSpeed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stackgan_dist.engines.deepspeed_config import complete_deepspeed_config, load_deepspeed_config
from stackgan_dist.errors import UserError

LAUNCH = Path(__file__).parents[2] / "launch"


def _file(folder: Path, content: Any) -> str:
    path = folder / "zero.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


@pytest.mark.parametrize("stage", [1, 2])
def test_a_bare_name_is_the_file_in_launch(stage: int) -> None:
    content = load_deepspeed_config(f"zero{stage}")
    assert content == json.loads((LAUNCH / f"zero{stage}.json").read_text())
    assert content["zero_optimization"]["stage"] == stage


def test_launch_explains_every_key_of_its_files() -> None:
    explained = (LAUNCH / "README.md").read_text()
    for stage in (1, 2):
        content = load_deepspeed_config(f"zero{stage}")
        for key in (*content, *content["zero_optimization"]):
            assert f"`{key}`" in explained


@pytest.mark.parametrize(
    ("content", "found", "change"),
    [
        ({"gradient_clipping": 1.0}, "gradient_clipping", "mathematics"),
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps", "one backward pass"),
        ({"optimizer": {"type": "AdamW"}}, "optimizer", "--training.learning-rate"),
        ({"scheduler": {"type": "WarmupLR"}}, "scheduler", "--training.halve-every-epochs"),
        ({"fp16": {"enabled": True}}, "fp16", "--training.precision"),
        ({"bf16": {"enabled": True}}, "bf16", "--training.precision"),
        ({"torch_autocast": {"enabled": True}}, "torch_autocast", "--training.precision"),
        ({"train_batch_size": 64}, "train_batch_size", "--training.batch-size"),
        ({"train_micro_batch_size_per_gpu": 8}, "train_micro_batch_size_per_gpu", "--training.batch-size"),
        ({"communication_data_type": "bf16"}, "communication_data_type", "float32"),
        ({"zero_optimisation": {}}, "zero_optimisation", "zero_optimization"),
        ({"zero_optimization": {"stage": 3}}, "stage 3", "stage to 2"),
        ({"zero_optimization": {"stage": 4}}, "stage 4", "0, 1 or 2"),
        ({"zero_optimization": {"stage": True}}, "stage True", "0, 1 or 2"),
        ({"zero_optimization": {"round_robin_gradients": True}}, "round_robin_gradients", "order"),
        ({"zero_optimization": {"zero_quantized_gradients": True}}, "zero_quantized_gradients", "reduce_bucket_size"),
        ({"zero_optimization": {"stage": 1, "offload_optimizer": {"device": "nvme"}}}, "nvme", "cpu or none"),
        ({"zero_optimization": {"stage": 0, "offload_optimizer": {"device": "cpu"}}}, "stage 0", "1 or 2"),
        ({"zero_optimization": 2}, "is 2", "object"),
        ([], "[]", "object"),
        ("{", "not JSON", "Expecting"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_change(
    tmp_path: Path, content: Any, found: str, change: str
) -> None:
    path = _file(tmp_path, content)
    with pytest.raises(UserError) as refusal:
        load_deepspeed_config(path)
    message = str(refusal.value)
    assert path in message
    assert found in message
    assert change in message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of zero1, zero2"):
        load_deepspeed_config("zero3")
    with pytest.raises(UserError, match=r"no\.json"):
        load_deepspeed_config(str(tmp_path / "no.json"))


def test_the_run_decides_what_the_file_may_not() -> None:
    content = {"zero_optimization": {"stage": 2}, "steps_per_print": 10}
    plain = complete_deepspeed_config(content, rows=3, autocast_to=None)
    assert plain["zero_optimization"] == {"stage": 2}
    assert plain["steps_per_print"] == 10
    assert plain["gradient_clipping"] == 0.0
    assert plain["train_micro_batch_size_per_gpu"] == 3
    assert plain["torch_autocast"] == {"enabled": False}
    half = complete_deepspeed_config(content, rows=3, autocast_to="bfloat16")
    assert half["torch_autocast"] == {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
