"""DeepSpeed's configuration: a JSON file, checked, and completed by what the run decides. Needs no DeepSpeed.

The file decides how ranks share memory and traffic. What would change the mathematics is refused, because a run is
defined by config.py alone, and so is what the run knows already, because a thing that is stated twice will differ.
launch/README.md explains the keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stackgan_dist.errors import UserError

_PACKAGE = Path(__file__).resolve().parent.parent
CONFIG_FOLDERS = (_PACKAGE / "deepspeed_configs", _PACKAGE.parent / "launch")
"""Where a bare name is looked up: inside an installed wheel, and in a checkout."""

_ZERO = "zero_optimization"
_STAGES = (0, 1, 2)
_ALLOWED = (_ZERO, "steps_per_print", "wall_clock_breakdown", "memory_breakdown", "comms_logger")
_ALLOWED_ZERO = (
    "stage", "reduce_bucket_size", "allgather_bucket_size", "overlap_comm", "contiguous_gradients", "reduce_scatter",
    "offload_optimizer",
)  # fmt: skip
_ALLOWED_OFFLOAD = ("device", "pin_memory")

_FOLLOWS_BATCH = "the run derives it from --training.batch-size and its ranks"
_FOLLOWS_PRECISION = "set --training.precision instead: the networks run under the same autocast with every engine"
_CHANGES_THE_RUN = "it would change the mathematics of the run, which must not depend on the engine"
_REASONS: Mapping[str, str] = {
    "train_batch_size": _FOLLOWS_BATCH,
    "train_micro_batch_size_per_gpu": _FOLLOWS_BATCH,
    "gradient_accumulation_steps": f"a step is one backward pass per network; {_CHANGES_THE_RUN}",
    "gradient_clipping": f"{_CHANGES_THE_RUN}; there is no clipping (DeepSpeed's own default of 1.0 is switched off)",
    "optimizer": "it is Adam with --training.learning-rate, --training.adam-beta1 and --training.adam-beta2",
    "scheduler": "the learning rate follows --training.halve-every-epochs and --training.linear-decay",
    "fp16": _FOLLOWS_PRECISION,
    "bf16": _FOLLOWS_PRECISION,
    "bfloat16": _FOLLOWS_PRECISION,
    "amp": _FOLLOWS_PRECISION,
    "torch_autocast": _FOLLOWS_PRECISION,
    "data_types": _FOLLOWS_PRECISION,
    "round_robin_gradients": "DeepSpeed 0.19 reads and writes parts of Adam's state in the wrong order with it",
    "communication_data_type": f"gradients are summed in float32; {_CHANGES_THE_RUN}",
}


def load_deepspeed_config(name: str) -> dict[str, Any]:
    """The content of the JSON file `name`, or of the one that comes with the package under that bare name.

    Raises UserError when there is none, or when it has a key or a ZeRO stage that does not fit this trainer.
    """
    path = _find(name)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of the encoding, too
        raise UserError(f"{path} is not JSON: {error}") from error
    content = _checked(content, _ALLOWED, f"{path}")
    zero = _checked(content.get(_ZERO, {}), _ALLOWED_ZERO, f"{path}, {_ZERO}")
    stage = zero.get("stage", 0)
    if stage == 3:
        raise UserError(
            f"{path} asks for ZeRO stage 3, which scatters the weights too; but in every step the generator's loss "
            "goes through the discriminator outside of its engine, and the moving average reads all of the "
            "generator, so that they would have to be gathered again and again. Set stage to 2"
        )
    if isinstance(stage, bool) or stage not in _STAGES:
        raise UserError(f"{path} asks for ZeRO stage {stage!r}; set stage to 0, 1 or 2")
    offload = _checked(zero.get("offload_optimizer", {}), _ALLOWED_OFFLOAD, f"{path}, offload_optimizer")
    if (device := offload.get("device", "none")) not in ("none", "cpu"):
        raise UserError(f"{path} has offload_optimizer.device {device!r}; optimizer state goes to cpu or none")
    if device == "cpu" and stage == 0:
        raise UserError(f"{path} offloads the optimizer at ZeRO stage 0, which DeepSpeed ignores; set stage to 1 or 2")
    return content


def complete_deepspeed_config(content: dict[str, Any], *, rows: int, autocast_to: str | None) -> dict[str, Any]:
    """What `deepspeed.initialize` gets: the content of a file and what the run decides.

    Args:
        content: of the file, checked.
        rows: the largest number of rows that a rank has. For DeepSpeed's own reports only: ranks may have fewer, and
            losses come scaled by their share of the global batch.
        autocast_to: the type under which the networks run ("bfloat16"), None for their own.
    """
    autocast: dict[str, Any] = {"enabled": autocast_to is not None}
    if autocast_to is not None:
        # Without any "safe" module gradients are summed in float32, as by DDP, and not in the type of the products.
        autocast |= {"dtype": autocast_to, "lower_precision_safe_modules": []}
    return {
        "steps_per_print": 2**62,  # the run has a monitor of its own
        **content,
        "train_micro_batch_size_per_gpu": rows,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,  # 1.0 by default in DeepSpeed 0.19
        "torch_autocast": autocast,
        # torch's Adam: DeepSpeed's own compile C++ at the start, and one of them is silently AdamW.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }


def _find(name: str) -> Path:
    if name.endswith(".json") or "/" in name:
        if not Path(name).is_file():
            raise UserError(f"there is no DeepSpeed configuration {name}; give another --deepspeed-config")
        return Path(name)
    for folder in CONFIG_FOLDERS:
        if (folder / f"{name}.json").is_file():
            return folder / f"{name}.json"
    known = sorted({path.stem for folder in CONFIG_FOLDERS for path in folder.glob("*.json")})
    raise UserError(
        f"--deepspeed-config is {name!r}, which is none of {', '.join(known)}; give one of them or the path of a .json"
    )


def _checked(section: Any, allowed: Iterable[str], where: str) -> dict[str, Any]:
    if not isinstance(section, dict):
        raise UserError(f"{where} is {section!r}; it must be an object, {{...}}")
    for key in section:
        if key not in allowed:
            reason = _REASONS.get(key, f"what is allowed: {', '.join(allowed)}")
            raise UserError(f"{where} has the key {key!r}; remove it: {reason}")
    return section
