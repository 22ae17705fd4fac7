"""The help that is shown first: what a command does, three examples, and what it cannot do without.

It is text, so that it comes at once: no command is imported for it, and no torch. Every option is under --help-all.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

_RUN = "RUN: a run's folder or URL, one with both stages, a checkpoint or an exported folder; also as --run RUN"


@dataclass(frozen=True)
class ShortHelp:
    """Of one command, or one of its subcommands."""

    usage: str
    """What follows its name."""
    what: str
    """What it does, in a sentence or three."""
    examples: tuple[str, str, str]
    """Calls, each whole."""
    needed: tuple[str, ...] = ()
    """What it cannot do without."""


HELP = {
    "pack": ShortHelp(
        "RECIPE [OPTIONS], pack verify URL or pack reshard URL",
        "Pack pictures and captions into shards, in a folder or on an object store. What is packed already stays as it "
        "is, and what was interrupted goes on. `verify` re-reads a packed set, `reshard` cuts it into other shards.",
        (
            "stackgan pack painted",
            "stackgan pack folder --root mine --name mine --sizes 76 304",
            "stackgan pack coco --root s3://bucket/coco --out s3://bucket/packed --part 3/32",
        ),
        (
            "RECIPE: painted, folder (your own pictures), webdataset (tars of others), parquet (pictures inside, as "
            "Hugging Face's), cub, oxford102, coco, a TOML file, or MODULE:CLASS, a source of your own",
            "--root DIR: the folder or URL of the pictures, for all but painted",
        ),
    ),
    "pack verify": ShortHelp(
        "URL [OPTIONS]",
        "Re-read packed data, name whatever in it is truncated, missing, twice there, altered or undecodable, and "
        "compare its splits.",
        (
            "stackgan pack verify data/mine",
            "stackgan pack verify s3://bucket/packed",
            "stackgan pack verify data/mine/train/76 --workers 2",
        ),
        ("URL: the packed data set, or the folder of an index.json in it",),
    ),
    "pack reshard": ShortHelp(
        "URL --out URL2 [OPTIONS]",
        "Put the samples of a packed data set into shards of another size; they stay in their order, byte for byte.",
        (
            "stackgan pack reshard data/painted --out data/painted-small --samples-per-shard 128",
            "stackgan pack reshard data/painted --out s3://bucket/painted --shard-mb 64",
            "stackgan pack reshard data/painted --out data/painted-32 --shards 32",
        ),
        ("URL: the packed data set", "--out URL2: where to write", "one of --samples-per-shard, --shard-mb, --shards"),
    ),
    "train": ShortHelp(
        "[--preset NAME] [OPTIONS]",
        "Train Stage-I or Stage-II, or one of the paper's baselines. The same command, started again, goes on where it "
        "stopped. Every field of the configuration is a flag, and --help-all lists the presets too.",
        (
            "stackgan --ranks 8 train --preset oxford102-stage1",
            "stackgan --ranks 2 train --preset own-best-stage1 --data.url data/mine --run.name mine",
            "stackgan --ranks 8 train --preset own-best-stage2 --data.url data/mine --stage1 runs/mine",
        ),
        ("nothing; but without --preset it is painted-stage1, and Stage-II needs --stage1 RUN",),
    ),
    "generate": ShortHelp(
        "RUN SENTENCE ... [OPTIONS]",
        "Generate pictures of new sentences: a PNG for each, and a grid of all with Stage-I beside Stage-II, in a "
        "folder of this call's own.",
        (
            'stackgan generate runs/demo "a small red bird with white wings"',
            'stackgan generate runs/demo "a red bird" "a blue bird" --count 8 --seed 1',
            'stackgan generate --run s3://bucket/runs/birds "a yellow bird" --out pictures',
        ),
        (_RUN, "SENTENCE: one or more, each in quotes"),
    ),
    "export": ShortHelp(
        "RUN [OPTIONS]",
        "Export a trained generator alone: as a folder for a hub, which other commands take like a run; as ONNX, held "
        "against torch by onnxruntime; or as safetensors.",
        (
            "stackgan export runs/demo",
            "stackgan export runs/demo --to onnx --out exported/birds-onnx",
            "stackgan export runs/mine --out exported/mine --license cc-by-4.0",
        ),
        (_RUN,),
    ),
    "scores": ShortHelp(
        "RUN [OPTIONS], or scores --pictures FOLDER --against REAL [OPTIONS]",
        "All scores of a run in one pass over numbered samples: Inception Score, FID, KID, R-precision and more. Any "
        "number of ranks gives the same.",
        (
            "stackgan scores runs/demo --samples 1000",
            "stackgan --ranks 8 scores runs/oxford102-stage2 --watch",
            "stackgan scores --pictures theirs --against data/painted --classifier inception_v3.pth",
        ),
        (
            _RUN,
            "or --pictures FOLDER, generated by another system, and --against REAL; scores --pictures --help-all has "
            "their options",
        ),
    ),
    "inception_score": ShortHelp(
        "RUN [OPTIONS]",
        "The Inception Score of a run alone; `scores` measures the others as well.",
        (
            "stackgan inception_score runs/demo",
            "stackgan --ranks 8 inception_score runs/cub-stage2 --classifier classifiers/birds.pt",
            "stackgan inception_score --run runs/demo --samples 1000 --splits 1",
        ),
        (_RUN,),
    ),
    "colour_agreement": ShortHelp(
        "RUN [OPTIONS]",
        "Whether painted birds have the colours of their captions, counted part by part (chance is one in ten), and "
        "how sharp the pictures are.",
        (
            "stackgan colour_agreement runs/demo",
            "stackgan --ranks 2 colour_agreement runs/demo --samples 1000",
            "stackgan colour_agreement --run runs/demo/stage1 --weights raw",
        ),
        (_RUN,),
    ),
    "train_classifier": ShortHelp(
        "[--data URL] [OPTIONS]",
        "Train a classifier for the scores, of a packed data set's own classes, from a network that knows ImageNet.",
        (
            "stackgan train_classifier --data data/oxford102 --out classifiers/oxford102.pt",
            "stackgan train_classifier --data data/cub --split train --out classifiers/cub.pt",
            "stackgan --ranks 8 train_classifier --data data/oxford102 --epochs 10 --out classifiers/tuned.pt",
        ),
        ("nothing; --data names the packed set and --out the file that is written",),
    ),
    "train_text_encoder": ShortHelp(
        "[--data URL] [OPTIONS]",
        "Train the paper's text encoder, a char-CNN-RNN, from the captions and pictures of a packed set. What it "
        "writes is an --encoder for pack.",
        (
            "stackgan train_text_encoder --data data/oxford102",
            "stackgan --ranks 8 train_text_encoder --data data/cub --run.name cub-texts",
            "stackgan train_text_encoder --data data/cub --encoder minilm",
        ),
        ("nothing; --data names the packed set",),
    ),
    "figures": ShortHelp(
        "RUN [OPTIONS]",
        "The paper's figures of a run: Stage-I beside Stage-II, many noises, from one sentence to another, one word "
        "changed, and the nearest training pictures. A PNG for each, and a page with all.",
        (
            "stackgan figures runs/demo",
            'stackgan figures runs/demo --words "a {red,blue} bird with white wings"',
            "stackgan figures --run runs/demo --count 8 --out figures",
        ),
        (_RUN,),
    ),
    "reproduce": ShortHelp(
        "table1|table2|terms --data URL [OPTIONS]",
        "The paper's tables on any data set: trains what is missing, scores, and prints them with the paper's numbers "
        "beside ours. Started again, it goes on.",
        (
            "stackgan reproduce table2 --data data/painted",
            "stackgan reproduce table1 --data data/cub --scale paper --nproc 8",
            "stackgan reproduce table2 --data data/painted --plan",
        ),
        (
            "table1 (baselines), table2 (ablation) or terms (those of the picture recipe)",
            "--data URL: the packed data set",
        ),
    ),
    "human_rank": ShortHelp(
        "plan|build|serve|report ...",
        "People judge: `plan` says how many raters and sentences a study needs, `build` generates its pictures, "
        "`serve` shows them to raters, blind, or lets anyone try sentences on a run, `report` tells how methods rank.",
        (
            "stackgan human_rank build --runs runs/ours runs/theirs --out studies/birds",
            "stackgan human_rank serve studies/birds --run runs/demo",
            "stackgan human_rank report studies/birds",
        ),
        ("plan, build, serve or report; each has a --help of its own",),
    ),
    "human_rank plan": ShortHelp(
        "[OPTIONS]",
        "Simulate studies of several sizes, and say how often each tells neighbouring methods apart.",
        (
            "stackgan human_rank plan --methods 3",
            "stackgan human_rank plan --methods 2 --preference 0.65 --raters 5 10 20",
            "stackgan human_rank plan --methods 4 --at-once 2 --questions-per-rater 30 --power 0.9",
        ),
        ("nothing; every option has a default",),
    ),
    "human_rank build": ShortHelp(
        "--runs RUN RUN ...|--pictures FOLDER FOLDER ... --out DIR [OPTIONS]",
        "Generate every method's pictures of the same captions, as the paper's protocol has it.",
        (
            "stackgan human_rank build --runs runs/ours runs/theirs --out studies/birds",
            "stackgan human_rank build --runs runs/a runs/b --names ours theirs --out studies/birds --sentences 40",
            "stackgan --ranks 8 human_rank build --runs runs/a runs/b --out studies/all --captions-per-class 50",
        ),
        (
            "--runs RUN RUN ...: two runs or more; or --pictures FOLDER FOLDER ..., those of other systems",
            "--out DIR: the folder for the study",
        ),
    ),
    "human_rank serve": ShortHelp(
        "STUDY|RUN [--run RUN] [OPTIONS]",
        "Show the pages in a browser: a study to rank, a run to try sentences on, or both.",
        (
            "stackgan human_rank serve runs/demo",
            "stackgan human_rank serve studies/birds",
            "stackgan human_rank serve studies/birds --run runs/demo --port 8080",
        ),
        ("STUDY, the folder of a study, or RUN, also as --run RUN",),
    ),
    "human_rank report": ShortHelp(
        "STUDY [OPTIONS]",
        "What the raters said: mean ranks, agreement, preferences, the paper's row beside them. It can be called "
        "while they rank.",
        (
            "stackgan human_rank report studies/birds",
            "stackgan human_rank report studies/birds --attentive-only",
            "stackgan human_rank report studies/birds --csv votes.csv --json votes.json",
        ),
        ("STUDY: the folder of the study",),
    ),
    "schedule": ShortHelp(
        "[--url URL] [OPTIONS]",
        "What a run will ask of its nodes in one epoch: shards, bytes, the cache that they need, and whether any "
        "rank waits.",
        (
            "stackgan schedule --nodes 128 --ranks-per-node 8",
            "stackgan schedule --url data/painted --nodes 2 --ranks-per-node 4",
            "stackgan schedule --shards 512 --samples 1000000 --nodes 16",
        ),
        ("nothing; without --url it is of a made-up data set",),
    ),
    "runs": ShortHelp(
        "folder|ending|forget ...",
        "What a script wants to know of a run: `folder` where a configuration writes, `ending` what its marker says "
        "(exit code 1 without one), `forget` removes that.",
        (
            "stackgan runs folder --preset oxford102-stage1",
            "stackgan runs ending runs/demo/stage1 DONE",
            "stackgan runs forget runs/demo/stage1 PREEMPTED",
        ),
        ("folder [FLAGS of train], ending RUN MARKER or forget RUN MARKER; also --run RUN",),
    ),
    "bench": ShortHelp(
        "step|loader|checkpoint|score|preset|scaling [OPTIONS]",
        "How fast it is here: the plain way beside the fast one, in turns, in one table.",
        (
            "stackgan bench step --repeats 3",
            "stackgan bench loader",
            "stackgan bench scaling --json scaling.json",
        ),
        ("step, loader, checkpoint, score, preset or scaling; each has a --help-all of its own",),
    ),
}
"""Command, or command and subcommand -> its short help."""


def short_help(command: str, arguments: Sequence[str]) -> str | None:
    """What to show for `stackgan COMMAND ARGUMENTS`; None where no help, or all of it, is asked for."""
    if not {"-h", "--help"} & set(arguments):
        return None
    name = next((each for each in (f"{command} {' '.join(arguments[:1])}", command) if each in HELP), None)
    return None if name is None else _shown(name, HELP[name])


def _shown(name: str, about: ShortHelp) -> str:
    lines = [f"usage: stackgan {name} {about.usage}", ""]
    lines += textwrap.wrap(about.what, 100)
    lines += ["", "examples:", *(f"  {example}" for example in about.examples), "", "required:"]
    for need in about.needed:
        lines += textwrap.wrap(need, 98, initial_indent="  ", subsequent_indent="      ")
    return "\n".join([*lines, "", f"every option, with its default and range: stackgan {name} --help-all"])
