"""The paper's tables on any data set: `python -m stackgan_dist.reproduce table1|table2|terms --data URL`.

Trains what is missing, makes a classifier of the test classes, scores, and prints the table with the paper's numbers
beside ours and what makes them comparable or not. Table 1 compares StackGAN with GAN-INT-CLS and, where the data says
where its objects are, GAWWN; Table 2 compares it with itself without some of its parts. The table of terms, which is
not the paper's, compares the picture recipe with each of its terms alone. Tables, and seeds, share what they can.
Started again, it goes on. slurm/reproduce.sh makes each cell a job.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from stackgan_dist.cli.doors import front_door, parse_options
from stackgan_dist.ranges import Range, Seed
from stackgan_dist.reproduce.paper import Table
from stackgan_dist.reproduce.reproduction import Reproduction
from stackgan_dist.reproduce.runner import as_script, check_alone
from stackgan_dist.reproduce.scale import ScaleName


@dataclass(frozen=True)
class Options:
    """Which table, of what, how large."""

    table: tyro.conf.Positional[Table]
    """The table to make: table1 has other methods, table2 has StackGAN without some of its parts, terms has StackGAN
    with and without the terms of the picture recipe, which are not the paper's."""
    data: str
    """The packed data set: the folder or URL above SPLIT/SIZE/index.json."""
    scale: ScaleName = "small"
    """paper has the widths, sizes, schedule and samples of the paper. small has narrow networks of at most 128 pixels
    that all see the same few thousand pictures, an hour or so of one CPU core. smoke takes a few steps, to see that it
    works."""
    seed: tuple[Seed, ...] = (0,)
    """The seeds of the trainings; the table has a column for each."""
    folder: str = "runs/reproduce"
    """The folder where everything is kept, under FOLDER/DATA-SCALE/, for both tables and all seeds."""
    classifier: str | None = None
    """The classifier to score with, as for stackgan_dist.scores. By default one is made of the test classes."""
    beside: tuple[str, ...] = ()
    """Folders with the scores of other systems' pictures, as `scores --pictures ... --out FOLDER` made them with the
    table's classifier: each has a row below ours."""
    nproc: Annotated[int, Range(at_least=1)] = 1
    """The number of ranks on this machine. It does not change the results."""
    cell: str | None = None
    """Do only this cell (or `classifier`), for all seeds given; --plan lists them. What it needs must be there."""
    plan: bool = False
    """Only print what would be done, as a shell script."""
    show: bool = False
    """Only print the table, with what there is."""


@front_door
def main() -> None:
    """Parse, see what is there, do what is missing, print the table."""
    options = parse_options(Options, "reproduce", __doc__)
    check_alone()
    reproduction = Reproduction(
        options.table,
        options.data,
        options.scale,
        options.seed,
        options.folder,
        options.classifier,
        options.beside,
    )
    if options.plan:
        print(as_script(reproduction.jobs(options.cell)))
        return
    if not options.show:
        reproduction.carry_out(options.cell, options.nproc)
    if options.cell is None:
        print(reproduction.publish())


if __name__ == "__main__":
    main()
