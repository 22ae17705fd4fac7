"""Figures on one HTML page, beside the pictures it shows; it loads nothing else and runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from stackgan_dist.figures.figures import Figure

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 72rem; margin: 2rem auto;
  padding: 0 1rem }
figure { margin: 2.5rem 0 } img { max-width: 100%; height: auto; border: 1px solid #ddd }
figcaption { max-width: 48rem } dt { float: left; clear: left; width: 9rem; color: #666 } dd { margin-left: 9rem }
"""


def page(title: str, facts: Mapping[str, str], figures: Sequence[Figure], missing: Sequence[str]) -> str:
    """The page's HTML: which pictures these are, then each figure with its title and explanation.

    `missing` says, a sentence each, which figures there are not and why.
    """
    known = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    sheets = "".join(
        f"<figure><h2>{escape(f.title)}</h2><figcaption>{escape(f.explanation)}</figcaption>"
        f'<a href="{f.name}.png"><img src="{f.name}.png" alt="{escape(f.title)}" width="{f.picture.width}"></a>'
        "</figure>\n"
        for f in figures
    )
    absent = "".join(f"<p>{escape(reason)}</p>" for reason in missing)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body><h1>{escape(title)}</h1><dl>{known}</dl>\n{sheets}{absent}</body></html>\n"
    )
