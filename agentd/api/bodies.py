"""
What comes with a request: its body, its query, a form; read within bounds and checked before any handler sees it.

In: requests. Out: values as the endpoint declares them. Raises HTTPException with what to write instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from agentd.api.endpoint import MAX_BODY_BYTES, Param

_MOST_FIELDS = 50
_CURL = "application/x-www-form-urlencoded"
"""What `curl -d` says of any body, JSON too."""
_WHOLE = re.compile(r"-?[0-9]{1,18}")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}

Model = TypeVar("Model", bound=BaseModel)


async def limited(request: Request, most: int = MAX_BODY_BYTES) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise HTTPException(413, f"the body is larger than {most} bytes")
    except ClientDisconnect:
        raise HTTPException(400, "the connection ended before the body did") from None
    return bytes(body)


async def read_body(request: Request, model: type[Model], most: int = MAX_BODY_BYTES) -> Model:
    """The JSON body as `model` has it; no body is an empty object."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    raw = await limited(request, most)
    if not raw:
        raw = b"{}"
    elif kind != "application/json" and not kind.endswith("+json") and not (kind == _CURL and raw[:1] in b"{["):
        raise HTTPException(415, f"{kind[:100]}: write the body as application/json")
    try:
        return model.model_validate_json(raw, strict=True)
    except ValidationError as error:
        raise _refusal(error, model) from None


def _refusal(error: ValidationError, model: type[BaseModel]) -> HTTPException:
    """The first complaint, with what the key is for: pydantic says what is wrong, the description how to mend it."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    words = first["msg"].removeprefix("Value error, ")
    if first["type"] == "json_invalid":
        return HTTPException(400, f"the body is not JSON: {words.removeprefix('Invalid JSON: ')}")
    where = [str(step)[:100] for step in first["loc"]]
    if not where and first["type"] == "model_type":
        return HTTPException(422, "the body is not a JSON object")
    if first["type"] == "extra_forbidden" and len(where) == 1:
        return HTTPException(422, f"{where[0]}: no such key; known: {', '.join(model.model_fields)}")
    known = model.model_fields.get(where[0]) if where else None
    cure = f"; {known.description}" if known is not None and known.description else ""
    return HTTPException(422, f"{'.'.join(where)}: {words}{cure}" if where else words)


def read_query(request: Request, params: Sequence[Param], *, any_query: bool) -> dict[str, Any]:
    """The parameters that are declared; one that is not is refused, or a slip of the pen would be taken for a yes."""
    given = request.query_params.multi_items()
    known = {param.name: param for param in params if param.where == "query"}
    values: dict[str, Any] = {}
    for name, text in given:
        if name not in known:
            if any_query:
                continue
            names = ", ".join(known) or "there are none"
            raise HTTPException(422, f"{name[:100]}: no such parameter; known: {names}")
        if name in values:
            raise HTTPException(422, f"{name}: write it once")
        values[name] = _value(known[name], text)
    for param in params:
        if param.where == "header":
            text_or_none = request.headers.get(param.name)
            if text_or_none is not None:
                values[param.name] = _value(param, text_or_none)
        if param.name not in values:
            if param.required:
                raise HTTPException(422, f"{param.name}: is missing; {param.what}")
            if "default" in param.schema:
                values[param.name] = param.schema["default"]
    return values


def _value(param: Param, text: str) -> Any:
    schema = param.schema
    kind = schema.get("type")
    if kind == "integer":
        least, most = schema.get("minimum"), schema.get("maximum")
        if _WHOLE.fullmatch(text):
            number = int(text)
            if (least is None or number >= least) and (most is None or number <= most):
                return number
        raise HTTPException(422, f"{param.name}: write a whole number{_within(least, most)}")
    if kind == "boolean":
        if text not in _TRUTH:
            raise HTTPException(422, f"{param.name}: write true or false")
        return _TRUTH[text]
    if (choices := schema.get("enum")) is not None and text not in choices:
        raise HTTPException(422, f"{param.name}: write one of {', '.join(choices)}")
    if len(text) > schema.get("maxLength", 1000):
        raise HTTPException(422, f"{param.name}: is longer than {schema.get('maxLength', 1000)} characters")
    if (pattern := schema.get("pattern")) is not None and not re.fullmatch(pattern.strip("^$"), text):
        raise HTTPException(422, f"{param.name}: {param.what}")
    return text


def _within(least: Any, most: Any) -> str:
    return "" if least is None or most is None else f" from {least} to {most}"


async def read_form(request: Request, model: type[Model]) -> tuple[Model, str]:
    """A form that a page sent, and its token against forged ones."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _CURL:
        raise HTTPException(415, "write the form as application/x-www-form-urlencoded")
    raw = await limited(request)
    try:
        fields = parse_qsl(raw.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="replace")
    except ValueError:
        raise HTTPException(400, "the form cannot be read") from None
    said: Mapping[str, str] = dict(fields)
    token = said.get("csrf", "")
    try:
        return model.model_validate({key: text for key, text in said.items() if key != "csrf"}), token
    except ValidationError as error:
        raise _refusal(error, model) from None
