"""
One endpoint of the API: where it is, who may call it, what it takes and gives, and what does the work.

In: requests that the gate let in. Out: a `Call`, checked, for the handler. The same declaration makes the route, the
check of the caller and the OpenAPI document, so that none of the three can differ from the others.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agentd.api.caller import Access, Caller

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

Json = dict[str, Any]


class Asked(BaseModel):
    """
    A body in JSON. by: whom the audit trail is to name, believed of those who may speak for others on this machine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    by: str | None = Field(default=None, max_length=1000, description="Whom the audit trail is to name")


class Nothing(Asked):
    """A body that says nothing but who asks; it may be left out."""


@dataclass(frozen=True, slots=True)
class Param:
    """
    One parameter of the query, or a header. schema: JSON Schema of one value; type integer, number, boolean or string.
    """

    name: str
    schema: Json
    what: str
    where: Literal["query", "header"] = "query"
    required: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """
    query: parameters that were given, as their schemas say; those with a `default` always. asked: the body as
    `Endpoint.body` has it, or the form as `Endpoint.form` has it; None where neither is declared. by: for the audit.
    """

    request: Request
    caller: Caller
    path: Mapping[str, str]
    query: Mapping[str, Any]
    asked: Any
    by: str


MAX_BODY_BYTES = 64 * 1024

Handler = Callable[[Call], Awaitable["Response"]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """
    body: model of the JSON that comes; None: none is read (the handler may read the request itself). form: model of a
    form that a page sends, checked against forged ones.
    answer: what a good answer is, as a type that pydantic knows (a TypedDict), for the document; None: not JSON.
    also: further statuses that come with `answer`.
    problems: statuses of problem details beyond those that follow from the rest.
    documented: stands in the OpenAPI document; pages do not. any_query: other parameters are the handler's affair.
    most_bytes: of `body`.
    """

    method: str
    path: str
    handle: Handler
    access: Access
    summary: str = ""
    tag: str = ""
    params: tuple[Param, ...] = ()
    body: type[BaseModel] | None = None
    form: type[BaseModel] | None = None
    answer: Any = None
    media: str = "application/json"
    status: int = 200
    also: tuple[int, ...] = ()
    problems: tuple[int, ...] = ()
    documented: bool = True
    any_query: bool = False
    most_bytes: int = MAX_BODY_BYTES
    raw_body: Json | None = None
    """Of a body that the handler reads itself: `requestBody` for the document."""
