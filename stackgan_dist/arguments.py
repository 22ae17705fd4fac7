"""The configuration that a command line of the trainer asks for, without torch: jobs ask for it, too (slurm/lib.sh)."""

from __future__ import annotations

import os

from stackgan_dist.config import Config
from stackgan_dist.presets import DEFAULT_PRESET, PRESETS, preset


def parse(arguments: list[str], description: str | None = None) -> Config:
    """A preset, then its changes. `description` is what --help begins with."""
    import tyro

    name = DEFAULT_PRESET
    rest = []
    iterator = iter(arguments)
    for argument in iterator:
        if argument == "--preset":
            name = next(iterator, "")
        elif argument.startswith("--preset="):
            name = argument.removeprefix("--preset=")
        elif not argument.startswith("--local_rank="):  # of the deepspeed launcher; LOCAL_RANK has it too
            rest.append(argument)
    presets = "\n".join(f"  --preset {key}: {make.__doc__}" for key, make in PRESETS.items())
    return tyro.cli(
        Config,
        default=preset(name),
        args=rest,
        prog="python -m stackgan_dist.train",
        description=f"{description or ''}\nPresets (default {DEFAULT_PRESET}):\n{presets}",
        console_outputs=os.environ.get("RANK", "0") == "0",
    )
