"""The whole of a training run, to be read from top to bottom."""

from __future__ import annotations

import dataclasses

import torch

from stackgan_dist.config import Config, flatten, to_json
from stackgan_dist.data.dataset import PackedSet
from stackgan_dist.data.plan import Plan
from stackgan_dist.data.words import WORDS_NAME, words_of_captions
from stackgan_dist.devices import prepare_cuda
from stackgan_dist.distributed.process_group import Ranks, explained_peer_loss
from stackgan_dist.distributed.stop import StopRequest
from stackgan_dist.errors import RankError, UserError
from stackgan_dist.models import ModelConfig
from stackgan_dist.runs.folder import DataIdentity, Ending, RunFolder
from stackgan_dist.runs.keeper import Keeper, Training, WritePolicy, resume
from stackgan_dist.runs.metrics import describe_curves, metrics_of
from stackgan_dist.runs.monitor import Pages
from stackgan_dist.runs.step_trace import StepTrace
from stackgan_dist.runs.utilisation import Work, peak_flops
from stackgan_dist.storage.files import join
from stackgan_dist.train.costs import step_cost
from stackgan_dist.train.feed import Feed
from stackgan_dist.train.identity import RunIdentity
from stackgan_dist.train.initial import InitialWeights, start_from
from stackgan_dist.train.precision import resolve_precision
from stackgan_dist.train.samples import FixedSamples
from stackgan_dist.train.state import TrainingState, learning_rate
from stackgan_dist.train.step import StepReport
from stackgan_dist.train.step_metrics import Reports
from stackgan_dist.train.to_device import to_device

_PICTURES = {
    "samples": "fixed sentences and noise: the moving average of G (ema), its last weights (raw), the real picture"
}
"""What the pictures of a run show, by their tag."""


def train(
    config: Config,
    data: PackedSet,
    plan: Plan,
    sample_captions: PackedSet,
    stage1: tuple[ModelConfig, dict[str, torch.Tensor]] | None,
    folder: RunFolder,
    ranks: Ranks,
    stop: StopRequest,
    initial: InitialWeights | None = None,
) -> Ending:
    """Train until the run is done or stopped; returns which. All arguments are validated already.

    `initial` is what a run with --init-from starts from, on rank 0.
    """
    training, run = config.training, config.run

    # Every rank knows every step of the plan; the position of the run is one integer.
    last_step = training.epochs * plan.steps_per_epoch
    with explained_peer_loss("while reading the set"):
        feed = Feed(config, data, plan, ranks, stop)

    # Networks, optimizers, moving average; and on where the run stopped.
    precision = resolve_precision(training.precision, ranks.device)
    prepare_cuda(tf32=precision.tf32, deterministic=training.deterministic)
    identity = RunIdentity(config, DataIdentity.of(data.index), stage1[0] if stage1 else None)
    with explained_peer_loss("while starting"):
        state = TrainingState(config, data.index.text_dim, stage1, ranks, precision)
        blank = to_device(feed.blank, ranks.device)
        state.rehearse(blank)
        step, messages = resume(identity, state, folder, ranks)
        if config.init_from is not None and step == 0:
            messages += start_from(initial, state, folder.root, ranks)
    if ranks.is_main:  # only now: a run that refuses to go on keeps its own
        folder.mark(None)
        folder.write_config(config, data.index)

    def work() -> Work:
        cost = step_cost(config, data.index.text_dim, stage1[0] if stage1 else None, feed.rows, ranks.device.type)
        return Work(cost.flop, peak_flops(ranks.device, precision.autocast_to or precision.weights))

    metrics = metrics_of(StepReport, state.terms)
    kept = Training(
        title=config.model.title,
        last_step=last_step,
        batch_size=training.batch_size,
        identity=identity,
        metrics=metrics,
        writes=WritePolicy.of(run, ranks.device),
        advice="Lower --training.learning-rate, or try --training.precision fp32",
        scales_loss=precision.scale_loss,
        pages=Pages(run.log, run.name, flatten(dataclasses.asdict(config))),
        work=work,
    )
    traced = run.profiled_steps if ranks.rank in run.profile_ranks else range(0)
    with Keeper(kept, state, step, folder, ranks, stop) as keeper:
        for message in [*messages, _describe(config, data, ranks, last_step, plan.steps_per_epoch)]:
            keeper.say(message)
        keeper.say(f"pictures in {join(folder.url, 'samples')}; curves: tensorboard --logdir {run.folder}")
        keeper.text("curves", describe_curves(metrics, _PICTURES))
        keeper.text("config", f"```json\n{to_json(config)}\n```")
        if ranks.is_main and (forms := state.up_sampling(blank)):
            keeper.say(f"up-sampling on {ranks.device.type}, by the rule of docs/speed.md: {', '.join(forms)}")
        keeper.say(str(feed))
        samples = keeper.attempt(
            "pictures (samples/)",
            lambda: FixedSamples(sample_captions.captions(), run.sample_captions, config.model, training.seed),
        )

        # Train.
        reports = Reports(ranks, len(feed.rows) / training.batch_size, metrics=metrics)
        trace = StepTrace(traced, folder.root, ranks.rank, print)
        for batch in keeper.watch(feed.batches(step, last_step)):
            if isinstance(batch, UserError):
                raise RankError(f"at step {step:,}: {batch}")
            trace.before(step)
            with explained_peer_loss(f"at step {step:,}"):
                with ranks.launching:
                    report = state.step(batch, step, plan.steps_per_epoch)
                reports.put(step, report, stop=stop.raised, may=keeper.may, own=keeper.own_numbers(step + 1))
                step += 1
                due = reports.read(everything=keeper.pauses_at(step))
            for agreed in due:
                keeper.take(agreed.step, agreed.means, stop=agreed.stop, may=agreed.may, of_ranks=agreed.of_ranks)
            keeper.tick(step, learning_rate(config, (step - 1) / plan.steps_per_epoch))
            keeper.save(step)
            if samples:
                keeper.picture(step, "samples", lambda: samples.grid(state.sample_generators))
            trace.after(step - 1)
            if keeper.stopped:
                break
        if step < last_step and not keeper.stopped:
            keeper.stop_before(step)
        if not keeper.stopped:
            keeper.attempt(f"the words of the captions ({WORDS_NAME})", lambda: _keep_words(data, folder))
        ending = keeper.close(step)
        trace.close()  # after the last checkpoint: a stop does not wait for it
        return ending


def _keep_words(data: PackedSet, folder: RunFolder) -> None:
    if not folder.root.exists(WORDS_NAME):
        folder.root.write(WORDS_NAME, "\n".join(words_of_captions(data)).encode())


def _describe(config: Config, data: PackedSet, ranks: Ranks, last_step: int, steps_per_epoch: int) -> str:
    epochs = f"{config.training.epochs:,} epoch{'s' if config.training.epochs > 1 else ''}"
    return (
        f"{config.model.image_size} px on {data.url} ({data.index.samples:,} pictures, {data.index.text_encoder}), "
        f"{ranks.world_size} rank(s) on {ranks.device.type}, batch {config.training.batch_size}, "
        f"{last_step:,} steps ({epochs} of {steps_per_epoch:,})"
    )
