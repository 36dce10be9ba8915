"""What single keys cannot know: sources, schedules, names that point somewhere, conditions, open doors."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from config_folder import TOLD, Folder

from agentd.config.readable import types_of
from agentd.daemon.runs.host import SOCKET_VARIABLE
from agentd.watch import KINDS


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def watch(keys: str, before: str = "") -> str:
    return TOLD + before + f"watches: [{{name: web, {keys}}}]\n"


HTTP = "http: {url: 'http://a.example/'}"


@pytest.mark.parametrize(
    ("keys", "key", "words"),
    [
        ("every: 5s", "watches[0]", "has no source"),
        (f"{HTTP}, tcp: {{host: a, port: 1}}", "watches[0].tcp", "has 2 sources"),
        (f"{HTTP}, goal: x", "watches[0].goal", "has 2 sources"),
        (f"{HTTP}, every: 5s, cron: '* * * * *'", "watches[0].cron", "both `every` and `cron`"),
        ("heartbeat: {expect_every: 1h}, every: 5s", "watches[0].every", "keeps no schedule"),
        ("heartbeat: {expect_every: 1h}, cron: '* * * * *'", "watches[0].cron", "keeps no schedule"),
        ("goal: find it", "watches[0].goal", "nothing ever starts"),
        (f"{HTTP}, cron: '99 * * * *'", "watches[0].cron", "out of range"),
        (f"{HTTP}, cron: '0 6 * * *', timezone: Europe/Belrin", "watches[0].timezone", "no time zone"),
        (f"{HTTP}, cron: '0 6 * * *', timezone: ../etc", "watches[0].timezone", "no time zone"),
        (f"{HTTP}, on: [sometimes]", "watches[0].on[0]", "not of the form"),
        (f"{HTTP}, on: ['alert:wbe']", "watches[0].on[0]", "no watch"),
        (f"{HTTP}, on: ['hook:deploy']", "watches[0].on[0]", "no hook"),
        (f"{HTTP}, on: ['log:web/x']", "watches[0].on[0]", "no rule"),
        (f"{HTTP}, notify: [opps]", "watches[0].notify[0]", "no webhook"),
        (f"{HTTP}, escalate: [{{after: 5m, notify: [boss]}}]", "watches[0].escalate[0].notify[0]", "no webhook"),
        (f"{HTTP}, depends_on: [uplink]", "watches[0].depends_on[0]", "no watch"),
        (f"{HTTP}, depends_on: [web]", "watches[0].depends_on", "depends on itself: web → web"),
        (f"{HTTP}, investigate: {{goal: x, model: big}}", "watches[0].investigate.model", "no model"),
        (f"{HTTP}, expect: [stauts == 200]", "watches[0].expect[0]", "unknown variable `stauts`"),
        (f"{HTTP}, expect: ['rcode == 0']", "watches[0].expect[0]", "unknown variable `rcode`"),
        (f"{HTTP}, expect: ['status ==']", "watches[0].expect[0]", "cannot read condition"),
        (f"{HTTP}, expect: status == 200", "watches[0].expect", "not a list"),
        (f"{HTTP}, expect: ['status == \"200\"']", "watches[0].expect[0]", "status is a number, not text"),
        (f"{HTTP}, expect: [status]", "watches[0].expect[0]", "neither true nor false"),
        (f"{HTTP}, expect: ['true']", "watches[0].expect[0]", "always holds"),
        (f"{HTTP}, expect: [status == 200, cert_days_left > 14]", "watches[0].expect[1]", "http:// address has none"),
        (f"{HTTP}, expect: [5]", "watches[0].expect[0]", "not text"),
        (f"{HTTP}, fail_after: 6 of 5", "watches[0].fail_after", "cannot read fail_after"),
        (f"{HTTP}, fail_after: 0", "watches[0].fail_after", "cannot read fail_after"),
        (f"{HTTP}, fail_after: 1 of 101", "watches[0].fail_after", "cannot read fail_after"),
        (f"{HTTP}, recover_after: 0", "watches[0].recover_after", "out of range"),
        (f"{HTTP}, every: 0s", "watches[0].every", "not longer than zero"),
        (f"{HTTP}, timeout: 10", "watches[0].timeout", "cannot read duration"),
        (f"{HTTP}, severity: high", "watches[0].severity", 'cannot be "high"'),
        (f"{HTTP}, labels: {{a: [b]}}", "watches[0].labels.a", "is a list, not text"),
        (f"{HTTP}, enabled: no", "watches[0].enabled", '"no" is neither true nor false'),
        (f"{HTTP}, enabled: 0", "watches[0].enabled", "0 is neither true nor false"),
        (f"{HTTP}, recover_after: '2'", "watches[0].recover_after", '"2" is no number'),
        ("tcp: {host: a.example, port: '80'}", "watches[0].tcp.port", '"80" is no number'),
        ("tcp: {host: a.example, port: true}", "watches[0].tcp.port", "true is no number"),
        ("tcp: {host: a.example, port: 80, read_bytes: '5'}", "watches[0].tcp.read_bytes", '"5" is no number'),
        ("http: ", "watches[0].http.url", "is missing"),
        ("http: yes", "watches[0].http", "not a mapping"),
    ],
)
def test_a_wrong_watch_is_told(folder: Folder, keys: str, key: str, words: str) -> None:
    """One problem, at the key where it is to be mended, with what to write instead."""
    problem = folder.problem(watch(keys))

    assert problem.key == key
    assert words in problem.what
    assert problem.cure
    assert problem.line == 3


@pytest.mark.parametrize("name", ["agentd", "agentd-self", "task", "a b", "-a", "a" * 64, "", "a/b", "ä"])
def test_a_name_that_cannot_be_one_is_refused(folder: Folder, name: str) -> None:
    """Names stand in URLs and fingerprints; agentd's own alerts must not be mistaken for a watch's."""
    assert folder.problem(TOLD + f'watches: [{{name: "{name}", {HTTP}}}]').key == "watches[0].name"


def test_numbers_and_booleans_are_taken_as_label_text(folder: Folder) -> None:
    loaded = folder.load(watch(f"{HTTP}, labels: {{rack: 7, spare: true, ratio: 1.5}}"))

    assert loaded.config.watches[0].labels == {"rack": "7", "spare": "true", "ratio": "1.5"}


def test_a_watch_may_run_at_startup_only(folder: Folder) -> None:
    found = folder.load(watch(f"{HTTP}, on: [startup]")).config.watches[0]

    assert (found.every, found.cron, found.on) == (None, None, ("startup",))


def test_no_conditions_at_all_is_a_choice(folder: Folder) -> None:
    """`expect: []` says: an answer is enough, whatever it is."""
    loaded = folder.load(watch(f"{HTTP}, expect: []"))

    assert loaded.config.watches[0].expect == ()
    assert loaded.conditions["web"] == ()


def test_the_types_of_all_that_conditions_may_read_are_known() -> None:
    """A variable without a type is never checked; one that is not there checks nothing."""
    for name, kind in KINDS.items():
        assert {path[0] for path in types_of(name)} == set(kind.variables)


@pytest.mark.parametrize("http", ["url: 'https://a.example/'", "url: 'http://a.example/', follow_redirects: true"])
def test_a_certificate_may_be_asked_for_where_there_may_be_one(folder: Folder, http: str) -> None:
    folder.load(watch(f"http: {{{http}}}, expect: [cert_days_left > 14]"))


@pytest.mark.parametrize(
    ("keys", "before", "key"),
    [
        (f"{HTTP}, every: 1ms, timeout: 1ms", "", "watches[0].every"),
        (f"{HTTP}, every: 5s, timeout: 6s", "", "watches[0].timeout"),
        (HTTP, "daemon: {memory_limit: 10MiB}\n", "daemon.memory_limit"),
        (HTTP, "memory: {max_size: 1MiB}\n", "memory.max_size"),
    ],
)
def test_what_is_hardly_meant_is_warned_of(folder: Folder, keys: str, before: str, key: str) -> None:
    assert set(folder.warnings(watch(keys, before))) == {key}


def test_what_others_mean_is_not_warned_of(folder: Folder) -> None:
    """A short interval below the usual timeout is what most people write."""
    assert not folder.warnings(watch(f"{HTTP}, every: 1s", "daemon: {memory_limit: 128MiB}\n"))


def test_equal_conditions_are_compiled_once(folder: Folder) -> None:
    """Ten thousand watches ask mostly the same."""
    loaded = folder.load(
        TOLD + f"watches: [{{name: a, {HTTP}, expect: [status == 201]}}, {{name: b, {HTTP}, expect: [status == 201]}}]"
    )

    assert loaded.conditions["a"][0] is loaded.conditions["b"][0]


def test_dependencies_in_a_circle_are_told_as_one(folder: Folder) -> None:
    names = ("a", "b", "c")
    watches = ", ".join(f"{{name: {n}, {HTTP}, depends_on: [{names[(i + 1) % 3]}]}}" for i, n in enumerate(names))
    problem = folder.problem(TOLD + f"watches: [{watches}, {{name: d, {HTTP}, depends_on: [a]}}]")

    assert "a → b → c → a" in problem.what


def test_a_long_chain_of_dependencies_is_no_problem(folder: Folder) -> None:
    """Depth is bounded by the number of watches, not by the stack."""
    chain = [f"- {{name: w{i}, {HTTP}, depends_on: [w{i + 1}]}}" for i in range(3000)]
    folder.load(TOLD + "watches:\n" + "\n".join([*chain, f"- {{name: w3000, {HTTP}}}"]))


@pytest.mark.parametrize("address", ["0.0.0.0:8787", "[::]:8787", "192.0.2.1:80", "web.example:80"])
@pytest.mark.parametrize("keys", ["", ", keys: []"])
def test_listening_to_strangers_without_a_key_is_refused(folder: Folder, address: str, keys: str) -> None:
    """Whoever gets there would read everything."""
    problem = folder.problem(watch(HTTP, f"api: {{listen: ['{address}']{keys}}}\n"))

    assert problem.key == "api.listen[0]"
    assert "no key to ask them for" in problem.what
    assert "agentd key new" in problem.cure


def test_the_same_address_twice_is_refused(folder: Folder) -> None:
    """The second one could never be listened on, and the daemon would not start."""
    problem = folder.problem(watch(HTTP, "api: {listen: ['127.0.0.1:8787', 'unix:/run/x.sock', '127.0.0.1:8787']}\n"))

    assert (problem.key, problem.what) == ("api.listen[2]", "127.0.0.1:8787 stands here twice")


@pytest.mark.parametrize("address", ["127.0.0.1:8787", "[::1]:8787", "localhost:1", "unix:/run/x.sock"])
def test_listening_at_home_needs_none(folder: Folder, address: str) -> None:
    assert str(folder.load(watch(HTTP, f"api: {{listen: ['{address}']}}\n")).config.api.listen[0]) == address


@pytest.mark.parametrize(
    "address", ["8787", "127.0.0.1", ":80", "::1:80", "127.0.0.1:0", "a:70000", "unix:x", "unix:/" + "x" * 120]
)
def test_an_address_that_cannot_be_listened_on_is_refused(folder: Folder, address: str) -> None:
    assert folder.problem(watch(HTTP, f"api: {{listen: ['{address}']}}\n")).key == "api.listen[0]"


@pytest.mark.parametrize(
    ("alerting", "key"),
    [
        ("notify: [x]", "alerting.notify[0]"),
        ("routes: [{when: 'severity ==', notify: [ops]}]", "alerting.routes[0].when"),
        ("routes: [{when: 'status == 200', notify: [ops]}]", "alerting.routes[0].when"),
        ("routes: [{when: 'severity == \"info\"', notify: [x]}]", "alerting.routes[0].notify[0]"),
        ("maintenance: [{when: 'true == true', cron: '0 3', for: 1h}]", "alerting.maintenance[0].cron"),
        ("inhibit: [{when: 'watch == \"a\"', mutes: 'x == 1'}]", "alerting.inhibit[0].mutes"),
        ("flapping: {start: 130%}", "alerting.flapping.start"),
    ],
)
def test_wrong_alerting_is_told(folder: Folder, alerting: str, key: str) -> None:
    hooks = "webhooks: {ops: {url: 'https://a.example/'}}"
    text = f"{hooks}\nalerting: {{{alerting}}}\nwatches: [{{name: web, {HTTP}, notify: [ops]}}]"

    assert folder.problem(text).key == key


def test_a_model_that_falls_back_on_nothing_is_told(folder: Folder) -> None:
    problem = folder.problem(
        watch(HTTP, "models: {a: {provider: openai, model: x, fallback: [a, b]}, b: {provider: openai, model: y}}\n")
    )

    assert problem.key == "models.a.fallback[0]"


KEYS = """\
models: {m: {provider: openai, model: x, api_key: "${env:MODEL_KEY}"}}
embeddings: {base_url: "https://a.example/v1", model: x, api_key: "${env:EMBEDDINGS_KEY}"}
"""


def test_a_key_for_agents_that_is_missing_is_warned_of(folder: Folder) -> None:
    """Without it nobody looks into an alert, which goes out nevertheless."""
    warnings = folder.warnings(watch(HTTP, KEYS))

    assert set(warnings) == {"models.m.api_key", "embeddings.api_key"}


def test_what_only_the_agent_host_can_see_is_not_missed_in_the_daemon(folder: Folder) -> None:
    """As a service its keys are nowhere else: a warning at every start would be about what is as it should be."""
    folder.environment = {SOCKET_VARIABLE: "/run/agentd/agent.sock"}

    # Meanings are asked for by the daemon itself.
    assert set(folder.warnings(watch(HTTP, KEYS))) == {"embeddings.api_key"}


def test_what_is_not_done_yet_is_warned_of(folder: Folder) -> None:
    """Nobody may rely on an investigation that does nothing."""
    warnings = folder.warnings(
        """
        webhooks: {ops: {url: "https://a.example/"}}
        alerting: {notify: [ops], routes: [{when: 'severity == "info"', notify: [ops]}]}
        watches:
          - {name: a, log: {files: [/x]}, rules: [{name: r, type: any, match: x}], investigate: why}
          - {name: b, tcp: {host: a.example, port: 1}, depends_on: [c], missed: once}
          - {name: c, tcp: {host: a.example, port: 1}, on: [startup, "alert:b"]}
        """
    )

    assert set(warnings) == {
        "watches[0].investigate",
        "watches[1].missed",
    }


def test_a_warning_repeated_by_many_watches_is_told_briefly(folder: Folder) -> None:
    """Ten thousand lines of the same words hide the one that matters."""
    chain = [f"- {{name: w{i}, {HTTP}, missed: once}}" for i in range(50)]
    loaded = folder.load(TOLD + "watches:\n" + "\n".join(chain))

    assert len(loaded.warnings) == 3
    assert any("(and 47 more)" in warning.what for warning in loaded.warnings)


def test_only_what_can_run_is_a_probe(folder: Folder) -> None:
    config = folder.load(
        TOLD + f"watches: [{{name: a, {HTTP}}}, {{name: b, {HTTP}, enabled: false}}, {{name: c, goal: x, every: 1h}}]"
    ).config

    assert [each.name for each in config.probes] == ["a"]
    assert len(config.watches) == 3


def test_reminders_can_be_turned_off_for_one_watch(folder: Folder) -> None:
    config = folder.load(
        TOLD.replace("notify", "remind_every: 1h, remind: fixed, notify")
        + f"watches: [{{name: a, {HTTP}}}, {{name: b, {HTTP}, remind_every: 0s, remind: doubling}}]"
    ).config
    a, b = config.watches

    assert (config.remind_every(a), config.remind(a)) == (timedelta(hours=1), "fixed")
    assert (config.remind_every(b), config.remind(b)) == (None, "doubling")


def test_the_state_folder_follows_the_environment(folder: Folder) -> None:
    daemon = folder.load(watch(HTTP)).config.daemon

    assert daemon.find_state_dir({"STATE_DIRECTORY": "/var/lib/agentd:/var/lib/x"}) == Path("/var/lib/agentd")
    assert daemon.find_state_dir({"XDG_STATE_HOME": "/s"}) == Path("/s/agentd")
    assert daemon.find_state_dir({"HOME": "/home/a"}) == Path("/home/a/.local/state/agentd")
