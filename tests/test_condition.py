"""Conditions: what is wrong is told at load, and nothing that a target answers can break a check."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.condition import MAX_VALUE_DEPTH, Condition, compile_condition, judge
from agentd.condition.needed import needed
from agentd.condition.types import Types
from agentd.errors import ConfigError
from agentd.records import Observation, Verdict

KNOWN = ("status", "latency_ms", "body", "text", "headers", "answers", "disks")


def condition(text: str) -> Condition:
    return compile_condition(text, KNOWN)


def wrong(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        condition(text)
    return str(caught.value)


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("status == 200", {"status": 200}),
        ("latency_ms < 300", {"latency_ms": 12.5}),
        ('body.status == "UP"', {"body": {"status": "UP"}}),
        ('body["a-b"][1].x == 2', {"body": {"a-b": [{}, {"x": 2}]}}),
        ("body.items.size() == 2 && body.items[0] == 1", {"body": {"items": [1, 2]}}),
        ("body.a.b == 1 && body.a.size() == 2", {"body": {"a": {"b": 1, "c": 2}}}),
        ("!has(body.error)", {"body": {"fine": True}}),
        ("body.list[body.at] == 7", {"body": {"list": [5, 7], "at": 1}}),
        ('"mail.example.com" in answers', {"answers": ["mail.example.com"]}),
        ("disks.all(d, disks[d].used_percent < 90)", {"disks": {"/": {"used_percent": 1.0}}}),
        ('text.trim().matches("^o.$")', {"text": " ok\n"}),
        ("status == 200 || body.x == 1", {"status": 200}),
        ("type(status) == int", {"status": 1}),
        ('text == "it\\"s { x.all( } // no comment" // a comment', {"text": 'it"s { x.all( } // no comment'}),
    ],
)
def test_a_true_condition_holds(text: str, values: dict[str, Any]) -> None:
    """The language as people write it, over the few values that evaluation is handed."""
    assert condition(text).holds(values)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("status == 200", {}),
        ("body.status == 1", {"body": {"other": 1}}),
        ("body.status == 1", {"body": None}),
        ("body.status == 1", {"body": "a text"}),
        ("body.a.b == 1", {"body": {"a": []}}),
        ("body.a.b == 1", {"body": {}}),
        ('status + "a" == 2', {"status": 1}),
        ("status / 0 == 1", {"status": 1}),
        ("status + 9223372036854775807 > 0", {"status": 1}),
        ("answers[3] == 1", {"answers": [1]}),
        ("status", {"status": 200}),
        ("text.matches(text)", {"text": "("}),
        ("status == 200", {"status": object()}),
        ("status == 200", {"status": float("nan")}),
        ("status == 200", {"status": 2**70}),
        ("status == 200", {"status": 10**10_000}),
        ("text == 'a'", {"text": "\ud800"}),
        ("text == 'a'", {"text": b"\xff"}),
        ("status == 200", {"status": datetime(2026, 1, 1, tzinfo=UTC)}),
        ("body == 1", {"body": {None: 1}}),
        ("body == 1", {"body": nested(100_000)}),
        ("body.a == 1", {"body": nested(100_000)}),
        ("answers == 1", {"answers": [{1, 2}]}),
    ],
)
def test_what_cannot_be_computed_does_not_hold_and_is_explained(text: str, values: dict[str, Any]) -> None:
    """A hostile or broken answer is a failed condition, never an exception in the main path."""
    asked = condition(text)

    assert asked.holds(values) is False
    summary, shown = asked.explain(values)
    assert "\n" not in summary
    json.dumps(shown, allow_nan=False).encode()
    summary.encode()


def test_the_depth_allowed_is_computed() -> None:
    """The bound must not cut what a service may honestly send."""
    assert condition("body.size() == 1").holds({"body": nested(MAX_VALUE_DEPTH - 1)})


@pytest.mark.parametrize(
    ("text", "values", "summary"),
    [
        ("status == 200", {"status": 503}, "status == 200 does not hold (status = 503)"),
        (
            'body.status == "UP" && body.age < 5',
            {"body": {"status": "DOWN"}},
            'body.status == "UP" && body.age < 5 does not hold (body.status = "DOWN", body.age is missing)',
        ),
        (
            'status + "a" == 2',
            {"status": 1},
            'status + "a" == 2 cannot be computed: the types do not go together (status = 1)',
        ),
        ("status", {"status": 200}, "status is 200, neither true nor false (status = 200)"),
        ('body["a-b"][0] == 1', {"body": {"a-b": [2]}}, 'body["a-b"][0] == 1 does not hold (body["a-b"][0] = 2)'),
        (
            "answers[3] == 1",
            {"answers": [1]},
            "answers[3] == 1 cannot be computed: the list is shorter (answers[3] is missing)",
        ),
        ("answers.all(x, x > 1)", {"answers": [1]}, "answers.all(x, x > 1) does not hold (answers = [1])"),
        ("latency_ms <\n   300", {"latency_ms": 312.45678}, "latency_ms < 300 does not hold (latency_ms = 312.457)"),
    ],
)
def test_the_explanation_shows_the_values_as_read(text: str, values: dict[str, Any], summary: str) -> None:
    """The message must be enough to know what is wrong, at three in the morning."""
    assert condition(text).explain(values)[0] == summary


def test_long_values_are_cut() -> None:
    """A page of a megabyte must not become an alert of a megabyte."""
    summary, shown = condition("text == '' && body.x == 1").explain(
        {"text": "x" * 2**20, "body": {"x": [["y" * 999] * 999]}}
    )

    assert len(summary) < 300
    assert len(shown["text"]) == 80
    assert len(json.dumps(shown)) < 2000


def test_at_most_five_values_are_shown() -> None:
    """A condition over everything must stay one line."""
    many = " && ".join(f"body.m{number} == 1" for number in range(20))
    summary, shown = condition(many).explain({"body": {f"m{number}": 0 for number in range(20)}})

    assert list(shown) == [f"body.m{number}" for number in range(5)]
    assert summary.count(" = ") == 5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stauts == 200", "unknown variable `stauts`; did you mean `status`? known here: answers, body, "),
        ("answers.all(x, x > 0) && x", "unknown variable `x`"),
        ("Status == 200", "unknown variable `Status`; did you mean `status`?"),
        ("foo(status)", "unknown function `foo`; known: "),
        ("text.startswith('a')", "unknown function `startswith`; did you mean `startsWith`?"),
        ("matches(text, 'a')", "write e.g. text.matches("),
        ("text.matches('(a')", "'(a' is no regular expression: unclosed group"),
        ("Point{x: 1}.x == 1", "write a map instead"),
        ("", "empty condition"),
        ("1 + 1", "is always 2, neither true nor false"),
        ("1 / 0 == 1", "can never be computed: division by zero"),
        ("status == 200 and latency_ms < 3", "write && instead of and"),
        ("not status", "write ! instead of not"),
        ("status ==", "it ends too early"),
        ("status == 200)", "extraneous input ')'"),
        ("body." + "a." * 4000 + "a", "longer than 4096"),
        ("(" * 2000, "nested too deeply"),
    ],
)
def test_what_is_wrong_is_told_at_load(text: str, says: str) -> None:
    """A misspelt condition found at run would be an alert at night."""
    assert says in wrong(text)


TYPES: Types = {
    ("status",): "number",
    ("latency_ms",): "number",
    ("text",): "text",
    ("body",): "any",
    ("headers",): "map",
    ("headers", "*"): "text",
    ("answers",): "list",
    ("answers", "*"): "text",
    ("connected",): "bool",
}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('status == "200"', "never holds: status is a number, not text; write 200 without quotes"),
        ('"200" == status', "never holds: status is a number, not text"),
        ('body.x == 1 && status != "a"', "always holds: status is a number, not text"),
        ('status > "a"', "can never be computed: status is a number, not text"),
        ("1 < text", "can never be computed: text is text, not a number; write int(text)"),
        ("text == 5", 'write "5" in quotes'),
        ('connected == "true"', "write connected or !connected"),
        ("connected >= 1", "connected is true or false, not a number"),
        ('answers == "a"', 'write e.g. "a" in answers'),
        ('headers == "a"', "name a member of it"),
        ('headers["content-length"] > 5', 'write int(headers["content-length"])'),
        ("status", "`status` is neither true nor false"),
        ("text.size()", "neither true nor false"),
        ("status == 200 ? 1 : 2", "neither true nor false"),
        ("!status", "can never be computed: status is a number"),
        ('text + 1 == "a1"', "can never be computed: text is text"),
        ("true", "always holds, whatever is seen"),
        ("1 == 2", "never holds, whatever is seen"),
    ],
)
def test_what_can_never_hold_is_told_at_load_where_types_are_known(text: str, says: str) -> None:
    """Such a condition is an alert at the first check, or one that never comes."""
    with pytest.raises(ConfigError) as caught:
        compile_condition(text, [*KNOWN, "connected"], TYPES)

    assert says in str(caught.value)
    assert "; " in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        *("status == 200", "latency_ms < 300.5", "status in [200, 204]", "status % 2 == 0", "status / 100 == 2"),
        *("connected", "!connected", "connected == true", "connected && status == 200", "body", "body.ok", "!body.ok"),
        *('body == "a"', "body.x > 5", 'text < "b"', "int(text) > 5", 'string(status) == "200"', "text.size() > 0"),
        *('"a" in answers', 'answers[0] == "a"', "answers == []", "answers.all(a, a == 5)", "answers.size() == 2"),
        *('headers["a"] == "b"', 'headers.exists(h, h == "a")', "has(headers.a)", "status != null", "text != b'a'"),
        *("answers.exists(status, status == 'a')", "(connected ? status : 5) == 5", "status + 1 == 201"),
        *('dyn(status) == "a"', "type(status) == int", "disks == 5", 'disks["/"].x > "a"', "text == string(status)"),
        *('status == 200 || text.contains("a")', '[status == 200, text == "a"].all(x, x)', "text.trim() == r'a'"),
    ],
)
def test_what_might_hold_is_taken(text: str) -> None:
    """A false alarm at load would forbid a sound configuration; so what is not certain passes."""
    compile_condition(text, [*KNOWN, "connected"], TYPES)


_BY_TYPE = {
    "number": st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False),
    "text": st.text(st.characters(codec="utf-8")),
    "bool": st.booleans(),
    "list": st.lists(st.text(st.characters(codec="utf-8"))),
    "map": st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))),
}


@given(
    st.sampled_from(sorted(_BY_TYPE)),
    st.sampled_from(["==", "!=", "<", "<=", ">", ">="]),
    st.sampled_from(["200", "-1", "1.5", '"200"', '""', '"a"', "true", "false"]),
    st.booleans(),
    st.data(),
)
def test_what_is_refused_is_of_no_use_whatever_is_seen(
    type_: Any, operator: str, literal: str, turned: bool, data: st.DataObject
) -> None:
    """The refusal is right only when no value of the type could make a difference."""
    text = f"{literal} {operator} x" if turned else f"x {operator} {literal}"
    try:
        compile_condition(text, ["x"], {("x",): type_})
    except ConfigError:
        assert compile_condition(text, ["x"]).holds({"x": data.draw(_BY_TYPE[type_])}) is (operator == "!=")


def test_a_syntax_error_shows_the_place() -> None:
    """The caret must stand under the character, also after letters of more than one byte and on a later line."""
    assert wrong('text == "é" &&\nstatus = 200').splitlines() == [
        "cannot read condition: token recognition error at: '= '; write == instead of =",
        "    status = 200",
        "           ^",
    ]


@pytest.mark.parametrize(
    "bomb",
    [
        *("(" * 10_000, "(" * 2000 + "1" + ")" * 2000, "!" * 4000 + "true", "-" * 4000 + "1", "1" + "+1" * 2000),
        *("[" * 4000, "true?" * 800, "body" + ".a" * 2000, "body" + "[0]" * 1300, "text" + ".trim()" * 500),
    ],
    ids=lambda bomb: bomb[:6],
)
def test_a_recursion_bomb_is_refused_or_survived(bomb: str) -> None:
    """A config file must not end the daemon that reads it. In a process of its own: a stack overflow kills."""
    script = (
        "import sys\nfrom agentd.condition import compile_condition\nfrom agentd.errors import ConfigError\n"
        "try:\n  compile_condition(sys.argv[1], ['body', 'text']).holds({'body': {}, 'text': ''})\n"
        "except ConfigError:\n  pass\nprint('alive')"
    )
    done = subprocess.run([sys.executable, "-c", script, bomb], capture_output=True, text=True, check=False, timeout=60)

    assert done.stdout == "alive\n", done.stderr[-500:]


def test_the_command_line_of_the_library_is_not_loaded() -> None:
    """It brings typer, rich and prompt_toolkit, which an idle daemon would hold for months."""
    script = (
        "import sys, agentd.condition\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('typer', 'rich', 'prompt_toolkit', 'pygments')))\n"
        "print('cel.cli' in sys.modules, hasattr(sys.modules['cel'], 'cli'))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout == "[]\nFalse False\n"


def test_variables_are_the_names_read() -> None:
    """Probes may skip work for what nobody reads; names bound by macros are not read."""
    assert condition("status == 200 && answers.exists(body, body == text)").variables == {"status", "answers", "text"}


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3) | st.sampled_from(["a", "b"]), inner),
    max_leaves=20,
)
_ASKED = [
    condition(text)
    for text in ("body.a.b == 1", "body.a[0].b < 3 || has(body.b)", "body == 'x'", "body.size() > body.a.size()")
]


@given(_JSON)
def test_reading_only_members_changes_no_answer(body: Any) -> None:
    """Handing over a part of a value is a matter of speed; the answer must be that of the whole."""
    for asked in _ASKED:
        whole = condition(f"({asked.source}) || body == 'never, never'")
        assert asked.holds({"body": body}) == whole.holds({"body": body})
        json.dumps(asked.explain({"body": body})[1], allow_nan=False)


def test_a_blind_look_is_judged_blind() -> None:
    """Conditions over nothing would call the target failing, which nobody saw."""
    judgement = judge(Observation(blind="no route to host"), [condition("status == 200")])

    assert (judgement.verdict, judgement.summary, judgement.failed) == (Verdict.BLIND, "no route to host", ())


def test_an_error_is_failing_whatever_the_conditions_say() -> None:
    """A target that refused has not met any condition."""
    judgement = judge(Observation({"status": 200}, error="connection refused"), [condition("status == 200")])

    assert (judgement.verdict, judgement.summary) == (Verdict.FAILING, "connection refused")
    assert judgement.failed == ()


def test_an_unreadable_body_is_said_where_it_is_missed() -> None:
    """`body.status is missing` alone sends people looking at the wrong end."""
    seen = Observation({"status": 200}, notes={"body": "body is not JSON: it is empty"})

    summary = judge(seen, [condition("body.status == 'UP'")]).summary

    assert summary.endswith("; body is not JSON: it is empty")


def test_every_condition_must_hold() -> None:
    """The first failed one speaks, the others are counted and listed, and all values are shown."""
    conditions = [condition("status == 200"), condition("latency_ms < 3"), condition("text == 'a'")]
    seen = Observation({"status": 503, "latency_ms": 9, "text": "a"})

    judgement = judge(seen, conditions)

    assert judgement.verdict is Verdict.FAILING
    assert judgement.summary == "status == 200 does not hold (status = 503) (and 1 more)"
    assert judgement.failed == ("status == 200", "latency_ms < 3")
    assert judgement.shown == {"status": 503, "latency_ms": 9, "text": "a"}
    assert judge(Observation({"status": 200, "latency_ms": 1, "text": "a"}), conditions).verdict is Verdict.OK


def test_any_name_may_be_read_where_nobody_knows_them() -> None:
    """What a log line brings is known only when it comes."""
    condition = compile_condition('level == "error" && http.status >= 500', None)

    assert condition.variables == {"level", "http"}
    assert condition.holds({"level": "error", "http": {"status": 503}})
    assert not condition.holds({"level": "error"})
    assert not condition.holds({"level": "error", "http": "503"})


def test_a_field_may_be_called_like_a_type() -> None:
    """Many a JSON log has a `type`."""
    assert compile_condition('type == "request"', None).holds({"type": "request"})
    assert compile_condition("type(x) == int", None).holds({"x": 1})


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ('function == "f"', 'fields["function"]'),
        ("x.in == 1", '["in"]'),
        ("true", "leave it out"),
        ("a and b", "&&"),
        ("level = 1", "=="),
        ("frobnicate(x)", "unknown function"),
    ],
)
def test_what_is_wrong_with_any_name_is_still_said_at_load(text: str, cure: str) -> None:
    """That a field is not there cannot be known; all else can."""
    with pytest.raises(ConfigError) as error:
        compile_condition(text, None)

    assert cure in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('level == "error"', [(("level",), ("error",))]),
        ('"error" == level', [(("level",), ("error",))]),
        ('a.b.contains("foo bar") && x > 3', [(("a", "b"), ("foo bar",))]),
        ('a["b.c"] == "x-1" && (y == "u" && z in ["aa", "bb"])',
         [(("a", "b.c"), ("x-1",)), (("y",), ("u",)), (("z",), ("aa", "bb"))]),
        ('(a == "x" || b == "y") && c.startsWith("z")', [(("c",), ("z",))]),
        ('a == "x" // && b == "y"', [(("a",), ("x",))]),
        ('a == "x" || b == "y"', []),
        ('a == "x" ? true : b', []),
        ('!(a == "x")', []),
        ('!a.contains("x")', []),
        ('a != "x"', []),
        ('(a == "x") == false', []),
        ('a == "x" == false', []),
        ('a + "x" == b', []),
        ('a == "x" + b', []),
        ('a.lowerAscii() == "x"', []),
        ('a.lowerAscii().contains("x")', []),
        ('a == "\\x41"', []),
        ('a == r"x"', []),
        ('a == "caf\u00e9"', []),
        ('a == ""', []),
        ("a.contains(b)", []),
        ('l.all(x, x == "y")', []),
    ],
)  # fmt: skip
def test_what_must_stand_somewhere_for_a_condition_to_hold(
    text: str, expected: list[tuple[tuple[str, ...], tuple[str, ...]]]
) -> None:
    """Lines are searched for it; one literal too many here is an alert lost."""
    compile_condition(text, None)

    assert [(need.path, need.literals) for need in needed(text)] == expected
