"""The last net for secrets on their way to a log or a trace."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.telemetry.redact import (
    forget_secrets,
    is_sensitive,
    redact,
    redact_all,
    redact_name,
    register_secret,
    without_secrets,
)


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    forget_secrets()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer abcdef123456", "Authorization: ***"),
        ("{'authorization': 'Basic dXNlcjpwYXNz'}", "{'authorization': '***'}"),
        ("sent with bearer abcdef123456 twice", "sent with bearer *** twice"),
        ("key whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw is wrong", "key whsec_*** is wrong"),
        ("GET https://user:hunter22@example.com/x", "GET https://***@example.com/x"),
        ("a basic understanding of bearer tokens", "a basic understanding of bearer tokens"),
        ("nothing to hide: a@b.example, 3 of 5", "nothing to hide: a@b.example, 3 of 5"),
    ],
)
def test_well_known_shapes_are_starred(text: str, shown: str) -> None:
    """They are secrets whoever owns them."""
    assert redact(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("login password=hunter2 ok", "login password=*** ok"),
        ("DB_PASSWORD=hunter", "DB_PASSWORD=***"),
        ("password: hunter for eve", "password: *** for eve"),
        ("GET /x?user=eve&token=abc&page=2", "GET /x?user=eve&token=***&page=2"),
        ("client_secret=abc, api-key: 12abc", "client_secret=***, api-key: ***"),
        ("secret := topsecret, pwd = x, passwd= hunter2", "secret := ***, pwd = ***, passwd= ***"),
        ("connect(user=eve, passwd=abc)", "connect(user=eve, passwd=***)"),
        ('{"password":"hun\\"ter2","user":"eve"}', '{"password":"***","user":"eve"}'),
        ('{"api_key": 123456, "token": null}', '{"api_key": ***, "token": null}'),
        ("{'passwd': 'x y', 'user': 'eve'}", "{'passwd': '***', 'user': 'eve'}"),
        ('{"body":"{\\"accessToken\\":\\"abc\\"}"}', '{"body":"{\\"accessToken\\":\\"***\\"}"}'),
        ('passphrase="correct horse bat', 'passphrase="***'),
        ("run --password hunter2 --verbose", "run --password *** --verbose"),
        ("cloned with ghp_abcdefghijklmnopqrstuvwxyz0123456789", "cloned with ghp_***"),
        ("github_pat_11AAAAAAA0abcdefghijkl_mn", "github_pat_***"),
        ("key id AKIAIOSFODNN7EXAMPLE used", "key id AKIA*** used"),
        ("posted as xoxb-123456789012-abcdefghijkl", "posted as xoxb-***"),
        ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_DEF is over", "jwt eyJ*** is over"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----",
        ),
        ("-----BEGIN PRIVATE KEY-----\nMIIE", "-----BEGIN PRIVATE KEY-----***"),
    ],
)
def test_secrets_of_others_in_their_logs_are_starred(text: str, shown: str) -> None:
    """An alert goes to a chat that more people read than the log."""
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "Failed password for root from 192.0.2.1 port 4242 ssh2",
        "Failed password for invalid user admin from 192.0.2.1",
        "pam_unix(passwd:chauthtok): password changed for eve",
        "passwd[12]: password changed",
        "SyntaxError: unexpected token: foo",
        "used tokens=500, token_count=7, max_tokens: 500",
        "secretary=bob bypass=1 keyboard: 5",
        "the password is wrong",
        "password= user=eve token: ",
        "login password=<*> token=<hex>",
        "webhooks.ops.secret: names $OPS_SECRET, which is not set",
        "risk-abcdefghijklmnopqrstuvwxyz task-abcdefghijklmnopqrstuvwxyz",
    ],
)
def test_what_only_speaks_of_secrets_is_left_alone(text: str) -> None:
    """A line that says nothing any more helps nobody; and a template's placeholders are how it is known again."""
    assert redact(text) == text


def test_what_is_starred_once_stays_as_it_is() -> None:
    """Texts pass through here more than once on their way."""
    once = redact('password=abc {"token":"xyz1"} --secret abc ghp_abcdefghijklmnopqrst https://a:b@c/')

    assert redact(once) == once


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("AKIAIOSFODNN7EXAMPLEsk-abcdef1234567890abcd", "AKIA***"),
        ("AKIAIOSFODNN7EXAMPLEeyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcdefghijkl", "AKIA***"),
        ("key AKIAIOSFODNN7EXAMPLE, sk-abcdef1234567890abcd", "key AKIA***, sk-***"),
        ("pwd=>x and", "pwd=>*** and"),
        ("Authorization: Bearer abcdef1 for eve", "Authorization: *** for eve"),
        ("Authorization: ***, for eve", "Authorization: ***, for eve"),
        ("Authorization: ***abc", "Authorization: ***"),
    ],
)
def test_one_look_takes_out_all_of_it(text: str, shown: str) -> None:
    """A secret that touches another was taken out by the second look only, and a word too many with it."""
    assert redact(text) == shown
    assert redact(shown) == shown


def test_values_are_starred_by_their_names_too() -> None:
    """A pattern with the group `password` takes it out of its line, and the line's words with it."""
    said = {"password": "hunter2", "db_token": 5, "n": 3, "list": ["pwd=x", {"secret": None}], "tokens": 7}

    assert redact_all(said) == {
        "password": "***",
        "db_token": "***",
        "n": 3,
        "list": ["pwd=***", {"secret": None}],
        "tokens": 7,
    }


def test_two_secrets_stay_two_names() -> None:
    """They name alerts: were both only stars, the end of the one would end the other."""
    one, other = redact_name("key", "ghp_abcdefghijklmnopqrst"), redact_name("key", "ghp_abcdefghijklmnopqrsu")

    assert one.startswith("ghp_***~")
    assert one != other
    assert redact_name("key", "ghp_abcdefghijklmnopqrst") == one
    assert redact_name("password", "hunter2").startswith("***~")
    assert redact_name("user", "eve") == "eve"


def test_a_registered_value_is_starred_wherever_it_stands() -> None:
    """The value of a secret has no shape of its own; only we know it."""
    register_secret("correct-horse.battery\n")

    assert redact("url was https://x/?k=correct-horse.battery&y") == "url was https://x/?k=***&y"


def test_of_two_secrets_the_longer_is_starred_whole() -> None:
    """A secret that begins like another must not leave its tail behind."""
    register_secret("abcdef")
    register_secret("abcdefghij")

    assert redact("abcdefghij") == "***"


def test_a_short_value_is_not_remembered() -> None:
    """A password `a` would star every a of the log."""
    register_secret("a")
    register_secret("")

    assert redact("a banana") == "a banana"


@pytest.mark.parametrize(
    "key",
    ["Authorization", "password", "api_key", "X-Api-Key", "token", "secret", "Set-Cookie", "db_password", "app.token"],
)
def test_a_field_named_like_a_secret_is_one(key: str) -> None:
    """Whatever its value looks like."""
    assert is_sensitive(key)


@pytest.mark.parametrize("key", ["tokens", "keyword", "watch", "secretary", "token_count"])
def test_a_field_with_an_ordinary_name_is_shown(key: str) -> None:
    """Token counts are what a budget log is about."""
    assert not is_sensitive(key)


def test_secrets_are_starred_in_whatever_a_target_said() -> None:
    """A target may echo one in any place of its answer."""
    register_secret("correct-horse")
    register_secret("correct-horse-battery")

    said = {"a correct-horse": [1, None, ("is correct-horse-battery", {"b": "correct-horse"})], "c": True}

    assert without_secrets(said) == {"a ***": [1, None, ("is ***", {"b": "***"})], "c": True}
    assert without_secrets("correct-horse") == "***"


def test_what_holds_no_secret_is_not_copied() -> None:
    """It may be a megabyte, and is asked about at each failing look."""
    said = {"a": ["correct"]}
    assert without_secrets(said) is said

    register_secret("correct-horse")

    assert without_secrets(said) is said


_PIECES = [
    "password",
    "token",
    '="',
    ":'",
    "\\",
    '"',
    "'",
    " ",
    "=",
    "eyJ",
    "ghp_",
    "x" * 20,
    "1",
    "-----BEGIN PRIVATE KEY-----",
    "-----END PRIVATE KEY-----",
    "AKIAIOSFODNN7EXAMPLE",
    "sk-",
    "Authorization",
    "Bearer ",
    ": ",
    "=>",
    "--",
    "***",
    "http://u:p@h/",
    "{",
    "}",
    ",",
    "\n",
]


@given(st.lists(st.sampled_from(_PIECES), max_size=60).map("".join))
def test_any_mix_of_the_shapes_comes_back_and_stays(text: str) -> None:
    """Nothing is left that a second look takes out: what is redacted once is shown, what is twice is kept."""
    once = redact(text)

    assert redact(once) == once


@given(st.text(max_size=2000))
def test_any_text_comes_back(text: str) -> None:
    """The net must not tear on hostile input."""
    assert isinstance(redact(text), str)
