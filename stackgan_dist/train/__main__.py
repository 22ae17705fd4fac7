"""Train Stage-I or Stage-II: `torchrun [--nnodes N ...] -m stackgan_dist.train [--preset NAME] [--FLAG VALUE ...]`.

    torchrun --nproc-per-node 8 -m stackgan_dist.train --preset oxford102-stage1
    torchrun --nproc-per-node 8 -m stackgan_dist.train --preset oxford102-stage2 --training.batch-size 128

Starting it again goes on where it stopped. --help-all lists every flag with the preset's value.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import torch

from stackgan_dist.cli.config_source import parse
from stackgan_dist.cli.doors import end_preempted, front_door
from stackgan_dist.config import Config
from stackgan_dist.data.dataset import PackedSet, open_packed
from stackgan_dist.distributed.agreement import check_agreement
from stackgan_dist.distributed.environment import is_main_rank, ranks_from_environment
from stackgan_dist.distributed.process_group import (
    Ranks,
    broadcast_bytes,
    explained_peer_loss,
    main_first,
    process_group,
)
from stackgan_dist.distributed.stop import listen_for_stop
from stackgan_dist.engines.deepspeed import import_deepspeed
from stackgan_dist.engines.deepspeed_config import load_deepspeed_config
from stackgan_dist.errors import UserError
from stackgan_dist.models import ModelConfig
from stackgan_dist.runs.checkpoint import from_bytes, list_steps, to_bytes
from stackgan_dist.runs.folder import DataIdentity, RunFolder
from stackgan_dist.runs.loggers import check_installed
from stackgan_dist.runs.trained import load_trained
from stackgan_dist.storage.folder import Folder
from stackgan_dist.text.files import find_file, has_file, keep_file
from stackgan_dist.train.identity import RunIdentity
from stackgan_dist.train.initial import InitialWeights, find_initial
from stackgan_dist.train.loop import train
from stackgan_dist.train.networks import check_networks


@front_door
def main() -> None:
    """Parse, validate, connect, train."""
    config = parse(sys.argv[1:], __doc__)
    world_size = ranks_from_environment().world_size

    # What each node has to have is looked at here, before ranks wait for each other; what need be on one, by rank 0.
    config.validate(world_size)
    if config.engine == "deepspeed":
        load_deepspeed_config(config.deepspeed_config)
        import_deepspeed()
    check_installed(config.run.log)
    folder = RunFolder(Folder.at(config.run.folder) / config.run.name)
    data = open_packed(config.data, config.model.image_size)
    plan = data.plan(config.training)
    encoder, encoder_folders = data.index.text_encoder, (folder.url, config.data.url)
    initial: list[InitialWeights] = []  # on rank 0, which sends them

    with listen_for_stop() as stop, process_group(config.run.timeout_s) as ranks, ExitStack() as owning:
        stage1 = _stage1(config, data, ranks) if config.stage1 else None
        check_networks(config, data.index.text_dim, stage1[0] if stage1 else None)

        def own() -> None:
            if config.resume == "never" and list_steps(folder.checkpoints):
                raise UserError(f"{folder.url} has checkpoints and --resume is never; choose another --run.name")
            if config.init_from is not None and not list_steps(folder.checkpoints):
                initial.append(find_initial(config, data.index.text_dim, stage1[0] if stage1 else None))
            # New sentences need it, wherever the run is taken.
            encoder_file = find_file(encoder, encoder_folders) if has_file(encoder) else None
            owning.enter_context(folder.owned(min(60.0, config.run.timeout_s / 2), stop.ask, folder.refuse_foreign))
            if encoder_file is not None:
                keep_file(encoder, encoder_file, folder.url)

        check_agreement(_facts(config, data, stage1), ranks)
        main_first(own, ranks)
        ending = train(
            config, data, plan, _captions_to_show(config, data, ranks), stage1, folder, ranks, stop, *initial
        )
    if ending == "PREEMPTED":
        end_preempted()


def _facts(
    config: Config, data: PackedSet, stage1: tuple[ModelConfig, dict[str, torch.Tensor]] | None
) -> dict[str, Any]:
    """What all ranks must agree on before anything begins."""
    model, weights = stage1 or (None, None)
    settings = load_deepspeed_config(config.deepspeed_config) if config.engine == "deepspeed" else {}
    return RunIdentity(config, DataIdentity.of(data.index), model).facts(weights, settings)


def _stage1(config: Config, data: PackedSet, ranks: Ranks) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    """The Stage-I that rank 0 reads, on every rank: other nodes need not see it. UserError when it does not fit."""
    loaded: list[tuple[ModelConfig, dict[str, torch.Tensor]]] = []
    main_first(lambda: loaded.append(_load_stage1(config, data)), ranks)
    if not ranks.distributed:
        return loaded[0]
    sent = to_bytes({"model": asdict(loaded[0][0]), "weights": loaded[0][1]}) if loaded else None
    with explained_peer_loss("while Stage-I was sent"):
        received = broadcast_bytes(sent, ranks)
    assert received is not None
    content = from_bytes(received, "what rank 0 sent of Stage-I")
    return ModelConfig(**content["model"]), content["weights"]


def _load_stage1(config: Config, data: PackedSet) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    """Model and weights of the Stage-I run that a Stage-II run starts from; UserError when they do not fit."""
    assert config.stage1 is not None
    try:
        trained = load_trained(config.stage1, lambda _: None)
    except UserError as error:
        raise UserError(f"Stage-II needs a trained Stage-I (--stage1): {error}") from error
    if (model := trained.config.model).stage != 1 or model.family != config.model.family:
        raise UserError(f"--stage1 {config.stage1} is a {model.title} run; give a Stage-I run")
    if is_main_rank() and trained.folder.ending() != "DONE":
        print(
            f"note: the Stage-I run {trained.folder.url} is not DONE; Stage-II starts from its step {trained.step:,}. "
            "To finish it, start it again with its own command",
            flush=True,
        )
    index = data.index
    if not trained.data.reads_texts_of(index):
        raise UserError(
            f"--stage1 {config.stage1} was trained on texts of {trained.data.text_encoder} ({trained.data.text_dim}), "
            f"{data.url} has texts of {index.text_encoder} ({index.text_dim}); pack it with --encoder "
            f"{trained.data.text_encoder} or train Stage-I on it"
        )
    return trained.config.model, trained.weights


def _captions_to_show(config: Config, data: PackedSet, ranks: Ranks) -> PackedSet:
    """Where rank 0's sample grids take their captions from: unseen classes if packed alike, else the training set."""
    if not ranks.is_main:
        return data
    try:
        test = open_packed(config.data, config.model.image_size, split="test")
    except UserError:
        return data
    ours, theirs = data.index, test.index
    if DataIdentity.of(ours).reads_texts_of(theirs):
        return test
    print(
        f"note: {test.url} has texts of {theirs.text_encoder} ({theirs.text_dim}), {data.url} of "
        f"{ours.text_encoder} ({ours.text_dim}): sample grids show training captions, and scores will ask for a "
        "test split packed with the same --encoder",
        flush=True,
    )
    return data


if __name__ == "__main__":
    main()
