"""
The matcher finds exactly what a look at every entry with every rule finds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from log_matching import NOW, Indented, Lines, PlainParser, Said, block, hits, lines, rule, slow_hits, told

from agentd.condition import compile_condition
from agentd.errors import ConfigError
from agentd.logs import scan
from agentd.logs.compiled import compile_rules, value_of
from agentd.logs.match import Matcher
from agentd.logs.parse import make_parser
from agentd.logs.port import Entry, Hit, Place
from agentd.logs.scan import Search, found_entries
from agentd.logs.settings import LogFormat, LogSource

PATTERNS = ["ab", "b", "^a", "a$", r"\Aa", r"b\z", "(?i)AB", "(?s)a.b", "(?-m)^b", "(?-m)a$", "(?P<x>a)(?P<y>b)?", "^$",
            r"a\sb", r"a\nb", "[^a]b", r"\ba", r"b\B", r"(a+)+$", r"^\s*$", "\0", r"\x00a", ".+", "\u00e9"]  # fmt: skip
TEXTS = st.text(alphabet="aabbA \n\n\r\0\u00e9", max_size=60).map(lambda text: text.encode() + b"\n")


@settings(max_examples=400, deadline=None)
@given(text=TEXTS, patterns=st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=6))
@example(text=b"ab\r\nb\r\n", patterns=["b$", "^b"])
@example(text=b"\r\n\r\n", patterns=["^$", "ab"])
@example(text=b"a\r\r\n", patterns=["a$", "^$"])
def test_blocks_give_what_single_lines_give(text: bytes, patterns: list[str]) -> None:
    """Searching a megabyte at once is for speed alone."""
    rules = [rule(match=pattern) for pattern in patterns]

    assert told(hits(text, *rules)) == told(slow_hits(text, *rules))


@settings(max_examples=400, deadline=None)
@given(
    text=TEXTS,
    patterns=st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=6),
    window=st.integers(1, 30),
    whole=st.booleans(),
)
@example(text=b"x\r\na\r\n b\r\nab\r\n", patterns=[r"a\n b"], window=3, whole=False)
@example(text=b"a\r\nb\r\n", patterns=["a$", r"b?\b$"], window=3, whole=False)
def test_blocks_give_what_joined_entries_give(text: bytes, patterns: list[str], window: int, whole: bool) -> None:
    """A pattern may go over the lines of one entry, and never into the next."""
    rules = [rule(match=pattern) for pattern in patterns]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "_FIRST_WINDOW", window)
        found = hits(text, *rules, joiner=Indented(whole=whole))

    assert told(found) == told(slow_hits(text, *rules, joiner=Indented(whole=whole)))


@settings(max_examples=200, deadline=None)
@given(text=TEXTS, patterns=st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=6))
def test_entries_that_the_source_knows_are_kept(text: bytes, patterns: list[str]) -> None:
    """A journal entry may hold what looks like several."""
    bounds = list(Indented().entries(text))
    starts = [begin for begin, _ in bounds]
    offsets = [begin * 10 for begin in starts]
    rules = [rule(match=pattern) for pattern in patterns]

    found = hits(text, *rules, starts=starts, offsets=offsets, cursors=[f"c{begin}" for begin in starts])

    slow = slow_hits(text, *rules, joiner=Indented())
    assert [(hit.rule, hit.entry.text) for hit in found] == [(hit.rule, hit.entry.text) for hit in slow]
    assert [hit.entry.place.offset for hit in found] == [(hit.entry.place.offset or 0) * 10 for hit in slow]
    assert [hit.entry.place.cursor for hit in found] == [f"c{hit.entry.place.offset}" for hit in slow]


KINDS = [
    {"match": "a(?P<x>b*)"},
    {"match": "b", "ignore": "ab"},
    {"match": "a", "when": 'line.contains("b")'},
    {"match": "a(?P<x>b*)", "when": 'x == "b"'},
    {},
    {"ignore": ("^b", "a$")},
    {"when": 'message.startsWith("abab")'},
    {"when": 'message in ["bbb", "aaa"]'},
    {"when": 'missing == "a"'},
    {"when": 'line.contains("aab") && message != "x"'},
    {"type": "percentage", "match": "a(?P<x>b*)"},
    {"type": "percentage", "when": 'line.contains("b")', "ignore": "aa"},
    {"type": "novel"},
    {"type": "novel", "match": "a"},
]


@settings(max_examples=400, deadline=None)
@given(text=TEXTS, kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=5), joined=st.booleans())
def test_rules_of_all_kinds_give_what_single_looks_give(text: bytes, kinds: list[dict[str, Any]], joined: bool) -> None:
    """What a search finds and what must look at every entry go together in the order of entries and rules."""
    rules = [rule(**kind) for kind in kinds]
    joiner = Indented() if joined else Lines()

    assert told(hits(text, *rules, joiner=joiner)) == told(slow_hits(text, *rules, joiner=joiner))


JSON_WHEN = ['level == "error"', 'user.name.contains("bob")', 'fields["a b"] == "errors-x"',
             '"error" == user', 'level in ["error", "alarm"]', 'tags.contains("error")',
             'level == "error" && user == "bobby"']  # fmt: skip
JSON_VALUES = st.recursive(
    st.sampled_from(["error", "bob", "bobby", "errors-x", "alarm", "none"]) | st.integers(0, 9) | st.none(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["name", "error"]), inner, max_size=2),
    max_leaves=3,
)


@settings(max_examples=400, deadline=None)
@given(
    entries=st.lists(
        st.dictionaries(st.sampled_from(["level", "user", "a b", "tags"]), JSON_VALUES, max_size=4), max_size=6
    ),
    conditions=st.lists(st.sampled_from(JSON_WHEN), min_size=1, max_size=3),
    escaped=st.booleans(),
)
def test_literals_of_conditions_are_looked_for_first_and_miss_nothing(
    entries: list[dict[str, Any]], conditions: list[str], escaped: bool
) -> None:
    """Taking every line apart is slow; a search for a word that must be there is not, and loses none."""
    written = [json.dumps(entry) for entry in entries]
    if escaped:
        written = [line.replace("error", "\\u0065rror") for line in written]
    text = "".join(line + "\n" for line in written).encode()
    rules = [rule(when=condition) for condition in conditions]

    assert told(hits(text, *rules, derived=[])) == told(slow_hits(text, *rules))


def test_lines_without_the_literal_are_not_taken_apart() -> None:
    """This is what the search for literals is for."""
    parser = PlainParser()
    matcher = Matcher([rule(when='user == "root"')], Lines(), parser)
    text = b'{"user": "joe"}\n' * 1000 + b'{"user": "root"}\n'

    found = list(matcher.hits(block(text), Said()))

    assert lines(found) == [(0, '{"user": "root"}')]
    assert parser.asked == 1


def test_a_derived_field_is_never_looked_for_in_the_line() -> None:
    """`level` is error, too, where the line says <3> or ERR."""

    class Levels(PlainParser):
        def fields(self, text: str) -> dict[str, Any]:
            return {"message": text, "level": "error" if "ERR" in text else "info"}

    matcher = Matcher([rule(when='level == "error"')], Lines(), Levels())

    assert lines(list(matcher.hits(block(b"ERR a\nINF b\n"), Said()))) == [(0, "ERR a")]


def test_a_number_may_stand_otherwise_in_the_line() -> None:
    """A message that is no text is written anew, and 1e5 becomes 100000.0."""

    class Numbers(PlainParser):
        def fields(self, text: str) -> dict[str, Any]:
            return {"message": str(float(text))}

    matcher = Matcher([rule(when='message.contains("100000")')], Lines(), Numbers())

    assert lines(list(matcher.hits(block(b"1e5\n"), Said()))) == [(0, "1e5")]


PARSED = [
    "<11>Jan  5 12:00:00 web app[7]: disk failed user=bob",
    "Jan  5 12:00:00 web app[7]: all well",
    '<165>1 2026-01-05T12:00:00Z web app 7 ID47 [ex@1 user="bob" level="warning"] BOMdisk failed',
    '{"level":50,"msg":"disk failed","user":"bob"}',
    '{"level":"ERR","msg":"d\\u0069sk failed","user":"b\\u006fb","app":{"name":"shop"}}',
    '{"log":"{\\"lvl\\":\\"e\\",\\"msg\\":\\"disk failed\\"}\\n","stream":"stderr","time":"2026-01-05T12:00:00Z"}',
    '{"msg":["disk failed", "bob"],"app":{"name":"shop-1"}}',
    'ts=2026-01-05T12:00:00Z lvl=eror msg="disk failed" user=bob',
    'time="2026-01-05T12:00:00Z" level=warn msg="all \\"well\\"" user="b\\u006fb"',
    '10.0.0.1 - bob [05/Jan/2026:12:00:00 +0000] "GET /disk/failed?x=1 HTTP/1.1" 500 12 "-" "curl/8"',
    "2026-01-05T12:00:00.1Z stderr F disk failed",
    "E0105 12:00:00.000000 7 disk.go:12] disk failed",
    "2026-01-05 12:00:00,000 ERROR disk failed",
]
CONDITIONS = ['message.contains("disk failed")', 'user == "bob"', 'level == "error"', 'app.name.startsWith("shop")',
              'stream == "stderr"', 'path.contains("disk")', 'host == "web" && program == "app"', 'level == "warning"',
              'fields["user"] == "bob"', 'facility == "user"', 'source.startsWith("disk")',
              'method in ["GET", "POST"]', 'message.endsWith("well")', 'agent.startsWith("curl")']  # fmt: skip


@pytest.mark.parametrize("format_", ["auto", "syslog", "json", "logfmt", "combined", "plain"])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_what_is_looked_for_stands_in_the_lines_of_every_format(format_: LogFormat, condition: str) -> None:
    """Were a parser to make a text of something else, its field had to be named among the derived ones."""
    parser = make_parser(LogSource(files=("x",), format=format_))
    asked = compile_condition(condition, None)
    text = "".join(line + "\n" for line in PARSED).encode()

    found = list(Matcher([rule(when=condition)], Lines(), parser).hits(block(text), Said()))

    assert [hit.entry.text for hit in found] == [
        line for line in PARSED if asked.holds({**(fields := parser.fields(line)), "fields": fields})
    ]


def test_fields_of_the_journal_need_not_stand_in_the_text() -> None:
    """The unit of a journal entry is no part of its message."""
    given = [{"message": "hello", "unit": "nginx.service"}, {"message": "nginx", "unit": "cron.service"}]

    found = hits(b"hello\nnginx\n", rule(when='unit.startsWith("nginx")'), starts=[0, 6], fields=given, derived=[])

    assert lines(found) == [(0, "hello")]


def test_every_line_a_hit_and_then_none() -> None:
    """Where most lines are hits they are not searched for any more; where they end the search goes on."""
    text = b"a hit\n" * 50 + b"a miss\n" * 50 + b"a hit\n" * 20 + b"\n" + b"a hit\r\n" * 30

    found = hits(text, rule(match="hit$"), rule(match="^a hit"))

    assert told(found) == told(slow_hits(text, rule(match="hit$"), rule(match="^a hit")))
    assert len(found) == 200


def test_hits_at_both_ends_of_a_block() -> None:
    """Blocks are cut where the reading stopped, not where lines are interesting."""
    text = b"hit\n" + b"x" * 1_048_000 + b"\n" + b"hit\n"

    assert [hit.entry.place.offset for hit in hits(text, rule(match="^hit$"), offset=7)] == [7, 1_048_012]


def test_a_megabyte_line_is_one_entry() -> None:
    """Long lines come from dumps; the pattern may stand at their end."""
    text = b"short\n" + b"a" * 1_000_000 + b" end=5\n" + b"short\n"

    (hit,) = hits(text, rule(match=r"(a+)+ end=(?P<n>\d+)$"))

    assert hit.groups == {"n": "5"}
    assert len(hit.entry.text) == 1_000_006


def test_a_search_that_would_look_far_ahead_is_held_back() -> None:
    """Each `<` would send the search to the end of the block: 40,000 times a megabyte."""
    text = b"<open it\n" * 40_000 + b"<open\n ready>\n"

    found = hits(text, rule(match=r"<open[^>]*>|<open"), rule(match=r"(?s)<.*it"), starts=range(0, len(text) - 14, 9))

    assert len(found) == 80_000


def test_patterns_too_large_for_one_search_are_searched_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand rules are no reason to fail, nor to take memory without end."""
    monkeypatch.setattr(scan, "_SEARCH_MEMORY", 10_000)
    patterns = [f"{number:03}word (?P<x>[a-z]+)" for number in range(40)]
    rules = [rule(match=pattern) for pattern in patterns]
    text = b"".join(b"see %03dword here\nnothing\n" % (number * 7 % 50) for number in range(200))

    assert len(Search(patterns, one_line=True)._matches) > 1
    assert told(hits(text, *rules)) == told(slow_hits(text, *rules))
    assert told(hits(text, *rules, joiner=Indented())) == told(slow_hits(text, *rules, joiner=Indented()))


@pytest.mark.parametrize("in_one", [None, lambda text: []])
def test_a_set_that_is_too_large_or_gives_up_loses_nothing(monkeypatch: pytest.MonkeyPatch, in_one: object) -> None:
    """RE2's set says `nothing` when its automaton outgrows the memory; that is no answer."""
    monkeypatch.setattr("agentd.logs.match.compile_set", lambda texts, memory: in_one)
    rules = [rule(match="[ab].c"), rule(match="(?P<x>b)d"), rule(match="end$")]
    text = b"abc bd\nend\nnothing\n"

    assert told(hits(text, *rules)) == told(slow_hits(text, *rules))


def test_more_states_than_memory_are_no_reason_to_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    """RE2 goes on without its automaton then: slower, and right."""
    monkeypatch.setattr(scan, "_SEARCH_MEMORY", 100_000)
    monkeypatch.setattr("agentd.logs.match._SET_MEMORY", 60_000)
    rules = [rule(match="[ab].{40}c"), rule(match="[bc].{41}d"), rule(match="end$")]
    text = b"".join(bytes(b"abcd"[(i * i + j * j * 7 + i * j) % 4] for j in range(300)) + b" end\n" for i in range(60))

    assert told(hits(text, *rules)) == told(slow_hits(text, *rules))


def test_hits_and_far_looks_together_keep_the_search_linear() -> None:
    """A pattern may look for its end over many lines; to the end of the block after each hit would take for ever."""
    text = b"<open it\n" * 20_000 + b"quiet\n" * 20_000 + b"<open it\n" * 20_000
    asked = 0

    class Counted(Search):
        def of(self, text: bytes) -> Callable[[int, int], int]:
            find = super().of(text)

            def counted(begin: int, end: int) -> int:
                nonlocal asked
                asked += 1 + (end - begin if find(begin, end) >= 0 else 0)
                return find(begin, end)

            return counted

    found = found_entries(
        text, Counted(["<open"], one_line=False), lambda entry: (0,), lambda index: Lines().bounds(text, index)
    )

    assert len(list(found)) == 40_000
    assert asked < 500 * len(text)  # to the end each time, it were 12,000


def test_time_is_asked_once_an_entry_and_only_of_hits() -> None:
    """What a line says of its time moves the clock of its stream."""
    asked: list[tuple[str, datetime | None, datetime]] = []

    class Noted(Said):
        def of(self, stream: str, said: datetime | None, read_at: datetime) -> datetime:
            asked.append((stream, said, read_at))
            return super().of(stream, said, read_at)

    matcher = Matcher([rule(match="hit"), rule(match="at=")], Lines(), PlainParser())

    found = list(matcher.hits(block(b"at=1 hit\nmiss\nhit\n"), Noted()))

    assert asked == [("s", datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), NOW), ("s", None, NOW)]
    assert [hit.entry.at for hit in found] == [asked[0][1], asked[0][1], NOW]
    assert found[0].entry is found[1].entry


def test_a_percentage_counts_what_is_not_meant_and_forgets_what_is_ignored() -> None:
    """The whole is every entry that is not ignored."""
    found = hits(b"ok\nerror\nping\n", rule(type="percentage", match="error", ignore="ping"))

    assert [(hit.entry.text, hit.matched) for hit in found] == [("ok", False), ("error", True)]


def test_a_group_is_read_by_a_condition_before_a_field_of_its_name() -> None:
    """The rule's own pattern is nearer than the parser."""
    found = hits(b'{"code": "x"} code=7\n{"code": "y"} code=8\n', rule(match=r"code=(?P<code>\d)", when='code == "8"'))

    assert [hit.groups for hit in found] == [{"code": "8"}]


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ('level == "error" && n > 4', True),
        ('fields["http.status"] == 500', True),
        ("http.status == 500", False),
        ("has(fields.nothing)", False),
        ('message == "m" && line.startsWith("{")', True),
        ('nothing == "x" || level == "error"', True),
        ("n.foo == 1", False),
        ('type == "t"', True),
        ("none == null", True),
    ],
)
def test_a_condition_reads_any_field(condition: str, holds: bool) -> None:
    """What a line brings is known only then; what is missing makes no match."""
    text = b'{"level": "error", "n": 5, "http.status": 500, "message": "m", "type": "t", "none": null}\n'

    assert bool(hits(text, rule(when=condition))) is holds


def test_a_thing_nested_without_end_makes_no_match() -> None:
    """A hostile line must not end the process."""
    text = b'{"level": "error", "a": ' + b"[" * 900 + b"]" * 900 + b"}\n"

    assert not hits(text, rule(when="a.size() == 1"))
    assert not hits(text, rule(when="fields.size() == 2"))
    assert hits(text, rule(when='level == "error"'))


def test_an_entry_is_asked_alone_too() -> None:
    """A new template asks whether its entry is the rule's business."""
    rules = [rule(type="novel", match="user=(?P<u>\\w+)", ignore="test", when='u != "root"'), rule(type="novel")]
    matcher = Matcher(rules, Lines(), PlainParser())

    def entry(text: str) -> Entry:
        return Entry(text, Place("f"), NOW, PlainParser())

    assert matcher.accepts(0, entry("user=joe")) == {"u": "joe"}
    assert matcher.accepts(0, entry("user=root")) is None
    assert matcher.accepts(0, entry("user=joe test")) is None
    assert matcher.accepts(0, entry("nobody")) is None
    assert matcher.accepts(1, entry("nobody")) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("u", "joe"),
        ("level", "error"),
        ("n", "5"),
        ("ok", "true"),
        ("none", "null"),
        ("http.status", "500"),
        ("http.host.name", "web"),
        ("http.host", '{"name":"web"}'),
        ("missing", None),
        ("http.missing", None),
        ("level.deeper", None),
    ],
)
def test_a_name_is_a_group_or_a_field(name: str, value: str | None) -> None:
    """`by` and `field` name what a rule counts."""
    text = json.dumps({"u": "field", "level": "error", "n": 5, "ok": True, "none": None, "http.status": 500,
                       "http": {"status": 1, "host": {"name": "web"}}})  # fmt: skip
    entry = Entry(text, Place("f"), NOW, PlainParser())

    assert value_of(name, {"u": "joe"}, entry) == value


def test_everything_wrong_is_found_at_once_and_by_key() -> None:
    """The loader places each problem at its line."""
    rules = [
        rule(match="a(?!b)", when="level ="),
        rule(match="ok", ignore="("),
        rule(ignore=("ok", "a*")),
        rule(when='function == "x"'),
    ]

    problems = compile_rules(rules).problems

    assert [(each.index, each.key) for each in problems] == [
        (0, "match"), (0, "when"), (1, "ignore"), (2, "ignore[1]"), (3, "when"),
    ]  # fmt: skip
    assert 'fields["function"]' in str(problems[-1].error)
    with pytest.raises(ConfigError):
        Matcher(rules, Lines(), PlainParser())


def test_nothing_to_look_for_finds_nothing() -> None:
    """A watch may keep templates only."""
    nothing: Sequence[Hit] = hits(b"a\nb\n", rule(type="novel"))

    assert not nothing
    assert not hits(b"", rule(match="a"), rule())
