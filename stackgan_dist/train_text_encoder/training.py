"""The training of a joint embedding, to be read from top to bottom.

Every rank encodes its rows of the global batch. All rows are then exchanged, every rank computes the loss of the whole
batch, and from it the gradient of its own rows: their sum over ranks is the gradient of one process.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from stackgan_dist.data.plan import rows_of_rank
from stackgan_dist.distributed.process_group import Ranks, broadcast_bytes, explained_peer_loss
from stackgan_dist.distributed.stop import StopRequest
from stackgan_dist.engines.ddp import DDPEngine
from stackgan_dist.errors import UserError
from stackgan_dist.randomness import Stream, uniform
from stackgan_dist.ranges import Range, Seed
from stackgan_dist.runs.checkpoint import Checkpointer, committed_steps, find_newest, to_host, unpack
from stackgan_dist.runs.folder import Ending, RunFolder
from stackgan_dist.runs.monitor import Monitor, WaitClock
from stackgan_dist.text.char_cnn_rnn import CharCNNRNN
from stackgan_dist.train_text_encoder.batches import ClassBatches
from stackgan_dist.train_text_encoder.loss import JointLoss, structured_loss
from stackgan_dist.train_text_encoder.network import JointEmbedding

METRICS = ("joint_embedding", "pictures", "texts", "gradient")
_BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class Recipe:
    """The mathematics of a training."""

    seed: Seed = 0
    """The seed of everything random: weights, pictures, captions, views and dropout."""
    steps: Annotated[int, Range(at_least=1)] = 16_400
    """The length of the training; Reed's for Oxford-102 is 200 epochs of 82 steps."""
    batch_size: Annotated[int, Range(at_least=2)] = 40
    """The number of different classes in the GLOBAL batch, with a picture and a caption of each; all of them, where
    there are fewer. Texts are told apart, so there must be two."""
    learning_rate: Annotated[float, Range(above=0)] = 7e-4
    """The learning rate of Adam at the first step."""
    last_learning_rate: Annotated[float, Range(above=0)] = 0.02
    """The share of the learning rate that is left at the last step; it falls exponentially (Reed: by 2 % in each of 200
    epochs)."""
    dropout: Annotated[float, Range(at_least=0, below=1)] = 0.0
    """The share of the recurrent cell's outputs that are left out of a row."""
    width: Annotated[int, Range(at_least=4, at_most=65_536)] = 512
    """The channels of the char-CNN-RNN, a multiple of 4."""
    dim: Annotated[int, Range(at_least=1, at_most=65_536)] = 1024
    """The dimensions of its embeddings."""
    precision: Literal["fp32", "fp64"] = "fp32"
    """The number format of the training; fp64 is for equality tests."""

    def validate(self, world_size: int) -> None:
        """Refuse what cannot work on `world_size` ranks; raises UserError."""
        if world_size > self.batch_size:
            raise UserError(
                f"{world_size} ranks share a global batch of {self.batch_size} rows: some would get none; start fewer "
                "ranks or raise --recipe.batch-size"
            )
        if self.width % 4:
            raise UserError(f"--recipe.width is {self.width}, it must be a multiple of 4 (the first layer has 3/4)")


@dataclass(frozen=True)
class Reports:
    """How often a training writes."""

    tick_steps: int
    checkpoint_steps: int
    keep_last: int


class Learning:
    """What a training changes, and its step.

    Args:
        recipe: of the training.
        batches: which rows stand in a step.
        features: of the pictures, (P, views, width).
        texts: of their captions, (P, captions, LENGTH) characters, or (P, captions, dim) embeddings of a frozen
            encoder, for which the map of the pictures alone is learned.
        is_frozen: which of the two.
        ranks: who takes part.
    """

    def __init__(
        self, recipe: Recipe, batches: ClassBatches, features: Tensor, texts: Tensor, is_frozen: bool, ranks: Ranks
    ) -> None:
        self._recipe, self._batches, self._ranks = recipe, batches, ranks
        self._features, self._texts = features, texts
        self._rows = rows_of_rank(batches.batch_size, ranks.rank, ranks.world_size)
        torch.manual_seed(recipe.seed)
        text = None if is_frozen else CharCNNRNN(recipe.width, recipe.dim)
        network = JointEmbedding(features.flatten(0, 1), texts.shape[2] if is_frozen else recipe.dim, text)
        network.to(ranks.device, torch.float64 if recipe.precision == "fp64" else torch.float32)
        self.engine = DDPEngine(network, ranks, _BETAS, scale_loss=False)
        self.network = network

    def rehearse(self) -> None:
        """One step whose effects are undone, for DDP's sake: see TrainingState.rehearse of train/state.py."""
        before = to_host(self.engine.state_dict())
        self.step(0, False)
        self.engine.load_state_dict(before)

    def step(self, at: int, stop: bool) -> tuple[JointLoss, Tensor, bool]:
        """Learn from batch `at`: the batch's loss, the gradient's norm, and whether any rank says `stop`."""
        pairs, rows, device = self._batches[at], self._rows, self._ranks.device
        mine = slice(rows.start, rows.stop)
        pictures = torch.from_numpy(pairs.pictures[mine])
        features = self._features[pictures, torch.from_numpy(pairs.views[mine])].to(device)
        texts = self._texts[pictures, torch.from_numpy(pairs.captions[mine])].to(device)
        images, texts = self.engine(features, texts, *self._dropout(at))
        images, texts, stopped = self._exchange(images, texts, stop)
        result = structured_loss(images, texts)
        # Engines take the mean over ranks, and ranks add up their own rows' parts of one gradient here.
        norm = self.engine.update(result.loss * self._ranks.world_size, self.learning_rate(at))
        return result, norm, stopped

    def learning_rate(self, at: int) -> float:
        """Of step `at`."""
        recipe = self._recipe
        return recipe.learning_rate * recipe.last_learning_rate ** (at / recipe.steps)

    def _dropout(self, at: int) -> tuple[Tensor, ...]:
        """The factors of step `at` for this rank's rows, or nothing."""
        share = self._recipe.dropout
        if not share or self.network.text is None:
            return ()
        rows, units = np.array(self._rows)[:, None], np.arange(self._recipe.width)
        kept = uniform(self._recipe.seed, Stream.EMBEDDING_DROPOUT, at, rows, units) >= share
        return (torch.from_numpy(kept).to(self.network.mean) / (1 - share),)

    def _exchange(self, images: Tensor, texts: Tensor, stop: bool) -> tuple[Tensor, Tensor, bool]:
        """All rows of the batch, of which this rank's keep their gradient; and whether any rank says `stop`."""
        if not self._ranks.distributed:
            return images, texts, stop
        own = torch.cat([images, texts], dim=1)
        whole = own.new_zeros(self._batches.batch_size + 1, own.shape[1])
        whole[self._rows.start : self._rows.stop] = own.detach()
        whole[-1] = float(stop)
        dist.all_reduce(whole)  # every row has one rank's numbers and zeros: exact
        both = torch.cat([whole[: self._rows.start], own, whole[self._rows.stop : -1]])
        return *both.chunk(2, dim=1), bool(whole[-1, 0] > 0)  # type: ignore[return-value]


def learn(
    learning: Learning,
    recipe: Recipe,
    reports: Reports,
    identity: dict[str, Any],
    description: str,
    folder: RunFolder,
    ranks: Ranks,
    stop: StopRequest,
    *,
    go_on: bool,
) -> Ending:
    """Train until the end or a stop; returns which.

    Args:
        learning: freshly built.
        recipe: of the training.
        reports: how often to write.
        identity: JSON of all that must be the same when a training goes on.
        description: for the first line.
        folder: of the training.
        ranks: who takes part.
        stop: whether to stop.
        go_on: False: take the newest checkpoint as it is (UserError when there is none).
    """
    messages: list[str] = []
    with explained_peer_loss("while starting"):
        learning.rehearse()
        step = _resume(learning, identity, folder, ranks, messages)
    if not go_on and step == 0:
        raise UserError(f"{folder.url} has no checkpoint to evaluate; leave out --evaluate to train")
    last_step = recipe.steps if go_on else step
    monitor = None
    if ranks.is_main:
        monitor = Monitor(folder, step, last_step, learning._batches.batch_size, "text encoder", _summary)
        for message in [*messages, description]:
            monitor.say(message)
    checkpointer = Checkpointer(
        folder.checkpoints,
        keep_last=reports.keep_last,
        milestone_steps=0,
        report=monitor.say if monitor else lambda _: None,
        before_commit=monitor.wait if monitor else lambda: None,
    )
    if ranks.is_main:
        checkpointer.remove_unfinished()

    clock = WaitClock()
    sums, summed = torch.zeros(len(METRICS), dtype=torch.float64), 0
    stopped = False
    try:
        while step < last_step and not stopped:
            with explained_peer_loss(f"at step {step:,}"):
                result, norm, stopped = learning.step(step, stop.raised)
            values = torch.stack([*(part.detach().double() for part in result), norm.double()]).cpu()
            if not values.isfinite().all():
                checkpointer.wait()
                raise UserError(_not_finite(step, committed_steps(folder.checkpoints), folder))
            step += 1
            sums += values
            summed += 1
            if monitor and (step % reports.tick_steps == 0 or step == last_step or stopped):
                metrics = dict(zip(METRICS, (sums / summed).tolist(), strict=True))
                metrics["learning_rate"] = learning.learning_rate(step - 1)
                elapsed_s, waited = clock.lap()
                monitor.tick(step, metrics, elapsed_s, summed, waited)
                sums.zero_()
                summed = 0
            if ranks.is_main and (step % reports.checkpoint_steps == 0 or step == last_step or stopped):
                assert monitor is not None
                monitor.hand_over()
                content = {"step": step, "identity": json.dumps(identity), "world_size": ranks.world_size}
                checkpointer.save(step, {**content, "state": learning.engine.state_dict()})
        checkpointer.wait()
        if ranks.is_main and step not in committed_steps(folder.checkpoints):
            raise UserError(f"the last checkpoint (step {step}) could not be written; free space, then start again")
        ending: Ending = "DONE" if step >= last_step else "PREEMPTED"
        if monitor:
            if go_on:
                folder.mark(ending, f"step {step} of {last_step}")
            reason = f" on {stop.cause}" if stop.raised else ""
            monitor.say(f"{ending} at step {step:,} of {last_step:,}{reason}; checkpoint in {folder.checkpoints}")
        return ending
    finally:
        checkpointer.wait()
        if monitor:
            monitor.close()


def _resume(learning: Learning, identity: dict[str, Any], folder: RunFolder, ranks: Ranks, messages: list[str]) -> int:
    """Load the newest good checkpoint on every rank; returns the step to go on with, 0 for a fresh training."""
    found = find_newest(folder.checkpoints, messages.append) if ranks.is_main else None
    data = broadcast_bytes(found.data if found else None, ranks)
    if data is None:
        return 0
    content = unpack(data, f"the newest checkpoint of {folder.url}")
    theirs = json.loads(content["identity"])
    changed = [
        f"{name}: {identity.get(name)} here, {theirs.get(name)} there"
        for name in sorted({*identity, *theirs})
        if identity.get(name) != theirs.get(name)
    ]
    if changed:
        raise UserError(
            f"{folder.url} holds a training of another kind ({'; '.join(changed)}); choose another --run.name, or go "
            "back to those options"
        )
    learning.engine.load_state_dict(content["state"])
    messages.append(
        f"resumed at step {content['step']:,}, saved on {content['world_size']} rank(s), now {ranks.world_size}"
    )
    return int(content["step"])


def _summary(metrics: dict[str, float]) -> str:
    return (
        f"loss {metrics['joint_embedding']:.4f}, told right in the batch: {metrics['pictures']:.0%} of pictures, "
        f"{metrics['texts']:.0%} of texts"
    )


def _not_finite(step: int, checkpoints: list[int], folder: RunFolder) -> str:
    good = f"the last checkpoint is of step {checkpoints[-1]}" if checkpoints else "there is no checkpoint yet"
    return (
        f"the loss or gradient is not finite at step {step}; nothing of it was saved, {good} in {folder.checkpoints}. "
        "Lower --recipe.learning-rate"
    )


def identity_of(recipe: Recipe, **others: Any) -> dict[str, Any]:
    """Flat JSON values of all that defines a training."""
    return {**asdict(recipe), **others}
