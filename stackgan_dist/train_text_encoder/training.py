"""The training of a joint embedding, to be read from top to bottom.

Every rank encodes its rows of the global batch. All rows are then exchanged, every rank computes the loss of the whole
batch, and from it the gradient of its own rows: their sum over ranks is the gradient of one process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from stackgan_dist.data.plan import rows_of_rank
from stackgan_dist.distributed.process_group import Ranks, explained_peer_loss, wait_for_device
from stackgan_dist.distributed.stop import StopRequest
from stackgan_dist.engines.ddp import DDPEngine
from stackgan_dist.errors import UserError
from stackgan_dist.randomness import Stream, uniform
from stackgan_dist.ranges import Range, Seed
from stackgan_dist.runs.checkpoint import to_host
from stackgan_dist.runs.folder import Ending, RunFolder
from stackgan_dist.runs.keeper import Keeper, Training, WritePolicy, resume
from stackgan_dist.runs.metrics import metric, metrics_of
from stackgan_dist.text.char_cnn_rnn import CharCNNRNN
from stackgan_dist.train_text_encoder.batches import ClassBatches
from stackgan_dist.train_text_encoder.loss import structured_loss
from stackgan_dist.train_text_encoder.network import JointEmbedding


@dataclass
class LearningReport:
    """What a step measured on the whole batch: scalars on the device, the same on every rank."""

    joint_embedding: Tensor = metric("loss", "of the structured joint embedding, both ways", "loss {:.4f}, matched")
    pictures: Tensor = metric("accuracy", "pictures of a batch whose own text scores highest", "{:.0%} of pictures,")
    texts: Tensor = metric("accuracy", "texts of a batch whose own picture scores highest", "{:.0%} of texts")
    gradient: Tensor = metric("gradient_norm", "over the whole batch, before the update")


METRICS = metrics_of(LearningReport)
"""By name."""
_BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class EncoderTraining:
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
class EncoderIdentity:
    """See Identity of runs/keeper.py: flat JSON values of all that defines a training."""

    values: dict[str, Any]

    @classmethod
    def of(cls, recipe: EncoderTraining, **others: Any) -> EncoderIdentity:
        """That of a training by `recipe`, on what `others` name."""
        return cls({**asdict(recipe), **others})

    def content(self) -> dict[str, Any]:
        """See Identity."""
        return {"identity": json.dumps(self.values)}

    def differences(self, content: Mapping[str, Any], where: str) -> list[str]:
        """See Identity."""
        if "identity" not in content:
            return ["what is trained: a text encoder here, something else there"]
        theirs = json.loads(content["identity"])
        return [
            f"{name}: {self.values.get(name)} here, {theirs.get(name)} there"
            for name in sorted({*self.values, *theirs})
            if self.values.get(name) != theirs.get(name)
        ]


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
        self,
        recipe: EncoderTraining,
        batches: ClassBatches,
        features: Tensor,
        texts: Tensor,
        is_frozen: bool,
        ranks: Ranks,
    ) -> None:
        self.recipe, self._batches, self._ranks = recipe, batches, ranks
        self.batch_size = batches.batch_size
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

    def step(self, at: int, stop: bool) -> tuple[LearningReport, bool]:
        """Learn from batch `at`: what was measured, and whether any rank says `stop`."""
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
        report = LearningReport(result.loss.detach(), result.image_accuracy, result.text_accuracy, norm)
        return report, stopped

    def learning_rate(self, at: int) -> float:
        """Of step `at`."""
        recipe = self.recipe
        share: float = recipe.last_learning_rate ** (at / recipe.steps)
        return recipe.learning_rate * share

    def _dropout(self, at: int) -> tuple[Tensor, ...]:
        """The factors of step `at` for this rank's rows, or nothing."""
        share = self.recipe.dropout
        if not share or self.network.text is None:
            return ()
        rows, units = np.array(self._rows)[:, None], np.arange(self.recipe.width)
        kept = uniform(self.recipe.seed, Stream.EMBEDDING_DROPOUT, at, rows, units) >= share
        return (torch.from_numpy(kept).to(self.network.mean) / (1 - share),)

    def _exchange(self, images: Tensor, texts: Tensor, stop: bool) -> tuple[Tensor, Tensor, bool]:
        """All rows of the batch, of which this rank's keep their gradient; and whether any rank says `stop`."""
        if not self._ranks.distributed:
            return images, texts, stop
        own = torch.cat([images, texts], dim=1)
        whole = own.new_zeros(self.batch_size + 1, own.shape[1])
        whole[self._rows.start : self._rows.stop] = own.detach()
        whole[-1] = float(stop)
        dist.all_reduce(whole)  # every row has one rank's numbers and zeros: exact
        wait_for_device(self._ranks)  # with a deadline, before a number is read
        both = torch.cat([whole[: self._rows.start], own, whole[self._rows.stop : -1]])
        return *both.chunk(2, dim=1), bool(whole[-1, 0] > 0)  # type: ignore[return-value]


def learn(
    learning: Learning,
    writes: WritePolicy,
    identity: EncoderIdentity,
    description: str,
    folder: RunFolder,
    ranks: Ranks,
    stop: StopRequest,
) -> Ending:
    """Train until the end or a stop; returns which.

    Args:
        learning: freshly built.
        writes: how often to write.
        identity: all that must be the same when a training goes on.
        description: for the first line.
        folder: of the training.
        ranks: who takes part.
        stop: whether to stop.
    """
    with explained_peer_loss("while starting"):
        learning.rehearse()
        step, messages = resume(identity, learning.engine, folder, ranks)
    if ranks.is_main:  # only now: a training that refuses to go on keeps its own
        folder.mark(None)
    kept = Training(
        title="text encoder",
        last_step=learning.recipe.steps,
        batch_size=learning.batch_size,
        identity=identity,
        metrics=METRICS,
        writes=writes,
        advice="Lower --recipe.learning-rate",
    )
    with Keeper(kept, learning.engine, step, folder, ranks, stop) as keeper:
        for message in [*messages, description]:
            keeper.say(message)
        while step < kept.last_step and not keeper.stopped:
            with explained_peer_loss(f"at step {step:,}"):
                report, stopped = learning.step(step, stop.raised)
                measured = torch.stack([getattr(report, name).double() for name in METRICS])
                wait_for_device(ranks)
            values = measured.tolist()
            keeper.take(step, dict(zip(METRICS, values, strict=True)), stop=stopped)
            step += 1
            keeper.tick(step, learning.learning_rate(step - 1))
            keeper.save(step)
        return keeper.close(step)


def take_newest(learning: Learning, identity: EncoderIdentity, folder: RunFolder, ranks: Ranks) -> None:
    """Take what the newest checkpoint holds, to evaluate it; UserError when there is none."""
    step, messages = resume(identity, learning.engine, folder, ranks)
    if ranks.is_main:
        for message in messages:
            print(f"text encoder: {message}", flush=True)
    if step == 0:
        raise UserError(f"{folder.url} has no checkpoint to evaluate; leave out --evaluate to train")
