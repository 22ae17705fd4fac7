"""Which device a rank computes on, and how CUDA computes: in the precision that was asked for, and alike each time."""

from __future__ import annotations

import os

import torch

from stackgan_dist.errors import RankError, UserError, first_line


def device_of_rank(local_rank: int, ranks_here: int, *, shared: bool = False) -> torch.device:
    """The GPU of rank `local_rank` among the `ranks_here` of this machine, made current; the CPU where there is none.

    Raises an error where there are more ranks than GPUs, once for the machine, unless they may be `shared`.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not gpus:
        return torch.device("cpu")
    if ranks_here > gpus and not shared:
        # Every rank of the machine is refused, and one of them says so.
        kind = RankError if local_rank == 0 else UserError
        raise kind(
            f"{ranks_here} ranks here, {gpus} GPU{'s'[: gpus > 1]} visible, and each rank needs one of its own: start "
            f"at most {gpus}, or set CUDA_VISIBLE_DEVICES= (to nothing) for the CPU"
        )
    device = torch.device("cuda", local_rank % gpus)
    torch.cuda.set_device(device)
    return device


def default_device() -> str:
    """The name of the device that commands compute on where none is given: cuda where it is there, else cpu."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def usable_device(name: str) -> torch.device:
    """The device called `name`; UserError when it is not there."""
    prepare_cuda()
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise UserError(f"--device {name} cannot be used here ({first_line(error)}); take --device cpu") from error
    return device


def prepare_cuda(*, tf32: bool = False, deterministic: bool = True) -> None:
    """How CUDA computes from now on. To be called before it starts, and again where a training wants something else.

    Args:
        tf32: whether products of float32 numbers may round them to TF32, ten bits of mantissa: torch's own default for
            convolutions, by which scores and trainings would differ from those of a CPU by 1e-3.
        deterministic: whether equal inputs give equal bits. cuDNN and some kernels of torch otherwise add up in the
            order in which threads happen to arrive.
    """
    # cuBLAS reads it when it starts; with workspaces of its own choosing its sums may differ from call to call.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Not by fp32_precision: torch 2.13 then refuses to say what is set wherever something asks in the older way.
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = deterministic
    if torch.cuda.is_available():  # on a CPU it would only choose slower kernels: those there are deterministic
        # A kernel without a deterministic form warns and goes on: docs/reliability.md names those that are used.
        torch.use_deterministic_algorithms(deterministic, warn_only=True)
        # It would fill every new tensor first, for those who look for a fault.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def arithmetic_of(device: torch.device) -> str:
    """With what precision and on what, for records: "float32 on cpu", "float32 without TF32 on NVIDIA H100"."""
    if device.type != "cuda":
        return f"float32 on {device.type}"
    exact = "with" if torch.backends.cudnn.allow_tf32 else "without"
    return f"float32 {exact} TF32 on {torch.cuda.get_device_name(device)}"
