"""The configuration: it survives its JSON, tells runs apart, and refuses what cannot work before anything starts."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from typing import Any

import pytest

from stackgan_dist.config import Config, DataConfig, RunConfig, TrainingConfig, differences, from_json, to_json
from stackgan_dist.errors import UserError
from stackgan_dist.models import ModelConfig
from stackgan_dist.presets import DEFAULT_PRESET, PRESETS, preset

SECTIONS = ("model", "data", "training", "run")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_survive_their_json(name: str) -> None:
    config = preset(name)
    config.validate(world_size=1)
    assert from_json(to_json(config), "here") == config
    assert PRESETS[name].what.endswith(".")


def test_presets_differ_and_each_has_a_run_of_its_own() -> None:
    configs = [row.config for row in PRESETS.values()]
    assert len({config.run.name for config in configs}) == len(configs)
    assert DEFAULT_PRESET in PRESETS
    assert Config().training == preset(DEFAULT_PRESET).training


def test_the_second_stage_starts_from_the_run_of_the_first() -> None:
    for name in PRESETS:
        if name.endswith("-stage2"):
            second, first = preset(name), preset(name.replace("stage2", "stage1"))
            assert second.stage1 == f"{first.run.folder}/{first.run.name}"
            assert (second.model.noise_dim, second.model.condition_dim) == (
                first.model.noise_dim,
                first.model.condition_dim,
            )


def test_the_ablation_has_the_rows_of_table_2_and_starts_from_its_own_stage1() -> None:
    rows = [row.config for name, row in PRESETS.items() if name.startswith("ablation-")]
    assert [
        (row.model.stage, row.model.image_size, row.model.conditioning_augmentation, row.model.text_in_stage2)
        for row in rows
    ] == [
        (1, 64, False, True), (1, 64, True, True), (1, 256, False, True), (1, 256, True, True),
        (2, 128, True, False), (2, 128, False, True), (2, 128, True, True),
        (2, 256, True, False), (2, 256, False, True), (2, 256, True, True),
    ]  # fmt: skip
    runs = {f"{row.run.folder}/{row.run.name}": row.model for row in rows}
    for row in rows:
        row.validate(1)
        if row.stage1 is not None:
            first = runs[row.stage1]
            assert (first.stage, first.image_size) == (1, 64)
            assert first.conditioning_augmentation == row.model.conditioning_augmentation


def test_baselines_are_trained_as_their_authors_do() -> None:
    for name, family, batch in (("gan-int-cls", "gan-int-cls", 64), ("gawwn-box", "gawwn-box", 16)):
        config = preset(f"cub-{name}")
        assert (config.model.family, config.training.batch_size, config.training.epochs) == (family, batch, 600)
        assert config.training.interpolated_texts == (family == "gan-int-cls")


def test_the_json_of_a_run_names_its_keypoints() -> None:
    config = preset("painted-gawwn-keypoints")
    assert from_json(to_json(config), "x") == config
    assert differences(from_json(to_json(config), "x"), config) == []


def test_the_paper_s_schedule() -> None:
    training = preset("oxford102-stage1").training
    assert (training.batch_size, training.epochs, training.learning_rate) == (64, 600, 2e-4)
    assert (training.halve_every_epochs, training.adam_beta1, training.adam_beta2) == (100, 0.5, 0.999)


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=f"unknown preset 'cub'. Known presets: {', '.join(PRESETS)}"):
        preset("cub")


def test_a_preset_that_is_nearly_known_is_asked_for() -> None:
    with pytest.raises(UserError, match=r"unknown preset 'painted_stage3'\. Did you mean painted-stage\d\?"):
        preset("painted_stage3")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", json.dumps({"model": {"widths": 3}, "data": {}, "training": {}, "run": {}})]
)
def test_the_json_of_another_version_is_a_user_error(text: str) -> None:
    with pytest.raises(UserError, match="step-7 is not a configuration of this version"):
        from_json(text, "step-7")


_OTHER = {
    "run.min_tick_s": 2.0,
    "run.min_write_s": 2.0,
    "model.family": "gan-int-cls",
    "model.keypoints": ("beak",),
    "model.options": ("depth=2",),
    "training.loss": "hinge",
    "training.discriminator_learning_rate": 1e-3,
    "model.recipe": "pytorch",
    "model.stage": 2,
    "model.image_size": 128,
    "model.residual_blocks": 3,
    "model.stage1_coarse": 8,
    "training.precision": "fp64",
    "training.capture": "on",
    "data.cache": "/elsewhere",
    "data.device_gb": 2.5,
    "run.log": ("wandb",),
    "run.profile": "50:10",
    "run.profile_ranks": (0, 1),
    "stage1": "runs/x",
    "resume": "never",
    "engine": "another",
}


_BASES = {
    "model.family": ModelConfig(),
    "model.keypoints": ModelConfig(family="gawwn-keypoints", image_size=128),
    "model.options": ModelConfig(family="my_package:MyFamily"),
}
"""What those fields can be changed in; elsewhere a model that may become any stage."""


_FREE_OF_TRAINING = tuple(f"training.{name}" for name in ("epochs", "precision", "compile", "deterministic", "capture"))


def _other(name: str, value: Any) -> Any:
    if name in _OTHER:
        return _OTHER[name]
    return not value if isinstance(value, bool) else value + "x" if isinstance(value, str) else value + 8


@pytest.mark.parametrize(
    "name",
    [
        f"{section}.{field.name}"
        for section in SECTIONS
        for field in dataclasses.fields(type(getattr(Config(), section)))
    ]
    + ["stage1", "engine", "resume"],
)
def test_what_defines_a_run_and_what_may_change_when_it_goes_on(name: str) -> None:
    base = replace(Config(), model=_BASES.get(name, ModelConfig(image_size=256)))
    fields = dataclasses.asdict(base)
    section, _, field = name.rpartition(".")
    holder = fields[section] if section else fields
    holder[field] = _other(name, holder[field])
    changed = Config(**{
        **fields,
        "model": ModelConfig(**fields["model"]),
        "data": DataConfig(**fields["data"]),
        "training": TrainingConfig(**fields["training"]),
        "run": RunConfig(**fields["run"]),
    })  # fmt: skip
    free = section not in ("model", "training") or name in _FREE_OF_TRAINING
    found = differences(changed, base)
    assert len(found) == (0 if free else 1)
    assert free or found[0].startswith(f"{name}: {holder[field]} here, ")


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("training", "batch_size", 0),
        ("training", "epochs", 0),
        ("training", "learning_rate", -1e-4),
        ("training", "learning_rate", float("nan")),
        ("training", "captions_per_text", 0),
        ("run", "tick_steps", 0),
        ("run", "checkpoint_steps", -1),
        ("run", "keep_last", 0),
        ("run", "sample_steps", 0),
        ("run", "sample_captions", 0),
        ("run", "timeout_s", 0.0),
        ("data", "cache_gb", 0.0),
        ("data", "workers", -1),
        ("data", "memory_gb", -0.1),
        ("data", "device_gb", -0.1),
    ],
)
def test_impossible_numbers_are_refused_by_the_name_of_their_flag(section: str, field: str, value: Any) -> None:
    config = Config()
    config = replace(config, **{section: replace(getattr(config, section), **{field: value})})
    with pytest.raises(UserError, match=f"--{section}.{field.replace('_', '-')} is {value}, it must be"):
        config.validate(1)


def test_more_ranks_than_rows_are_refused() -> None:
    config = replace(Config(), training=replace(Config().training, batch_size=3))
    config.validate(3)
    with pytest.raises(UserError, match=r"4 ranks share a global batch of 3 rows.*--training\.batch-size"):
        config.validate(4)


def test_stages_and_their_start_belong_together() -> None:
    with pytest.raises(UserError, match="give its run folder with --stage1"):
        replace(preset("painted-stage2"), stage1=None).validate(1)
    with pytest.raises(UserError, match=r"--stage1 is for Stage-II runs; add --model\.stage 2"):
        replace(preset("painted-stage1"), stage1="runs/x").validate(1)
    with pytest.raises(UserError, match=r"--training\.colour-weight compares Stage-II with Stage-I; leave it out"):
        replace(preset("painted-stage1"), training=replace(Config().training, colour_weight=50.0)).validate(1)
    with pytest.raises(UserError, match=r"--training\.reconstruction-weight is for Stage-II.*leave it out"):
        replace(preset("painted-stage1"), training=replace(Config().training, reconstruction_weight=5.0)).validate(1)


def _with(name: str, **training: float) -> Config:
    config = preset(name)
    return replace(config, training=replace(config.training, **training))


def test_terms_that_a_model_cannot_have_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"contrastive-weight is 1\.0, but the term is StackGAN's and gan-int-cls has none"
    ):
        _with("painted-gan-int-cls", contrastive_weight=1.0).validate(1)
    with pytest.raises(UserError, match=r"reading-weight is 40\.0, but the term is StackGAN's and gawwn-box has none"):
        _with("painted-gawwn-box", reading_weight=40.0).validate(1)
    with pytest.raises(UserError, match=r"--training\.reading-weight is for Stage-I.*reconstruction-weight instead"):
        _with("painted-stage2", reading_weight=40.0).validate(1)
    with pytest.raises(UserError, match=r"D learns nothing of them without --training\.contrastive-weight"):
        _with("painted-stage1", generator_contrastive_weight=1.0).validate(1)
    _with("painted-stage2", contrastive_weight=1.0, generator_contrastive_weight=0.2).validate(1)


def test_a_rate_that_falls_to_the_end_of_the_run_fixes_the_end() -> None:
    begun = _with("painted-stage1", linear_decay=0.5, epochs=10)
    assert differences(_with("painted-stage1", epochs=12), _with("painted-stage1", epochs=10)) == []
    (found,) = differences(_with("painted-stage1", linear_decay=0.5, epochs=12), begun)
    assert found.startswith("training.epochs: 12 here, 10 there")
    assert "--training.linear-decay 0.5" in found


def _has_terms(name: str) -> bool:
    """Whether the preset `name` is of the picture recipe, or measures its terms."""
    return name.startswith(("demo-", "terms-")) or "-best-" in name


@pytest.mark.parametrize("name", [name for name in PRESETS if not _has_terms(name)])
def test_the_paper_s_presets_have_the_paper_s_terms(name: str) -> None:
    config = preset(name)
    training = config.training
    assert not config.model.text_every_layer
    assert not config.model.noise_as_read
    assert (training.contrastive_weight, training.generator_contrastive_weight, training.reading_weight) == (0, 0, 0)
    assert training.linear_decay == 0


@pytest.mark.parametrize("data", ["painted", "oxford102", "cub", "own", "demo"])
def test_the_picture_recipe_has_the_three_terms(data: str) -> None:
    first, second = (preset(f"{data}{'' if data == 'demo' else '-best'}-stage{stage}") for stage in (1, 2))
    for config in (first, second):
        assert config.model.text_every_layer
        assert config.training.contrastive_weight == (2 if config is first and data == "demo" else 1)
        assert config.training.generator_contrastive_weight == (1 if data in ("painted", "demo") else 0.2)
    assert first.training.reading_weight == 40
    assert first.model.noise_as_read == (data in ("painted", "demo"))
    assert second.training.reading_weight == 0
    assert second.stage1 == f"{first.run.folder}/{first.run.name}"


@pytest.mark.parametrize(
    ("name", "text_layers", "contrastive", "reading"),
    [
        ("stage1-none", False, 0, 0),
        ("stage1-contrastive", False, 1, 0),
        ("stage1-text-layers", True, 0, 0),
        ("stage1-reading", False, 0, 40),
        ("stage1-all", True, 1, 40),
        ("stackgan-none", False, 0, 0),
        ("stackgan-all", True, 1, 0),
    ],
)
def test_a_preset_of_one_term_has_that_term_and_all_else_of_the_recipe(
    name: str, text_layers: bool, contrastive: float, reading: float
) -> None:
    recipe = preset(f"painted-best-{'stage1' if 'stage1' in name else 'stage2'}")
    terms = {
        "contrastive_weight": contrastive,
        "generator_contrastive_weight": contrastive,
        "reading_weight": reading,
    }
    config = preset(f"terms-{name}")
    assert config.training == replace(recipe.training, **terms)
    assert config.model == replace(recipe.model, text_every_layer=text_layers, noise_as_read=bool(reading))


def test_z_as_it_is_read_needs_rows_that_are_read() -> None:
    config = preset("demo-stage1")
    with pytest.raises(UserError, match=r"set that too, or add --model\.no-noise-as-read"):
        replace(config, training=replace(config.training, reading_weight=0.0)).validate(1)
    without = replace(config.model, noise_as_read=False)
    replace(config, model=without, training=replace(config.training, reading_weight=0.0)).validate(1)
    replace(config, model=without).validate(1)


def test_a_run_cannot_be_written_over_https() -> None:
    replace(Config(), run=replace(Config().run, folder="s3://bucket/runs")).validate(1)
    with pytest.raises(UserError, match=r"--run\.folder is https://host/runs, which can only be read"):
        replace(Config(), run=replace(Config().run, folder="https://host/runs")).validate(1)
