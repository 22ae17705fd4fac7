"""The model card of an exported folder: a README.md as hubs show it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from stackgan_dist import __version__
from stackgan_dist.runs.exported import SAMPLES
from stackgan_dist.runs.trained import Trained


def model_card(
    trained: Trained, scores: Mapping[str, Mapping[str, Any]], sentences: Sequence[str], license: str
) -> str:
    """The text of README.md.

    Args:
        trained: the generator.
        scores: the rows of scores.jsonl that are about it, by the score's name.
        sentences: those that samples.png shows pictures of.
        license: of the weights, as hubs call it, such as mit.
    """
    model, training, data = trained.config.model, trained.config.training, trained.data
    name = f"{model.title.replace('stage', 'StackGAN Stage')} on {data.name}, {model.image_size} px"
    lines = [
        "---",
        f"license: {json.dumps(license)}",
        "library_name: stackgan_dist",
        "pipeline_tag: text-to-image",
        f"tags: [text-to-image, gan, {'stackgan' if model.family == 'stackgan' else json.dumps(model.family)}]",
        "---",
        "",
        f"# {name}",
        "",
        f"Generates pictures of {model.image_size}x{model.image_size} pixels from sentences. {_how(trained)}",
        "",
        f"![Pictures of {len(sentences)} sentences]({SAMPLES})",
        "",
        "    import stackgan_dist",
        "",
        '    generator = stackgan_dist.load("THIS/FOLDER")',
        f"    pictures = generator.generate({json.dumps(sentences[0], ensure_ascii=False)}, count=4)",
        "",
        "| | |",
        "|---|---|",
        f"| data | {data.name}; sha256 of its index {data.digest[:16]} |",
        f"| trained | {trained.step:,} steps of {training.batch_size} pictures, seed {training.seed} |",
        f"| weights | {'moving average' if trained.kind == 'ema' else 'those of the last step'} of the generator, "
        f"{sum(value.numel() for value in trained.weights.values()):,} numbers |",
        f"| text encoder | {data.text_encoder}, {data.text_dim} dimensions |",
        f"| made with | stackgan_dist {__version__} |",
        "",
        "## Scores",
        "",
    ]
    if not scores:
        return "\n".join([*lines, "None were measured before it was exported.", ""])
    lines += ["| score | figures | samples | judged by | captions of |", "|---|---|---|---|---|"]
    lines += [_row(name, score) for name, score in scores.items()]
    note = "Scores of a stand-in classifier must not stand beside published ones, which Inception-v3 judged."
    return "\n".join([*lines, *(["", note] if any(row.get("stand_in") for row in scores.values()) else []), ""])


def _how(trained: Trained) -> str:
    if trained.config.model.stage == 2:
        return (
            "Its input is a sentence's embedding; it makes a Stage-I picture of 64x64 pixels first (arXiv 1612.03242)."
        )
    return "Its input is a sentence's embedding and noise."


def _row(name: str, score: Mapping[str, Any]) -> str:
    figures = ", ".join(
        f"{field.replace('_', ' ')} {value:.4g}" for field, value in score.items() if isinstance(value, float)
    )
    cells = (
        name,
        figures,
        score.get("samples", ""),
        score.get("classifier", ""),
        f"{score.get('captions_digest', '')[:12]}",
    )
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"
