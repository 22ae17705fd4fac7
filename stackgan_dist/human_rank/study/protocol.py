"""How a study asks: what is shown at once, whether ties are allowed, what is asked about, when it has heard enough.

The default is the paper's: all methods at once, ranked without ties, by one question about fit and realism together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stackgan_dist.errors import UserError

Aspect = Literal["overall", "alignment", "realism"]

QUESTIONS: dict[Aspect, str] = {
    "overall": "Which pictures fit this sentence best and look most real?",
    "alignment": "Which pictures fit this sentence best, however real they look?",
    "realism": "Which pictures look most real, whatever the sentence says?",
}
"""What the page asks about each."""

UNIQUE_CODES = "unique"


@dataclass(frozen=True)
class Protocol:
    """See the fields of `human_rank build`, which fill it."""

    at_once: int = 0
    """Sets of pictures on one page; 0: those of all methods."""
    ties: bool = False
    """Whether sets may share a place."""
    aspects: tuple[Aspect, ...] = ("overall",)
    """What is asked about, each by a page of its own."""
    adaptive: bool = False
    """Whether what is asked next depends on the votes so far; two at once."""
    certainty: float = 0.95
    """Adaptive: the order is clear when it is right with this probability."""
    most_per_pair: int = 400
    """Adaptive: two methods that this many votes do not tell apart count as equal."""
    completion: str | None = None
    """What a rater is given at the end: "unique" for a code of their own, else this code; None: nothing."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "aspects", tuple(self.aspects))  # JSON has lists

    def check(self, methods: int) -> None:
        """Raise UserError where `methods` cannot be asked about like this."""
        if self.at_once and not 2 <= self.at_once <= methods:
            raise UserError(f"--at-once is {self.at_once}; give from 2 to {methods}, the number of methods")
        if not self.aspects or len(set(self.aspects)) < len(self.aspects):
            raise UserError("--aspects must name one or more things to ask about, each once")
        if self.adaptive and (self.at_once or methods) != 2:
            raise UserError("--adaptive asks about pairs; give --at-once 2 with it")


PAPER = Protocol()
