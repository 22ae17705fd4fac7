"""People judge: `python -m stackgan_dist.human_rank plan|build|serve|report`.

plan    how many raters and sentences a study needs
build   generates every method's pictures of the same captions of the test classes (the paper's protocol)
serve   shows them to raters, blind, and keeps their votes; or lets anyone try sentences on a run
report  mean rank, agreement, preferences, and the paper's row beside them
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from stackgan_dist.cli.doors import front_door, parse_options
from stackgan_dist.errors import UserError
from stackgan_dist.ranges import Range, Seed, Timeout

if TYPE_CHECKING:
    from stackgan_dist.human_rank.study.folder import Study, StudyFolder
    from stackgan_dist.human_rank.study.protocol import Protocol

# What needs torch is imported where it is used: a server that shows pictures starts, and starts again, in a second.

_Weights = Literal["ema", "raw"]


@dataclass(frozen=True)
class Build:
    """Generate the pictures of a study. Under torchrun, ranks divide them among themselves."""

    out: str
    """The folder for the study, empty or new; ranks on several nodes must share it. What a build that was stopped left
    there is replaced."""
    runs: tuple[str, ...] = ()
    """Two runs or more, as `generate --run` takes them: folders or checkpoints."""
    pictures: tuple[str, ...] = ()
    """In place of runs: two folders or more with the pictures of other systems (or of a run, by `generate`), all of
    them of the same sentences. Captions stand in a table of the folder (captions.csv: file,caption), in a text file
    beside each picture, or in the files' names: a_red_bird-0.png."""
    real: str | None = None
    """With --pictures: a folder of real pictures, for attention checks."""
    names: tuple[str, ...] | None = None
    """The names by which the report calls the methods. The default is that of each run or folder."""
    data: str | None = None
    """The packed data set with the captions. The default is the first run's own."""
    split: str = "test"
    """The split of the captions; the paper takes classes that were not trained on."""
    captions_per_class: Annotated[int, Range(at_least=1)] = 50
    """The number of sentences of every class; the paper has 50."""
    sentences: Annotated[int, Range(at_least=1)] | None = None
    """At most this many sentences in all, for a study that a few raters can share. The default is all of them."""
    images: Annotated[int, Range(at_least=1)] = 5
    """The number of pictures of each sentence by each method, ranked as one set; the paper has 5."""
    questions_per_rater: Annotated[int, Range(at_least=1)] = 50
    """The number of sentences that one rater is asked to rank, dealt out evenly."""
    attention_checks: Annotated[int, Range(at_least=0)] = 0
    """The number of further questions for every rater, real pictures against noise, to tell who does not look."""
    at_once: Annotated[int, Range(at_least=0)] = 0
    """The number of methods that one page shows: 2 asks for the better of two. 0 shows all, as in the paper."""
    ties: bool = False
    """Let raters call sets equally good."""
    aspects: tuple[Literal["overall", "alignment", "realism"], ...] = ("overall",)
    """What is asked about, each by a page of its own: alignment is fit to the sentence. overall is the paper's one
    question about both."""
    adaptive: bool = False
    """With --at-once 2: ask about the neighbours that are least clear, until the order of all methods is."""
    certainty: Annotated[float, Range(above=0.5, below=1)] = 0.95
    """Adaptive: the order is clear when it is right with this probability, however often one looks."""
    most_per_pair: Annotated[int, Range(at_least=2)] = 400
    """Adaptive: two methods that this many votes do not tell apart count as equal."""
    completion: str | None = None
    """A crowd platform's completion code, shown to raters who are done; `unique` gives each a code of their own, which
    the report lists."""
    weights: _Weights = "ema"
    """ema takes the generators' moving averages, raw their weights as they were at the last step."""
    seed: Seed = 0
    """The seed chooses sentences, noise and orders."""
    timeout_s: Timeout = 300.0
    """A rank that does not answer for this many seconds is taken for lost."""


@dataclass(frozen=True)
class Serve:
    """Show the pages to raters, or let anyone try sentences on a run."""

    study: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="[STUDY]")] = None
    """The folder of the study to rank. A run to try sentences on may stand here as well."""
    run: str | None = None
    """The run to try sentences on."""
    host: str = "127.0.0.1"
    """The address to bind; one that is not on loopback needs the token that is printed."""
    port: Annotated[int, Range(at_least=0, at_most=65_535)] = 8765
    """The port to bind; 0 takes a free one, which is printed."""
    public_url: str | None = None
    """The address at which a proxy shows the pages, such as https://example.org/birds. Requests must name its host or
    a loopback one, cookies are sent over TLS alone where it is https, and raters need the token that is printed."""
    trusted_proxy: tuple[str, ...] = ()
    """The addresses or networks of the proxy; X-Forwarded-For is believed from them alone. By default it is believed
    from nobody, and all raters behind a proxy share one rate."""
    joins_per_minute: Annotated[float, Range(at_least=1)] = 60
    """At most this many new raters a minute may come from one address."""
    weights: _Weights = "ema"
    """ema takes the moving average of the run's generator, raw its weights as they were at the last step."""
    device: str | None = None
    """The device on which the run generates. The default is cuda where there is one, else cpu."""


@dataclass(frozen=True)
class Report:
    """Report what the raters said; this can be called while they rank."""

    study: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="STUDY")]
    """The folder of the study."""
    attentive_only: bool = False
    """Leave out raters who failed an attention check."""
    csv: str | None = None
    """Also write every vote to this file, one per line."""
    json: str | None = None
    """Also write the study and every vote to this file, which is not the study's own study.json."""
    codes: bool = False
    """Also list the completion codes of raters who are done."""


@dataclass(frozen=True)
class Plan:
    """Simulate studies of several sizes, and say how often they tell neighbouring methods apart."""

    methods: Annotated[int, Range(at_least=2, at_most=20)] = 3
    """The number of methods."""
    preference: Annotated[float, Range(above=0.5, below=1)] = 0.6
    """The share of votes that the better of two neighbours gets; a pilot study's report shows it."""
    at_once: Annotated[int, Range(at_least=0)] = 0
    """As in `build`."""
    questions_per_rater: Annotated[int, Range(at_least=1)] = 50
    """As in `build`."""
    raters: tuple[Annotated[int, Range(at_least=2, at_most=10_000)], ...] = (5, 10, 20, 40, 80)
    """The numbers of raters to try."""
    sentences: tuple[Annotated[int, Range(at_least=1, at_most=100_000)], ...] = (25, 50, 100)
    """The numbers of sentences to try."""
    taste: Annotated[float, Range(at_least=0)] = 0.3
    """How far raters differ: the standard deviation of a method's log-odds over them."""
    luck: Annotated[float, Range(at_least=0)] = 0.5
    """How far sentences differ: the same over sentences."""
    power: Annotated[float, Range(above=0, below=1)] = 0.8
    """The share of neighbours that shall be told apart."""
    studies: Annotated[int, Range(at_least=10)] = 200
    """The number of studies to simulate of each size."""
    seed: Seed = 0
    """The seed of the simulated raters."""


@front_door
def main() -> None:
    """Parse, and open one of the four doors."""
    doors: Any = (
        Annotated[Build, tyro.conf.subcommand("build", prefix_name=False)]
        | Annotated[Serve, tyro.conf.subcommand("serve", prefix_name=False)]
        | Annotated[Report, tyro.conf.subcommand("report", prefix_name=False)]
        | Annotated[Plan, tyro.conf.subcommand("plan", prefix_name=False)]
    )
    options: Build | Serve | Report | Plan = parse_options(
        doors, "human_rank", "People rank the pictures of several methods, blind; or try sentences in a browser."
    )
    if isinstance(options, Build):
        build(options)
    elif isinstance(options, Serve):
        serve(options)
    elif isinstance(options, Plan):
        plan(options)
    else:
        report(options)


def build(options: Build) -> None:
    """Choose sentences, generate, write the study."""
    from stackgan_dist.data.dataset import open_packed
    from stackgan_dist.distributed.process_group import process_group
    from stackgan_dist.human_rank.study.build import Entrant, build_study, check_inputs, choose
    from stackgan_dist.human_rank.study.folder import Method, StudyFolder
    from stackgan_dist.human_rank.study.protocol import Protocol
    from stackgan_dist.runs.trained import load_trained
    from stackgan_dist.storage.files import local_path

    _check(options)
    folder = StudyFolder(_path(options.out, "--out"))
    given = [*options.runs, *options.pictures, *(each for each in (options.real, options.data) if each is not None)]
    check_inputs(folder, filter(None, map(local_path, given)))
    protocol = Protocol(
        options.at_once, options.ties, options.aspects, options.adaptive, options.certainty, options.most_per_pair,
        options.completion,
    )  # fmt: skip
    protocol.check(len(options.runs or options.pictures))
    if options.pictures:
        build_of_pictures(options, folder, protocol)
        return
    trained = [load_trained(run, lambda _: None, raw=options.weights == "raw") for run in options.runs]
    names = options.names or tuple(one.config.run.name for one in trained)
    _check_names(names)
    methods = [
        Method(name, one.checkpoint, one.step, options.weights, one.config.model.image_size)
        for name, one in zip(names, trained, strict=True)
    ]
    data = replace(trained[0].config.data, url=options.data or trained[0].config.data.url)
    packed = open_packed(data, max(method.image_size for method in methods), options.split)
    chosen = choose(
        packed.captions(),
        options.captions_per_class,
        options.sentences,
        options.attention_checks,
        options.images,
        options.seed,
    )
    with process_group(options.timeout_s) as ranks:
        study = build_study(
            folder,
            packed,
            [Entrant(method, one) for method, one in zip(methods, trained, strict=True)],
            chosen,
            images=options.images,
            questions_per_rater=options.questions_per_rater,
            seed=options.seed,
            ranks=ranks,
            protocol=protocol,
        )
        if ranks.is_main:
            _say_built(folder, study)


def build_of_pictures(options: Build, folder: StudyFolder, protocol: Protocol) -> None:
    """Read the folders, choose sentences, copy their pictures, write the study."""
    from stackgan_dist.human_rank.study.build import make_room
    from stackgan_dist.human_rank.study.foreign import ForeignMethod, build_foreign_study

    paths = [_path(each, "--pictures") for each in options.pictures]
    names = options.names or tuple(path.resolve().name for path in paths)
    _check_names(names)
    methods = [ForeignMethod.read(path, name) for path, name in zip(paths, names, strict=True)]
    make_room(folder)
    study = build_foreign_study(
        folder,
        methods,
        protocol,
        sentences=options.sentences,
        images=options.images,
        real=None if options.real is None else _path(options.real, "--real"),
        attention_checks=options.attention_checks,
        questions_per_rater=options.questions_per_rater,
        seed=options.seed,
    )
    _say_built(folder, study)


def _say_built(folder: StudyFolder, study: Study) -> None:
    print(
        f"study of {len(study.methods)} methods, {study.sentences:,} sentences with {study.images} pictures each, "
        f"in {folder.path}; open it:\n"
        f"  python -m stackgan_dist.human_rank serve {shlex.quote(str(folder.path))}"
    )


def plan(options: Plan) -> None:
    """Simulate, print a table, and the smallest study that suffices."""
    try:
        from stackgan_dist.human_rank.study.plan import Supposed, power
    except ImportError as error:
        raise UserError(f"planning needs the study extra ({error}): pip install 'stackgan_dist[study]'") from error
    from stackgan_dist.human_rank.study.protocol import Protocol

    Protocol(at_once=options.at_once).check(options.methods)
    at_once = options.at_once or options.methods
    sizes = [(raters, sentences) for raters in options.raters for sentences in options.sentences]
    supposed = Supposed(options.preference, options.taste, options.luck)
    print(
        f"{options.methods} methods, {at_once} at once; the better of two neighbours gets {options.preference:.0%} of "
        f"the votes; tastes vary by {options.taste:g}, sentences by {options.luck:g} (log-odds)\n"
        f"{'raters':>7} {'sentences':>9} {'votes':>7}   told apart: neighbours   all of them"
    )
    enough = None
    for found in power(
        supposed, options.methods, at_once, sizes, options.questions_per_rater, studies=options.studies,
        seed=options.seed,
    ):  # fmt: skip
        print(
            f"{found.raters:7,} {found.sentences:9,} {found.votes:7,}   {found.neighbours:22.0%}   {found.all:11.0%}",
            flush=True,
        )
        if found.neighbours >= options.power and (enough is None or found.votes < enough.votes):
            enough = found
    if enough is None:
        print(f"none of these reaches {options.power:.0%}; try more --raters or more --sentences")
    else:
        print(
            f"{enough.raters:,} raters and {enough.sentences:,} sentences ({enough.votes:,} votes) tell "
            f"{enough.neighbours:.0%} of neighbours apart"
        )


def serve(options: Serve) -> None:
    """Open the study, load the run, and answer until stopped."""
    try:
        from stackgan_dist.human_rank.web.serve import serve_pages
    except ImportError as error:
        raise UserError(f"the pages need the study extra ({error}): pip install 'stackgan_dist[study]'") from error
    if options.study is None and options.run is None:
        raise UserError("there is nothing to serve; give the folder of a study, or a run to try sentences on (--run)")
    study, run = options.study, options.run
    if study is not None and run is None and _is_run(study):
        study, run = None, study
    serve_pages(
        None if study is None else _path(study, "STUDY"),
        run,
        raw=options.weights == "raw",
        device=options.device,
        host=options.host,
        port=options.port,
        joins_per_minute=options.joins_per_minute,
        public_url=options.public_url,
        trusted_proxy=options.trusted_proxy,
    )


def report(options: Report) -> None:
    """Read the votes, print what they say, write them out."""
    try:
        from stackgan_dist.human_rank.study import report as reporting
    except ImportError as error:
        raise UserError(f"the report needs the study extra ({error}): pip install 'stackgan_dist[study]'") from error
    from stackgan_dist.human_rank.study.folder import StudyFolder, check_exports
    from stackgan_dist.human_rank.study.rating import codes_of
    from stackgan_dist.human_rank.study.votes import Votes
    from stackgan_dist.storage.files import write_bytes

    folder = StudyFolder(_path(options.study, "STUDY"))
    study = folder.read()
    check_exports(options.csv, options.json)
    store = Votes(folder.votes_file, study.digest) if folder.votes_file.exists() else None
    votes, asked = ([], {}) if store is None else (store.all(), store.asked())
    tasks = reporting.tasks_of(study, votes, asked)
    for file, text in ((options.csv, reporting.as_csv), (options.json, reporting.as_json)):
        if file is not None:
            try:
                write_bytes(file, text(study, votes, tasks).encode())
            except OSError as error:
                raise UserError(f"cannot write {file}: {error.strerror}; give another name") from error
    print(reporting.report(study, votes, tasks, attentive_only=options.attentive_only))
    if options.codes and store is not None:
        print("\ncompletion codes of raters who are done")
        for rater, code in codes_of(study, store):
            print(f"  rater {rater}: {code}")


def _path(where: str, flag: str) -> Path:
    """The path of `where`; UserError for a URL of a store."""
    from stackgan_dist.storage.files import on_this_disk

    return on_this_disk(where, flag, "studies, and the pictures that go into them, are files of a disk")


def _is_run(where: str) -> bool:
    """Whether a run lies there, and not a study."""
    from stackgan_dist.human_rank.study.folder import StudyFolder
    from stackgan_dist.runs.folder import find_run

    if StudyFolder(Path(where)).study_file.exists():
        return False
    try:
        find_run(where)
    except UserError:
        return False
    return True


def _check(options: Build) -> None:
    if options.runs and options.pictures:
        raise UserError(
            "--runs and --pictures cannot be mixed, since their sentences differ; generate the run's pictures of the "
            "same sentences into a folder with `generate`, and give that to --pictures"
        )
    kind = "folder" if options.pictures else "run"
    given = options.pictures or options.runs
    if len(given) < 2:
        flag = "--pictures" if options.pictures else "--runs"
        raise UserError(f"{flag} names {len(given)} {kind}(s); a ranking needs two or more")
    if options.names is not None and len(options.names) != len(given):
        raise UserError(f"--names has {len(options.names)} names for {len(given)} {kind}s; give one for each")


def _check_names(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        raise UserError(f"methods need different names, found {', '.join(names)}; give one for each with --names")


if __name__ == "__main__":
    main()
