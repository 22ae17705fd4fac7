"""The commands that fill a cell, as anyone could type them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from stackgan_dist.config import Config, flatten
from stackgan_dist.presets import preset
from stackgan_dist.reproduce.cells import Cell
from stackgan_dist.scores.protocol import ScoreProtocol


@dataclass(frozen=True)
class Command:
    """A module of this package with its arguments."""

    module: str
    arguments: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """What stands behind `python -m` or `torchrun -m`."""
        return [f"stackgan_dist.{self.module}", *self.arguments]


def train_command(cell: Cell) -> Command:
    """Train a cell, or go on with it."""
    return Command("train", ("--preset", cell.preset, *flags(cell.config, preset(cell.preset))))


def score_command(cell: Cell, classifier: str, protocol: ScoreProtocol, keep_real: str) -> Command:
    """Score a trained cell; what is measured of real pictures is shared with the others."""
    changed = [
        word
        for field in dataclasses.fields(protocol)
        if (value := getattr(protocol, field.name)) != field.default
        for word in (_flag(field.name), str(value))
    ]
    return Command("scores", (cell.run, "--classifier", classifier, "--keep-real", keep_real, *changed))


def flags(config: Config, base: Config) -> list[str]:
    """The flags of `stackgan_dist.train` that make `config` out of `base`."""
    ours, theirs = flatten(dataclasses.asdict(config)), flatten(dataclasses.asdict(base))
    words: list[str] = []
    for name, value in ours.items():
        if value == theirs[name]:
            continue
        if isinstance(value, bool):
            section, dot, last = name.rpartition(".")
            words.append(_flag(name if value else f"{section}{dot}no-{last}"))
        else:
            values = value if isinstance(value, tuple) else (value,)
            words += [_flag(name), *map(str, values)]
    return words


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
