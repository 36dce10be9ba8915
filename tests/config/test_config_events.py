"""What `on:` and `api.hooks` may say, and what is made of mistakes in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_folder import TOLD, Folder

from agentd.settings import RateLimit

TCP = "tcp: {host: a.example, port: 1}"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path)
    made.environment = {"KEY": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
    return made


def watches(*lines: str) -> str:
    return TOLD + "api: {hooks: {deploy: {secret: '${env:KEY}'}}}\nwatches:\n" + "".join(f"- {{{x}}}\n" for x in lines)


def test_every_event_is_acted_on(folder: Folder) -> None:
    """A warning at something that works makes people distrust the others."""
    events = "startup, 'alert:b', 'log:c/r', 'hook:deploy', 'file:/etc/passwd', 'unit:nginx', 'unit:postgresql*'"
    loaded = folder.load(
        watches(
            f"name: a, {TCP}, on: [{events}]",
            f"name: b, {TCP}",
            "name: c, log: {files: [/x]}, rules: [{name: r, type: any, match: x}]",
        )
    )

    assert loaded.warnings == ()
    assert loaded.config.api.hooks["deploy"].rate == RateLimit(10, 60)


@pytest.mark.parametrize(
    ("event", "what", "cure"),
    [
        ("alert:bb", 'there is no watch "bb"', "did you mean"),
        ("log:bb/r", 'there is no watch "bb"', "did you mean"),
        ("log:b/r", 'there is no rule "r"', ""),
        ("hook:deploi", 'there is no hook "deploi"', "did you mean"),
        ("unit:a|b", "'a|b' is no name of a unit", "systemd-escape"),
        ("unit:getty@.service", "getty@.service is a template", "name an instance"),
    ],
)
def test_an_event_that_cannot_come_is_an_error(folder: Folder, event: str, what: str, cure: str) -> None:
    """Who waits for a name that is nowhere waits for ever."""
    problem = folder.problem(watches(f"name: a, {TCP}, on: ['{event}']", f"name: b, {TCP}"))

    assert problem.key == "watches[0].on[0]"
    assert problem.what.startswith(what)
    assert cure in problem.cure


@pytest.mark.parametrize(
    ("lines", "circle"),
    [
        ([("a", "a")], "a → a"),
        ([("a", "b"), ("b", "a")], "a → b → a"),
        ([("a", "c"), ("b", "a"), ("c", "b")], "a → b → c → a"),
    ],
)
def test_watches_that_start_each_other_are_warned_of(folder: Folder, lines: list[tuple[str, str]], circle: str) -> None:
    """It does no harm, for the daemon passes such events over; but nobody can have meant it."""
    warnings = folder.warnings(watches(*(f"name: {name}, {TCP}, on: ['alert:{by}']" for name, by in lines)))

    assert len(warnings) == 1
    assert circle in next(iter(warnings.values()))


def test_a_row_of_watches_is_no_circle(folder: Folder) -> None:
    loaded = folder.load(
        watches(
            f"name: a, {TCP}",
            f"name: b, {TCP}, on: ['alert:a']",
            f"name: c, {TCP}, on: ['alert:a', 'alert:b', startup]",
        )
    )

    assert loaded.warnings == ()


def test_a_hook_may_have_several_secrets(folder: Folder) -> None:
    """They are exchanged without a call being lost."""
    hooks = "{deploy: {secret: ['${env:KEY}', '${file:/etc/hostname}'], rate: 5/s}}"
    hook = folder.load(TOLD + f"api: {{hooks: {hooks}}}\nwatches: [{{name: a, {TCP}}}]").config.api.hooks["deploy"]

    assert ([str(each) for each in hook.secret], hook.rate) == (
        ["${env:KEY}", "${file:/etc/hostname}"],
        RateLimit(5, 1),
    )


def test_a_hook_without_a_secret_is_refused(folder: Folder) -> None:
    """Anybody could start what waits for it."""
    assert (
        folder.problem(TOLD + f"api: {{hooks: {{x: {{}}}}}}\nwatches: [{{name: a, {TCP}}}]").key == "api.hooks.x.secret"
    )
    assert folder.problem(TOLD + f"api: {{hooks: {{x: {{secret: []}}}}}}\nwatches: [{{name: a, {TCP}}}]")
