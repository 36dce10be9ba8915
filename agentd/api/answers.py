"""
What the API answers: JSON, and problem details (RFC 9457) for every error.

In: plain values, and the errors that services raise. Out: responses.
Promise: what UTF-8 or JSON cannot hold is replaced, wherever it came from, and never breaks an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from agentd.api.encoding import encoded
from agentd.api.service import Conflict, Forbidden, NoCredentials, NoSecret, NotFound, TooMany
from agentd.errors import AgentdError, ConfigError, StoreError

PROBLEM_TYPE = "application/problem+json"
_ROWS_AT_ONCE = 200
_TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Body too large",
    415: "Unsupported media type",
    421: "Misdirected request",
    422: "Not understood",
    429: "Too many requests",
    503: "Unavailable",
}
_STATUSES: tuple[tuple[type[AgentdError], int], ...] = (
    (NotFound, 404),
    (NoCredentials, 401),
    (Forbidden, 403),
    (Conflict, 409),
    (TooMany, 429),
    (ConfigError, 422),
    (StoreError, 503),
    (NoSecret, 503),
)


class JsonAnswer(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return encoded(content)


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """more: further members of the problem, such as `errors`."""
    title = _TITLES.get(status, "Request refused" if status < 500 else "Internal error")
    return JsonAnswer(
        {"type": "about:blank", "title": title, "status": status, "detail": detail, **more},
        status,
        headers=headers,
        media_type=PROBLEM_TYPE,
    )


def listed(key: str, rows: Sequence[Any]) -> Response:
    """`{key: rows}`; many are encoded some at a time, so that the loop gets its turn between."""
    if len(rows) <= _ROWS_AT_ONCE:
        return JsonAnswer({key: rows})
    return StreamingResponse(_parts(key, rows), media_type=JsonAnswer.media_type)


async def joined(key: str, rows: Sequence[Any]) -> bytes:
    """The body of `listed`, whole, for answers that many share."""
    return b"".join([part async for part in _parts(key, rows)])


async def _parts(key: str, rows: Sequence[Any]) -> AsyncIterator[bytes]:
    yield f'{{"{key}":['.encode()
    for begin in range(0, len(rows), _ROWS_AT_ONCE):
        yield (b"," if begin else b"") + encoded(rows[begin : begin + _ROWS_AT_ONCE])[1:-1]
        await asyncio.sleep(0)
    yield b"]}"


async def on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, error.detail, error.headers)


async def on_agentd_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AgentdError)
    return problem_of(error)


def problem_of(error: AgentdError) -> Response:
    if isinstance(error, TooMany):
        return problem(status_of(error), str(error), {"Retry-After": str(error.retry_after_s)})
    headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, NoCredentials) else None
    return problem(status_of(error), str(error), headers)


def status_of(error: HTTPException | AgentdError) -> int:
    if isinstance(error, HTTPException):
        return error.status_code
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


async def on_defect(request: Request, error: Exception) -> Response:
    return problem(500, "a defect in agentd; its log says more")
