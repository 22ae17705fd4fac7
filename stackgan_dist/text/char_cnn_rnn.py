"""The char-CNN-RNN of Reed et al. (arXiv 1605.05395), the paper's own text encoder: characters in, an embedding out.

The variant that made the embeddings which were published with StackGAN: three temporal convolutions over 201 one-hot
characters, a recurrent cell over the 18 places that remain, the mean of its states, a linear layer. A trained one is a
file (stackgan_dist.train_text_encoder writes it), which is read as data alone.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from stackgan_dist.errors import UserError, first_line
from stackgan_dist.text import SentenceError

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{} "
"""70 characters. The hyphen stands there twice, in the authors' code too, and is known by its later place."""
LENGTH = 201
"""Characters of a sentence that are read; the rest is cut off."""

_NUMBER = {character: number for number, character in enumerate(ALPHABET, 1)}
_LOOKALIKES = str.maketrans("‘’‚‛“”„‟′″‐‑‒–—―−", "''''\"\"\"\"'\"-------")
_INITIAL = 0.08
_PUBLISHED_WIDTH = 512
_BATCH_SENTENCES = 32
_KIND, _VERSION = "char-cnn-rnn", 1


def spell(sentences: Sequence[str]) -> NDArray[np.uint8]:
    """Numbers (n, LENGTH) of the characters: 1 to 70 by place in the alphabet, 0 for an unknown one and past the end.

    Letters lose their case and accents, typographic quotes and dashes become plain, white space becomes single blanks.
    Raises SentenceError for a sentence in which no letter, digit or sign is known.
    """
    rows = np.zeros((len(sentences), LENGTH), dtype=np.uint8)
    for row, sentence in enumerate(sentences):
        known = [_NUMBER.get(character, 0) for character in _plain(sentence)[:LENGTH]]
        if not {*known} - {0, _NUMBER[" "]}:
            raise SentenceError(
                f"the sentence {sentence[:40]!r} has none of the characters that the encoder knows (a to z, 0 to 9 and "
                "signs); describe a picture in them"
            )
        rows[row, : len(known)] = known
    return rows


def _plain(sentence: str) -> str:
    decomposed = unicodedata.normalize("NFKD", sentence.translate(_LOOKALIKES).lower())
    return " ".join("".join(c for c in decomposed if not unicodedata.combining(c)).split())


class CharCNNRNN(nn.Module):
    """4,045,184 parameters at the published width.

    Args:
        width: channels of the later convolutions and of the recurrent cell; the first convolution has 3/4 of it.
        dim: of the embedding.
    """

    def __init__(self, width: int = _PUBLISHED_WIDTH, dim: int = 1024) -> None:
        super().__init__()
        self.width, self.dim = width, dim
        self.convolutions = nn.Sequential(
            nn.Conv1d(len(ALPHABET), width * 3 // 4, 4), nn.ReLU(), nn.MaxPool1d(3),
            nn.Conv1d(width * 3 // 4, width, 4), nn.ReLU(), nn.MaxPool1d(3),
            nn.Conv1d(width, width, 4), nn.ReLU(),
        )  # fmt: skip
        self.from_input = nn.Linear(width, 3 * width)
        self.gates_from_state = nn.Linear(width, 2 * width)
        self.candidate_from_state = nn.Linear(width, width)
        self.projection = nn.Linear(width, dim)
        # The authors' range, at their width; a narrow network with it starts with biases alone and hardly learns.
        initial = _INITIAL * (_PUBLISHED_WIDTH / width) ** 0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -initial, initial)

    def forward(self, characters: Tensor, dropout: Tensor | None = None) -> Tensor:
        """Embeddings (N, dim) of any scale.

        characters (N, LENGTH): what `spell` gives. dropout (N, width): factors for the states' mean, in training.
        """
        one_hot = F.one_hot(characters.long(), len(ALPHABET) + 1)[..., 1:].to(self.projection.weight.dtype)
        places = self.convolutions(one_hot.transpose(1, 2)).transpose(1, 2)  # (N, 18, width)
        mean = self._recur(places)
        embeddings: Tensor = self.projection(mean if dropout is None else mean * dropout)
        return embeddings

    def _recur(self, places: Tensor) -> Tensor:
        """The mean (N, width) of the cell's states.

        Unlike torch's GRU it resets the state before the matrix product, and its first state is the first candidate.
        """
        updates, resets, candidates = self.from_input(places).chunk(3, dim=2)
        state = total = torch.tanh(candidates[:, 0])
        for place in range(1, places.shape[1]):
            update, reset = self.gates_from_state(state).chunk(2, dim=1)
            reset = torch.sigmoid(resets[:, place] + reset)
            candidate = torch.tanh(candidates[:, place] + self.candidate_from_state(reset * state))
            state = torch.lerp(state, candidate, torch.sigmoid(updates[:, place] + update))
            total = total + state
        return total / places.shape[1]


class CharCNNRNNEncoder:
    """A trained char-CNN-RNN as a TextEncoder.

    Args:
        network: on any device.
        name: with the digest of its file (stackgan_dist.text.files).
    """

    def __init__(self, network: CharCNNRNN, name: str) -> None:
        self.name, self.dim = name, network.dim
        self._network = network.eval()

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings (len(sentences), dim), float32, of mean square 1 per entry.

        Raises SentenceError for a sentence without a character that it knows.
        """
        if not sentences:
            return np.empty((0, self.dim), dtype=np.float32)
        rows, inverse = np.unique(spell(sentences), axis=0, return_inverse=True)
        device = self._network.projection.weight.device
        with torch.inference_mode():
            parts = [self._network(part.to(device)).cpu() for part in torch.from_numpy(rows).split(_BATCH_SENTENCES)]
        unit = F.normalize(torch.cat(parts).float(), dim=1)
        embeddings: NDArray[np.float32] = (unit * self.dim**0.5).numpy()
        return embeddings[inverse.reshape(-1)]


def to_file(network: CharCNNRNN) -> bytes:
    """The content of the encoder's file, float32: equal weights give equal bytes."""
    weights = {name: value.detach().float().cpu() for name, value in network.state_dict().items()}
    content = {
        "kind": _KIND, "version": _VERSION, "alphabet": ALPHABET, "width": network.width, "dim": network.dim,
        "weights": weights,
    }  # fmt: skip
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def from_file(data: bytes, where: str) -> CharCNNRNN:
    """The network of a file, frozen. Nothing in it is executed; UserError naming `where` when it is no such file."""
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # the reader fails in as many ways as bytes can be wrong
        raise UserError(f"{where} is not the file of a trained text encoder: {first_line(error)}") from error
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise UserError(
            f"{where} does not hold a {_KIND} but something else; needed is a file that "
            "stackgan_dist.train_text_encoder wrote"
        )
    if (content.get("version"), content.get("alphabet")) != (_VERSION, ALPHABET):
        raise UserError(
            f"{where} was written by another version (its format is {content.get('version')}, this one's {_VERSION}); "
            "train it again or use the version that wrote it"
        )
    try:
        network = CharCNNRNN(content["width"], content["dim"])
        network.load_state_dict(content["weights"])
    except (KeyError, TypeError, RuntimeError, AttributeError) as error:
        raise UserError(f"{where} is damaged: {first_line(error)}") from error
    return network.eval().requires_grad_(False)
