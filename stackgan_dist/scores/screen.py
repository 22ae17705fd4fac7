"""A set of scores for a terminal, from its rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from stackgan_dist.scores.rows import Row

_SHARES = ("precision", "recall", "density", "coverage")


def as_text(rows: Iterable[Row]) -> str:
    """A line for each score, with what it cannot say below it; the networks' names before theirs."""
    lines: list[str] = []
    network = None
    for row in rows:
        if row["weights_sha256"] != network:
            network = row["weights_sha256"]
            lines.append(f"by {row['classifier']}: {row['comparable_with']}")
        lines += [f"  {line}" for line in _lines(row)]
        lines += [f"    note: {note}" for note in row["notes"]]
    return "\n".join(lines)


def _lines(row: Row) -> list[str]:
    score = row["score"]
    if score == "inception":
        text = f"Inception Score    {row['mean']:.2f}{_spread(row['std'], '.2f')}{_within(row['interval'], '.2f')}"
        if "mean_of_real_pictures" in row:
            text += f"; real pictures {row['mean_of_real_pictures']:.2f}; noise {row['mean_of_noise']:.2f}"
        return [f"{text} ({row['samples']:,} samples, {row['splits']} split{'s'[: row['splits'] > 1]})"]
    if score == "frechet":
        known = "" if row["real_pictures"] is None else f"; {row['real_pictures']:,} real pictures"
        text = f"Frechet distance   {row['distance']:.4g}{_within(row['interval'], '.4g')}"
        infinite = row["of_infinitely_many"]
        of_many = "" if infinite is None else f"; of infinitely many {infinite:.4g}"
        return [f"{text}{of_many} ({row['samples']:,} pictures{known})"]
    if score == "kernel":
        text = f"kernel distance    {row['mean']:.4g}{_spread(row['std'], '.2g')}{_within(row['interval'], '.4g')}"
        return [f"{text} (blocks of {row['block']:,})"]
    if score == "cmmd":
        return [f"CMMD               {row['distance']:.4g}"]
    if score == "neighbours":
        return [
            f"{name:18} {row[name]:.3f}{_within(row[f'{name}_interval'], '.3f')}" for name in _SHARES if name in row
        ]
    if score == "memorisation":
        return [
            f"nearer to training {row['nearer_than_held_out']:.1%}{_within(row['interval'], '.1%')} than held-out real "
            f"pictures (50% is as near); mean distances {row['mean_distance']:.4g} and "
            f"{row['mean_distance_of_held_out']:.4g}"
        ]
    if score == "clip score":
        real = f"; real pictures {row['mean_of_real_pictures']:.2f}" if "mean_of_real_pictures" in row else ""
        return [f"CLIP score         {row['mean']:.2f}{_within(row['interval'], '.2f')}{real}"]
    if score == "class agreement":
        real = f"real pictures {row['share_of_real_pictures']:.1%}, " if "share_of_real_pictures" in row else ""
        of = f"{real}chance {row['chance']:.1%}; {row['pictures']:,} pictures"
        return [f"class agreement    {row['share']:.1%}{_within(row['interval'], '.1%')} ({of})"]
    if score == "clip r precision":
        chance = 1 / (1 + row["wrong_sentences"])
        real = f"real pictures {row['share_of_real_pictures']:.1%}, " if "share_of_real_pictures" in row else ""
        return [f"R-prec. by CLIP    {row['share']:.1%}{_within(row['interval'], '.1%')} ({real}chance {chance:.1%})"]
    if score == "r precision":
        chance = 1 / (1 + row.get("wrong_sentences", row["protocol"]["wrong_captions"]))  # old rows have no such field
        return [
            f"R-precision        {row['share']:.1%}{_within(row['interval'], '.1%')} "
            f"(real pictures {row['share_of_real_pictures']:.1%}, chance {chance:.1%})"
        ]
    if score == "diversity":
        of_real = row["distance_of_real_pictures"]
        real = "" if of_real is None else f" (real pictures of one class {of_real:.4g})"
        pixels = row["deviation_of_real_pictures"]
        return [
            f"diversity          {row['distance']:.4g}{_within(row['distance_interval'], '.4g')}{real}",
            f"  of pixels        {row['deviation']:.3f}{_within(row['deviation_interval'], '.3f')}"
            + ("" if pixels is None else f" (real pictures of one class {pixels:.3f})"),
        ]
    raise ValueError(f"no line for the score {score!r}")


def _spread(deviation: float, form: str) -> str:
    return "" if deviation != deviation else f" ± {deviation:{form}}"  # NaN: there is none


def _within(interval: Sequence[float] | None, form: str) -> str:
    return "" if interval is None else f" [{interval[0]:{form}}, {interval[1]:{form}}]"


def named(rows: Iterable[Row]) -> dict[str, float]:
    """The numbers to plot, by name, of the rows by one network."""
    keys: dict[str, tuple[str, ...]] = {
        "inception": ("mean",),
        "frechet": ("distance",),
        "kernel": ("mean",),
        "cmmd": ("distance",),
        "neighbours": _SHARES,
        "memorisation": ("nearer_than_held_out",),
        "clip score": ("mean",),
        "clip r precision": ("share",),
        "class agreement": ("share",),
        "r precision": ("share",),
        "diversity": ("deviation",),
    }
    found: dict[str, Any] = {}
    for row in rows:
        name = row["score"].replace(" ", "_")
        for key in keys[row["score"]]:
            if key in row:
                found[name if len(keys[row["score"]]) == 1 else key] = row[key]
    return found
