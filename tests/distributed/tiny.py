"""The smallest runs that still have everything: both stages, both recipes, a few steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from stackgan_dist.config import Config, DataConfig, RunConfig, TrainingConfig, from_json
from stackgan_dist.data.dataset import open_packed
from stackgan_dist.distributed.process_group import process_group
from stackgan_dist.distributed.stop import StopRequest
from stackgan_dist.models import ModelConfig, Stage1Generator, build_generator
from stackgan_dist.models.baselines.deconvolution import initialise_convolutions
from stackgan_dist.models.baselines.gawwn import GawwnBoxDiscriminator, GawwnKeypointDiscriminator
from stackgan_dist.models.blocks import initialise
from stackgan_dist.models.config import RecipeName
from stackgan_dist.models.matching import MatchingAware
from stackgan_dist.presets import PAINTED_PARTS
from stackgan_dist.runs.checkpoint import from_bytes, list_steps, read_checkpoint
from stackgan_dist.runs.folder import RunFolder
from stackgan_dist.train.loop import train
from stackgan_dist.train.networks import build_networks

BATCH = 7
"""Three ranks get 2, 2 and 3 rows of it."""
STEPS_PER_EPOCH = 5
"""Of the packed set of the tests."""

TINY_FLAGS = [
    "--model.generator-width", "4", "--model.discriminator-width", "4", "--model.condition-dim", "4",
    "--model.noise-dim", "4", "--training.batch-size", str(BATCH), "--training.captions-per-text", "1",
    "--run.sample-captions", "1", "--run.tick-steps", "1", "--run.timeout-s", "60", "--data.workers", "0",
]  # fmt: skip
"""A run of a few thousand weights for the trainer's command line."""


def tiny_model(**changes: Any) -> ModelConfig:
    """A model of a few thousand weights."""
    return ModelConfig(generator_width=4, discriminator_width=4, condition_dim=4, noise_dim=4, **changes)


BASELINES = {
    "gan-int-cls": tiny_model(family="gan-int-cls"),
    "gawwn-box": tiny_model(family="gawwn-box", image_size=128),
    "gawwn-keypoints": tiny_model(family="gawwn-keypoints", image_size=128, keypoints=PAINTED_PARTS),
    "df-gan": tiny_model(family="df-gan"),
}
"""What StackGAN is compared with; GAN-INT-CLS is trained with texts between two."""


def tiny_config(
    url: str,
    folder: Path,
    name: str,
    *,
    model: ModelConfig | None = None,
    workers: int = 0,
    epochs: int = 1,
    precision: Any = "fp64",
    checkpoint_steps: int = 1000,
) -> Config:
    """A run of `epochs` times five steps that keeps all of its checkpoints.

    Where the text is read at every layer there are the contrastive term and, in Stage-I, rows that are read, too.
    """
    model = model or tiny_model()
    terms = 1.0 if model.text_every_layer else 0.0
    return Config(
        model=model,
        data=DataConfig(url=url, workers=workers),
        training=TrainingConfig(
            batch_size=BATCH, epochs=epochs, halve_every_epochs=1, ema_half_life_images=50, precision=precision,
            interpolated_texts=model.family == "gan-int-cls",
            reconstruction_weight=50.0 if model.stage1_coarse else 0.0,
            contrastive_weight=terms, generator_contrastive_weight=0.2 * terms,
            reading_weight=10 * terms if model.stage == 1 else 0.0,
        ),
        run=RunConfig(
            name=name, folder=str(folder), tick_steps=1, checkpoint_steps=checkpoint_steps, keep_last=100,
            sample_captions=1, timeout_s=60,
        ),
        stage1="given" if model.stage == 2 else None,
    )  # fmt: skip


def tiny_stage1(model: ModelConfig, text_dim: int) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    """Model and weights of a Stage-I, as it was initialised, for Stage-II to start from."""
    stage1 = tiny_model(
        recipe=model.recipe, conditioning_augmentation=model.conditioning_augmentation,
        noise_as_read=model.text_every_layer,
    )  # fmt: skip
    torch.manual_seed(1)
    return stage1, build_generator(stage1, text_dim, None).state_dict()


def train_alone(config: Config, stage1: tuple[ModelConfig, dict[str, torch.Tensor]] | None) -> Path:
    """Train in this process; the run's folder."""
    data = open_packed(config.data, config.model.image_size)
    folder = RunFolder(Path(config.run.folder) / config.run.name)
    folder.path.mkdir(parents=True)
    with process_group(60) as ranks:
        train(config, data, data.plan(config.training), data, stage1, folder, ranks, StopRequest())
    return folder.path


def gaudy(network: nn.Module, recipe: RecipeName) -> None:
    """Initial weights by which pictures differ at once: the authors' leave them grey for hundreds of steps."""
    initialise(network, recipe)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.data *= 20


def wake(network: nn.Module) -> None:
    """Give what starts at 0, as the residual parts of DF-GAN do, first weights by which it counts."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)


def gaudy_convolutions(network: nn.Module) -> None:
    """The same for the models that StackGAN is compared with."""
    initialise_convolutions(network)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.weight.data *= 20


def final_state(run: Path, step: int | None = None) -> dict[str, Any]:
    """What the checkpoint of `step` (default: the newest) of a run holds, flat: name -> tensor or plain value.

    The optimizers' entries are under the names of their parameters. "idle" names the parameters of `idle_biases` and
    `biases_idle_at_times`.
    """
    content = _content(run, step)
    stage1 = ModelConfig(**content["stage1_model"]) if content["stage1_model"] else None
    with torch.device("meta"):
        networks = build_networks(from_json(content["config"], str(run)), content["data"]["text_dim"], stage1)
    state, idle = content["state"], {}
    for kind, network in (("generator", networks.trained), ("discriminator", networks.discriminator)):
        _name_entries(state[kind]["optimizer"], [n for n, p in network.named_parameters() if p.requires_grad])
        idle[f"/{kind}"] = idle_biases(network) | biases_idle_at_times(network)
    return dict(flat(state, ""), step=content["step"], idle=idle)


def final_embedding_state(run: Path) -> dict[str, Any]:
    """The same of the newest checkpoint of the training of a text encoder."""
    content = _content(run, None)
    state = content["state"]
    _name_entries(state["optimizer"], [name for name in state["network"] if name not in ("mean", "deviation")])
    # As long as no pair of a batch keeps the margin, what a bias adds to one side cancels in the loss.
    idle = {name: None for name in ("image.bias", "text.projection.bias") if name in state["network"]}
    return dict(flat(state, ""), step=content["step"], idle={"": idle})


def _content(run: Path, step: int | None) -> dict[str, Any]:
    checkpoints = str(run / "checkpoints")
    found = read_checkpoint(f"{checkpoints}/step-{list_steps(checkpoints)[-1] if step is None else step:09d}")
    return from_bytes(found.data, found.url)


def _name_entries(optimizer: dict[str, Any], names: list[str]) -> None:
    optimizer["state"] = {names[number]: entry for number, entry in optimizer["state"].items()}


def idle_biases(network: nn.Module) -> dict[str, str | None]:
    """The biases whose gradient is zero in real arithmetic, each with the batch norm that takes out again what it adds.

    Adam makes steps of what rounding leaves of such a gradient.
    """
    found: dict[str, str | None] = {}
    for name, layers in network.named_modules():
        if isinstance(layers, nn.Sequential):
            for place, (layer, following) in enumerate(itertools.pairwise(layers)):
                if isinstance(layer, nn.Linear | _ConvNd) and isinstance(following, _BatchNorm):
                    found[f"{name}.{place}.bias"] = f"{name}.{place + 1}"
    if isinstance(network, Stage1Generator) and network.recipe == "paper" and not network.conditioning.augment:
        # Without noise and activation the condition is one linear layer, on which another one follows.
        found["conditioning.fc.bias"] = "project.1"
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    return {bias: norm for bias, norm in found.items() if bias in trained}


def biases_idle_at_times(network: nn.Module) -> dict[str, str | None]:
    """Those that have no gradient in some steps, in which Adam moves them as it does idle ones."""
    if isinstance(network, MatchingAware) and isinstance(
        network.discriminator, GawwnBoxDiscriminator | GawwnKeypointDiscriminator
    ):
        # A unit whose regions have the same sign in the whole batch goes linearly on into the batch norm of the judge.
        return {"discriminator.region.1.bias": "discriminator.judge.1"}
    return {}


def flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else None
    if items is None:
        yield name, value
    else:
        for key, item in items:
            yield from flat(item, f"{name}/{key}")


def assert_equal(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Bit for bit."""
    assert ours.keys() == theirs.keys()
    differing = [name for name in ours if not _same(ours[name], theirs[name])]
    assert not differing, f"{len(differing)} of {len(ours)} differ: {differing[:5]}"


def _same(ours: Any, theirs: Any) -> bool:
    return torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs


def largest_difference(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Over all tensors, the largest difference relative to the tensor's largest value; plain values must be equal.

    Second moments are compared by their roots, which have the unit of a gradient. An idle bias, which rounding alone
    moves, and its moments are compared in the unit of the weights of its layer and of theirs, and the running mean that
    it goes straight into in the unit of its deviations. No other tensor has a unit but its own.
    """
    assert ours.keys() == theirs.keys()
    worst = 0.0
    units = _units(ours)
    for name, value in ours.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            first, second = _comparable(name, value), _comparable(name, theirs[name])
            scale = max(
                float(tensor.abs().max()) for tensor in (first, second, *([units[name]] if name in units else []))
            )
            if scale > 0:
                worst = max(worst, float((first - second).abs().max()) / scale)
        else:
            assert _same(value, theirs[name]), name
    return worst


def _comparable(name: str, value: torch.Tensor) -> torch.Tensor:
    return value.sqrt() if name.endswith("exp_avg_sq") else value


def _units(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    """name -> what else a tensor is measured by, for all that idle biases touch."""
    units: dict[str, torch.Tensor] = {}
    for kind, biases in state["idle"].items():
        for bias, norm in biases.items():
            weight = bias.removesuffix("bias") + "weight"
            for moment in ("exp_avg", "exp_avg_sq"):
                entry = f"{kind}/optimizer/state/{{}}/{moment}"
                units[entry.format(bias)] = _comparable(moment, state[entry.format(weight)])
            # The average is of the generator alone, which may be trained with its reader.
            for network, inside in (
                (f"{kind}/network", ""),
                *([("/ema", "generator.")] if kind == "/generator" else []),
            ):
                units[f"{network}/{bias.removeprefix(inside)}"] = state[f"{network}/{weight.removeprefix(inside)}"]
                if norm is not None:
                    of = norm.removeprefix(inside)
                    units[f"{network}/{of}.running_mean"] = state[f"{network}/{of}.running_var"].sqrt()
    return units
