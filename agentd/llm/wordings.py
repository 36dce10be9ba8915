"""
How providers word their refusals: codes, phrases and statuses, and the kind of failure that each stands for.

Promise: data alone; a new wording is one line here and one in the tests.

The wordings are those of OpenAI, Azure, DashScope (Qwen), Moonshot (Kimi), Zhipu, Ark, DeepSeek, OpenRouter, Groq,
Mistral, vLLM, llama.cpp, Ollama, LM Studio, Anthropic, Gemini and Bedrock. All are compared in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from agentd.llm.port import FailureKind

_K = FailureKind


def _any(*phrases: str) -> re.Pattern[str]:
    return re.compile("|".join(phrases))


CODES: Mapping[str, FailureKind] = {
    "context_length_exceeded": _K.CONTEXT_OVERFLOW,
    "exceed_context_size_error": _K.CONTEXT_OVERFLOW,
    "string_above_max_length": _K.CONTEXT_OVERFLOW,
    "1261": _K.CONTEXT_OVERFLOW,
    "content_filter": _K.FILTERED,
    "content_policy_violation": _K.FILTERED,
    "responsibleaipolicyviolation": _K.FILTERED,
    "data_inspection_failed": _K.FILTERED,
    "datainspectionfailed": _K.FILTERED,
    "1301": _K.FILTERED,
    "insufficient_quota": _K.QUOTA,
    "billing_hard_limit_reached": _K.QUOTA,
    "billing_not_active": _K.QUOTA,
    "exceeded_current_quota_error": _K.QUOTA,
    "arrearage": _K.QUOTA,
    "accountoverdueerror": _K.QUOTA,
    "quotaexceeded": _K.QUOTA,
    "setlimitexceeded": _K.QUOTA,
    "inferencelimitexceeded": _K.QUOTA,
    "1112": _K.QUOTA,
    "1113": _K.QUOTA,
    "1304": _K.QUOTA,
    "1308": _K.QUOTA,
    "1309": _K.QUOTA,
    "1310": _K.QUOTA,
    "invalid_api_key": _K.BAD_KEY,
    "invalidapikey": _K.BAD_KEY,
    "invalid_authentication_error": _K.BAD_KEY,
    "authentication_error": _K.BAD_KEY,
    "authenticationerror": _K.BAD_KEY,
    "incorrect_api_key_error": _K.BAD_KEY,
    "account_deactivated": _K.BAD_KEY,
    "1000": _K.BAD_KEY,
    "1001": _K.BAD_KEY,
    "1002": _K.BAD_KEY,
    "1003": _K.BAD_KEY,
    "1004": _K.BAD_KEY,
    "engine_overloaded_error": _K.OVERLOADED,
    "overloaded_error": _K.OVERLOADED,
    "serveroverloaded": _K.OVERLOADED,
    "server_overloaded": _K.OVERLOADED,
    "slow_down": _K.OVERLOADED,
    "1305": _K.OVERLOADED,
    "1312": _K.OVERLOADED,
    "rate_limit_exceeded": _K.RATE_LIMITED,
    "rate_limit_error": _K.RATE_LIMITED,
    "rate_limit_reached_error": _K.RATE_LIMITED,
    "limit_requests": _K.RATE_LIMITED,
    "limit_burst_rate": _K.RATE_LIMITED,
    "1302": _K.RATE_LIMITED,
    "1303": _K.RATE_LIMITED,
    "unavailable_error": _K.UNAVAILABLE,
    "1234": _K.UNAVAILABLE,
    "model_not_found": _K.BAD_REQUEST,
    "deploymentnotfound": _K.BAD_REQUEST,
    "1211": _K.BAD_REQUEST,
}
"""By `code` or `type`. A code of many meanings (`invalid_request_error`) is not here: words decide then."""

VAGUE_CODES: Mapping[str, FailureKind] = {
    # llama.cpp says so of a context that is full, too.
    "server_error": _K.UNAVAILABLE,
    "internal_server_error": _K.UNAVAILABLE,
}
"""Codes that count when words say nothing."""

BEFORE_CODES: tuple[tuple[FailureKind, re.Pattern[str]], ...] = (
    # OpenAI, Groq: more in one question than a minute allows; no wait helps, a shorter question does.
    (_K.CONTEXT_OVERFLOW, _any(r"request too large for", r"input or output tokens must be reduced")),
    # DashScope calls a rate of tokens an allocated quota, under OpenAI's code for an unpaid bill.
    (_K.RATE_LIMITED, _any(r"allocated quota exceeded", r"\bthrottling", r"ratelimitexceeded", r'"retrydelay"')),
)
"""Phrases that decide even against a code, because that code stands for two things."""

WORDS: tuple[tuple[FailureKind, re.Pattern[str]], ...] = (
    (
        _K.CONTEXT_OVERFLOW,
        _any(
            r"maximum context length",
            r"exceed(?:s|ed|ing)?(?: \w+){0,4} context[ _-]?(?:length|size|window|limit)",
            r"context[ _](?:length|size|window|limit)(?: (?:was|is|has been))?[ _]exceeded",
            r"exceeded model token limit",
            r"exceed max message tokens",
            r"exceeds? the maximum (?:number of tokens|input length|prompt length)",
            r"prompt (?:is )?too long",
            r"longer than the maximum model length",
            r"too large for model with",
            r"range of input length",
            r"input (?:is too long|is too large|length exceeds)",
            r"input token count .{0,60}exceeds",
            r"reduce the length of the (?:messages|prompt|input)",
            r"too many (?:input |prompt )?tokens",
            r"when context the overflows",
            r"larger than the (?:maximum )?context",
            r"上下文.{0,12}超",
            r"prompt 超长",
        ),
    ),
    (
        _K.FILTERED,
        _any(
            r"content management policy",
            r"content[ _]filter",
            r"content policy",
            r"sensitivecontentdetected",
            r"inappropriate content",
            r"data inspection",
            r"flagged (?:by|for|as)",
            r"usage policies",
            r"considered high risk",
            r"safety system",
            r"不安全或敏感",
        ),
    ),
    (
        _K.QUOTA,
        _any(
            r"exceeded your current quota",
            r"insufficient[ _](?:balance|credit|fund|quota)",
            r"payment required",
            r"(?:more|out of) credits",
            r"credit balance",
            r"account.{0,40}(?:overdue|in good standing|in arrears|suspended)",
            r"free tier.{0,40}exhausted",
            r"欠费",
            r"余额不足",
        ),
    ),
    (
        _K.BAD_KEY,
        _any(
            r"(?:invalid|incorrect|wrong|missing|no|expired) api[ -_]?key",
            r"invalid (?:token|credential|authentication|subscription key)",
            r"api key (?:not valid|is invalid|expired|is missing)",
            r"authentication fails",
            r"unauthorized",
            r"didn't provide an api key",
            r"身份验证",
        ),
    ),
    (
        _K.OVERLOADED,
        _any(
            r"overloaded",
            r"over capacity",
            r"no capacity",
            r"(?:server|system) is (?:too )?busy",
            r"high demand",
            r"访问量过大",
        ),
    ),
    (
        _K.RATE_LIMITED,
        _any(
            r"rate[ _-]?limit",
            r"too many (?:requests|concurrent)",
            r"throttl",
            r"(?:requests|tokens) per (?:second|minute|hour|day)",
            r"并发",
            r"速率",
        ),
    ),
)
"""Looked through in this order."""

_CLIENT_ERRORS = frozenset({400, 403, 404, 413, 422})

SPEAKS: Mapping[FailureKind, frozenset[int]] = {
    _K.CONTEXT_OVERFLOW: _CLIENT_ERRORS | {200, 500, 501},
    _K.FILTERED: _CLIENT_ERRORS | {200, 451},
    _K.QUOTA: _CLIENT_ERRORS | {200, 429},
    _K.BAD_KEY: frozenset({200, 400, 403}),
    _K.OVERLOADED: frozenset({200, 400, 429, 500, 502, 503}),
    _K.RATE_LIMITED: frozenset({200, 400, 403, 500, 503}),
}
"""At which statuses words of a kind count; 200: an error told inside of an answer."""

STATUSES: Mapping[int, FailureKind] = {
    401: _K.BAD_KEY,
    402: _K.QUOTA,
    403: _K.BAD_KEY,
    408: _K.UNAVAILABLE,
    409: _K.UNAVAILABLE,
    413: _K.CONTEXT_OVERFLOW,
    424: _K.UNAVAILABLE,  # Bedrock's word for a model that failed
    425: _K.UNAVAILABLE,
    429: _K.RATE_LIMITED,
    451: _K.FILTERED,
    503: _K.OVERLOADED,
    529: _K.OVERLOADED,
}
"""Of those that speak for themselves; of the others, from 500 on the provider is down, below the request is wrong."""
