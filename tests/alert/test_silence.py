"""Matchers and silences: what they take, what is refused, how they are written down and read back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.alert.silence import MAX_MATCHERS, Silence, parse_matcher, parse_matchers, silence_labels
from agentd.errors import ConfigError
from agentd.records import Alert, Severity

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SHOP = Alert(
    "f1",
    "web-1",
    "shop",
    Severity.WARNING,
    rule="errors",
    labels={"team": "web", "zone": "dmz"},
    by={"ip": "192.0.2.7"},
)


@pytest.mark.parametrize(
    ("text", "takes"),
    [
        ("watch=shop", True),
        ('watch="shop"', True),
        ("  watch = shop ", True),
        ("watch=sho", False),
        ("watch!=shop", False),
        ("watch=~sho", False),
        ("watch=~sh.*", True),
        ("watch=~hop|sh.p", True),
        ("watch!~sh.*", False),
        ("rule=errors", True),
        ("severity=warning", True),
        ('severity=~"warning|info"', True),
        ("instance=web-1", True),
        ("team=web", True),
        ("ip=192.0.2.7", True),
        (r"ip=~192\.0\.2\.\d+", True),
        ("nothing=", True),
        ("nothing!=x", True),
        ("nothing=~.+", False),
        ("nothing!~x", True),
        ("team=", False),
    ],
)
def test_a_matcher_takes_what_it_says(text: str, takes: bool) -> None:
    """Patterns hold from end to end, and a label that is not there is empty: people know it so from Alertmanager."""
    assert parse_matcher(text).takes(silence_labels(SHOP)) is takes


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shop", "cannot read the matcher"),
        ("", "cannot read the matcher"),
        ("=shop", "cannot read the matcher"),
        ('watch="shop', "do not close"),
        ('watch="sh"op"', "do not close"),
        ('watch="shop\\"', "do not close"),
        ('watch=sh"op', "a quote stands inside"),
        ("watch=~(", "cannot be read"),
        ("watch=~(?=x)", "cannot be read"),
        ("severity=high", "a severity is info, warning, critical"),
        ("severity=~h.*", "a severity is info, warning, critical"),
        ("watch=" + "x" * 1001, "longer than 1000"),
        ("watch=" + "x" * 5000, "cannot read the matcher"),
    ],
)
def test_a_nonsense_matcher_is_refused(text: str, words: str) -> None:
    """A silence that silences nothing is found out at the wrong time."""
    with pytest.raises(ConfigError, match=words):
        parse_matcher(text)


@pytest.mark.parametrize(
    "texts",
    [(), ("watch!=shop",), ("team=",), ("watch=~.*",), ("watch=~.+",), ("severity=~.+",), ('severity!=""',), ("x!~y",)],
    ids=" ".join,
)
def test_what_silences_nearly_everything_must_be_meant(texts: tuple[str, ...]) -> None:
    """A slip of the keyboard must not make the monitor mute."""
    with pytest.raises(ConfigError, match="--all"):
        parse_matchers(texts)

    assert len(parse_matchers(texts, everything=True)) == len(texts)


@pytest.mark.parametrize(
    "texts", [("watch=shop", "team!=web"), ("severity!=critical",), ("watch=~db-.*",), ("watch=shop", "watch=shop")]
)
def test_what_is_about_something_is_taken(texts: tuple[str, ...]) -> None:
    assert parse_matchers(texts)


def test_too_many_matchers_are_refused() -> None:
    """Each is asked of each alert."""
    with pytest.raises(ConfigError, match="too many"):
        parse_matchers([f"watch!=a{number}" for number in range(MAX_MATCHERS + 1)], everything=True)


@given(
    st.from_regex(r"[a-z][a-z_.-]{0,8}", fullmatch=True).filter(lambda name: name != "severity"),
    st.sampled_from(["=", "!=", "=~", "!~"]),
    st.text(max_size=30),
)
def test_what_is_written_down_is_read_back(name: str, operator: str, value: str) -> None:
    """The store keeps matchers as text."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    try:
        matcher = parse_matcher(f'{name}{operator}"{escaped}"')
    except ConfigError:
        assert "~" in operator
        return

    assert matcher.value == value
    assert parse_matcher(str(matcher)) == matcher


@given(st.text(max_size=60))
def test_whatever_is_typed_is_a_matcher_or_told(text: str) -> None:
    """Nothing else is raised."""
    try:
        matcher = parse_matcher(text)
    except ConfigError:
        return

    assert matcher.takes({"x": text}) in (True, False)


def test_a_log_line_cannot_name_itself_a_watch() -> None:
    """What an attacker writes into a log becomes `by` values, and must not slip under a silence of something else."""
    alert = Alert("f1", "web-1", "ssh", Severity.CRITICAL, rule="root", by={"watch": "shop", "severity": "info"})

    assert not parse_matcher("watch=shop").takes(silence_labels(alert))
    assert parse_matcher("severity=critical").takes(silence_labels(alert))


def test_a_silence_holds_from_its_begin_up_to_its_end() -> None:
    hour = timedelta(hours=1)
    silence = Silence("4f2a", parse_matchers(["watch=shop"]), NOW, NOW + hour, "anna", "new disks")

    assert [silence.is_active(NOW + hour * n / 2) for n in (-1, 0, 1, 2)] == [False, True, True, False]
    assert str(silence) == "silence 4f2a by anna until 2026-03-01T13:00:00.000Z: new disks"
