"""
The OpenAPI document (version 3.1), made of the endpoints that serve.

In: `Endpoint`s. Out: JSON, made when it is first asked for and kept.
Promise: what the document says of callers, bodies and statuses is what the routes check, for it is the same data.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter
from starlette.responses import Response

from agentd import __version__
from agentd.api.answers import PROBLEM_TYPE
from agentd.api.encoding import encoded
from agentd.api.endpoint import Call, Endpoint, Json

PATH = "/api/v1/openapi.json"
_PLACE = re.compile(r"(\w+)/\{(\w+)(?::\w+)?\}")
_REF = "#/components/schemas/{model}"
_PROBLEM: Json = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
}
_WORDS = {
    400: "The request cannot be read",
    401: "No key, or none of ours",
    403: "The caller may not",
    404: "There is none of that name",
    408: "The request did not come to its end in time",
    409: "It does not fit the present state",
    413: "The body is too large",
    414: "The address is too long",
    415: "The body is not of that type",
    421: "The daemon does not go by that name",
    422: "What is asked cannot be meant",
    429: "Too much at once; Retry-After says when",
    431: "The headers are too many or too large",
    503: "Not now: the store, a secret or the daemon is not ready",
}
_OF_ANY = {400, 408, 414, 431, 503}
"""What connections are told before a route is looked for, and what may be wrong with the store at any time."""
_SCOPES = {
    "read": "For everybody on loopback; elsewhere for a key of any scope",
    "records": "For a key of any scope",
    "operate": "For a key of scope operate or admin",
    "admin": "For a key of scope admin",
}
_ABOUT = """\
A monitoring daemon for servers.

A key, made by `agentd key new NAME`, goes into `Authorization: Bearer …`; on the unix socket the caller's user counts
instead. Errors are problem details (RFC 9457) whose `detail` says what to do. Times are RFC 3339 in UTC. A list that
goes on has a `next`: the `before` of the request for the rest."""
_PLACES = {
    "watches": "Name of a watch",
    "webhooks": "Name of a webhook",
    "heartbeat": "Name of a watch that is a heartbeat",
    "hooks": "Name of a hook in `api.hooks`",
    "public": "Name of a watch that is public",
    "badges": "Name of a watch that is public",
    "alerts": "Fingerprint of an alert",
    "silences": "Id of a silence",
    "outbox": "Id of a message",
    "tasks": "Id of a task, ours or the caller's `task_id`",
    "runs": "Id of a run",
}
"""Of the parameter in a path, by the word before it."""
_SCHEMES: Json = {
    "key": {"type": "http", "scheme": "bearer", "description": "`agentd key new`"},
    "secret": {"type": "http", "scheme": "bearer", "description": "Of the heartbeat or the hook, as configured there"},
}


class OpenApi:
    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints
        self._made: bytes | None = None

    def endpoint(self) -> Endpoint:
        return Endpoint("GET", PATH, self._answer, "open", "This document", "daemon", answer=dict[str, Any])

    async def _answer(self, call: Call) -> Response:
        if self._made is None:
            self._made = await asyncio.to_thread(lambda: encoded(document([*self._endpoints, self.endpoint()])))
        return Response(self._made, media_type="application/json", headers={"Cache-Control": "max-age=3600"})


def document(endpoints: Sequence[Endpoint]) -> Json:
    schemas: Json = {"Problem": _PROBLEM}
    paths: Json = {}
    for endpoint in endpoints:
        if endpoint.documented:
            paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "agentd", "version": __version__, "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": _SCHEMES,
        },
    }


def _operation(endpoint: Endpoint, schemas: Json) -> Json:
    operation: Json = {
        "operationId": _identity(endpoint),
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "parameters": [*_places(endpoint), *_parameters(endpoint)],
        "responses": _responses(endpoint, schemas),
    }
    if endpoint.access in _SCOPES:
        operation["security"] = [{"key": []}, *([{}] if endpoint.access == "read" else [])]
        operation["description"] = _SCOPES[endpoint.access]
    elif endpoint.access == "own":
        operation["security"] = [{"secret": []}]
    if endpoint.body is not None:
        schema = _schema(endpoint.body, schemas, "validation")
        needed = bool(endpoint.body.model_json_schema(mode="validation").get("required"))
        operation["requestBody"] = {"required": needed, "content": {"application/json": {"schema": schema}}}
    elif endpoint.raw_body is not None:
        operation["requestBody"] = endpoint.raw_body
    return operation


def _identity(endpoint: Endpoint) -> str:
    words = re.findall(r"\w+", endpoint.path.removeprefix("/api/v1"))
    return "_".join([endpoint.method.lower(), *words])


def _places(endpoint: Endpoint) -> list[Json]:
    text = {"type": "string", "minLength": 1}
    return [
        {"name": name, "in": "path", "required": True, "description": _PLACES.get(of, name), "schema": text}
        for of, name in _PLACE.findall(endpoint.path)
    ]


def _parameters(endpoint: Endpoint) -> list[Json]:
    return [
        {
            "name": param.name,
            "in": param.where,
            "required": param.required,
            "description": param.what,
            "schema": param.schema,
        }
        for param in endpoint.params
    ]


def _responses(endpoint: Endpoint, schemas: Json) -> Json:
    schema: Json = {"type": "string"} if endpoint.media != "application/json" else {}
    if endpoint.answer is not None:
        schema = _schema(endpoint.answer, schemas, "serialization")
    good: Json = {"description": endpoint.summary, "content": {endpoint.media: {"schema": schema}}}
    refused = {"$ref": _REF.format(model="Problem")}
    found: Json = {str(status): dict(good) for status in (endpoint.status, *endpoint.also)}
    for status in sorted(_problems(endpoint)):
        told = found.setdefault(str(status), {"description": _WORDS.get(status, "A problem"), "content": {}})
        told["content"] = {**told["content"], PROBLEM_TYPE: {"schema": refused}}
        if status == 429:
            found["429"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds"}}
    return found


def _problems(endpoint: Endpoint) -> set[int]:
    """What may come of the declaration alone, and what the endpoint adds."""
    found = _OF_ANY | set(endpoint.problems)
    if endpoint.access not in ("open", "own"):
        found |= {401, 403, 421, 429}
    if endpoint.body is not None:
        found |= {413, 415, 422}
    if not endpoint.any_query:
        found.add(422)  # a parameter that there is not
    return found


def _schema(model: Any, schemas: Json, mode: Any) -> Json:
    """The schema of a type, its definitions moved to the components."""
    schema = TypeAdapter(model).json_schema(ref_template=_REF, mode=mode)
    for name, definition in schema.pop("$defs", {}).items():
        schemas.setdefault(name, definition)
    title = schema.get("title")
    if title is None or "$ref" in schema or schema.get("type") != "object":
        return schema
    schemas.setdefault(title, schema)
    return {"$ref": _REF.format(model=title)}
