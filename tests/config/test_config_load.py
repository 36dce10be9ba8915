"""From files to a configuration: merging, includes, overrides, secrets, and every problem at once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from config_folder import TOLD, Folder

from agentd.config.loader import find_config, load
from agentd.config.values import FailAfter
from agentd.errors import ConfigError, InvalidConfig
from agentd.records import Severity

WATCH = "watches: [{name: web, http: {url: 'http://127.0.0.1/'}}]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_small_configuration_is_complete(folder: Folder) -> None:
    """The daemon finds everything it needs without looking for defaults itself."""
    loaded = folder.load(TOLD + WATCH)
    watch = loaded.config.watches[0]

    assert not loaded.warnings
    assert (watch.name, watch.kind) == ("web", "http")
    assert watch.source is not None
    assert watch.every == timedelta(seconds=60)
    assert watch.fail_after == FailAfter(3, 3)
    assert (watch.recover_after, watch.severity, watch.enabled) == (2, Severity.WARNING, True)
    assert loaded.config.notify(watch) == ("ops",)
    assert loaded.config.remind_every(watch) == timedelta(hours=4)
    assert loaded.config.remind(watch) == "doubling"
    assert [condition.source for condition in loaded.conditions["web"]] == list(watch.expect)


def test_every_problem_is_told_at_once_in_the_order_of_the_file(folder: Folder) -> None:
    """Mending one mistake an attempt is how an evening is lost."""
    problems = folder.problems(
        """
        daemon: {log_levle: info}
        webhooks: {ops: {url: 7z}}
        watches:
          - {name: one, http: {url: "http://a.example/", metod: GET}, fail_after: 0}
          - {name: two, every: 5, http: {}}
          - nothing
          - {name: three, http: {url: "http://a.example/"}, expect: [stauts == 200, "1 +"], notify: [opps]}
        """
    )

    assert [(each.line, each.key) for each in problems] == [
        (2, "daemon.log_levle"),
        (3, "webhooks.ops.url"),
        (5, "watches[0].http.metod"),
        (5, "watches[0].fail_after"),
        (6, "watches[1].every"),
        (6, "watches[1].http.url"),
        (7, "watches[2]"),
        (8, "watches[3].expect[0]"),
        (8, "watches[3].expect[1]"),
        (8, "watches[3].notify[0]"),
    ]
    assert all(each.cure for each in problems)


def test_a_misspelt_key_is_answered_with_the_right_one(folder: Folder) -> None:
    problem = folder.problem("daemon: {log_levle: info}\n" + WATCH)

    assert str(problem).endswith("agentd.yaml:1:10: daemon.log_levle: is no key known here; did you mean `log_level`?")


def test_a_key_at_the_wrong_depth_is_told_where_it_belongs(folder: Folder) -> None:
    problem = folder.problem("watches: [{name: web, http: {url: 'http://a.example/'}, follow_redirects: true}]")

    assert "below `http:`" in problem.cure


def test_a_key_that_stands_too_deep_is_told_where_it_belongs(folder: Folder) -> None:
    problem = folder.problem("watches: [{name: web, http: {url: 'http://a.example/', expect: [status == 200]}}]")

    assert (problem.key, problem.cure) == ("watches[0].http.expect", "it belongs one level up, beside `http`")


def test_a_misspelt_source_is_one_problem(folder: Folder) -> None:
    """`htpp` is a typing slip, and not also a watch without a source."""
    assert "`http`" in folder.problem("watches: [{name: web, htpp: {url: 'http://a.example/'}}]").cure


def test_two_watches_of_one_name_are_told_with_both_places(folder: Folder) -> None:
    folder.write("watches: [{name: web, tcp: {host: a.example, port: 1}}]", "watches.d/b.yaml")
    problem = folder.problem("include: [watches.d/*.yaml]\n" + WATCH)

    assert problem.file.endswith("b.yaml")
    assert f"{folder.path / 'agentd.yaml'}:2:18" in problem.cure


def test_included_files_come_in_the_order_of_their_names(folder: Folder) -> None:
    for name in ("b", "a", "c"):
        folder.write(f"watches: [{{name: {name}, tcp: {{host: a.example, port: 1}}}}]", f"d/{name}.yaml")
    folder.write("webhooks: {other: {url: 'https://b.example/'}}", "d/d.yaml")
    folder.write("# nothing yet", "d/e.yaml")
    loaded = folder.load("include: [d/*.yaml]\n" + TOLD)

    assert [watch.name for watch in loaded.config.watches] == ["a", "b", "c"]
    assert set(loaded.config.webhooks) == {"ops", "other"}
    assert [file.name for file in loaded.files] == ["agentd.yaml", "a.yaml", "b.yaml", "c.yaml", "d.yaml", "e.yaml"]


def test_a_glob_may_match_nothing_but_a_named_file_must_be_there(folder: Folder) -> None:
    problem = folder.problem("include: [none.d/*.yaml, extra.yaml]\n" + WATCH)

    assert (problem.key, problem.line) == ("include[1]", 1)


def test_a_glob_that_just_misses_a_file_is_warned_of(folder: Folder) -> None:
    """`2.yml` beside `*.yaml` would be a watch that nobody runs."""
    folder.write("watches: []", "w.d/2.yml")
    warnings = folder.warnings("include: [w.d/*.yaml, 'none.d/*.yaml']\n" + TOLD + WATCH)

    assert list(warnings) == ["include[0]"]
    assert "2.yml is there" in warnings["include[0]"]


def test_a_glob_that_meets_the_main_file_does_not_read_it_twice(folder: Folder) -> None:
    assert len(folder.load("include: ['*.yaml']\n" + TOLD + WATCH).files) == 1


def test_an_included_file_may_not_configure_the_daemon(folder: Folder) -> None:
    """What the daemon is told stands in one place."""
    folder.write("daemon: {log_level: debug}\nwacthes: []\n", "d/a.yaml")
    problems = folder.problems("include: [d/*.yaml]\n" + WATCH)

    assert [each.key for each in problems] == ["daemon", "wacthes"]
    assert "did you mean `watches`" in problems[1].cure


def test_a_bad_included_file_does_not_hide_the_others(folder: Folder) -> None:
    folder.write("watches: [", "d/a.yaml")
    folder.write("watches: [{name: x}]", "d/b.yaml")

    assert {Path(each.file).name for each in folder.problems("include: [d/*.yaml]\n" + WATCH)} == {"a.yaml", "b.yaml"}


@pytest.mark.parametrize("text", ["", "# only words\n", "- a\n", "words"])
def test_a_file_that_says_nothing_is_refused(folder: Folder, text: str) -> None:
    assert folder.problem(text).key == "file"


def test_a_missing_file_is_refused_without_a_traceback(folder: Folder) -> None:
    assert "does not exist" in folder.problem().what


def test_defaults_hold_where_a_watch_says_nothing(folder: Folder) -> None:
    loaded = folder.load(
        TOLD
        + """
defaults: {timeout: 3s, fail_after: 2 of 4, severity: info, labels: {site: x, team: a}, every: 7s}
watches:
  - {name: a, http: {url: "http://a.example/"}}
  - {name: b, http: {url: "http://a.example/"}, timeout: 5s, severity: critical, labels: {team: b}, every: 9s}
  - {name: c, http: {url: "http://a.example/"}, cron: "0 6 * * *"}
"""
    )
    a, b, c = loaded.config.watches

    assert (a.timeout, a.fail_after, a.severity, a.every) == (
        timedelta(seconds=3),
        FailAfter(2, 4),
        Severity.INFO,
        timedelta(seconds=7),
    )
    assert (b.timeout, b.severity, b.every) == (timedelta(seconds=5), Severity.CRITICAL, timedelta(seconds=9))
    assert (a.labels, b.labels) == ({"site": "x", "team": "a"}, {"site": "x", "team": "b"})
    assert (c.every, c.cron) == (None, "0 6 * * *")


def test_the_grace_of_a_heartbeat_is_all_its_patience(folder: Folder) -> None:
    """`fail_after: 3` on top of a grace would tell of a job that is already late three looks later."""
    loaded = folder.load(
        TOLD
        + """
defaults: {fail_after: 2 of 4, recover_after: 5}
watches:
  - {name: a, heartbeat: {expect_every: 1h}}
  - {name: b, heartbeat: {expect_every: 1h}, fail_after: 3, recover_after: 4}
"""
    )
    a, b = loaded.config.watches

    assert (a.fail_after, a.recover_after) == (FailAfter(1, 1), 1)
    assert (b.fail_after, b.recover_after) == (FailAfter(3, 3), 4)


def test_a_wrong_default_is_told_once(folder: Folder) -> None:
    """A thousand watches must not repeat it."""
    watches = "".join(f"  - {{name: w{i}, tcp: {{host: a.example, port: 1}}}}\n" for i in range(9))
    problem = folder.problem(f"defaults: {{timeout: soon}}\nwatches:\n{watches}")

    assert problem.key == "defaults.timeout"


def test_the_environment_overrides_the_file(folder: Folder) -> None:
    folder.environment = {
        "AGENTD_DAEMON__LOG_LEVEL": "debug",
        "AGENTD_DAEMON__HEARTBEAT": "{url: 'https://hc.example/1', every: 2m}",
        "AGENTD_ALERTING__NOTIFY": "[ops]",
        "AGENTD_WEBHOOKS__OPS__TIMEOUT": "3s",
        "AGENTD_WEBHOOKS__MY_HOOK__RATE": "1/s",
        "AGENTD_CONFIG": "/elsewhere",
        "AGENTD_SOMETHING": "of another program",
    }
    loaded = folder.load(
        "daemon: {log_level: info, instance: x}\n"
        "webhooks: {ops: {url: 'https://a.example/'}, my-hook: {url: 'https://b.example/'}}\n" + WATCH
    )

    assert (loaded.config.daemon.log_level, loaded.config.daemon.instance) == ("debug", "x")
    assert loaded.config.daemon.heartbeat is not None
    assert loaded.config.webhooks["ops"].timeout == timedelta(seconds=3)
    assert loaded.config.webhooks["my-hook"].rate is not None
    assert loaded.origins["daemon.log_level"] == "environment AGENTD_DAEMON__LOG_LEVEL"
    assert loaded.origins["daemon.instance"] == f"{folder.path / 'agentd.yaml'}:1"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("AGENTD_DEAMON__LOG_LEVEL", "debug", "there is no key `deamon`"),
        ("AGENTD_DAEMON__LOG_LEVLE", "debug", "is no key known here"),
        ("AGENTD_DAEMON__LOG_LEVEL", "loud", "cannot be"),
        ("AGENTD_DAEMON__LOG_LEVEL__X", "loud", "has no `x` to set"),
        ("AGENTD_DAEMON__", "x", "has no `` to set"),
        ("AGENTD_DAEMON__PLUGINS", "[a", "list is opened"),
        ("AGENTD_WATCHES__WEB__EVERY", "5s", "files only"),
    ],
)
def test_an_override_that_means_nothing_is_an_error(folder: Folder, name: str, value: str, words: str) -> None:
    """A misspelt override that is passed over in silence is found in the night it was needed for."""
    folder.environment = {name: value}
    problem = folder.problem("daemon: {log_level: info}\n" + WATCH)

    assert words in problem.what
    assert problem.file.startswith("environment")


def test_dotenv_stands_below_the_real_environment(folder: Folder) -> None:
    folder.write("AGENTD_DAEMON__LOG_LEVEL=debug\nAGENTD_DAEMON__INSTANCE=from-file\nTOKEN=$HOME\n", ".env")
    folder.environment = {"AGENTD_DAEMON__INSTANCE": "real"}
    loaded = folder.load(TOLD + WATCH)

    assert (loaded.config.daemon.log_level, loaded.config.daemon.instance) == ("debug", "real")
    assert loaded.environment["TOKEN"] == "$HOME"
    assert loaded.origins["daemon.log_level"] == ".env AGENTD_DAEMON__LOG_LEVEL"


def test_a_line_of_dotenv_that_cannot_be_read_is_warned_of_with_its_place(
    folder: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    """The variable that somebody meant to set there is missing; the lines around it count all the same."""
    folder.write("# words\nA=1\n\nnonsense here !\nexport B='2'\nC\n", ".env")
    loaded = folder.load(TOLD + WATCH)

    assert [(each.file, each.line) for each in loaded.warnings] == [(str(folder.path / ".env"), 4)]
    assert (loaded.environment["A"], loaded.environment["B"]) == ("1", "2")
    assert not caplog.records


def test_a_dotenv_that_cannot_be_read_is_a_problem(folder: Folder) -> None:
    (folder.path / ".env").write_bytes(b"A=\xff\xfe\n")

    assert "UTF-8" in folder.problem(TOLD + WATCH).what


def test_secrets_that_are_not_there_are_errors(folder: Folder) -> None:
    """At load, with line; not at three in the morning, when the first alert is to go out."""
    problems = folder.problems(
        """
        webhooks:
          a: {url: "${env:URL}", secret: "${file:/nowhere/secret}"}
          b: {url: "https://b.example/${env:HERE}", secret: "${credential:x}"}
        alerting: {notify: [a]}
        watches: []
        """
    )
    assert [(each.line, each.key) for each in problems] == [
        (3, "webhooks.a.url"),
        (3, "webhooks.a.secret"),
        (4, "webhooks.b.url"),
    ]

    folder.environment = {"URL": "https://a.example/", "HERE": "x", "CREDENTIALS_DIRECTORY": str(folder.path)}
    (folder.path / "secret").write_text("whsec_" + "A" * 32)
    folder.write((folder.path / "agentd.yaml").read_text().replace("/nowhere", str(folder.path)))
    assert [each.key for each in folder.problems()] == ["webhooks.b.secret"]

    (folder.path / "x").write_text("whsec_" + "A" * 32)
    folder.load()


@pytest.mark.parametrize(
    ("webhook", "key", "words"),
    [
        ("url: '${HOOK}'", "url", "${HOOK} does not say where to look"),
        ("url: 'https://a.example/${HOOK}'", "url", "${HOOK} does not say where to look"),
        ("url: '${env:EMPTY}'", "url", "is empty"),
        ("url: '${env:SHORT}'", "url", "no web address"),
        ("url: 'https://a.example/', secret: '${env:SHORT}'", "secret", "cannot read the signing secret"),
        ("url: 'https://a.example/', secret: ['${env:GOOD}', '${env:EMPTY}']", "secret[1]", "cannot read the signing"),
        ("url: 'https://a.example/', headers: {A: '${TOKEN}'}", "headers.A", "${TOKEN} does not say where to look"),
        ("url: 'https://a.example/', headers: {A: 'Bearer ${env:LINES}'}", "headers.A", "line break"),
    ],
)
def test_a_webhook_that_could_never_send_is_refused(folder: Folder, webhook: str, key: str, words: str) -> None:
    """What a secret holds is read at load anyway; that it is of no use must not be found out by the first alert."""
    folder.environment = {"EMPTY": "", "SHORT": "s=ort", "GOOD": "whsec_" + "A" * 32, "LINES": "a\nb"}
    problem = folder.problem(f"webhooks: {{a: {{{webhook}}}}}\nalerting: {{notify: [a]}}\n" + WATCH)

    assert problem.key == f"webhooks.a.{key}"
    assert words in problem.what
    assert problem.cure
    assert "s=ort" not in str(problem)


def test_secrets_that_can_be_used_are_taken(folder: Folder) -> None:
    folder.environment = {"URL": "https://a.example/\n", "GOOD": "whsec_" + "A" * 32, "KEY": "k"}
    webhook = "{url: '${env:URL}', secret: '${env:GOOD}', headers: {A: 'Bearer ${env:KEY}', B: '$HOME {x}'}}"

    assert not folder.load(f"webhooks: {{a: {webhook}}}\nalerting: {{notify: [a]}}\n" + WATCH).warnings


def test_dotenv_secrets_can_be_seen(folder: Folder) -> None:
    folder.write("HOOK=https://a.example/\n", ".env")

    assert not folder.load("webhooks: {a: {url: '${env:HOOK}'}}\nalerting: {notify: [a]}\n" + WATCH).warnings


def test_credentials_are_only_warned_of_outside_the_service(folder: Folder) -> None:
    """`agentd check` is run by people, who have no $CREDENTIALS_DIRECTORY."""
    text = "webhooks: {a: {url: '${credential:url}'}}\nalerting: {notify: [a]}\n" + WATCH

    assert set(folder.warnings(text)) == {"webhooks.a.url"}


def test_a_secret_in_plain_is_warned_of_and_never_shown(folder: Folder) -> None:
    secret = "whsec_" + "QUJD" * 8
    loaded = folder.load(
        f"webhooks: {{a: {{url: 'https://a.example/', secret: '{secret}'}}}}\nalerting: {{notify: [a]}}\n" + WATCH
    )

    assert [warning.key for warning in loaded.warnings] == ["webhooks.a.secret"]
    assert secret not in str(loaded.warnings)


def test_a_reference_where_none_is_filled_in_is_warned_of(folder: Folder) -> None:
    warnings = folder.warnings(
        TOLD + "watches: [{name: web, description: 'x ${env:Y}', http: {url: 'http://a.example/'}}]"
    )

    assert "not filled in" in warnings["watches[0].description"]


def test_problems_do_not_show_secret_values(folder: Folder) -> None:
    """Problems are printed, logged, and sent around when asking for help."""
    with pytest.raises(InvalidConfig) as caught:
        folder.load("webhooks: {a: {url: [geheim1], secret: {x: geheim2}, headers: {A: [geheim3]}}}\n" + WATCH)

    assert "geheim" not in str(caught.value)


def test_without_webhooks_a_warning_says_that_nobody_is_told(folder: Folder) -> None:
    assert "nobody is told" in folder.warnings(WATCH)["file"]


def test_a_watch_that_tells_nobody_is_warned_of(folder: Folder) -> None:
    warnings = folder.warnings("webhooks: {a: {url: 'https://a.example/'}}\n" + WATCH)

    assert "nobody is told" in warnings["watches[0]"]


def test_the_file_is_looked_for_where_people_put_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("agentd.config.loader.PLACES", ("agentd.yaml", str(tmp_path / "etc.yaml")))
    with pytest.raises(ConfigError, match=r"AGENTD_CONFIG.*agentd\.yaml"):
        find_config(None, {})

    (tmp_path / "etc.yaml").touch()
    assert find_config(None, {}) == tmp_path / "etc.yaml"
    (tmp_path / "agentd.yaml").touch()
    assert find_config(None, {}) == Path("agentd.yaml")
    assert find_config(None, {"AGENTD_CONFIG": "/x.yaml"}) == Path("/x.yaml")
    assert find_config(Path("y.yaml"), {"AGENTD_CONFIG": "/x.yaml"}) == Path("y.yaml")


def test_a_place_that_may_not_be_looked_at_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """/etc/agentd is closed to others: who is not the daemon's user gets words and no traceback."""

    def closed(self: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "exists", closed)

    with pytest.raises(ConfigError, match=r"cannot be looked at: Permission denied; .* with -c"):
        find_config(None, {})


def test_the_process_environment_is_the_default(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTD_DAEMON__INSTANCE", "by-process")

    assert load(folder.write(TOLD + WATCH)).config.daemon.instance == "by-process"
