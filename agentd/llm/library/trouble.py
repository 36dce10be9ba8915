"""
What a library raises, told as a `ModelFailure`.

In: an exception of `pydantic_ai`, of a provider's SDK, of an HTTP client. Out: a failure of a kind.
Promise: never raises; libraries quote whole bodies and addresses, our message quotes one line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from agentd.llm.failures import classify, shown, unreachable
from agentd.llm.port import FailureKind, ModelFailure

_K = FailureKind
_MOST_CAUSES = 12
_HTTP = ("httpx", "httpx2", "httpcore", "httpcore2")
_NO_KEY = frozenset(
    {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError"}
)


def failure_of(
    error: BaseException, *, who: str, began: bool = False, received: bool = False, keep_out: str | None = None
) -> ModelFailure:
    """
    who: whom we asked, such as `model default`. began: the answer's status had come. received: some of the answer had.

    keep_out: the key, should somebody quote it.
    """
    causes = list(_causes(error))
    for each in causes:
        if isinstance(each, ModelFailure):
            each.received = each.received or received
            return each
    for each in causes:
        if isinstance(getattr(each, "status_code", None), int):
            return _classified(each, who, received, keep_out)
    for each in causes:
        if isinstance(each, TimeoutError) or type(each).__module__.split(".")[0] in _HTTP:
            # A body that ends before its end was begun, whoever noticed it first.
            cut = began or "message body" in str(each)
            return unreachable(each, who=who, began=cut, received=received)
    return _other(causes, who, received, keep_out)


def _classified(error: Any, who: str, received: bool, keep_out: str | None) -> ModelFailure:
    headers = getattr(error, "headers", None) or {}
    body = getattr(error, "body", None)
    if isinstance(body, dict) and isinstance(aws := body.get("Error"), dict):
        body = {"error": {"message": aws.get("Message"), "code": aws.get("Code")}}
    if isinstance(body, dict) and getattr(error, "in_stream", False):
        # Its status is the one that the library gives to errors of this name; what is said goes before that.
        headers = {}
    text = body if isinstance(body, str) else json.dumps(body, default=str)
    failure = classify(
        error.status_code, headers, text.encode("utf-8", "replace"), who=who, received=received, keep_out=keep_out
    )
    asked = getattr(error, "retry_after", None)
    if failure.retry_after_s is None and isinstance(asked, int | float) and failure.kind is _K.RATE_LIMITED:
        failure.retry_after_s = float(asked)
    return failure


def _other(causes: list[BaseException], who: str, received: bool, keep_out: str | None) -> ModelFailure:
    names = {type(each).__name__ for each in causes}
    said = shown(str(causes[0]), keep_out)
    if names & _NO_KEY:
        return ModelFailure(f"{who} has no key: {said}", _K.BAD_KEY)
    if names & {"NoRegionError"}:
        return ModelFailure(f"{who} has no region; write `region`, e.g. eu-central-1", _K.BAD_REQUEST)
    if names & {"UserError", "ParamValidationError"}:
        return ModelFailure(f"{who} cannot be asked like this: {said}", _K.BAD_REQUEST)
    body = next((body for each in causes if (body := getattr(each, "body", None)) is not None), None)
    if body is not None:
        return _told_inside(body, who, received, keep_out)
    if "UnexpectedModelBehavior" in names and "without content" in str(causes[0]):
        return ModelFailure(f"{who} ended without an answer", _K.CUT, received=received)
    what = f"{who} answers with something else ({type(causes[0]).__name__})"
    return ModelFailure(what, _K.GARBAGE, received=received)


def _told_inside(body: Any, who: str, received: bool, keep_out: str | None) -> ModelFailure:
    if isinstance(body, dict) and isinstance(aws := body.get("Error"), dict):
        body = {"error": {"message": aws.get("Message"), "code": aws.get("Code")}}
    text = body if isinstance(body, str) else json.dumps(body, default=str)
    return classify(200, {}, text.encode("utf-8", "replace"), who=who, received=received, keep_out=keep_out)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__
