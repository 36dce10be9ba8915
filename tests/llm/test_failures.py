"""
What providers say when they refuse, and what we make of it.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from agentd.llm.failures import FALLS_BACK, RETRIED, classify, unreachable
from agentd.llm.port import FailureKind as K
from agentd.llm.port import ModelFailure


def error(status: int, body: Any, **headers: str) -> ModelFailure:
    data = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    return classify(status, {k.replace("_", "-"): v for k, v in headers.items()}, data, who="model m")


def openai(message: str, code: str | None = None, type: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": None, "code": code}}


SAID = [
    # OpenAI
    (400, openai("This model's maximum context length is 8192 tokens.", "context_length_exceeded"), K.CONTEXT_OVERFLOW),
    (401, openai("Incorrect API key provided: sk-abc***xyz.", "invalid_api_key"), K.BAD_KEY),
    (429, openai("You exceeded your current quota, please check your plan", "insufficient_quota"), K.QUOTA),
    (429, openai("Rate limit reached for gpt-4o on tokens per min", "rate_limit_exceeded", "tokens"), K.RATE_LIMITED),
    (429, openai("Request too large for gpt-4o on TPM: Limit 30000", "rate_limit_exceeded"), K.CONTEXT_OVERFLOW),
    (503, openai("The engine is currently overloaded, please try again later"), K.OVERLOADED),
    (500, openai("The server had an error while processing your request", None, "server_error"), K.UNAVAILABLE),
    (500, openai("Context size has been exceeded.", None, "server_error"), K.CONTEXT_OVERFLOW),
    (200, openai("Context size has been exceeded.", None, "server_error"), K.CONTEXT_OVERFLOW),
    (404, openai("The model `gpt-9` does not exist", "model_not_found"), K.BAD_REQUEST),
    (400, openai("Invalid value: 'tool'", None, "invalid_request_error"), K.BAD_REQUEST),
    (403, openai("Country, region, or territory not supported", "unsupported_country_region_territory"), K.BAD_KEY),
    # Azure
    (401, {"statusCode": 401, "message": "Access denied due to invalid subscription key"}, K.BAD_KEY),
    (429, {"error": {"code": "429", "message": "exceeded token rate limit. Retry after 6 seconds."}}, K.RATE_LIMITED),
    (400, {"error": {"code": "content_filter", "message": "The response was filtered", "status": 400}}, K.FILTERED),
    (
        400,
        {"error": {"message": "triggering our policy", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
        K.FILTERED,
    ),
    (404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist"}}, K.BAD_REQUEST),
    # DashScope
    (400, openai("Range of input length should be [1, 30720]", "invalid_parameter_error"), K.CONTEXT_OVERFLOW),
    (400, openai("Input data may contain inappropriate content.", "data_inspection_failed"), K.FILTERED),
    (400, openai("Access denied, please make sure your account is in good standing.", "Arrearage"), K.QUOTA),
    (429, openai("Allocated quota exceeded, please increase your quota limit", "insufficient_quota"), K.RATE_LIMITED),
    (429, openai("You have exceeded your request limit", "limit_requests"), K.RATE_LIMITED),
    (401, {"code": "InvalidApiKey", "message": "Invalid API-key provided."}, K.BAD_KEY),
    # Kimi
    (429, openai("The engine is currently overloaded", None, "engine_overloaded_error"), K.OVERLOADED),
    (429, openai("Your account is not active", None, "exceeded_current_quota_error"), K.QUOTA),
    (429, openai("max RPM: 3, please try again after 1 seconds", None, "rate_limit_reached_error"), K.RATE_LIMITED),
    (400, openai("Invalid request: Your request exceeded model token limit: 8192"), K.CONTEXT_OVERFLOW),
    (400, openai("The request was rejected because it was considered high risk"), K.FILTERED),
    # Zhipu
    (429, {"error": {"code": "1113", "message": "您的账户已欠费"}}, K.QUOTA),
    (429, {"error": {"code": "1302", "message": "您当前使用该API的并发数过高"}}, K.RATE_LIMITED),
    (429, {"error": {"code": "1305", "message": "该模型当前访问量过大"}}, K.OVERLOADED),
    (400, {"error": {"code": "1261", "message": "Prompt 超长"}}, K.CONTEXT_OVERFLOW),
    (400, {"error": {"code": "1301", "message": "系统检测到输入或生成内容可能包含不安全或敏感内容"}}, K.FILTERED),
    (401, {"error": {"code": "1002", "message": "Authorization Token非法"}}, K.BAD_KEY),
    # Ark
    (403, {"error": {"code": "AccountOverdueError", "message": "The request failed"}}, K.QUOTA),
    (429, {"error": {"code": "RateLimitExceeded.EndpointRPMExceeded", "message": "exceeded"}}, K.RATE_LIMITED),
    (429, {"error": {"code": "ServerOverloaded", "message": "The service is busy"}}, K.OVERLOADED),
    (400, {"error": {"code": "InputTextSensitiveContentDetected", "message": "may contain"}}, K.FILTERED),
    # DeepSeek
    (402, openai("Insufficient Balance", "invalid_request_error", "unknown_error"), K.QUOTA),
    (401, openai("Authentication Fails (no such user)", "invalid_request_error", "authentication_error"), K.BAD_KEY),
    # llama.cpp
    (
        400,
        {"error": {"code": 400, "message": "the request exceeds the available context size", "type": "x"}},
        K.CONTEXT_OVERFLOW,
    ),
    (503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, K.UNAVAILABLE),
    # vLLM
    (
        400,
        {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400},
        K.CONTEXT_OVERFLOW,
    ),
    (400, {"message": "The decoder prompt is longer than the maximum model length of 4096"}, K.CONTEXT_OVERFLOW),
    # Ollama, LM Studio
    (400, {"error": "the input length exceeds the context length"}, K.CONTEXT_OVERFLOW),
    (404, {"error": {"message": "model 'qwen9' not found", "type": "api_error"}}, K.BAD_REQUEST),
    (400, {"error": "Trying to keep the first 5000 tokens when context the overflows."}, K.CONTEXT_OVERFLOW),
    # OpenRouter
    (402, {"error": {"code": 402, "message": "This request requires more credits"}}, K.QUOTA),
    # between us and them
    (413, b"<html><h1>413 Request Entity Too Large</h1></html>", K.CONTEXT_OVERFLOW),
    (502, b"<html>Bad Gateway</html>", K.UNAVAILABLE),
    (504, b"", K.UNAVAILABLE),
    (529, b"", K.OVERLOADED),
    (408, b"", K.UNAVAILABLE),
    (409, b"", K.UNAVAILABLE),
    (425, b"", K.UNAVAILABLE),
    (429, b"slow", K.RATE_LIMITED),
    (302, b"", K.BAD_REQUEST),
    (418, b"\xff\xfe\x00", K.BAD_REQUEST),
]


@pytest.mark.parametrize(("status", "body", "kind"), SAID, ids=[f"{each[0]}-{each[1]!s:.70}" for each in SAID])
def test_wordings_of_providers_are_told_apart(status: int, body: Any, kind: K) -> None:
    """An unpaid bill that is retried for ever, or an overflow taken for an outage, costs the whole run."""
    assert error(status, body).kind is kind


@pytest.mark.parametrize(
    ("headers", "message", "wait_s"),
    [
        ({"retry_after_ms": "1500"}, "", 1.5),
        ({"retry_after_ms": "1500", "retry_after": "9"}, "", 1.5),
        ({"retry_after": "9"}, "", 9.0),
        ({"retry_after": "Sat, 21 Nov 2026 12:00:30 GMT"}, "", 30.0),
        ({"retry_after": "Sat, 21 Nov 2026 11:00:00 GMT"}, "", None),
        ({"retry_after": "soon"}, "Please try again in 20ms.", 0.02),
        ({}, "Please try again in 1m30.5s. Visit us.", 90.5),
        ({}, "Please retry after 6 seconds.", 6.0),
        ({"retry_after": "99999999"}, "", 86400.0),
        ({"retry_after_ms": "nan"}, "", None),
        ({"retry_after_ms": "-5"}, "", None),
        ({}, "", None),
    ],
)
def test_the_wait_that_was_asked_for_is_read(headers: dict[str, str], message: str, wait_s: float | None) -> None:
    """Coming back too early prolongs the ban; a wrong number must not make us wait for a year."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)

    failure = classify(429, named, json.dumps(openai(message)).encode(), who="model m", now=now)

    assert failure.retry_after_s == wait_s


def test_a_key_is_never_quoted() -> None:
    """The message ends in logs, traces and alerts."""
    key = "very-private-key-1"
    echo = openai(f"I got {key} and sk-proj-abcdef123456 and Bearer zzzz")

    for status in (400, 401, 403, 500):
        said = str(classify(status, {}, json.dumps(echo).encode(), who="model m", keep_out=key))
        assert key not in said
        assert "abcdef123456" not in said
        assert "zzzz" not in said


def test_what_is_said_about_a_wrong_key_is_not_repeated() -> None:
    """Providers show half of the key, each in a form of its own."""
    said = str(error(401, openai("Incorrect API key provided: abcd****wxyz", "invalid_api_key")))

    assert said == "model m answered 401: the key is refused; check `api_key`"


def test_the_message_is_one_short_line() -> None:
    """A provider's page of HTML, or a megabyte of its stack, is not what an alert shows."""
    said = str(error(400, openai("first\n\n\x1b[31msecond " + "x" * 5000)))

    assert said.startswith("model m answered 400: first")
    assert "\n" not in said
    assert "\x1b" not in said
    assert len(said) < 300


@pytest.mark.parametrize("body", [b"[]", b"[" * 60000, b"null", b'{"error": []}', b'{"error": {"message": {"a": 1}}}'])
def test_no_body_makes_it_raise(body: bytes) -> None:
    """The body is whatever somebody's proxy makes of it."""
    assert error(500, body).kind is K.UNAVAILABLE


def test_an_error_in_mid_answer_goes_by_its_own_code() -> None:
    """OpenRouter tells a 502 in an answer of status 200."""
    failure = classify(200, {}, b'{"error": {"code": 429, "message": "x"}}', who="model m", received=True)

    assert (failure.kind, failure.status, failure.received) == (K.RATE_LIMITED, 429, True)


def test_what_no_wait_can_mend_is_not_retried() -> None:
    """Retrying these only burns time, and with a bad key gets the account banned."""
    assert not RETRIED & {K.BAD_KEY, K.QUOTA, K.CONTEXT_OVERFLOW, K.BAD_REQUEST, K.FILTERED, K.BUDGET}
    assert not FALLS_BACK & {K.CONTEXT_OVERFLOW, K.FILTERED, K.BUDGET}
    assert RETRIED < FALLS_BACK


@pytest.mark.parametrize(
    ("raised", "began", "kind"),
    [
        (httpx.ConnectError("x"), False, K.UNAVAILABLE),
        (httpx.ConnectTimeout("x"), False, K.UNAVAILABLE),
        (httpx.RemoteProtocolError("Server disconnected without sending a response."), False, K.UNAVAILABLE),
        (httpx.ReadError("x"), True, K.CUT),
        (httpx.RemoteProtocolError("peer closed connection"), True, K.CUT),
        (httpx.RemoteProtocolError("illegal status line"), False, K.GARBAGE),
        (httpx.DecodingError("x"), True, K.GARBAGE),
        (httpx.InvalidURL("x"), False, K.BAD_REQUEST),
        (httpx.ReadTimeout("x"), True, K.TIMEOUT),
        (TimeoutError(), False, K.TIMEOUT),
    ],
)
def test_exceptions_of_the_http_client_are_failures_too(raised: Exception, began: bool, kind: K) -> None:
    """Before the status nothing was spent and the call may be made again; after it, perhaps not."""
    assert unreachable(raised, who="model m", began=began).kind is kind
