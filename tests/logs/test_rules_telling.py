"""What people read of an occurrence: summary, values, evidence."""

from __future__ import annotations

from rule_script import Store, at, engine, entry, field_hit, hit, occurrences, only, rule

from agentd.logs.port import Hit, Place


def test_a_single_line_stands_in_the_summary() -> None:
    made = engine(rule("any", name="new-user"))
    made.feed([hit(1, "new user: name=bob,\n  uid=5", user="bob", empty="")])

    found = only(made.take())

    assert found.summary == "new-user: new user: name=bob, uid=5"
    assert found.reason_text == "one line"
    assert found.values == {"user": "bob"}
    assert found.evidence[0].place == Place("/var/log/x", 1000)
    assert found.evidence[0].line == "new user: name=bob,\n  uid=5"


def test_the_frame_of_a_line_stays_out_of_the_summary() -> None:
    made = engine(rule("any", name="oom"))
    framed = entry(1, "Jan  5 12:00:01 web-1 kernel: out of memory", message="out of memory")
    framed._fields = {"message": "out of memory"}
    made.feed([Hit(0, framed, {})])

    assert only(made.take()).summary == "oom: out of memory"


def test_many_lines_are_counted_in_the_summary() -> None:
    made = engine(rule("frequency", count=5, within="10m", by=["ip"]))
    made.feed(hit(n, f"Failed password for u{n} from 192.0.2.1", ip="192.0.2.1") for n in range(5))

    found = only(made.take())

    assert found.summary == "5 lines within 10m from ip 192.0.2.1: Failed password for u4 from 192.0.2.1"
    assert found.reason_text == "5 lines within 10m"
    assert found.values == {"ip": "192.0.2.1", "count": 5}
    assert [each.line[20:22] for each in found.evidence] == ["u0", "u1", "u2", "u3", "u4"]


def test_lines_that_go_on_are_told_with_what_was_asked() -> None:
    made = engine(rule("frequency", count=5, within="10m"))
    made.feed(hit(n) for n in range(50))

    assert only(made.take()).summary == "50 lines, 5 within 10m: line"


def test_of_many_lines_the_first_and_the_last_are_evidence() -> None:
    """A flood must fit into a message, and both its beginning and its end say something."""
    made = engine(rule("any"))
    made.feed(hit(n / 10, f"line {n}") for n in range(1000))

    found = only(made.take())

    assert found.count == 1000
    assert [each.line for each in found.evidence] == [f"line {n}" for n in (*range(10), *range(990, 1000))]


def test_lines_that_filled_a_window_outlive_a_restart() -> None:
    """The evidence of five failed logins is five lines, also when the daemon was started anew after the third."""
    logins, store = rule("frequency", count=5, within="10m"), Store()
    before = engine(logins)
    before.feed(hit(n, f"login {n}") for n in range(3))
    store.commit(before.take())

    after = engine(logins, stored=store.rows)
    after.feed(hit(n, f"login {n}") for n in (3, 4))

    assert [each.line for each in only(after.take()).evidence] == [f"login {n}" for n in range(5)]


def test_a_long_line_is_cut() -> None:
    made = engine(rule("any", name="x"), rule("frequency", name="f", count=1, within="1m"))
    made.feed(hit(1, "y" * 60_000, rule=n, group="z" * 60_000) for n in (0, 1))

    one, many = occurrences(made.take())

    assert len(one.evidence[0].line) == 1000
    assert len(many.evidence[0].line) == 300
    assert len(one.summary) == 200
    assert len(one.values["group"]) == 1000


def test_secrets_are_taken_out_of_all_that_is_told_and_kept() -> None:
    """A password in a log line must not travel to a chat room, nor into the store, not even half of it."""

    def stars(value: object) -> object:
        if isinstance(value, str):
            return value.replace("hunter22", "***")
        if isinstance(value, list | tuple):
            return type(value)(map(stars, value))
        return {key: stars(each) for key, each in value.items()} if isinstance(value, dict) else value

    rules = [
        rule("any", name="a"),
        rule("frequency", name="f", count=2, within="1m", by=["g"]),
        rule("change", name="c", field="g"),
        rule("new_value", name="n", field="g"),
        rule("flatline", name="s", within="1m"),
    ]
    made = engine(*rules, secrets_out=stars)
    for cut in (0, 990, 996, 290, 295, 185, 195):
        line = "." * cut + "hunter22 and more"
        for n in range(len(rules)):
            made.feed(
                [hit(cut, "first", rule=n, g="x"), hit(cut, line, rule=n, g=line), hit(cut, line, rule=n, g=line)]
            )
    made.advance(at(2000))

    outcome = made.take()

    assert "hunt" not in repr(outcome)
    assert {event.rule for event in outcome.events} == set("afcns")


def test_a_change_says_from_what_to_what() -> None:
    made = engine(rule("change", field="v", by=["host"]))
    made.feed([field_hit(1, v="up", host="a"), field_hit(2, v="down", host="a")])

    found = only(made.take())

    assert found.summary == "v changed from up to down from host a: line"
    assert found.values == {"v": "down", "host": "a", "was": "up"}


def test_silence_shows_the_last_line_that_came() -> None:
    made = engine(rule("flatline", within="10m", match="beat", by=["host"]))
    made.feed([hit(1, "beat 7", host="a")])
    made.advance(at(700))

    found = only(made.take())

    assert found.summary == "no matching line within 10m from host a; the last was: beat 7"
    assert found.values == {"host": "a", "last_at": "2026-01-05T12:00:01+00:00"}
    assert [each.line for each in found.evidence] == ["beat 7"]


def test_numbers_of_a_rule_are_told() -> None:
    made = engine(rule("any"), rule("frequency", name="f", count=9, within="1m", by=["ip"]))
    made.feed([hit(100), hit(100, rule=1, ip="a"), hit(1, rule=1, ip="a")])

    counts = made.counts

    assert (counts["r"].hits, counts["r"].occurrences) == (1, 1)
    assert (counts["f"].hits, counts["f"].occurrences, counts["f"].keys, counts["f"].late) == (2, 0, 1, 1)
