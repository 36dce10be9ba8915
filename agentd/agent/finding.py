"""
The validated answer of a run: whatever a model wrote becomes a `Finding` whose quotes were looked up.

In: what stood in `Final` (an object, JSON text, or plain words) and the run's exhibits. Out: a Finding.
Promise: never raises. Every quote that is left stands in what its claim cites, every id is one of an exhibit; what had
to be struck out marks the finding `unverified`. Counts and lengths are bounded, no control characters come through.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agentd.agent.answer_words import CONFIDENCE, SEVERITY, STATUS, UNCLEAR
from agentd.agent.essence import essence_of
from agentd.agent.evidence import Exhibits, one_line
from agentd.agent.job import Claim, Finding
from agentd.llm.guide import EXAMPLE_ANSWER
from agentd.llm.in_words import answer_in
from agentd.records import Severity

NO_ANALYSIS = "No analysis. "
"""How the summary begins where no model gave one."""
MOST_CLAIMS = 20
MOST_STEPS = 10
MOST_CITED = 8
MOST_QUOTES = 5
SUMMARY_CHARS = 2000
CLAIM_CHARS = 1000
STEP_CHARS = 500
QUOTE_CHARS = 500
MOST_SOURCES = 20
SOURCE_CHARS = 120
_ANSWER_CHARS = 256 * 1024
_ESSENCE_CHARS = 240
_SHORTEST_OWN_QUOTE = 12
_SHORTEST_QUOTE = 4
_SHORTEST_CAPITALS = 2
_DEEPEST = 4

FINDING_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "What was found",
    "properties": {
        "status": {
            "type": "string",
            "enum": ["ok", "problem", "unclear"],
            "description": "ok: nobody needs to look, or the task is done",
        },
        "severity": {"type": "string", "enum": ["info", "warning", "critical"]},
        "summary": {"type": "string", "description": "The answer in one to three sentences"},
        "claims": {
            "type": "array",
            "maxItems": MOST_CLAIMS,
            "items": {
                "type": "object",
                "properties": {
                    "text": {"type": "string", "description": "One thing that you found"},
                    "evidence": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": "Ids of the evidence it rests on, such as e4",
                    },
                    "quotes": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": "Words copied from that evidence, exactly as they stand there",
                    },
                },
                "required": ["text", "evidence", "quotes"],
                "additionalProperties": False,
            },
        },
        "next_steps": {
            "type": "array",
            "maxItems": MOST_STEPS,
            "items": {"type": "string"},
            "description": "What a person should do",
        },
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
    },
    "required": ["status", "severity", "summary", "claims", "next_steps", "confidence"],
    "additionalProperties": False,
}
"""JSON Schema (draft 2020-12) of what a model is asked for; what it gives is read far more leniently."""

EXAMPLE: dict[str, Any] = {
    "status": "problem",
    "severity": "critical",
    "summary": "(what is wrong and why, in one to three sentences)",
    "claims": [{"text": "(one thing that you found)", "evidence": ["e2"], "quotes": ["(words copied from e2)"]}],
    "next_steps": ["(what a person should do)"],
    "confidence": 0.8,
}
"""Says nothing of any machine: small models copy what they are shown, and a copy must not read like a finding."""

COPIED = "The model copied the example of an answer in place of one of its own."

_EXAMPLES = frozenset(
    text.strip("()")
    for text in (
        EXAMPLE["summary"],
        EXAMPLE["claims"][0]["text"],
        EXAMPLE["claims"][0]["quotes"][0],
        EXAMPLE["next_steps"][0],
        EXAMPLE_ANSWER,
    )
)
_SUMMARY_KEYS = ("summary", "conclusion", "answer", "result", "message", "root_cause", "description", "text")
_CLAIM_KEYS = ("text", "claim", "statement", "summary", "description", "finding", "point")
_EVIDENCE_KEYS = ("evidence", "evidence_ids", "evidence_id", "cites", "citations", "sources", "source", "ids", "id")
_QUOTE_KEYS = ("quotes", "quote", "quotation", "excerpt", "excerpts", "verbatim")
_STEP_KEYS = ("next_steps", "next_step", "recommendations", "recommendation", "actions", "suggestions", "steps")
_CLAIMS_KEYS = ("claims", "claim", "findings", "observations", "facts", "details", "reasons")
_WRAPPERS = ("finding", "answer", "final", "result", "output", "input", "arguments", "response")
_WORD = re.compile(r"[\w.-]+")
_LOOKS_LIKE_ID = re.compile(r"(?:e[0-9]{1,6}|s[0-9]{1,4}(?:\.[0-9]{1,4})+)", re.IGNORECASE)
_NUMBER = re.compile(r"(-?[0-9]{1,6}(?:\.[0-9]{1,12})?)\s*(%?)")
_BULLET = re.compile(r"^\s*(?:[-*•–]|[0-9]{1,3}[.)])\s+", re.MULTILINE)  # noqa: RUF001  en dashes are bullets too
_QUOTED = "\"'`“”‘’«»„ \n\t"  # noqa: RUF001  what stands around quotes
_AROUND_QUOTES = _QUOTED + ".…*_"
"""What models add to them: emphasis, the end of a sentence, a sign that it went on."""


def read_finding(answer: Any, exhibits: Exhibits, *, severity: Severity) -> Finding:
    """
    The finding that `answer` is meant to be.

    answer: an object, JSON text (perhaps fenced, with words around it) or plain text: then the status is `unclear` and
    the summary is what it says. severity: of whoever asks, where the answer has none.
    """
    data = _object_of(answer, exhibits)
    if data is None:
        text = _line(answer, SUMMARY_CHARS) or "The model's answer was empty."
        if _is_copied(text):
            return Finding(status="unclear", severity=severity, summary=COPIED, unverified=True)
        return Finding(status="unclear", severity=severity, summary=text)
    claims, struck = _claims(_first(data, _CLAIMS_KEYS), exhibits)
    steps = (_line(step, STEP_CHARS) for step in _texts(_first(data, _STEP_KEYS)))
    steps = (step for step in steps if step and not _is_copied(step))
    summary = _line(_first(data, _SUMMARY_KEYS), SUMMARY_CHARS)
    status = STATUS.get(_word(data.get("status")))
    if _is_copied(summary):
        # How bad it is was copied too.
        return Finding(
            status="unclear",
            severity=severity,
            summary=COPIED,
            claims=tuple(claims),
            next_steps=tuple(steps)[:MOST_STEPS],
            unverified=True,
            sources=_sources(claims, exhibits),
        )
    return Finding(
        status=status or "unclear",
        severity=SEVERITY.get(_word(data.get("severity")), severity),
        summary=summary or (claims[0].text if claims else "The model gave no summary."),
        claims=tuple(claims),
        next_steps=tuple(steps)[:MOST_STEPS],
        confidence=_confidence(data.get("confidence")),
        unverified=struck,
        sources=_sources(claims, exhibits),
    )


def misfits(answer: Any) -> str:
    """
    What does not fit in an object that is meant as a finding, and an example; empty: it can be read.

    Only what would be lost, or turned into its opposite: a status that is no word for one, a copy of the example.
    """
    if not isinstance(answer, Mapping):
        return ""
    data = {_word(str(key)): item for key, item in answer.items()}
    wrong = []
    status, summary, claims = data.get("status"), data.get("summary"), data.get("claims")
    if status not in (None, "") and not (STATUS.get(_word(status)) or _word(status) in UNCLEAR):
        wrong.append(f'"status" must be ok, problem or unclear, not {_shown(status)}')
    if summary not in (None, "") and not isinstance(summary, str):
        wrong.append(f'"summary" must be text, not {_shown(summary)}')
    elif _is_copied(_line(summary, SUMMARY_CHARS)):
        wrong.append('"summary" is that of the example: write what you found yourself')
    if claims is not None and not isinstance(claims, list | tuple | Mapping):
        wrong.append(f'"claims" must be a list of objects, not {_shown(claims)}')
    given = data.get("confidence")
    if wrong and isinstance(given, int | float) and not 0 <= given <= 1:
        wrong.append(f'"confidence" must be a number from 0 to 1, not {_shown(given)}')
    if not wrong:
        return ""
    return f"{'; '.join(wrong)}. Such an answer looks like this: {json.dumps(EXAMPLE, ensure_ascii=False)}"


def _shown(value: Any) -> str:
    return one_line(json.dumps(value, ensure_ascii=False, default=str)[:200], 40)


def _is_copied(text: str) -> bool:
    """Whether these are the words of an example that the model was shown."""
    return text.strip(" ().…") in _EXAMPLES


def without_model(exhibits: Exhibits, reason: str, *, severity: Severity) -> Finding:
    """
    The evidence that was gathered, when there is no analysis of it: no model, no budget, no end in time.

    reason: why not, short.
    """
    ids = exhibits.ids
    titles = "; ".join(f"{id} {exhibits.title(id)}" for id in ids[:MOST_CLAIMS])
    more = f"; and {len(ids) - MOST_CLAIMS} more" if len(ids) > MOST_CLAIMS else ""
    gathered = f"Evidence gathered: {titles}{more}" if ids else "No evidence could be gathered"
    claims = [_as_claim(exhibits, id) for id in ids[:MOST_CLAIMS]]
    return Finding(
        status="unclear",
        severity=severity,
        summary=one_line(f"{NO_ANALYSIS}{gathered}.", SUMMARY_CHARS),
        claims=tuple(claims),
        sources=_sources(claims, exhibits),
        analysis=f"unavailable ({one_line(reason, 200) or 'no reason given'})",
    )


def _as_claim(exhibits: Exhibits, id: str) -> Claim:
    """An exhibit by its title and what it says at its heart."""
    title, said = exhibits.title(id), essence_of(exhibits.text(id), _ESSENCE_CHARS)
    return Claim(text=": ".join(part for part in (title, said) if part), evidence=(id,))


def _sources(claims: Iterable[Claim], exhibits: Exhibits) -> dict[str, str]:
    """What is cited, by its title."""
    ids = dict.fromkeys(id for claim in claims for id in claim.evidence)
    return {id: one_line(exhibits.title(id) or "(no title)", SOURCE_CHARS) for id in list(ids)[:MOST_SOURCES]}


def _object_of(answer: Any, exhibits: Exhibits) -> dict[str, Any] | None:
    """The object that is the finding, freed from what it is wrapped in; its keys in lower case."""
    value = answer
    found: dict[str, Any] | None = None
    for _ in range(_DEEPEST):
        if isinstance(value, str):
            value = answer_in(
                value[:_ANSWER_CHARS], _can_be_one, lambda text: any(exhibits.said(id, text) for id in exhibits.ids)
            )
        if not isinstance(value, Mapping):
            return found
        found = {_word(str(key)): item for key, item in value.items()}
        if "status" in found or "summary" in found or "claims" in found:
            return found
        inner = _first(found, _WRAPPERS)
        if not isinstance(inner, Mapping | str):
            return found
        value = inner
    return found


def _can_be_one(data: Mapping[str, Any]) -> bool:
    """Whether an object among words is meant as the finding; of others the words tell more."""
    found = {_word(str(key)): item for key, item in data.items()}
    return bool({"status", "summary", "claims"} & found.keys() or _first(found, _WRAPPERS))


def _claims(value: Any, exhibits: Exhibits) -> tuple[list[Claim], bool]:
    """The claims, and whether something had to be struck out."""
    items: Iterable[Any] = value if isinstance(value, list | tuple) else [value]
    if isinstance(value, str):
        items = _texts(value)
    claims: list[Claim] = []
    struck = False
    for item in items:
        if len(claims) == MOST_CLAIMS:
            break
        data = {_word(str(key)): each for key, each in item.items()} if isinstance(item, Mapping) else {"text": item}
        text = _line(_first(data, _CLAIM_KEYS), CLAIM_CHARS)
        if not text or _is_copied(text):
            continue
        cited, unknown, words = _cited(_first(data, _EVIDENCE_KEYS), exhibits)
        quotes, false = _checked([*_texts(_first(data, _QUOTE_KEYS)), *words], cited, exhibits)
        claims.append(
            Claim(text=text, evidence=tuple(cited)[:MOST_CITED], quotes=tuple(quotes), unverified=unknown or false)
        )
        struck |= unknown or false
    return claims, struck


def _cited(value: Any, exhibits: Exhibits) -> tuple[list[str], bool, list[str]]:
    """Ids that are known, whether unknown ones were cited, and words that were given in place of ids."""
    cited: dict[str, None] = {}
    unknown = False
    words: list[str] = []
    for item in _texts(value):
        if id := exhibits.known(item[:100]):
            cited[id] = None
            continue
        named = [(word, exhibits.known(word)) for word in _WORD.findall(item[:2000])]
        ids = [id for word, id in named if id and _names(word, id)]
        strangers = [word for word, id in named if not id and _LOOKS_LIKE_ID.fullmatch(word)]
        cited.update(dict.fromkeys(ids))
        if strangers:
            unknown = True
        elif not ids:
            if len(item.strip()) >= _SHORTEST_OWN_QUOTE:
                words.append(item)
            else:
                unknown = True
    return list(cited)[:MOST_CITED], unknown, words


def _names(word: str, id: str) -> bool:
    """Whether a word of a sentence is meant as an id: it looks like one, or has a digit and is just that."""
    return bool(_LOOKS_LIKE_ID.fullmatch(word)) or any(map(str.isdigit, id))


def _checked(quotes: list[str], cited: list[str], exhibits: Exhibits) -> tuple[list[str], bool]:
    """
    The quotes that stand in what is cited, and whether one does not.

    Where nothing is cited, what the words are found in becomes what is cited.
    """
    kept: dict[str, None] = {}
    struck = False
    little = False
    whole = list(cited)
    for quote in quotes[: 2 * MOST_QUOTES]:
        text = quote.strip(_QUOTED)
        if not text:
            continue
        forms = [form for form in dict.fromkeys((text, quote, text.strip(_AROUND_QUOTES))) if form]
        found = next((form for form in forms if any(exhibits.said(id, form) for id in whole)), None)
        if found is None and not whole and len(text) >= _SHORTEST_OWN_QUOTE:
            own = next((id for id in exhibits.ids if exhibits.said(id, text)), None)
            if own is not None:
                found = text
                cited += [own] if own not in cited else []
        if found is None:
            struck = True
        elif _tells(found) or any(found == exhibits.text(id).strip() for id in whole):
            kept[one_line(found.strip(_QUOTED), QUOTE_CHARS)] = None
        else:
            little = True
    # A word that stands everywhere proves nothing, and harms nothing beside others.
    struck |= little and not kept
    return list(kept)[:MOST_QUOTES], struck


def _tells(quote: str) -> bool:
    """Whether it says enough to prove something: `503` and `OOM` do, `the` does not."""
    letters = [char for char in quote if char.isalnum()]
    shortest = _SHORTEST_QUOTE if any(char.islower() for char in letters) else _SHORTEST_CAPITALS
    return len(letters) >= shortest


def _confidence(value: Any) -> float | None:
    """Between 0 and 1, from 0.8, 80, "80%" or "high"; None when it says nothing of the kind."""
    if isinstance(value, bool):
        return None
    percent = False
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value.strip())
        if match is None:
            return CONFIDENCE.get(_word(value))
        value, percent = float(match[1]), bool(match[2])
    if not isinstance(value, int | float) or not 0 <= value <= 100 or math.isnan(value):
        return None
    return float(value) / 100 if percent or value > 1 else float(value)


def _texts(value: Any) -> Iterator[str]:
    """The texts of what should be a list of texts; a text of several lines or bullets counts as such a list."""
    items = value if isinstance(value, list | tuple) else [value]
    for item in items[:200]:
        if isinstance(item, str):
            lines = item.split("\n") if _BULLET.search(item) else [item]
            yield from (stripped for line in lines[:50] if (stripped := _BULLET.sub("", line).strip()))
        elif isinstance(item, Mapping):
            yield from (each for each in item.values() if isinstance(each, str))
        elif isinstance(item, int | float) and not isinstance(item, bool):
            yield str(item)


def _line(value: Any, chars: int) -> str:
    if isinstance(value, Mapping | list | tuple):
        value = "; ".join(_texts(value if not isinstance(value, Mapping) else [value]))
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return ""
    return one_line(str(value), chars)


def _first(data: Mapping[str, Any], keys: Iterable[str]) -> Any:
    """The value of the first key that has one."""
    return next((data[key] for key in keys if data.get(key) not in (None, "", [], {})), None)


def _word(value: Any) -> str:
    """A word of the answer as the tables have it: `Very High` becomes `very_high`."""
    return re.sub(r"[\s-]+", "_", value[:80].strip().strip(".!\"'").lower()) if isinstance(value, str) else ""
