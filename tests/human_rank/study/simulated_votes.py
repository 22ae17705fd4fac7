"""Rate a study by simulated raters: `python tests/human_rank/study/simulated_votes.py STUDY 0.5 -0.5`.

One strength (log-odds) for each method, in their order. Every rater has a taste of their own besides, and calls two
sets equal where the study allows it and they differ little. Votes go the way that the pages' go (rating.py).
"""

from __future__ import annotations

import argparse
from itertools import count
from pathlib import Path

import numpy as np

from stackgan_dist.human_rank.study.folder import StudyFolder
from stackgan_dist.human_rank.study.order import task_of
from stackgan_dist.human_rank.study.rating import Rating

_TASTE, _EQUAL = 0.3, 0.3


def main() -> None:
    """Rate until all raters are done, or an adaptive study needs no more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("strengths", type=float, nargs="+")
    parser.add_argument("--raters", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rating, random = Rating(StudyFolder(options.study)), np.random.default_rng(options.seed)
    study, votes = rating.study, 0
    for rater in range(options.raters):
        taste = random.normal(0, _TASTE, len(study.methods))
        with rating.votes.transaction():
            link = rating.join()
            for position in count():
                if rating.turn(link).sentence is None:
                    break
                task = rating.votes.asked().get((rater, position)) or task_of(study, rater, position)
                check = study.questions[task.question].check
                value = np.array([9.0 * (m == 0) if check else options.strengths[m] + taste[m] for m in task.shown])
                value += random.gumbel(size=len(value))
                places: list[list[int]] = []
                for slot in np.argsort(-value).tolist():
                    if study.protocol.ties and places and not check and value[places[-1][0]] - value[slot] < _EQUAL:
                        places[-1].append(slot)
                    else:
                        places.append([slot])
                rating.vote(link, position, [place if len(place) > 1 else place[0] for place in places])
                votes += not check
    print(f"{votes:,} votes by {options.raters} simulated raters")


if __name__ == "__main__":
    main()
