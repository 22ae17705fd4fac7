"""Captions in JSON, in the forms that people and data sets have.

{"file": "a.jpg", "captions": ["a grey cat", ...]}              an object on each line (JSONL)
[{"image": "a.jpg", "caption": "a grey cat"}, ...]              a list of them
{"a.jpg": "a grey cat", "b.jpg": ["a dog", "it barks"], ...}    captions by name
{"images": [...], "annotations": [...]}                         COCO's: captions by the image's id
{"images": [{"filename": ..., "sentences": [...]}], ...}        Karpathy's, and any object that holds one such list
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources.captions.entry import Columns, Entry, given_name, kind, not_understood, understood


def read_json_lines(lines: Iterable[str], where: str, columns: Columns) -> Iterator[Entry]:
    """The lines of a JSONL file called `where`; one that is not understood has a fault."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            place = f"{where}:{number}"
            try:
                fields = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield not_understood(place, error)
            else:
                yield understood(fields, place, columns)


def read_json(text: str, where: str, columns: Columns) -> Iterator[Entry]:
    """The entries of a JSON file called `where`, in whichever form it is.

    Raises UserError for what is no JSON, or none of these forms.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        if _is_lines(text):
            yield from read_json_lines(text.splitlines(), where, columns)
            return
        raise UserError(f"{where} is no JSON ({error}); mend it, or give a table or JSONL instead") from error
    for number, item in enumerate(_items(content, where, columns), 1):
        yield understood(item, f"{where}, entry {number}", columns)


def _is_lines(text: str) -> bool:
    """Whether its first line with words is an object by itself: JSONL that is called .json."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _items(content: Any, where: str, columns: Columns) -> list[Any]:
    """The objects that `content` holds, one for each picture or caption."""
    if isinstance(content, list):
        return content
    if isinstance(content, dict):
        images, annotations = content.get("images"), content.get("annotations")
        if isinstance(images, list) and isinstance(annotations, list):
            return _joined(images, annotations)
        if columns.fit(list(content)):
            return [content]
        lists = [value for value in content.values() if _holds_objects(value)]
        if len(lists) == 1:
            return list(lists[0])
        if content and all(_is_said(value) for value in content.values()):
            return [_said(name, value) for name, value in content.items()]
    brief = (
        f"{kind(content)} with {', '.join(map(repr, list(content)[:5]))}"
        if isinstance(content, dict)
        else kind(content)
    )
    raise UserError(
        f"{where} holds {brief}; a list of objects, captions by the name of their picture, or COCO's images and "
        "annotations were expected"
    )


def _holds_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _is_said(value: object) -> bool:
    """Whether it may stand behind the name of a picture: a caption, a list of them, or an object that has them."""
    return (
        value is None
        or isinstance(value, str | dict)
        or (isinstance(value, list) and all(isinstance(item, str) or item is None for item in value))
    )


def _said(name: str, value: Any) -> dict[str, Any]:
    return {**value, "file": name} if isinstance(value, dict) else {"file": name, "captions": value}


def _joined(images: list[Any], annotations: list[Any]) -> list[Any]:
    """COCO's two lists as one: each image with the captions of its id. What is not understood stays, to be named."""
    captions: dict[str, list[Any]] = {}
    others = []
    for annotation in annotations:
        try:
            captions.setdefault(given_name(annotation, "image_id"), []).append(annotation["caption"])
        except (TypeError, KeyError, AttributeError):
            others.append(annotation)
    joined = []
    for image in images:
        name = ""
        with suppress(TypeError, AttributeError):
            name = given_name(image, "id")
        said = captions.pop(name, None) if name else None
        joined.append({**image, "captions": said} if said and isinstance(image, dict) else image)
    unknown = [{"image_id": name, "captions": said} for name, said in captions.items()]
    return [*joined, *unknown, *others]
