"""The rows of the paper's tables, and the cells that fill them: runs, of which several rows may share one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from stackgan_dist.config import Config, DataConfig
from stackgan_dist.data.dataset import PackedSet, open_packed
from stackgan_dist.models.config import ImageSize
from stackgan_dist.presets import preset, preset_of_run
from stackgan_dist.reproduce.paper import TABLE1, TABLE2, Published, Table, paper_data
from stackgan_dist.reproduce.scale import Scale
from stackgan_dist.storage.files import join

_LOOKED_AT: Final = 64

TERMS: Final = {
    "terms-stage1-none": "Stage-I, no term",
    "terms-stage1-contrastive": "Stage-I, contrastive term",
    "terms-stage1-text-layers": "Stage-I, text at every layer",
    "terms-stage1-reading": "Stage-I, rows that are read",
    "terms-stage1-all": "Stage-I, all three",
    "terms-stackgan-none": "StackGAN, no term",
    "terms-stackgan-all": "StackGAN, all",
}
"""Preset -> row of the table of terms (docs/models.md)."""


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    method: str
    preset: str
    """What trains it at the paper's size."""
    published: Published | None
    missing: str | None = None
    """Why no run can stand in this row."""

    @property
    def config(self) -> Config:
        """Of the preset."""
        return preset(self.preset)


@dataclass(frozen=True)
class Annotations:
    """What the pictures of a set say about where their objects are."""

    boxes: bool
    keypoints: tuple[str, ...]
    """Names, sorted; none where the pictures have no keypoints."""

    @classmethod
    def of(cls, packed: PackedSet) -> Annotations:
        """By the first pictures of the set."""
        captions = packed.captions()
        metas = [captions.caption(number, 0).meta for number in range(min(_LOOKED_AT, len(captions)))]
        names = {name for meta in metas for name in meta.get("keypoints", {})}
        return cls(any("box" in meta for meta in metas), tuple(sorted(names)))


@dataclass(frozen=True)
class Cell:
    """A run that a table needs: trained once, scored once."""

    name: str
    preset: str
    config: Config
    train: PackedSet
    test: PackedSet
    stage1: str | None
    """The cell whose run it starts from."""

    @property
    def run(self) -> str:
        """Folder or URL of the run."""
        return join(self.config.run.folder, self.config.run.name)

    @property
    def last_step(self) -> int:
        """Steps of the whole training."""
        return self.config.training.epochs * self.train.plan(self.config.training).steps_per_epoch


def rows_of(table: Table, data: str, annotations: Annotations) -> list[Row]:
    """The rows of a table, in the paper's order, for the data set called `data`."""
    if table == "terms":
        return [Row(method, name, None) for name, method in TERMS.items()]
    if table == "table2":
        return [Row(_title(preset(name)), name, published) for name, published in TABLE2.items()]
    published = TABLE1[paper_data(table, data)]
    return [
        Row("GAN-INT-CLS", "cub-gan-int-cls", published["GAN-INT-CLS"]),
        Row(
            "GAWWN, box", "cub-gawwn-box", published.get("GAWWN"), None if annotations.boxes else "no boxes in the data"
        ),
        Row(
            "GAWWN, keypoints",
            "cub-gawwn-keypoints",
            published.get("GAWWN"),
            None if annotations.keypoints else "no keypoints in the data",
        ),
        Row("StackGAN", "ablation-stackgan-256", published["StackGAN"]),
    ]


def _title(config: Config) -> str:
    size = config.model.image_size
    return f"{size}x{size} {'StackGAN' if config.model.stage == 2 else 'Stage-I GAN'}"


def cell_name(preset_name: str, scale: Scale) -> str:
    """The cell that fills the row of a preset: rows that are the same run at this scale have the same one."""
    size = preset(preset_name).model.image_size
    name = preset_name.removeprefix("ablation-").removeprefix("cub-")
    return name.replace(f"-{size}", f"-{scale.size(size)}")


def cells_of(
    rows: Sequence[Row], url: str, annotations: Annotations, scale: Scale, folder: str, seed: int
) -> dict[str, Cell]:
    """The cells of these rows by name, each behind the one that it starts from.

    Raises UserError, with the command that packs it, when a size of the data set is missing.
    """
    cells: dict[str, Cell] = {}
    packed: dict[ImageSize, tuple[PackedSet, PackedSet]] = {}

    def add(preset_name: str) -> str:
        name = cell_name(preset_name, scale)
        config = preset(preset_name)
        stage1 = add(preset_of_run(config.stage1)) if config.stage1 else None
        size = scale.size(config.model.image_size)
        if size not in packed:
            data = DataConfig(url=url)
            packed[size] = open_packed(data, size), open_packed(data, size, "test")
        train, test = packed[size]
        config = scale.apply(config, train.index.samples)
        if config.model.family == "gawwn-keypoints":
            config = replace(config, model=replace(config.model, keypoints=annotations.keypoints))
        config = replace(
            config,
            data=replace(config.data, url=url),
            training=replace(config.training, seed=seed),
            run=replace(config.run, folder=join(folder, f"seed-{seed}"), name=name),
            stage1=join(folder, f"seed-{seed}", stage1) if stage1 else None,
        )
        cell = Cell(name, preset_name, config, train, test, stage1)
        if name in cells and replace(cells[name], preset=preset_name) != cell:
            raise RuntimeError(f"two rows of one table mean different things by {name}")
        cells.setdefault(name, cell)
        return name

    for row in rows:
        if row.missing is None:
            add(row.preset)
    return cells
