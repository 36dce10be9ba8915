"""What the OpenAPI document says and the routes do: the small things that a fuzzer found apart."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from test_api_gate import placed

from agentd.api.bodies import read_query
from agentd.api.endpoint import Call, Endpoint
from agentd.api.routes.params import BEFORE_NUMBER
from agentd.errors import AgentdError


class Pages:
    """made: how often they were asked for."""

    made = 0

    def __init__(self) -> None:
        Pages.made += 1

    def endpoints(self) -> Sequence[Endpoint]:
        return [Endpoint("GET", "/", _page, "read", documented=False)]

    async def refuse(self, request: Request, error: HTTPException | AgentdError) -> Response:
        return PlainTextResponse("no page", 404)


async def _page(call: Call) -> Response:
    return PlainTextResponse("a page")


@pytest.mark.parametrize("method", ["TRACE", "PATCH", "PUT", "QUERY"])
async def test_a_method_that_a_path_does_not_take_is_told_so_beside_pages(method: str) -> None:
    """405 with Allow (RFC 9110, section 15.5.6), where pages take all other paths: the address is right."""
    Pages.made = 0
    async with placed(pages=Pages) as place:
        answer = await place.http.request(method, "/api/v1/watches")
        nowhere = await place.http.get("/api/v1/nowhere")

    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}
    assert nowhere.status_code == 404
    assert Pages.made == 0, "whoever asks the API makes no pages"


async def test_a_place_in_a_list_is_a_number_where_the_document_says_so() -> None:
    """JSON Schema's `$` is the end alone: a line break behind the number is none of it."""
    param = BEFORE_NUMBER
    for text, fits in (("7", True), ("7\n", False), ("x7", False), ("", False), ("1" * 19, False)):
        request = Request({"type": "http", "query_string": urlencode({"before": text}).encode(), "headers": []})
        if fits:
            assert read_query(request, [param], any_query=False) == {"before": text}
        else:
            with pytest.raises(HTTPException) as refused:
                read_query(request, [param], any_query=False)
            assert refused.value.status_code == 422
            assert refused.value.detail.startswith("before: ")


async def test_the_document_tells_how_heartbeats_and_hooks_are_let_in() -> None:
    """They have a secret of their own: a key of the API is none of it."""
    async with placed() as place:
        document = (await place.http.get("/api/v1/openapi.json")).json()

    schemes = document["components"]["securitySchemes"]
    for path in ("/api/v1/heartbeat/{name}", "/api/v1/hooks/{name}"):
        assert document["paths"][path]["post"]["security"] == [{"secret": []}]
    assert schemes["secret"]["scheme"] == "bearer"


async def test_what_a_connection_may_be_told_stands_at_every_endpoint() -> None:
    """An address that is too long is refused before any route is looked for; clients get it all the same."""
    async with placed() as place:
        document = (await place.http.get("/api/v1/openapi.json")).json()

    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert {"400", "408", "414", "431", "503"} <= set(operation["responses"]), (method, path)
    told = document["paths"]["/health"]["get"]["responses"]["503"]["content"]
    assert set(told) == {"application/json", "application/problem+json"}, "while it starts, and when there is no place"
