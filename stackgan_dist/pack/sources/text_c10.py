"""The ten captions per picture that Reed et al. (CVPR 2016) gathered for CUB and Oxford-102, a file per picture."""

from __future__ import annotations

import re

from stackgan_dist.pack.sources.files import Files

CAPTIONS = 10


def read_captions(files: Files, name: str) -> tuple[tuple[str, ...], str]:
    """(ten captions, "") of the file `name`, or ((), why there are none).

    Odd bytes and void lines ("{}"), of which the published files have a few, are left out; the rest begins again
    until there are ten.
    """
    try:
        text = files.read(name).decode("utf-8", errors="replace")
    except OSError:
        return (), f"the captions {name} are missing; unpack all of text_c10"
    captions = [caption for line in text.splitlines() if (caption := _clean(line))]
    if not captions:
        return (), f"{name} holds no caption; unpack it again"
    return tuple(captions[i % len(captions)] for i in range(CAPTIONS)), ""


def _clean(line: str) -> str:
    """The caption in `line` without odd bytes; empty where it holds fewer than two words."""
    caption = " ".join(re.sub(r"[^\x20-\x7e]", " ", line).split())
    return caption if len(re.findall(r"[A-Za-z]+", caption)) >= 2 else ""
