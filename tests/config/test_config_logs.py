"""What is wrong with watches of logs and their rules is told at load, where it is to be mended."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_folder import TOLD, Folder

from agentd.config.log_sense import FIELDS
from agentd.logs.parse import make_parser
from agentd.logs.rules.check import SHAPES
from agentd.logs.rules.engine import TYPES
from agentd.logs.settings import LogFormat, LogSource


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


RULE = "{name: r, type: any, match: x}"


def watch(keys: str) -> str:
    return TOLD + f"watches: [{{name: w, {keys}}}]\n"


def log(keys: str = "files: [/x]", rule: str = RULE, more: str = "") -> str:
    return watch(f"log: {{{keys}}}, rules: [{rule}]{more}")


def ruled(type_: str, keys: str, source: str = "files: [/x]") -> str:
    return log(source, f"{{name: r, type: {type_}{', ' if keys else ''}{keys}}}")


PLAIN = "files: [/x], format: plain"
SYSLOG = "files: [/x], format: syslog"
COMBINED = "files: [/x], format: combined"
REGEX = "files: [/x], format: regex, pattern: '^(?P<host>[a-z]+) (?P<message>.*)$'"


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        (log("start_at: end"), "watches[0].log", "names nothing to read"),
        (log("files: [/x], command: [a]"), "watches[0].log.command", "stands beside `files`"),
        (log("files: [x.log]"), "watches[0].log.files[0]", "no absolute path"),
        (log("files: [~/x.log]"), "watches[0].log.files[0]", "no absolute path"),
        (log("files: [/x], format: regex"), "watches[0].log.format", "regex needs `pattern`"),
        (log("files: [/x], pattern: 'a(?P<b>c)'"), "watches[0].log.pattern", "is for format regex"),
        (log("files: [/x], format: regex, pattern: '(?P<a>x'"), "watches[0].log.pattern", "cannot be used"),
        (log("files: [/x], format: regex, pattern: 'abc'"), "watches[0].log.pattern", "no named group"),
        (log("files: [/x], multiline: '(?=x)'"), "watches[0].log.multiline", "cannot be used"),
        (log("files: [/x], encoding: uft8"), "watches[0].log.encoding", "is not known"),
        (log("files: [/x], encoding: rot13"), "watches[0].log.encoding", "is not known"),
        (log("files: [/x], encoding: utf-7"), "watches[0].log.encoding", "cannot be read line by line"),
        (log("files: [/x], encoding: cp500"), "watches[0].log.encoding", "cannot be read line by line"),
        (log("files: [/x], encoding: base64"), "watches[0].log.encoding", "is not known"),
        (log('files: [/x], encoding: "a\\0b"'), "watches[0].log.encoding", "is not known"),
        (watch(f"journal: {{match: {{no-field: x}}}}, rules: [{RULE}]"), "watches[0].journal.match", "no field"),
        (log(more=", expect: [status == 200]"), "watches[0].expect", "no checks"),
        (log(more=", every: 5s"), "watches[0].every", "keeps no schedule"),
        (log(more=", cron: '* * * * *'"), "watches[0].cron", "keeps no schedule"),
        (log(more=", on: [startup]"), "watches[0].on", "keeps no schedule"),
        (watch(f"tcp: {{host: a, port: 1}}, rules: [{RULE}]"), "watches[0].rules", "is about lines"),
        (log(rule=f"{RULE}, {RULE}"), "watches[0].rules[1].name", "a second rule is called r"),
        (log(rule="{name: blind, type: any, match: x}"), "watches[0].rules[0].name", "is kept for"),
        (ruled("any", "match: '(?=x)y'"), "watches[0].rules[0].match", "look-ahead"),
        (ruled("any", "match: x, ignore: '(?=x)y'"), "watches[0].rules[0].ignore", "look-ahead"),
        (ruled("any", "match: x, ignore: [a, '(?=x)y']"), "watches[0].rules[0].ignore[1]", "look-ahead"),
        (ruled("any", "when: 'level =='"), "watches[0].rules[0].when", "cannot read condition"),
        (ruled("any", "match: x, count: 5"), "watches[0].rules[0].count", "has no use for it"),
        (ruled("any", "match: x, per_hour: 5"), "watches[0].rules[0].per_hour", "has no use for it"),
        (ruled("frequency", "match: x, within: 5m"), "watches[0].rules[0]", "needs `count`"),
        (ruled("frequency", "match: x, count: 5"), "watches[0].rules[0]", "needs `within`"),
        (ruled("spike", "match: x, within: 5m"), "watches[0].rules[0]", "needs `times`"),
        (ruled("spike", "match: x, within: 5m, times: 1"), "watches[0].rules[0].times", "no spike"),
        (ruled("flatline", "match: x"), "watches[0].rules[0]", "needs `within`"),
        (ruled("flatline", "within: 5m, fewer_than: 0"), "watches[0].rules[0].fewer_than", "never fewer"),
        (ruled("new_value", ""), "watches[0].rules[0]", "needs `field`"),
        (ruled("change", "within: 5m, field: a"), "watches[0].rules[0].within", "has no use for it"),
        (ruled("cardinality", "field: a, within: 5m"), "watches[0].rules[0]", "`more_than` or `fewer_than`"),
        (
            ruled("cardinality", "field: a, within: 5m, more_than: 5, fewer_than: 2"),
            "watches[0].rules[0].fewer_than",
            "stands beside",
        ),
        (ruled("cardinality", "field: a, within: 5m, more_than: 5%"), "watches[0].rules[0].more_than", "no number"),
        (ruled("cardinality", "field: a, within: 5m, more_than: 10001"), "watches[0].rules[0].more_than", "range"),
        (ruled("percentage", "within: 5m, more_than: 5%"), "watches[0].rules[0]", "needs `match` or `when`"),
        (
            ruled("percentage", "match: x, within: 5m, more_than: 100"),
            "watches[0].rules[0].more_than",
            "never exceeded",
        ),
        (ruled("blocklist", "field: a"), "watches[0].rules[0]", "needs `values`"),
        (ruled("allowlist", "field: a, values: []"), "watches[0].rules[0].values", "is empty"),
        (ruled("any", "match: '(?P<user>x+)', by: [usr]", PLAIN), "watches[0].rules[0].by[0]", "no line has"),
        (ruled("change", "field: user", PLAIN), "watches[0].rules[0].field", "no line has"),
        (ruled("change", "field: hsot", REGEX), "watches[0].rules[0].field", "no line has"),
        (
            ruled("percentage", "match: '(?P<user>x+)', by: [user], within: 5m, more_than: 5%", REGEX),
            "watches[0].rules[0].by[0]",
            "only matching lines",
        ),
    ],
)
def test_a_wrong_log_or_rule_is_told(folder: Folder, text: str, key: str, words: str) -> None:
    """One problem, at the key where it is to be mended, with what to write instead."""
    problem = folder.problem(text)

    assert problem.key == key
    assert words in problem.what
    assert problem.cure
    assert problem.line == 3


@pytest.mark.parametrize(
    "text",
    [
        log(),
        log("command: [tail, -f]", more=", every: 5s"),
        watch(f"journal: , rules: [{RULE}]"),
        ruled("any", "ignore: known", PLAIN),
        ruled("any", "match: '(?P<user>x+)', by: [user, message]", PLAIN),
        ruled("any", "match: '(?P<level>[A-Z]+)', when: 'level == \"ERROR\"'"),
        ruled("any", 'when: \'level == "error" && fields.level != "fatal"\''),
        ruled("any", "match: '^a|b$|c\\$d|[$]e|(?:f$)|x^?|/usr/bin/i'"),
        ruled("any", r"match: 'at .*\n\s+in', ignore: b", "files: [/x], multiline: auto"),
        ruled("any", "when: 'program == \"sshd\" && line.size() > 3', by: [host, structured.a.b]", SYSLOG),
        ruled("any", "match: x, when: 'status >= 500', by: [remote, path]", "files: [/x], format: combined"),
        ruled("percentage", "match: x, within: 5m, more_than: 0.5%"),
        watch("journal: , rules: [{name: r, type: any, when: 'severity == \"err\"', by: [unit]}]"),
        ruled("change", "field: host, by: [level]", REGEX),
        ruled("change", "field: whatever.it.has, by: [any]"),
        ruled("frequency", "count: 5, within: 5m, by: [ip], max_keys: 5, resolve_after: 1h, severity: info"),
        ruled("spike", "within: 5m, times: 3, count: 10"),
        ruled("flatline", "within: 5m"),
        ruled("new_value", "field: a, learn: 0s"),
        ruled("cardinality", "field: a, within: 5m, fewer_than: 3"),
        ruled("percentage", "when: 'level == \"error\"', within: 5m, more_than: 30%, count: 5"),
        ruled("blocklist", "field: a, values: [x]"),
        ruled("novel", "learn: 2h, per_hour: 3, severity: info"),
    ],
)
def test_a_log_as_it_is_meant_to_be_is_taken(folder: Folder, text: str) -> None:
    """What an operator may rightly write is no error, and for the keys checked here no warning."""
    assert set(folder.warnings(text)) <= {"watches[0].log", "watches[0].journal"}


@pytest.mark.parametrize(
    ("text", "key", "words", "cure"),
    [
        (ruled("any", ""), "watches[0].rules[0]", "takes every line", "which lines"),
        (ruled("any", "match: x, ignore: x"), "watches[0].rules[0].ignore", "no line is left", ""),
        (ruled("any", "match: x, ignore: [y, x]"), "watches[0].rules[0].ignore", "no line is left", ""),
        (ruled("any", "when: 'level == \"ERROR\"'"), "watches[0].rules[0].when", "never", 'write "error"'),
        (ruled("any", "when: 'level == \"warn\"'"), "watches[0].rules[0].when", "never", 'write "warning"'),
        (ruled("any", "when: '\"ERR\" == fields.level'"), "watches[0].rules[0].when", "never", 'write "error"'),
        (ruled("any", 'when: \'level in ["error", "crit"]\''), "watches[0].rules[0].when", "crit", '"critical"'),
        (ruled("any", "when: 'n > 1 && level != \"Info\"'"), "watches[0].rules[0].when", "never", 'write "info"'),
        (
            watch("journal: , rules: [{name: r, type: any, when: 'severity == \"error\"'}]"),
            "watches[0].rules[0].when",
            "never",
            'write "err"',
        ),
        (
            watch("journal: , rules: [{name: r, type: any, when: 'level == \"error\"'}]"),
            "watches[0].rules[0].when",
            "no `level`",
            "severity",
        ),
        (ruled("any", "match: x, by: [hst]", SYSLOG), "watches[0].rules[0].by[0]", "no line of", "`host`"),
        (ruled("any", "match: x, by: [user]", SYSLOG), "watches[0].rules[0].by[0]", "no line of", "known here"),
        (ruled("change", "field: Status", "files: [/x], format: common"), "watches[0].rules[0].field", "", "`status`"),
        (ruled("any", "when: 'stauts >= 500'", COMBINED), "watches[0].rules[0].when", "no line of", "`status`"),
        (ruled("any", "when: 'level == \"error\"'", COMBINED), "watches[0].rules[0].when", "no line of", "known here"),
        (ruled("any", "when: 'level == \"error\"'", PLAIN), "watches[0].rules[0].when", "no line of", "known here"),
        (ruled("any", "when: 'hsot == \"a\"'", REGEX), "watches[0].rules[0].when", "no line of", "`host`"),
        (ruled("any", "match: foo$bar"), "watches[0].rules[0].match", "behind the end", r"write \$"),
        (ruled("any", "match: 'cost: $5'"), "watches[0].rules[0].match", "behind the end", r"write \$"),
        (ruled("any", "match: foo^bar"), "watches[0].rules[0].match", "before the begin", r"write \^"),
        (ruled("any", "match: /error/i"), "watches[0].rules[0].match", "slashes", "write '(?i)error'"),
        (ruled("any", "match: x, ignore: /a b/g"), "watches[0].rules[0].ignore", "slashes", "write 'a b'"),
        (ruled("any", r"match: 'a\nb'"), "watches[0].rules[0].match", "end of a line", "multiline"),
        (ruled("any", r'match: "error\n"'), "watches[0].rules[0].match", "end of a line", "`|-`"),
        (ruled("any", r'match: "\berror"'), "watches[0].rules[0].match", "control character", "single quotes"),
        (
            ruled("percentage", "match: x, within: 5m, more_than: 0.3"),
            "watches[0].rules[0].more_than",
            "0.3 percent",
            'write "30%"',
        ),
    ],
)
def test_what_is_hardly_meant_is_warned_of(folder: Folder, text: str, key: str, words: str, cure: str) -> None:
    """It runs, and is quiet for ever: nobody would look for the mistake before the day it was needed."""
    warnings = [each for each in folder.load(text).warnings if each.key not in ("watches[0].log", "watches[0].journal")]

    assert [each.key for each in warnings] == [key]
    assert words in warnings[0].what
    assert cure in warnings[0].cure
    assert warnings[0].cure
    assert warnings[0].line == 3


SAMPLES: dict[str, list[str]] = {
    "plain": ["anything"],
    "syslog": [
        '<34>1 2026-11-20T09:00:00Z web app x1 ID47 [a b="c"] said',
        "<34>Nov 20 09:00:00 web app[7]: said",
    ],
    "combined": [
        'a:80 192.0.2.1 i eve [20/Nov/2026:09:00:00 +0000] "GET /x?y HTTP/1.1" 200 5 "http://r" "curl" "10.0.0.1" 0.5 z'
    ],
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_fields_of_a_format_are_those_that_its_parser_gives(name: LogFormat) -> None:
    """A field that is missing here would be warned of though it works."""
    parser = make_parser(LogSource(files=("/x",), format=name))

    assert {field for text in SAMPLES[name] for field in parser.fields(text)} == FIELDS[name]
    assert FIELDS["common"] == FIELDS["combined"]


def test_a_misspelt_group_is_guessed(folder: Folder) -> None:
    problem = folder.problem(ruled("any", "match: '(?P<user>x+)', by: [usr]", PLAIN))

    assert problem.cure == "did you mean `user`?"


def test_patience_of_probes_is_said_to_do_nothing(folder: Folder) -> None:
    """Who writes fail_after beside rules believes that it holds."""
    assert "watches[0].fail_after" in folder.warnings(log(more=", fail_after: 5"))


def test_one_bad_rule_hides_no_other(folder: Folder) -> None:
    """Each round of mending costs the operator a minute."""
    problems = folder.problems(
        log(rule="{name: a, type: no}, {name: b, type: any, match: '(?=x)y'}, {name: c, type: change}")
    )

    assert [problem.key for problem in problems] == [
        "watches[0].rules[0].type",
        "watches[0].rules[1].match",
        "watches[0].rules[2]",
    ]


def test_every_type_is_checked_and_runs() -> None:
    assert set(SHAPES) == set(TYPES)
