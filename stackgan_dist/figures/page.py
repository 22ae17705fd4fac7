"""Figures on one HTML page, beside the pictures it shows; it loads nothing else and runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from stackgan_dist.figures.figures import Figure

_STYLE = """
:root { color-scheme: light dark; --ink: #222; --soft: #666; --line: #ddd; --paper: #fff }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --soft: #a2a2a2; --line: #444; --paper: #161616 } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 72rem;
  margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere }
h1 { font-size: clamp(1.4rem, 5vw, 2rem); line-height: 1.2 } h2 { margin: 0 0 .3rem }
figure { margin: 2.5rem 0 } figcaption { max-width: 48rem; margin-bottom: .7rem }
.sheet { overflow-x: auto; border: 1px solid var(--line); background: #fff }
img { display: block; max-width: 100%; height: auto }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1.2rem }
dt { color: var(--soft) } dd { margin: 0 }
@media (max-width: 48rem) {
  body { margin: 1rem auto } dl { grid-template-columns: 1fr } dd { margin-bottom: .5rem }
  .sheet img { max-width: none; width: max(100%, 46rem) }
  .sheet::before { content: "swipe to see all of it"; position: sticky; left: 0; display: inline-block;
    padding: .2rem .5rem; color: #666; font-size: .85rem }
}
"""


def page(title: str, facts: Mapping[str, str], figures: Sequence[Figure], missing: Sequence[str]) -> str:
    """The page's HTML: which pictures these are, then each figure with its title and explanation.

    `missing` says, a sentence each, which figures there are not and why.
    """
    known = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    sheets = "".join(
        f"<figure><h2>{escape(f.title)}</h2><figcaption>{escape(f.explanation)}</figcaption>"
        f'<div class="sheet" tabindex="0"><a href="{f.name}.png">'
        f'<img src="{f.name}.png" alt="{escape(f.title)}" width="{f.picture.width}"></a></div></figure>\n'
        for f in figures
    )
    absent = "".join(f"<p>{escape(reason)}</p>" for reason in missing)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>\n'
        f"<body><h1>{escape(title)}</h1><dl>{known}</dl>\n{sheets}{absent}</body></html>\n"
    )
