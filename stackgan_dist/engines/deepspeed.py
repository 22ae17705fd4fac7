"""The DeepSpeed engine: ZeRO 0, 1 or 2 around torch's Adam.

ZeRO 1 cuts Adam's state into one part per rank, ZeRO 2 the gradients too. Its state dict is nevertheless that of the
DDP engine, name for name: parts are put together for a checkpoint and cut anew when one is read, so either engine, any
number of ranks and everything that generates read the same file.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stackgan_dist.distributed.process_group import Ranks, group_timeout
from stackgan_dist.distributed.sync_batchnorm import synchronise_batchnorm
from stackgan_dist.engines.deepspeed_config import complete_deepspeed_config
from stackgan_dist.engines.moments import MOMENTS, load_adam
from stackgan_dist.errors import UserError


def import_deepspeed() -> Any:
    """The package, with less to say; UserError with the command that installs it."""
    # What process_group takes; DeepSpeed would guess, and warn on a CPU.
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    try:
        import deepspeed
        from deepspeed.utils import logger
    except ImportError as error:
        raise UserError(
            f"--engine deepspeed needs DeepSpeed ({error}); install it with: "
            "python -m pip install 'stackgan_dist[deepspeed]', or take --engine ddp"
        ) from error
    logger.setLevel("WARNING")
    # Else the first process group compiles shared-memory collectives on a CPU, for a minute, if there is a compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


class DeepSpeedEngine:
    """Trains `module` on all ranks.

    Args:
        module: the network on its device, with its initial weights (rank 0's count).
        ranks: who takes part.
        betas: Adam's.
        content: the checked content of a DeepSpeed configuration file.
        rows: the largest number of rows that a rank has.
        autocast_to: the type under which the network runs, None for its own.
        timeout_s: how long a collective waits for a peer.
    """

    def __init__(
        self,
        module: nn.Module,
        ranks: Ranks,
        betas: tuple[float, float],
        content: dict[str, Any],
        *,
        rows: int,
        autocast_to: torch.dtype | None,
        timeout_s: float,
    ) -> None:
        deepspeed = import_deepspeed()
        timeout = group_timeout(timeout_s, ranks.device)
        if not dist.is_initialized():  # a single rank has no group elsewhere, but DeepSpeed does nothing without
            backend = "nccl" if ranks.device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)
            os.environ.setdefault("LOCAL_RANK", "0")  # which it insists on
        self.module = module = synchronise_batchnorm(module, ranks.gather)
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        self._is_main = ranks.is_main
        config = complete_deepspeed_config(
            content, rows=rows, autocast_to=str(autocast_to).removeprefix("torch.") if autocast_to else None
        )
        adam = torch.optim.Adam(self._parameters, betas=betas, fused=True)
        self._engine, self._optimizer, _, _ = deepspeed.initialize(
            model=module, optimizer=adam, config=config, dist_init_required=False
        )
        self._partitioned = self._engine.zero_optimization_stage() > 0
        # DeepSpeed makes groups of its own, which would wait for a lost peer for torch's half an hour.
        dist.distributed_c10d._set_pg_timeout(timeout, self._engine.seq_data_parallel_group)

    rehearses = False
    """See Engine. ZeRO's buckets are the same in every backward pass."""

    def __call__(self, *inputs: Any) -> Any:
        """See Engine."""
        return self._engine(*inputs)

    def update(self, loss: Tensor, learning_rate: float | Tensor) -> Tensor:
        """See Engine."""
        for group in self._optimizer.param_groups:
            group["lr"] = float(learning_rate)
        # Not loss.backward(): the engine would not reduce the gradients at stage 0.
        self._engine.backward(loss)
        if self._partitioned:
            self._engine.step()
            # Infinite when a gradient is not finite; that update was left out.
            return torch.as_tensor(self._engine.get_global_grad_norm(), device=loss.device)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        self._engine.step()
        return norm

    def state_dict(self) -> dict[str, Any]:
        """See Engine. Puts Adam's state together in rank 0's host memory, one parameter at a time on the devices."""
        return {
            "network": self.module.state_dict(),
            "optimizer": self._gather_optimizer() if self._partitioned else self._optimizer.state_dict(),
            "scaler": {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See Engine."""
        self.module.load_state_dict(state["network"])
        if not self._partitioned:
            load_adam(self._optimizer, self._parameters, state["optimizer"])
            return
        self._optimizer.refresh_fp32_params()  # its own copy of this rank's part of the weights
        self._cut_optimizer(state["optimizer"])

    def _gather_optimizer(self) -> dict[str, Any]:
        """What a plain Adam over the same parameters has as its state dict; without moments on ranks above 0."""
        from deepspeed.utils import safe_get_full_optimizer_state

        (part,) = self._optimizer.single_partition_of_fp32_groups
        adam = self._optimizer.optimizer
        moments: dict[int, dict[str, Tensor]] = {}
        if adam.state[part]:
            for number, parameter in enumerate(self._parameters):
                # Every rank takes part in gathering each of them; rank 0 alone keeps them.
                full = {name: safe_get_full_optimizer_state(parameter, name) for name in MOMENTS}
                if self._is_main:
                    step = adam.state[part]["step"].clone()
                    moments[number] = {"step": step, **{name: value.cpu() for name, value in full.items()}}
        (group,) = adam.state_dict()["param_groups"]
        return {"state": moments, "param_groups": [{**group, "params": list(range(len(self._parameters)))}]}

    def _cut_optimizer(self, state: dict[str, Any]) -> None:
        """Take this rank's part of the state dict of a plain Adam."""
        from deepspeed.utils import safe_set_full_optimizer_state

        (part,) = self._optimizer.single_partition_of_fp32_groups
        adam = self._optimizer.optimizer
        moments: dict[int, dict[str, Tensor]] = state["state"]
        adam.state.pop(part, None)
        # Adam makes its state in its first step, and ZeRO looks for it there; here it is made before.
        self._optimizer._hp_optimizer_states_linked = False
        if not moments:
            return
        step = moments[0]["step"].to(part.device, torch.float32, copy=True)
        adam.state[part] = {"step": step, **{name: torch.zeros_like(part) for name in MOMENTS}}
        self._optimizer._lazy_init_hp_params_optimizer_state()
        for number, parameter in enumerate(self._parameters):
            for name in MOMENTS:
                safe_set_full_optimizer_state(parameter, moments[number][name].to(part.device), name)
