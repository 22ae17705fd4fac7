"""Train Stage-I or Stage-II: `torchrun [--nnodes N ...] -m stackgan_dist.train [--preset NAME] [--FLAG VALUE ...]`.

    torchrun --nproc-per-node 8 -m stackgan_dist.train --preset oxford102-stage1
    torchrun --nproc-per-node 8 -m stackgan_dist.train --preset oxford102-stage2 --training.batch-size 128

Starting it again goes on where it stopped. --help lists every flag with the preset's value.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack

import torch

from stackgan_dist.config import Config
from stackgan_dist.data.dataset import PackedSet, open_packed
from stackgan_dist.data.plan import Plan
from stackgan_dist.distributed.environment import ranks_from_environment
from stackgan_dist.distributed.process_group import main_first, process_group
from stackgan_dist.distributed.stop import listen_for_stop
from stackgan_dist.doors import front_door
from stackgan_dist.engines.deepspeed import import_deepspeed
from stackgan_dist.engines.deepspeed_config import load_deepspeed_config
from stackgan_dist.errors import UserError
from stackgan_dist.models import ModelConfig, build_discriminator, build_generator
from stackgan_dist.presets import parse
from stackgan_dist.runs.checkpoint import list_steps
from stackgan_dist.runs.folder import RunFolder
from stackgan_dist.runs.trained import load_trained
from stackgan_dist.storage.folder import Folder
from stackgan_dist.text.files import find_file, is_trained, keep_file
from stackgan_dist.train.loop import train


@front_door
def main() -> None:
    """Parse, validate, connect, train."""
    config = parse(sys.argv[1:], __doc__)
    world_size = ranks_from_environment().world_size

    # Everything that can be wrong is found here, before ranks wait for each other.
    config.validate(world_size)
    if config.engine == "deepspeed":
        load_deepspeed_config(config.deepspeed_config)
        import_deepspeed()
    folder = RunFolder(Folder.at(config.run.folder) / config.run.name)
    data = open_packed(config.data, config.model.image_size)
    Plan([shard.samples for shard in data.index.shards], config.training.seed, config.training.batch_size)
    has_checkpoint = bool(list_steps(folder.checkpoints))
    if config.resume == "never" and has_checkpoint:
        raise UserError(f"{folder.url} has checkpoints and --resume is never; choose another --run.name")
    encoder, encoder_folders = data.index.text_encoder, (folder.url, config.data.url)
    if is_trained(encoder):
        find_file(encoder, encoder_folders)
    stage1 = _load_stage1(config, data) if config.stage1 else None
    with torch.device("meta"):
        build_generator(config.model, data.index.text_dim, stage1[0] if stage1 else None)
        build_discriminator(config.model, data.index.text_dim)

    with listen_for_stop() as stop, process_group(config.run.timeout_s) as ranks, ExitStack() as owning:

        def own() -> None:
            owning.enter_context(folder.owned(min(60.0, config.run.timeout_s / 2), stop.ask))
            folder.mark(None)
            if is_trained(encoder):  # new sentences need it, wherever the run is taken
                keep_file(encoder, find_file(encoder, encoder_folders), folder.url)

        main_first(own, ranks)
        train(config, data, _captions_to_show(config, data), stage1, folder, ranks, stop)


def _load_stage1(config: Config, data: PackedSet) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    """Model and weights of the Stage-I run that a Stage-II run starts from; UserError when they do not fit."""
    assert config.stage1 is not None
    try:
        trained = load_trained(config.stage1, lambda message: None)
    except UserError as error:
        raise UserError(f"Stage-II needs a trained Stage-I (--stage1): {error}") from error
    if (model := trained.config.model).stage != 1 or model.family != config.model.family:
        raise UserError(f"--stage1 {config.stage1} is a {model.title} run; give a Stage-I run")
    index = data.index
    if (trained.data.text_encoder, trained.data.text_dim) != (index.text_encoder, index.text_dim):
        raise UserError(
            f"--stage1 {config.stage1} was trained on texts of {trained.data.text_encoder} ({trained.data.text_dim}), "
            f"{data.url} has texts of {index.text_encoder} ({index.text_dim}); pack it with --encoder "
            f"{trained.data.text_encoder} or train Stage-I on it"
        )
    return trained.config.model, trained.weights


def _captions_to_show(config: Config, data: PackedSet) -> PackedSet:
    """Where the sample grids take their captions from: unseen classes if they are packed, else the training set."""
    try:
        return open_packed(config.data, config.model.image_size, split="test")
    except UserError:
        return data


if __name__ == "__main__":
    main()
