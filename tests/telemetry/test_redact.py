"""The last net for secrets on their way to a log or a trace."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.telemetry.redact import forget_secrets, is_sensitive, redact, register_secret, without_secrets


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


@pytest.mark.parametrize("key", ["Authorization", "password", "api_key", "X-Api-Key", "token", "secret", "Set-Cookie"])
def test_a_field_named_like_a_secret_is_one(key: str) -> None:
    """Whatever its value looks like."""
    assert is_sensitive(key)


@pytest.mark.parametrize("key", ["tokens", "keyword", "watch", "secretary"])
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


@given(st.text(max_size=2000))
def test_any_text_comes_back(text: str) -> None:
    """The net must not tear on hostile input."""
    assert isinstance(redact(text), str)
