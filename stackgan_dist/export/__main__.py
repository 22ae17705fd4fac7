"""A trained generator alone: `python -m stackgan_dist.export runs/demo --to folder`.

folder is a model by itself, ready for a hub: weights, configuration, text encoder, a model card with scores and
pictures; `generate`, the scores and human_rank take it wherever they take a run. onnx is a network for other programs,
with text, noise and any number of rows as inputs; safetensors the weights alone.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from stackgan_dist.api.text_to_image import check_sentences
from stackgan_dist.cli.doors import front_door, parse_options
from stackgan_dist.config import Config, RunConfig
from stackgan_dist.data.dataset import open_packed
from stackgan_dist.data.words import WORDS_NAME
from stackgan_dist.errors import UserError
from stackgan_dist.export.card import model_card
from stackgan_dist.generation.generate import first_captions, generate_pictures, places_of
from stackgan_dist.generation.grid import labelled_grid, to_pictures, to_png
from stackgan_dist.models import Generator
from stackgan_dist.ranges import Range, Seed
from stackgan_dist.runs.exported import CARD, CONFIG, SAMPLES, WEIGHTS, to_config, to_safetensors
from stackgan_dist.runs.score_rows import recorded_scores
from stackgan_dist.runs.trained import Trained, load_trained
from stackgan_dist.storage.folder import Folder
from stackgan_dist.storage.output_folder import check_output, claim_among, content_of, output_folder
from stackgan_dist.text.files import find_file, has_file, keep_file

_ONNX = "model.onnx"
_FILES = {"onnx": {_ONNX}, "safetensors": {WEIGHTS}, "folder": {CONFIG, WEIGHTS, CARD, SAMPLES, WORDS_NAME}}
"""What a call writes, by --to; with folder, the text encoder's file too, which is called by its content."""
_CALL = "export --to"
_MARK = b"stackgan_dist"
"""What the metadata of weights and networks are filed under."""
_COMPARED = 5
"""Pictures that onnxruntime and torch are compared by; another number than it was exported with."""
_CELL = 128


@dataclass(frozen=True)
class Options:
    """What to export."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The run: its folder, a folder with the runs of both stages (the last stage is taken), or a checkpoint. It may be
    given as --run RUN as well."""
    to: Literal["folder", "onnx", "safetensors"] = "folder"
    """folder is a model by itself, for hubs and for the other commands; onnx one network file for other programs;
    safetensors the weights alone."""
    out: str | None = None
    """The folder or URL for it, empty or new. The default is a new one in the run, such as exported/0001-step-1500."""
    overwrite: bool = False
    """Replace what an earlier call with the same --to wrote to --out; other files there stay."""
    weights: Literal["ema", "raw"] = "ema"
    """ema takes the generator's moving average, raw its weights as they were at the last step."""
    sentences: tuple[str, ...] = ()
    """With --to folder: sentences for the card's pictures. By default captions of the run's data set are taken, and
    always for a model that is conditioned on where the object is (GAWWN)."""
    texts: Annotated[int, Range(at_least=1)] = 4
    """With --to folder: the number of captions that are taken."""
    count: Annotated[int, Range(at_least=1)] = 4
    """With --to folder: the number of pictures of each sentence on the card."""
    seed: Seed = 0
    """With --to folder: the seed of captions and noise on the card."""
    license: str = "unknown"
    """With --to folder: the license of the weights, for the card, as hubs call it, such as mit or cc-by-4.0."""


@front_door
def main() -> None:
    """Load, make, compare, write."""
    options = parse_options(Options, "export", __doc__, run_first=True)
    out = None if options.out is None else Folder.at(options.out)
    check_output(out, overwrite=options.overwrite)
    replaced = _of_earlier_call(out, options.to) if out is not None and options.overwrite else frozenset()
    trained = load_trained(options.run, print, raw=options.weights == "raw")
    if options.sentences:
        check_sentences(options.sentences)
        if trained.config.model.placement is not None:
            raise UserError(
                f"--sentences says nothing of where the object is, by which {trained.config.model.title} is "
                "conditioned; leave it out: captions of the data set are taken with the places of their pictures"
            )
    generator = trained.generator(torch.device("cpu"))
    about = _about(trained)
    files: dict[str, bytes] = {}
    if options.to == "onnx":
        files[_ONNX] = _onnx(trained, generator, about)
    else:
        files[WEIGHTS] = to_safetensors(trained.weights, about)
    if options.to == "folder":
        files |= _card(options, trained, generator)
        if words := trained.words():
            files[WORDS_NAME] = "\n".join(sorted(words)).encode()
        files[CONFIG] = to_config(about, files[WEIGHTS])  # last, as what makes it whole
    encoder = trained.data.text_encoder
    with output_folder(
        out,
        trained.folder.root / "exported",
        f"step {trained.step} {'' if options.to == 'folder' else options.to}",
        replaced.__contains__,
        overwrite=options.overwrite,
        call=f"{_CALL} {options.to}",
    ) as folder:
        if options.to == "folder" and has_file(encoder):
            keep_file(encoder, find_file(encoder, (trained.folder.root, trained.config.data.url)), folder)
        for name, content in files.items():
            folder.write(name, content)
    size = sum(map(len, files.values()))
    print(f"{trained.checkpoint} ({trained.kind}) exported, {size / 1e6:,.1f} MB: {folder}")


def _of_earlier_call(out: Folder, to: str) -> frozenset[str]:
    """The files in `out` that a call with the same --to wrote.

    Raises UserError where one would be replaced that none wrote: the names are common ones.
    """
    names = frozenset(out.names())
    there = sorted(names & _FILES[to])
    if not there:
        return frozenset()
    is_folder = CONFIG in names and _is_config(content_of(out, CONFIG))
    if to == "safetensors" and is_folder:
        raise UserError(
            f"{out} is an exported model, whose {CONFIG} names its {WEIGHTS} by their sha256; give another --out for "
            "the weights alone"
        )
    if to == "folder":
        claim = claim_among(names)
        is_part = claim is not None and content_of(out, claim) == f"{_CALL} folder".encode()
        is_begun = CONFIG not in names and (there == [WEIGHTS] or claim is not None)  # as older versions left it
        is_ours = is_folder or is_part or (is_begun and _is_ours(out, WEIGHTS))
    else:
        is_ours = _is_ours(out, there[0])
    if not is_ours:
        raise UserError(
            f"{out} holds {', '.join(there)}, which would be replaced, and nothing there says that an earlier call "
            f"with --to {to} wrote it; give another folder with --out, or move it away"
        )
    encoders = {name for name in names if has_file(name.rpartition(".")[0])} if to == "folder" else set()
    return frozenset(there) | encoders


def _is_config(content: bytes) -> bool:
    """Whether a config.json is that of an exported model, of any version."""
    try:
        fields = json.loads(content)
    except ValueError:
        return False
    return isinstance(fields, dict) and fields.get("format") == _MARK.decode()


def _is_ours(out: Folder, name: str) -> bool:
    """Whether an ONNX or a safetensors file has metadata of this package."""
    return _MARK in content_of(out, name)


def _about(trained: Trained) -> dict[str, Any]:
    """What the weights are of: all that is needed to build the network, and where they come from."""
    return {
        "step": trained.step,
        "weights": trained.kind,
        "config": dataclasses.asdict(_portable(trained.config)),
        "stage1_model": dataclasses.asdict(trained.stage1_model) if trained.stage1_model else None,
        "data": dataclasses.asdict(trained.data),
    }


def _portable(config: Config) -> Config:
    """`config` without the folders of the machine that it was trained on, which are nobody else's business."""
    data, plain = config.data, Config()
    name = data.url.rstrip("/").rpartition("/")[2]
    url = f"data/{name}" if data.url.startswith(("/", "~", "file:")) else data.url
    return dataclasses.replace(
        config,
        data=dataclasses.replace(data, url=url, cache=None),
        run=RunConfig(name=config.run.name),
        stage1=None,
        deepspeed_config=plain.deepspeed_config,
    )


def _onnx(trained: Trained, generator: Generator, about: dict[str, Any]) -> bytes:
    from stackgan_dist.export.onnx import compare, to_onnx  # which takes a second to load

    model, text_dim = trained.config.model, trained.data.text_dim
    content = to_onnx(generator, model, text_dim, about)
    found = compare(content, generator, model, text_dim, _COMPARED)
    if not found.is_rounding:
        raise UserError(
            f"onnxruntime and torch make other pictures of it: in [-1, 1] they {found.describe()}; nothing was "
            "written. Try the versions in launch/constraints.txt, or --to folder"
        )
    print(
        f"onnxruntime and torch {found.describe()} in {_COMPARED} pictures, whose values are in [-1, 1]; torch in "
        f"float32 and in float64 by {found.of_rounding:.2g}"
    )
    return content


def _card(options: Options, trained: Trained, generator: Generator) -> dict[str, bytes]:
    """The model card and its picture."""
    model = trained.config.model
    sentences, texts, places = _texts(options, trained)
    rows = []
    for number, text in enumerate(texts):
        place = None if places is None else places[number : number + 1].repeat(options.count, axis=0)
        repeated = text[None].repeat(options.count, axis=0)
        rows.append(
            to_pictures(generate_pictures(generator, model, repeated, range(options.count), options.seed, place).image)
        )
    headings = [f"noise {number}" for number in range(options.count)]
    grid = labelled_grid(rows, sentences, headings, max(_CELL, model.image_size))
    scores = recorded_scores(trained.folder.root, {"step": trained.step, "weights": trained.kind})
    return {SAMPLES: to_png(grid), CARD: model_card(trained, scores, sentences, options.license).encode()}


def _texts(options: Options, trained: Trained) -> tuple[list[str], NDArray[np.float32], NDArray[np.float32] | None]:
    """Sentences for the card, their embeddings (n, dim), and where the objects of their pictures are."""
    model = trained.config.model
    if options.sentences:
        return list(options.sentences), trained.encoder().encode(options.sentences), None
    data = trained.config.data
    try:
        try:
            packed = open_packed(data, model.image_size, "test")
        except UserError:
            packed = open_packed(data, model.image_size)
    except UserError as error:
        instead = "\nOr give sentences with --sentences" if model.placement is None else ""
        raise UserError(
            f"the card's pictures need captions, and the run's data set is not there: {error}{instead}"
        ) from error
    captions = first_captions(packed.captions(), options.texts, options.seed)
    return (
        [caption.sentence for caption in captions],
        np.stack([c.embedding for c in captions]),
        places_of(captions, model),
    )


if __name__ == "__main__":
    main()
