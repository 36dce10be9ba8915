"""The commands as a person types them: with a daemon running, without one, and with a configuration that is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml
from commands import Agentd, typed
from loopback import Authority, free_port
from running import running

from agentd.cli import COMMANDS
from agentd.cli.client import quoted
from agentd.cli.tables import clean, print_facts, print_table, since, written
from agentd.clock import iso
from agentd.daemon.app import Daemon
from agentd.deliver.payload import payload_schema
from agentd.memory import heartbeats, meta
from agentd.memory.heartbeats import Beat
from agentd.memory.store import Store
from agentd.watch import KINDS

HOSTILE = "\x1b[2J\x9b31mred\u202e\r\nnot a line\x00"


class Web(BaseHTTPRequestHandler):
    """A web service: `/up`, `/down`, `/hostile`, and a hook that refuses."""

    def do_GET(self) -> None:
        body = json.dumps({"status": HOSTILE if self.path == "/hostile" else "UP"}).encode()
        self.send_response(503 if self.path == "/down" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = HOSTILE.encode()
        self.send_response(400 if self.path == "/refuses" else 204)
        self.send_header("Content-Length", str(len(body) if self.path == "/refuses" else 0))
        self.end_headers()
        if self.path == "/refuses":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Web) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def agentd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Agentd:
    """`agentd(...)` with $AGENTD_CONFIG pointing into tmp_path."""
    return typed(monkeypatch, capsys, tmp_path / "agentd.yaml")


def write(folder: Path, *watches: dict[str, Any], **more: Any) -> Path:
    path = folder / "agentd.yaml"
    whole = {"daemon": {"state_dir": str(folder / "s"), "instance": "web-1"}, "watches": list(watches), **more}
    path.write_text(yaml.safe_dump(whole))
    return path


def shop(web: str, path: str = "/up", name: str = "shop", **more: Any) -> dict[str, Any]:
    return {"name": name, "every": "1h", "http": {"url": web + path}, "expect": ["status == 200"], **more}


@pytest.fixture
def daemon(tmp_path: Path, web: str) -> Iterator[Daemon]:
    """A daemon with a calm watch, one that fires, and messages that a webhook refused."""
    hooks = {"ops": {"url": f"{web}/refuses"}, "good": {"url": f"{web}/takes"}}
    hostile = shop(web, "/hostile", "hostile", fail_after=1, expect=['body.status == "UP"'], on=["startup"])
    with running(write(tmp_path, shop(web), hostile, webhooks=hooks, alerting={"notify": ["ops"]})) as found:
        yield found


def harmless(text: str) -> bool:
    """Nothing in it moves a cursor, changes a colour or turns the reading direction."""
    return all(each.isprintable() or each == "\n" for each in text)


def test_status_of_a_running_daemon(agentd: Agentd, daemon: Daemon) -> None:
    """The first thing that anybody types."""
    said = agentd("status")

    assert said.code == 0
    assert "running" in said.out
    assert not re.search(r"\b(None|True|False|null)\b", said.out), "these are words of programs"
    assert "full false" in said.out
    assert str(daemon.state_dir / "api.sock") in said.out, "whoever wants to use curl needs it"
    assert agentd("status", "-o", "json").json["watches"]["total"] == 2


def test_a_daemon_whose_socket_is_elsewhere_is_not_said_to_be_down(
    agentd: Agentd, daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads that nothing runs starts a second one, or wakes somebody."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "elsewhere"))

    said = agentd("status", "-o", "json")

    assert said.err.startswith(f"agentd runs as pid {os.getpid()}, but its socket cannot be reached at {tmp_path}")
    assert "RUNTIME_DIRECTORY" in said.err
    assert (said.code, said.json["state"]) == (1, "not reached")
    assert "agentd runs as pid" in agentd("pause", "shop").err


def test_no_daemon_is_said_and_the_store_read(agentd: Agentd, tmp_path: Path, web: str) -> None:
    """After a crash one wants to see what it knew; a script must see by the exit code that it is down."""
    write(tmp_path, shop(web))
    assert agentd("status").code == 1, "there is no store yet"
    asyncio.run(_touch(tmp_path / "s"))

    said = agentd("status", "--output", "json")

    assert said.code == 1
    assert said.json["state"] == "not running"
    assert said.err.startswith("agentd is not running; this is what it stored")
    assert [row["name"] for row in agentd("watches", "-o", "json").json["watches"]] == ["shop"]
    assert agentd("alerts").out == "All is well.\n"
    assert "empty" in agentd("outbox", "list").out
    assert agentd("outbox", "show", "msg_1").code == 1


def test_what_is_read_without_a_daemon_says_how_old_it_is(agentd: Agentd, tmp_path: Path, web: str) -> None:
    """A calm table of a daemon that died last week is the most dangerous kind."""
    write(tmp_path, shop(web))
    died = datetime.now(UTC) - timedelta(days=7, minutes=1)

    async def live_and_die() -> None:
        store = await Store.open(tmp_path / "s")
        await store.state.write(lambda connection: meta.stamp_alive(connection, died))
        await store.close()

    asyncio.run(live_and_die())
    for words in (("status",), ("watches",), ("alerts",), ("alerts", "-o", "json"), ("outbox", "list")):
        said = agentd(*words)

        assert f"agentd is not running; this is what it stored, last alive 7d ago ({iso(died)})\n" in said.err
        assert "this is what it stored" not in said.out


def test_a_command_that_asks_the_daemon_asks_for_no_prices(
    agentd: Agentd, tmp_path: Path, web: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a budget can be kept is for who runs it: `agentd status` must not start a process to find that out."""
    asked: list[object] = []
    monkeypatch.setattr("agentd.llm.prices._ask_child", asked.append)
    monkeypatch.setattr("agentd.llm.prices._ask_at", 0.0)  # as it was, when this is over: nobody was asked
    model = {"provider": "openai", "model": "gpt-of-which-nobody-heard"}
    write(tmp_path, shop(web), models={"default": model}, budgets={"run": {"usd": 1.0}})

    agentd("status")
    assert asked == []
    agentd("check")
    assert asked


async def _touch(state_dir: Path) -> None:
    await (await Store.open(state_dir)).close()


@pytest.mark.parametrize(
    "words",
    [
        ("pause", "shop"),
        ("resume", "shop"),
        ("reload",),
        ("webhook", "test", "ops"),
        ("webhook", "enable", "ops"),
        ("outbox", "retry", "msg_1"),
        ("outbox", "retry", "--all"),
        ("outbox", "drop", "msg_1"),
    ],
    ids=" ".join,
)
def test_what_needs_a_daemon_says_that_there_is_none(
    agentd: Agentd, tmp_path: Path, web: str, words: tuple[str, ...]
) -> None:
    """And names the socket, which is what is wrong when it does run."""
    write(tmp_path, shop(web))

    said = agentd(*words)

    assert said.code == 1
    assert "no daemon answers on" in said.err
    assert "is it running?" in said.err
    assert "Traceback" not in said.err


def test_pause_and_resume(agentd: Agentd, daemon: Daemon) -> None:
    """With an end, by name, and said."""
    assert "shop is paused until 20" in agentd("pause", "shop", "--for", "2h", "--reason", "move").out
    assert agentd("watches", "-o", "json").json["watches"][0]["paused"]
    assert "paused" in agentd("watches").out
    assert "shop runs again, next at 20" in agentd("resume", "shop").out
    again = agentd("resume", "shop")
    assert (again.code, again.err) == (1, "agentd: shop is not paused\n")
    assert agentd("pause", "shop", "-o", "json").json["paused"] is True
    assert agentd("pause", "nothing").code == 1
    assert agentd("pause", "shop", "--for", "soon").code == 2


@pytest.mark.parametrize("name", ["../reload?", "a/b", ".", "..", "a b\n", "%2e%2e", "schlüssel", "\udcff", "x" * 5000])
def test_odd_names_lead_nowhere(agentd: Agentd, daemon: Daemon, name: str) -> None:
    """A name typed or scripted must not become another request."""
    for words in (("pause", name), ("webhook", "enable", name), ("outbox", "drop", name), ("outbox", "show", name)):
        said = agentd(*words)

        assert said.code == 1
        assert harmless(said.err)
        assert "Traceback" not in said.err


def test_a_quoted_name_is_one_step_of_a_path() -> None:
    """Dots too: a client or proxy may take them for the step above."""
    assert quoted("../a?b#c%") == "%2E%2E%2Fa%3Fb%23c%25"


def test_alerts_and_outbox_show_no_raw_control_characters(agentd: Agentd, daemon: Daemon, web: str) -> None:
    """A target must not paint the terminal of whoever looks what is wrong with it."""
    alerts = agentd("alerts", "--exit-code")
    assert alerts.code == 3
    assert "hostile" in alerts.out
    rows = agentd("outbox", "list", "-o", "json").json["deliveries"]
    assert [row["type"] for row in rows] == ["alert.firing"]
    shown = [
        alerts,
        agentd("alerts", "-o", "json"),
        agentd("watches"),
        agentd("watches", "-o", "json"),
        agentd("status"),
        agentd("outbox", "list"),
        agentd("outbox", "show", rows[0]["id"]),
        agentd("outbox", "show", rows[0]["id"], "-o", "json"),
        agentd("webhook", "test", "ops"),
        agentd("webhook", "test", "ops", "-o", "json"),
        agentd("test", "hostile"),
    ]
    assert [said.code for said in shown] == [3, 0, 0, 0, 0, 0, 0, 0, 1, 1, 3]
    for said in shown:
        assert harmless(said.out + said.err)
    assert shown[1].json["alerts"][0]["values"]["body.status"].startswith("\x1b[2J"), "in JSON nothing is lost"


def test_dead_letters_are_resent_and_dropped(agentd: Agentd, daemon: Daemon) -> None:
    """What a receiver refused waits for a person."""
    (row,) = agentd("outbox", "list", "-o", "json").json["deliveries"]

    assert agentd("outbox", "retry", "--all", "--webhook", "good").out.startswith("0 sent again")
    assert agentd("outbox", "retry").code == 2
    assert agentd("outbox", "retry", "msg_1", "--all").code == 2
    assert agentd("outbox", "retry", row["id"]).out == f"{row['id']} is sent again now\n"
    assert agentd("outbox", "drop", row["id"]).out == f"{row['id']} is dropped\n"
    assert agentd("outbox", "drop", row["id"]).code == 1


def test_webhooks_are_tried_and_enabled(agentd: Agentd, daemon: Daemon) -> None:
    """Before the night in which they are needed."""
    assert "good took it: status 204" in agentd("webhook", "test", "good").out
    assert "did not take it" in agentd("webhook", "test", "ops").err
    assert agentd("webhook", "test", "nothing").code == 1
    assert agentd("webhook", "enable", "good").out == "good is enabled (it was not disabled)\n"


def test_reload_takes_a_good_file_and_refuses_a_wrong_one(agentd: Agentd, daemon: Daemon, tmp_path: Path) -> None:
    """By the command, with its exit code."""
    assert agentd("reload").out == "reloaded\n"
    good = (tmp_path / "agentd.yaml").read_text()
    (tmp_path / "agentd.yaml").write_text(good + "nonsense: 1\n")

    said = agentd("reload")

    assert said.code == 1
    assert "the old one runs on" in said.err
    assert "nonsense" in said.err


def test_a_broken_file_keeps_nobody_from_asking_the_daemon(agentd: Agentd, daemon: Daemon, tmp_path: Path) -> None:
    """Somebody has just broken it, and wants to know whether the daemon still runs."""
    path = tmp_path / "agentd.yaml"
    path.write_text(path.read_text() + "nonsense: 1\n")

    said = agentd("status")

    assert said.code == 0
    assert "running" in said.out
    assert "has 1 error; `agentd check` shows them" in said.err


def test_a_mark_stays_below_what_it_points_at(
    agentd: Agentd, tmp_path: Path, web: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A condition with a mark below it says nothing when the two are run together."""
    write(tmp_path, shop(web, expect=["status == = 200"]))

    for said in (agentd("check").out, agentd("run").err):
        line = said.splitlines().index("    status == = 200")
        assert said.splitlines()[line + 1].strip() == "^"

    print_facts({"a": "one\n  two\x1b\n", "longer": {"b": None}})
    assert capsys.readouterr().out == 'a       one\n          two\\x1b\nlonger  {"b": null}\n'


def test_a_socket_of_somebody_else_is_not_taken_for_a_daemon(agentd: Agentd, tmp_path: Path, web: str) -> None:
    """It may answer, but not in our language."""
    write(tmp_path, shop(web), api={"listen": [f"unix:{tmp_path}/x"]})
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/x")
        listener.listen()

        def answer() -> None:
            while True:
                connection, _ = listener.accept()
                with connection:
                    if connection.recv(65536):
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
                        return

        thread = threading.Thread(target=answer)
        thread.start()
        said = agentd("pause", "shop")
        thread.join()

    assert said.code == 1
    assert "is no agentd" in said.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_a_state_folder_of_somebody_else_is_said_plainly(tmp_path: Path, web: str) -> None:
    """Whoever forgets `sudo` reads what to do, not a traceback."""
    path = write(tmp_path, shop(web), api={"listen": [f"unix:{tmp_path}/x"]})
    (tmp_path / "s").mkdir(mode=0o700)
    os.chown(tmp_path / "s", 65534, 65534)
    # Root without the right to pass every door: another user may not even be able to read Python's own files.
    bound = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]

    done = subprocess.run(
        [*bound, sys.executable, "-m", "agentd", "watches", "-c", str(path)], capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 1
    assert "you may not read it; run the command as the service's user, or as root" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("watches", "-o", "json"), ("watches",), ("schema",), ("check",)], ids=" ".join)
def test_output_that_cannot_be_written_is_said_and_fails(tmp_path: Path, web: str, words: tuple[str, ...]) -> None:
    """A script that writes to a full disk must see it by the exit code; a traceback helps nobody."""
    path = write(tmp_path, shop(web))
    asyncio.run(_touch(tmp_path / "s"))

    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "agentd", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            env={**os.environ, "AGENTD_CONFIG": str(path)},
        )

    assert done.returncode == 1
    assert "cannot write the output: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


# `agentd test`


def tried(kind: str, web: str, tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Settings of a kind with which a look succeeds, and with which the target fails (None: it cannot)."""
    closed = {"host": "127.0.0.1", "port": free_port()}
    port = int(web.rsplit(":", 1)[1])
    match kind:
        case "http":
            return {"http": {"url": f"{web}/up"}}, {"http": {"url": f"{web}/down"}, "expect": ["status == 200"]}
        case "tcp":
            return {"tcp": {"host": "127.0.0.1", "port": port}}, {"tcp": closed}
        case "tls":
            return {}, {"tls": closed}
        case "dns":
            return {}, None
        case "command":
            return (
                {"command": {"argv": ["true"]}},
                {"command": {"argv": ["false"]}, "expect": ["exit_code == 0"]},
            )
        case "host":
            return (
                {"host": {"disk": "/"}, "expect": ["disk.used_percent <= 100"]},
                {"host": {"disk": "/"}, "expect": ["disk.used_percent < 0"]},
            )
        case _:
            return {}, None


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_look_of_each_kind(agentd: Agentd, tmp_path: Path, web: str, kind: str) -> None:
    """0 when all is well, 3 when the target fails, with each condition, its values and a valid payload."""
    well, failing = tried(kind, web, tmp_path)
    watches = [{"name": name, **source} for name, source in (("well", well), ("failing", failing)) if source]
    write(tmp_path, *watches, {"name": "another", "host": {"disk": "/"}})
    if well:
        said = agentd("test", "well", "-o", "json")
        assert (said.code, said.json["verdict"]) == (0, "ok"), said
        assert said.json["payload"] is None
        assert all(row["holds"] for row in said.json["conditions"])
        assert agentd("test", "well").code == 0
    if failing:
        said = agentd("test", "failing", "-o", "json")
        assert (said.code, said.json["verdict"]) == (3, "failing"), said
        jsonschema.validate(said.json["payload"], payload_schema())
        assert said.json["payload"]["data"]["state"] == "firing"
        text = agentd("test", "failing")
        assert text.code == 3
        assert "payload when it fires (not sent)" in text.out


def test_a_look_shows_each_condition_with_its_values(agentd: Agentd, tmp_path: Path, web: str) -> None:
    """Whoever writes a condition wants to see what it saw."""
    expect = ["status == 200", 'body.status == "DOWN"']
    write(tmp_path, shop(web, expect=expect, fail_after="3 of 5"), webhooks={"ops": {"url": web}})

    said = agentd("test", "shop", "-o", "json")

    assert said.json["conditions"] == [
        {"condition": "status == 200", "holds": True, "values": {"status": 200}},
        {"condition": 'body.status == "DOWN"', "holds": False, "values": {"body.status": "UP"}},
    ]
    assert "it fires at 3 of 5" in said.json["alert"]


async def _keep(state_dir: Path, beat: Beat) -> None:
    store = await Store.open(state_dir)
    await store.state.write(lambda connection: heartbeats.save(connection, [beat]))
    await store.close()


@pytest.mark.parametrize(
    ("age", "ok", "count", "code", "words"),
    [
        (timedelta(minutes=20), True, 3, 0, "beats = 3 last_ok = true"),
        (timedelta(hours=3), True, 3, 3, "no heartbeat for 3h"),
        (timedelta(hours=3), True, 0, 3, "no heartbeat ever, watched for 3h"),
        (timedelta(hours=1, minutes=30), True, 3, 3, "no heartbeat for 1h30m"),
        (timedelta(minutes=20), False, 3, 3, "the job reported failure: disk full"),
    ],
    ids=["in time", "late", "never", "just late", "failed"],
)
def test_a_heartbeat_is_tried_with_what_the_daemon_stored(
    agentd: Agentd, tmp_path: Path, age: timedelta, ok: bool, count: int, code: int, words: str
) -> None:
    """A command hears no beats itself: without the stored one it would call every dead job well."""
    write(tmp_path, {"name": "job", "heartbeat": {"expect_every": "1h", "grace": "10m"}})
    asyncio.run(_keep(tmp_path / "s", Beat("job", datetime.now(UTC) - age, ok, "disk full", count)))

    said = agentd("test", "job")

    assert said.code == code, said
    assert words in " ".join(said.out.split())


def test_a_heartbeat_that_no_daemon_waits_for_is_never_called_well(agentd: Agentd, tmp_path: Path) -> None:
    """Neither before the first start nor before the reload that brings the watch."""
    write(tmp_path, {"name": "job", "heartbeat": {"expect_every": "1h"}})

    first = agentd("test", "job")
    asyncio.run(_touch(tmp_path / "s"))
    second = agentd("test", "job", "-o", "json")

    assert (first.code, first.out) == (1, "")
    assert "no daemon has run here" in first.err
    assert (second.code, second.out) == (1, "")
    assert "does not wait for its beats yet" in second.err


def test_the_payload_of_a_look_is_what_would_go_out(agentd: Agentd, tmp_path: Path, web: str) -> None:
    """Receivers are written by it: the instance is that of the daemon, and its page is linked."""
    path = write(tmp_path, shop(web, "/down"), api={"listen": ["127.0.0.1:8787"]})
    path.write_text(path.read_text().replace("  instance: web-1\n", ""))

    data = agentd("test", "shop", "-o", "json").json["payload"]["data"]

    assert data["instance"] == socket.gethostname()
    assert data["links"] == {
        "page": f"http://127.0.0.1:8787/alerts/{data['fingerprint']}",
        "watch": "http://127.0.0.1:8787/watches/shop",
    }


def test_values_are_shown_as_a_condition_would_write_them(agentd: Agentd, tmp_path: Path, web: str) -> None:
    """`true` and `null`, not the words of the language that agentd is written in."""
    assert written({"a": None, "b": [True, 1.23456], "c": "ü"}) == '{"a": null, "b": [true, 1.235], "c": "ü"}'
    source = {"host": "127.0.0.1", "port": int(web.rsplit(":", 1)[1])}
    write(tmp_path, {"name": "port", "tcp": source, "expect": ["!connected"]})

    said = agentd("test", "port")

    assert "connected = true" in said.out
    assert not {"True", "False", "None"} & set(said.out.replace("(", " ").replace(")", " ").split())


def test_a_look_that_is_not_possible_is_1(agentd: Agentd, tmp_path: Path, web: str) -> None:
    """Blind is neither well nor failing."""
    write(tmp_path, {"name": "x", "command": {"argv": ["/nowhere/program"]}}, shop(web, enabled=False))

    said = agentd("test", "x", "-o", "json")

    assert (said.code, said.json["verdict"]) == (1, "blind")
    assert agentd("test", "shop").code == 1
    assert "the configuration has: shop, x" in agentd("test", "nothing").err


def test_a_tls_look(agentd: Agentd, tmp_path: Path) -> None:
    """Certificates need a server that shows one."""
    authority = Authority(tmp_path)
    context = authority.server(authority.issue())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            with contextlib.suppress(OSError):  # the end of the listener
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=serve)
        thread.start()
        source = {"host": "127.0.0.1", "port": port, "ca_file": authority.file}
        write(
            tmp_path,
            {"name": "well", "tls": source, "expect": ["cert_days_left > 14"]},
            {"name": "soon", "tls": source, "expect": ["cert_days_left > 1000"]},
        )
        well, soon = agentd("test", "well"), agentd("test", "soon")
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()

    assert (well.code, soon.code) == (0, 3)
    assert "cert_days_left = " in soon.out


# The configuration before it runs


def test_check_prints_every_problem_with_its_place(agentd: Agentd, tmp_path: Path, web: str) -> None:
    """An editor or a pipeline reads FILE:LINE:COLUMN; the exit code is 2."""
    path = write(tmp_path, shop(web))
    assert agentd("check").code == 0
    path.write_text("watches:\n  - {name: a, htpt: {}}\n  - {name: a, tcp: {host: x, port: 99999}}\n")

    said = agentd("check")

    assert said.code == 2
    lines = said.out.splitlines()
    assert len(lines) >= 3
    assert all(line.startswith(f"{path}:") for line in lines)
    assert "this configuration will not be run" in said.err
    assert "Traceback" not in said.err


def test_check_counts_in_good_english(agentd: Agentd, tmp_path: Path, web: str) -> None:
    """The last line of the command that a newcomer types most."""
    write(tmp_path, shop(web))
    assert agentd("check").err.endswith("agentd.yaml: 1 watch and 0 webhooks, ready to run\n")

    write(tmp_path, shop(web), shop(web, name="b"), webhooks={"ops": {"url": web}}, alerting={"notify": ["ops"]})
    assert agentd("check").err.endswith("2 watches and 1 webhook, ready to run\n")


def test_check_strict_counts_warnings(agentd: Agentd, tmp_path: Path, web: str) -> None:
    """A pipeline may want to be strict: here nobody is told of anything."""
    write(tmp_path, shop(web))

    assert "warning" in agentd("check").out
    assert agentd("check", "--strict").code == 2


def test_run_refuses_a_wrong_configuration(agentd: Agentd, tmp_path: Path) -> None:
    """Before anything is opened."""
    (tmp_path / "agentd.yaml").write_text(f"nonsense: 1\ndaemon: {{state_dir: {tmp_path}/s}}\n")

    said = agentd("run")

    assert said.code == 2
    assert "nonsense" in said.err
    assert not (tmp_path / "s").exists()


def test_no_configuration_at_all_is_the_callers_mistake(agentd: Agentd, tmp_path: Path) -> None:
    """And the message says how to come to one."""
    said = agentd("run")

    assert said.code == 2
    assert "agentd.yaml" in said.err
    assert "Traceback" not in said.err


def test_init_writes_what_check_takes(agentd: Agentd, tmp_path: Path) -> None:
    """The first two commands of a newcomer; the second `init` destroys nothing."""
    folder = tmp_path / "new"
    assert agentd("init", str(folder)).code == 0
    before = (folder / "agentd.yaml").read_bytes()

    assert agentd("check", "-c", str(folder / "agentd.yaml")).code == 0
    again = agentd("init", str(folder))

    assert again.code == 2
    assert "is there already" in again.err
    assert (folder / "agentd.yaml").read_bytes() == before


def test_schemas_are_schemas(agentd: Agentd) -> None:
    """Editors and receivers build on them."""
    for words in (("schema",), ("schema", "--payload")):
        said = agentd(*words)
        assert said.code == 0
        jsonschema.Draft202012Validator.check_schema(said.json)


def test_doctor(agentd: Agentd, tmp_path: Path, web: str) -> None:
    """Of a store that is well, one that is not there, and one that is damaged."""
    write(tmp_path, shop(web))
    asyncio.run(_touch(tmp_path / "s"))
    assert agentd("doctor").code == 0
    assert {finding["level"] for finding in agentd("doctor", "-o", "json").json} <= {"ok", "warning"}

    (tmp_path / "s" / "state.db").write_bytes(b"no database at all" * 1000)
    said = agentd("doctor")

    assert said.code == 1
    assert "ERROR" in said.out


def test_every_command_explains_itself(agentd: Agentd) -> None:
    """`--help` is the manual that is at hand."""
    for name in COMMANDS:
        said = agentd(name, "--help")
        assert said.code == 0
        assert len(said.out.splitlines()) > 5
    assert agentd("nonsense").code == 2
    assert agentd("--version").out.startswith("agentd")


@pytest.mark.parametrize(
    ("text", "shown"),
    [(HOSTILE, "\\x1b[2J\\x9b31mred\\x202e\\x0d not a line\\x00"), (None, ""), ("schön", "schön"), (3, "3")],
)
def test_text_is_made_harmless_for_the_terminal(text: object, shown: str) -> None:
    """One line, nothing hidden."""
    assert clean(text) == shown


NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("moment", "shown"),
    [
        (NOW, "0s ago"),
        (NOW - timedelta(seconds=12.3), "12s ago"),
        (NOW - timedelta(seconds=59.9), "1m ago"),
        (NOW - timedelta(hours=1), "1h ago"),
        (NOW - timedelta(hours=3, minutes=5), "3h5m ago"),
        (NOW - timedelta(days=400), "400d ago"),
        (NOW - timedelta(days=4, hours=3), "4d3h ago"),
        (NOW + timedelta(seconds=65), "in 1m"),
    ],
)
def test_moments_are_shown_by_their_distance(moment: datetime, shown: str) -> None:
    """Nobody subtracts timestamps in a night; 24 letters of them push the rest off the screen."""
    assert since(moment, NOW) == shown


def test_tables_show_ages_and_json_has_moments(agentd: Agentd, daemon: Daemon) -> None:
    """A person wants the distance, a program the moment."""
    assert agentd("watches", "-o", "json").json["watches"][1]["checked_at"].endswith("Z")
    assert "s ago" in agentd("watches").out
    assert "s ago" in agentd("alerts").out
    for words in (("watches",), ("alerts",), ("outbox", "list")):
        assert not re.search(r"\d{4}-\d\d-\d\dT", agentd(*words).out)


@pytest.mark.parametrize("width", [20, 60, 100, 200])
def test_names_in_tables_are_never_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    """On a narrow terminal prose gives way; an identity that stands one letter a line cannot be copied."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    row = {"id": "msg_" + "0" * 32, "webhook": "ops", "lane": "a-long-name-of-a-watch", "rule": None}

    print_table(
        [row | {"last_error": "connection refused " * 5}],
        {"id": "ID", "webhook": "WEBHOOK", "lane": "WATCH", "rule": "RULE", "last_error": "LAST ERROR"},
        empty="",
    )

    head, first, *more = click.unstyle(capsys.readouterr().out).splitlines()
    assert head.split() == ["ID", "WEBHOOK", "WATCH", "LAST", "ERROR"], "a column that says nothing takes no room"
    assert first.split()[:3] == [row["id"], row["webhook"], row["lane"]]
    assert "connection" in first
    assert not any(line[0] != " " for line in more)


def test_a_table_keeps_to_the_width_of_its_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What wraps by itself at the terminal's edge cannot be read as columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    row = {"id": "0123abcd", "state": "firing", "watch": "shop-frontend", "summary": "status is 503, expected 200"}
    why = {"reason_text": "failed 3 times since 2026-01-05T12:00:07.123Z", "muted_by": "silence 7f by anna: new disks"}

    columns = {"id": "ID", "state": "STATE", "watch": "WATCH", "summary": "WHAT", "reason_text": "WHY"}
    print_table([row | why], columns | {"muted_by": "MUTED BY"}, empty="")
    audit = {"id": "1", "who": "anna", "target": "0123456789abcdef", "detail": "a word " * 30}
    print_table([audit], {"id": "ID", "who": "WHO", "target": "OF", "detail": "MORE"}, empty="", cut=["detail"])

    lines = click.unstyle(capsys.readouterr().out).splitlines()
    assert max(len(line) for line in lines) <= 80
    said = " ".join(" ".join(lines).split())
    assert "why: failed 3 times since 2026-01-05 12:00Z" in said
    assert "muted by: silence 7f by anna: new disks" in said
    assert lines[-1].split()[:4] == ["1", "anna", "0123456789abcdef", "a"]
    assert lines[-1].rstrip().endswith("…")


# What is loaded, and the demo


def python(code: str, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code, *words], capture_output=True, text=True, timeout=timeout
    )


def test_the_command_line_starts_light() -> None:
    """`agentd status` in a script must not wait for what only the daemon needs."""
    heavy = {"rich", "httpx", "pydantic", "apsw", "opentelemetry", "starlette", "yaml", "asyncio", "cel"}

    done = python("import sys, agentd.cli; print(*sys.modules)")

    assert not heavy & set(done.stdout.split())


def test_a_daemon_that_holds_much_is_seldom_stopped_for_a_look_at_all_of_it() -> None:
    """A full pass of the collector stops the loop for 100 ms where ten thousand alerts fire."""
    code = (
        "import gc; from agentd.cli.run import calm_collector; calm_collector(); "
        "before = gc.get_stats()[2]['collections']; held = [[] for _ in range(500_000)]; "
        "print(gc.get_stats()[2]['collections'] - before, gc.get_stats()[0]['collections'] > 0)"
    )

    assert python(code).stdout.split() == ["0", "True"]


_IDLE = """
import asyncio, sys
from pathlib import Path
from agentd.config.loader import load
from agentd.daemon.app import Daemon

async def live(path):
    daemon = Daemon(path, load(path))
    run = asyncio.create_task(daemon.run())
    await daemon.ready.wait()
    await daemon.control.check_now("shop", by="eve")
    daemon.stop()
    await run
asyncio.run(live(Path(sys.argv[1])))
print(*sys.modules)
"""


def test_an_idle_daemon_loads_nothing_that_it_does_not_need(tmp_path: Path, web: str) -> None:
    """Each of these costs megabytes on a machine that pays for another purpose."""
    heavy = {"rich", "jinja2", "typer", "prompt_toolkit", "dns", "aiohttp", "requests", "grpc", "pygments"}
    heavy |= {"opentelemetry.exporter.otlp.proto.http", "opentelemetry.proto", "google.protobuf"}
    heavy |= {"starlette.applications", "starlette.requests", "python_multipart", "html.entities", "http.cookies"}
    heavy |= {"agentd.api.app", "agentd.api.shapes", "agentd.api.openapi", "agentd.api.web", "agentd.daemon.reading"}
    heavy |= {"difflib", "agentd.daemon.runs.answers"}

    done = python(_IDLE, str(write(tmp_path, shop(web))))

    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    logs = {name for name in loaded if name.startswith("agentd.logs.")} - {"agentd.logs.settings"}
    assert (heavy | {"re2", "systemd"}) & loaded == set()
    assert not logs


@pytest.mark.parametrize("port", ["0", "99999", "-1", "http"])
def test_the_demo_takes_real_ports_alone(agentd: Agentd, port: str) -> None:
    """Said before anything is started."""
    said = agentd("demo", "--once", "--port", port)

    assert said.code == 2
    assert "--port" in said.err


def test_the_demo_tells_its_story() -> None:
    """A newcomer sees firing and resolved, signed, in under twenty seconds, and nothing stays behind."""
    done = subprocess.run(
        [sys.executable, "-m", "agentd", "demo", "--once"], capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stdout + done.stderr
    firing, resolved = done.stdout.index("alert.firing"), done.stdout.index("alert.resolved")
    assert firing < resolved
    assert done.stdout.count("signature valid") == 2
    assert "WRONG" not in done.stdout
    assert "Traceback" not in done.stderr
