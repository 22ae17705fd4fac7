"""Which runs the paper's tables need, and the commands that train them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stackgan_dist.cli.config_source import parse
from stackgan_dist.config import DataConfig
from stackgan_dist.data.dataset import open_packed
from stackgan_dist.data.index import load_index
from stackgan_dist.errors import UserError
from stackgan_dist.presets import PAINTED_PARTS, PRESETS, preset
from stackgan_dist.reproduce.cells import Annotations, Cell, Row, cell_name, cells_of, rows_of
from stackgan_dist.reproduce.commands import flags
from stackgan_dist.reproduce.paper import TABLE1, TABLE2
from stackgan_dist.reproduce.scale import SCALES

BIRDS = Annotations(True, tuple(sorted(PAINTED_PARTS)))
FLOWERS = Annotations(False, ())
small = SCALES["small"]
TABLES = ("table1", "table2", "terms")


def _cells(
    packed: Path, table: Any, annotations: Annotations = BIRDS, scale: Any = "small", **changes: Any
) -> dict[str, Cell]:
    given = {"url": str(packed), "folder": "runs/reproduce/painted-small", "seed": 3} | changes
    return cells_of(rows_of(table, "painted", annotations), annotations=annotations, scale=SCALES[scale], **given)


def test_the_data_say_what_gawwn_can_be_told(packed: Path) -> None:
    assert Annotations.of(open_packed(DataConfig(url=str(packed)), 128)) == BIRDS


def test_table_1_has_a_row_for_each_method_and_says_why_one_is_empty() -> None:
    rows = {row.method: row for row in rows_of("table1", "oxford102", FLOWERS)}
    assert list(rows) == ["GAN-INT-CLS", "GAWWN, box", "GAWWN, keypoints", "StackGAN"]
    assert [row.published for row in rows.values()] == [(2.66, 0.03), None, None, (3.20, 0.01)]
    assert rows["GAWWN, box"].missing == "no boxes in the data"
    assert rows["GAWWN, keypoints"].missing == "no keypoints in the data"
    assert all(row.missing is None for row in rows_of("table1", "cub", BIRDS))
    assert {row.published for row in rows_of("table1", "own", BIRDS)} == set(TABLE1["cub"].values())


def test_a_stage1_comes_first_and_is_trained_once(packed: Path) -> None:
    for table in ("table1", "table2"):
        names = list(cells := _cells(packed, table))
        for name, cell in cells.items():
            assert cell.stage1 is None or names.index(cell.stage1) < names.index(name)
    assert {cell.stage1 for cell in cells.values()} == {None, "stage1-64", "stage1-64-no-ca"}
    assert cells["stackgan-128-no-ca"].stage1 == "stage1-64-no-ca"
    assert cells["stackgan-128-text-once"].config.stage1 == "runs/reproduce/painted-small/seed-3/stage1-64"


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_rows_of_the_table_of_terms_differ_in_terms_alone(packed: Path, scale: str) -> None:
    if scale == "small":
        cells = _cells(packed, "terms")
        assert cells["terms-stackgan-all"].config.stage1 == "runs/reproduce/painted-small/seed-3/terms-stage1-all"
        assert cells["terms-stackgan-none"].stage1 == "terms-stage1-none"
        configs = {name: cell.config for name, cell in cells.items()}
    else:
        configs = {row.preset: row.config for row in rows_of("terms", "painted", BIRDS)}
    for stage, all_of_them in ((1, "terms-stage1-all"), (2, "terms-stackgan-all")):
        without = [
            replace(
                config,
                model=replace(config.model, text_every_layer=False, noise_as_read=False),
                training=replace(
                    config.training, contrastive_weight=0.0, generator_contrastive_weight=0.0, reading_weight=0.0
                ),
                run=configs[all_of_them].run,
                stage1=None,
            )
            for config in configs.values()
            if config.model.stage == stage
        ]
        assert len(without) == (5 if stage == 1 else 2)
        assert all(config == without[0] for config in without)
    terms = {
        name: (
            config.model.text_every_layer,
            bool(config.training.contrastive_weight and config.training.generator_contrastive_weight),
            bool(config.training.reading_weight and config.model.noise_as_read),
        )
        for name, config in configs.items()
    }
    assert terms == {
        "terms-stage1-none": (False, False, False),
        "terms-stage1-contrastive": (False, True, False),
        "terms-stage1-text-layers": (True, False, False),
        "terms-stage1-reading": (False, False, True),
        "terms-stage1-all": (True, True, True),
        "terms-stackgan-none": (False, False, False),
        "terms-stackgan-all": (True, True, False),
    }


def test_rows_that_are_one_run_at_a_scale_share_a_cell(packed: Path) -> None:
    both = "ablation-stackgan-128", "ablation-stackgan-256"
    assert [cell_name(name, small) for name in both] == ["stackgan-128"] * 2
    assert [cell_name(name, SCALES["paper"]) for name in both] == ["stackgan-128", "stackgan-256"]
    assert len(_cells(packed, "table2")) == 7
    assert len({cell_name(name, SCALES["paper"]) for name in TABLE2}) == 10
    one, other = _cells(packed, "table1")["stackgan-128"], _cells(packed, "table2")["stackgan-128"]
    assert replace(one, preset="") == replace(other, preset="")


@pytest.mark.parametrize("scale", ["smoke", "small"])
def test_every_training_sees_the_same_pictures(packed: Path, scale: str) -> None:
    cells = [cell for table in TABLES for cell in _cells(packed, table, scale=scale).values()]
    seen = {(cell.last_step, cell.config.training.batch_size, cell.config.training.learning_rate) for cell in cells}
    assert len(seen) == 1
    steps, batch_size, _ = seen.pop()
    assert steps * batch_size >= (short := SCALES[scale].short).images  # type: ignore[union-attr]
    assert batch_size == short.batch_size  # type: ignore[union-attr]
    assert {cell.config.training.seed for cell in cells} == {3}


def test_widths_keep_the_papers_proportions(packed: Path) -> None:
    cells = _cells(packed, "table1")
    widths = {name: (cell.config.model.generator_width, cell.config.model.discriminator_width)
              for name, cell in cells.items()}  # fmt: skip
    assert widths == {
        "gan-int-cls": (16, 8), "gawwn-box": (16, 16), "gawwn-keypoints": (16, 16),
        "stage1-64": (16, 8), "stackgan-128": (16, 8),
    }  # fmt: skip
    assert cells["gawwn-keypoints"].config.model.keypoints == BIRDS.keypoints


def test_at_the_papers_scale_only_data_names_and_seed_differ_from_the_presets(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = load_index(str(packed / "train" / "152"))
    monkeypatch.setattr(
        "stackgan_dist.reproduce.cells.open_packed",
        lambda data, size, split=None: replace(open_packed(data, 128, split), index=index),
    )
    for name, cell in _cells(packed, "table2", scale="paper", seed=0).items():
        given = preset(f"ablation-{name}")
        expected = replace(given, data=cell.config.data, run=cell.config.run, stage1=cell.config.stage1)
        assert cell.config == expected
        assert cell.config.model.image_size == given.model.image_size


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("scale", ["smoke", "small"])
def test_the_flags_make_the_configuration(packed: Path, table: str, scale: str) -> None:
    for cell in _cells(packed, table, scale=scale).values():
        assert parse(["--preset", cell.preset, *flags(cell.config, preset(cell.preset))]) == cell.config


def test_flags_write_every_kind_of_value() -> None:
    base = preset("painted-stage1")
    for name in PRESETS:
        assert parse(["--preset", "painted-stage1", *flags(preset(name), base)]) == preset(name), name
    model = replace(base.model, conditioning_augmentation=False, detail_layer=True)
    written = flags(replace(base, model=model), base)
    assert written == ["--model.detail-layer", "--model.no-conditioning-augmentation"]


def test_a_missing_size_is_answered_with_the_command_that_packs_it(packed: Path) -> None:
    with pytest.raises(UserError, match=r"pack painted --out .* --sizes 304"):
        _cells(packed, "table2", scale="paper")


def test_a_row_is_titled_as_in_the_paper() -> None:
    rows: list[Row] = rows_of("table2", "painted", BIRDS)
    assert [row.method for row in rows] == (
        ["64x64 Stage-I GAN"] * 2 + ["256x256 Stage-I GAN"] * 2 + ["128x128 StackGAN"] * 3 + ["256x256 StackGAN"] * 3
    )
