"""Reading requests and refusing them: bodies are small JSON objects, and every refusal is a sentence."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from stackgan_dist.human_rank.web.limits import BODY_BYTES, BODY_S, Rate


async def refusal(_: Request, error: Exception) -> JSONResponse:
    """`error`, an HTTPException, as JSON {"error": sentence}."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def failure(_request: Request, _error: Exception) -> JSONResponse:
    """What a client gets where the server is at fault; the log has the rest."""
    return JSONResponse({"error": "the server met a fault; what was not confirmed was not stored, try again"}, 500)


async def read_object(request: Request) -> dict[str, Any]:
    """The JSON object in the body; HTTPException 400, 408, 413 or 415 for anything else."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send application/json")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_BYTES:
                    raise HTTPException(413, f"the request is longer than {BODY_BYTES:,} bytes")
    except TimeoutError:
        raise HTTPException(408, f"the request did not arrive within {BODY_S:.0f} s") from None
    try:
        content = json.loads(bytes(body))
    except (ValueError, RecursionError):
        raise HTTPException(400, "the request is not JSON") from None
    if not isinstance(content, dict):
        raise HTTPException(400, "send one JSON object")
    return content


def whole_number(value: Any, name: str, low: int, high: int) -> int:
    """`value`, when it is an integer within [low, high]; HTTPException 422 otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise HTTPException(422, f"{name} must be a whole number from {low:,} to {high:,}")
    return value


def take_turn(rate: Rate, key: str) -> None:
    """HTTPException 429, with the time to wait, when `key` asks too often."""
    wait_s = rate.wait_s(key)
    if wait_s > 0:
        seconds = math.ceil(wait_s)
        raise HTTPException(429, f"too many requests; try again in {seconds} s", {"Retry-After": str(seconds)})


def address(request: Request) -> str:
    """Who asks: the peer's address, or the one that a trusted proxy names (serve.py)."""
    return request.client.host if request.client else "?"
