"""The whole of a training run, to be read from top to bottom."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from stackgan_dist.config import Config, differences, from_json, to_json
from stackgan_dist.data.batch import Batch, BatchShape, rows_with_partner
from stackgan_dist.data.dataset import PackedSet
from stackgan_dist.data.loader import StepDataset, make_loader
from stackgan_dist.data.plan import Plan, rows_of_rank
from stackgan_dist.distributed.process_group import Ranks, broadcast_bytes, explained_peer_loss
from stackgan_dist.distributed.stop import StopRequest
from stackgan_dist.errors import RankError, UserError
from stackgan_dist.models import ModelConfig
from stackgan_dist.runs.checkpoint import Checkpointer, committed_steps, find_newest, unpack
from stackgan_dist.runs.folder import DataIdentity, Ending, RunFolder
from stackgan_dist.runs.monitor import GAN_CURVES, Monitor, WaitClock
from stackgan_dist.storage.files import join
from stackgan_dist.train.precision import resolve_precision
from stackgan_dist.train.samples import FixedSamples
from stackgan_dist.train.state import TrainingState, learning_rate
from stackgan_dist.train.step_metrics import METRICS, Reports
from stackgan_dist.train.to_device import batches_on, to_device


def train(
    config: Config,
    data: PackedSet,
    sample_captions: PackedSet,
    stage1: tuple[ModelConfig, dict[str, torch.Tensor]] | None,
    folder: RunFolder,
    ranks: Ranks,
    stop: StopRequest,
) -> Ending:
    """Train until the run is done or stopped; returns which. All arguments are validated already."""
    training, run = config.training, config.run

    # The plan: every rank knows every step; the position of the run is one integer.
    plan = Plan([shard.samples for shard in data.index.shards], training.seed, training.batch_size)
    last_step = training.epochs * plan.steps_per_epoch
    rows = rows_of_rank(training.batch_size, ranks.rank, ranks.world_size)
    shape = BatchShape(
        image_size=config.model.image_size,
        captions_per_text=training.captions_per_text,
        noise_dim=config.model.noise_dim,
        stages=config.model.augmentations,
        condition_dim=config.model.condition_dim,
        interpolate=training.interpolated_texts,
        placement=config.model.placement,
    )
    memory_bytes = int(config.data.memory_gb * 1e9)
    dataset = StepDataset(data.index, plan, data.cache(), rows, shape, config.data.lookahead_steps, memory_bytes)

    # Networks, optimizers, moving average.
    precision = resolve_precision(training.precision, ranks.device)
    messages: list[str] = []
    with explained_peer_loss("while starting"):
        state = TrainingState(config, data.index.text_dim, stage1, ranks, precision)
        blank = to_device(_blank_batch(rows, shape, data.index.text_dim), ranks.device)
        state.rehearse(blank)

        # Go on where the run stopped.
        step = _resume(state, config, data.index.digest, folder, ranks, messages)

    # What rank 0 does for all.
    monitor = samples = None
    if ranks.is_main:
        folder.write_config(config, data.index)  # only now: a run that refuses to go on keeps its own
        monitor = Monitor(folder, step, last_step, training.batch_size, config.model.title)
        samples = FixedSamples(sample_captions.captions(), run.sample_captions, config.model, training.seed)
        for message in [*messages, _describe(config, data, ranks, last_step, plan.steps_per_epoch)]:
            monitor.say(message)
        monitor.say(f"pictures in {join(folder.url, 'samples')}; curves: tensorboard --logdir {config.run.folder}")
        monitor.text("curves", GAN_CURVES)
        if forms := state.up_sampling(blank):
            monitor.say(f"up-sampling on {ranks.device.type}, by the rule of docs/speed.md: {', '.join(forms)}")
        monitor.text("config", f"```json\n{to_json(config)}\n```")
    checkpointer = Checkpointer(
        folder.checkpoints,
        keep_last=run.keep_last,
        milestone_steps=run.milestone_steps,
        report=monitor.say if monitor else lambda _: None,
        before_commit=monitor.wait if monitor else lambda: None,
    )

    if ranks.is_main:
        checkpointer.remove_unfinished()

    def save(at: int) -> None:
        with explained_peer_loss(f"while saving step {at:,}"):
            whole = state.state_dict()  # a collective, where ranks hold parts of it
        if ranks.is_main:
            content = {
                "step": at,
                "config": to_json(config),
                "stage1_model": dataclasses.asdict(stage1[0]) if stage1 else None,
                "data": dataclasses.asdict(DataIdentity.of(data.index)),
                "world_size": ranks.world_size,
                "state": whole,
            }
            if monitor:
                monitor.hand_over()
            checkpointer.save(at, content)

    def draw(at: int) -> None:
        if monitor and samples:
            monitor.picture(at, "samples", samples.draw(state.drawing_generators))

    # Train.
    workers = config.data.workers
    loader = make_loader(dataset, step, last_step, workers, pin_memory=ranks.device.type == "cuda")
    clock = WaitClock()
    reports = Reports(ranks, len(rows) / training.batch_size)
    # Under a loss scaler an infinite gradient is routine: that update is skipped and the scale lowered.
    watched = METRICS[: METRICS.index("real")] if precision.scale_loss else METRICS
    sums = torch.zeros(len(METRICS), dtype=torch.float64)
    summed = 0
    stopped = False
    try:
        for batch in batches_on(ranks.device, clock.watch(loader)):
            if isinstance(batch, UserError):
                raise RankError(f"at step {step:,}: {batch}")
            with explained_peer_loss(f"at step {step:,}"):
                report = state.step(batch, step, plan.steps_per_epoch)
                reports.put(step, report, stop=stop.raised)
                step += 1
                # Nothing is saved or shown before every step up to it is known to be sound.
                pause = step == last_step or any(
                    step % every == 0 for every in (run.tick_steps, run.sample_steps, run.checkpoint_steps)
                )
                due = reports.read(everything=pause)
            for agreed in due:
                if not agreed.is_finite(watched):
                    checkpointer.wait()
                    raise UserError(_not_finite(agreed.step, agreed.means, committed_steps(folder.checkpoints), folder))
                sums += agreed.means
                summed += 1
                stopped = stopped or agreed.stop
            if step % run.tick_steps == 0 or step == last_step or stopped:
                elapsed_s, waited = clock.lap()
                if monitor:
                    metrics = dict(zip(METRICS, (sums / summed).tolist(), strict=True))
                    metrics["learning_rate"] = learning_rate(config, plan.epoch(step - 1))
                    monitor.tick(step, metrics, elapsed_s, summed, waited)
                sums.zero_()
                summed = 0
            if step % run.sample_steps == 0 or step == last_step:
                draw(step)
            if step % run.checkpoint_steps == 0 or step == last_step or stopped:
                save(step)
            if stopped:
                break

        # Close: the marker is left only once the last checkpoint is safe.
        checkpointer.wait()
        ending: Ending = "DONE" if step >= last_step else "PREEMPTED"
        if ranks.is_main and step not in committed_steps(folder.checkpoints):
            raise UserError(f"the last checkpoint (step {step}) could not be written; free space, then start again")
        if monitor:
            folder.mark(ending, f"step {step} of {last_step}")
            reason = f" on {stop.cause}" if stop.raised else ""
            monitor.say(f"{ending} at step {step:,} of {last_step:,}{reason}; checkpoint in {folder.checkpoints}")
        return ending
    finally:
        checkpointer.wait()
        if monitor:
            monitor.close()


def _resume(
    state: TrainingState, config: Config, data_digest: str, folder: RunFolder, ranks: Ranks, messages: list[str]
) -> int:
    """Load the newest good checkpoint on every rank; returns the step to go on with, 0 for a fresh run."""
    found = find_newest(folder.checkpoints, messages.append) if ranks.is_main else None
    # Rank 0 reads and sends: nodes need not share a disk, and no rank can pick another checkpoint.
    data = broadcast_bytes(found.data if found else None, ranks)
    if data is None:
        return 0
    content = unpack(data, f"the newest checkpoint of {folder.url}")
    changed = differences(config, from_json(content["config"], folder.checkpoints.url))
    if (theirs := content["data"]["digest"]) != data_digest:
        changed.append(f"digest of the data's index: {data_digest[:12]} here, {theirs[:12]} there")
    if changed:
        raise UserError(
            f"{folder.url} holds a run of another configuration ({'; '.join(changed)}); "
            "choose another --run.name, or go back to that configuration"
        )
    state.load_state_dict(content["state"])
    messages.append(
        f"resumed at step {content['step']:,}, saved on {content['world_size']} rank(s), now {ranks.world_size}"
    )
    return int(content["step"])


def _blank_batch(rows: Sequence[int], shape: BatchShape, text_dim: int) -> Batch:
    """Rows without content, for the rehearsal."""
    n = len(rows)
    all_rows = n + (len(rows_with_partner(rows)) if shape.interpolate else 0)
    noise = torch.linspace(-1, 1, all_rows).unsqueeze(1)
    return Batch(
        images=torch.zeros(n, 3, shape.image_size, shape.image_size, dtype=torch.uint8),
        text=noise.expand(all_rows, text_dim),
        wrong_text=noise[:n].expand(n, text_dim),
        z=noise.expand(all_rows, shape.noise_dim),
        eps=noise.unsqueeze(1).expand(all_rows, shape.stages, shape.condition_dim),
        samples=torch.zeros(n, 2, dtype=torch.int64),
        place=torch.full((all_rows, *shape.placement.shape), 0.5) if shape.placement else None,
    )


def _describe(config: Config, data: PackedSet, ranks: Ranks, last_step: int, steps_per_epoch: int) -> str:
    return (
        f"{config.model.image_size} px on {data.url} ({data.index.samples:,} pictures, {data.index.text_encoder}), "
        f"{ranks.world_size} rank(s) on {ranks.device.type}, batch {config.training.batch_size}, "
        f"{last_step:,} steps (epochs: {config.training.epochs} of {steps_per_epoch})"
    )


def _not_finite(step: int, means: torch.Tensor, checkpoints: list[int], folder: RunFolder) -> str:
    values = ", ".join(f"{name} {value:.4g}" for name, value in zip(METRICS, means.tolist(), strict=True))
    good = f"the last checkpoint is of step {checkpoints[-1]}" if checkpoints else "there is no checkpoint yet"
    return (
        f"a loss or gradient is not finite at step {step} ({values}); nothing of it was saved, {good} in "
        f"{folder.checkpoints}. Lower --training.learning-rate, or try --training.precision fp32"
    )
