"""The agent host as a unit of a real systemd: another user, another sandbox, started by what it is asked."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import pytest
from agents import ended, finish, model, runs, shop, submit, task_of, until
from installed import DAEMON, HOST, REPO, REPOSITORY, SOCKET, Service, machine
from modelserver import Call, ModelServer, Reply, call, calls
from systemd_box import Box, needs_box

pytestmark = needs_box

KEY = "sk-of-the-model"
LOOK = "/srv/look"


@pytest.fixture(scope="module")
def box() -> Iterator[Box]:
    with machine() as box:
        yield box


@pytest.fixture
async def service(box: Box) -> AsyncIterator[Service]:
    async with Service(box) as service:
        service.write("/etc/agentd/agent.environment", f"MODEL_KEY={KEY}\n", mode=0o600)
        yield service


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer() as server:
        yield server


async def configure(
    service: Service, server: ModelServer, watches: Sequence[Mapping[str, Any]] = (), **agent: Any
) -> None:
    models = {"default": model(server, api_key="${env:MODEL_KEY}")}
    # Without a watch a daemon has nothing to do, which is an error of the configuration.
    never = {"name": "never", "goal": "Look.", "cron": "0 0 1 1 *"}
    await service.configure(watches or [never], models=models, agent={"retry_delay": 0, **agent})


async def called(service: Service, server: ModelServer, **of: Call) -> dict[str, str]:
    """Let an agent call these tools, all at once; what it was told of each."""
    server.answers(calls(*(Call(each.name, each.arguments, id) for id, each in of.items())), finish("ok", "Well."))
    view = await task_of(service, await submit(service))
    assert view["status"] == "completed", view
    told = server.requests[-1].messages
    return {each["tool_call_id"]: each["content"] for each in told if each["role"] == "tool"}


async def host_ended(service: Service) -> None:
    async def look() -> bool:
        return await service.unit(HOST, "ActiveState") in ("inactive", "failed")

    await until(look, "the host ends")


async def test_the_first_question_starts_the_host_and_its_finding_arrives(
    service: Service, server: ModelServer
) -> None:
    """Nothing of it runs, and no model library is loaded, before somebody asks; nobody starts it by hand."""
    target = await service.target()
    target.status = 503
    server.otherwise = finish()
    await configure(service, server, [shop(target, every="1s")])
    target.status = 200
    await service.start()
    await target.looked_at(1)
    assert await service.unit(SOCKET, "ActiveState") == "active"
    assert await service.unit(HOST, "ActiveState") == "inactive"

    target.status = 503

    updated = await service.hook.message("alert.updated")
    assert updated["data"]["finding"]["summary"] == "The disk is full."
    assert [message["type"] for message in service.hook.messages()] == ["alert.firing", "alert.updated"]
    assert await service.unit(HOST, "ActiveState") == "active"
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_daemon_and_host_each_hold_their_own_secrets_only(service: Service, server: ModelServer) -> None:
    """Whoever takes over the one, by a page that it reads or by a library, does not get what the other holds."""
    await configure(service, server)
    await service.start()
    await called(service, server)

    daemon, host = await service.environment(DAEMON), await service.environment(HOST)

    assert host["MODEL_KEY"] == KEY
    assert "MODEL_KEY" not in daemon
    assert daemon["HOOK_SECRET"] == service.hook.secret
    assert "HOOK_SECRET" not in host
    users = {
        name: await service.sh(f"ps -o user:32= -p {await service.unit(name, 'MainPID')}") for name in (DAEMON, HOST)
    }
    assert users == {DAEMON: "agentd", HOST: "agentd-agent"}


async def test_what_root_types_knows_the_secrets_of_both(service: Service, server: ModelServer) -> None:
    """`agentd check` before the first start is to be about the service, not about root's own environment."""
    service.write("/etc/agentd/agent.environment", f"MODEL_KEY={KEY}\nAGENTD_AGENT_IDLE_S=5\n", mode=0o600)
    await configure(service, server)

    assert "warning" not in await service.sh("agentd check 2>&1")
    (listed,) = json.loads(await service.sh("agentd models --output json"))["models"]
    assert listed["key"] != "missing"
    assert KEY not in str(listed)

    await service.sh("rm /etc/agentd/agent.environment")
    warning = await service.sh("agentd check 2>&1")
    assert "MODEL_KEY is not set" in warning
    assert "/etc/agentd/agent.environment" in warning
    await service.start()
    assert "MODEL_KEY" not in await service.sh(f"journalctl -u {DAEMON}")


KNOCK = """\
import socket, sys
for name in sys.argv[2:]:
    try:
        socket.socket(socket.AF_UNIX).connect(name)
        print(name, "opens")
    except OSError as error:
        print(name, "is shut:", error.strerror)
try:
    print("opens:", open(f"/proc/{sys.argv[1]}/environ").read())
except OSError as error:
    print("the daemon's environment is shut:", error.strerror)
"""


async def test_what_belongs_to_root_and_the_daemon_is_shut_for_an_agent(service: Service, server: ModelServer) -> None:
    """Here the configuration lets tools read everything: what a careless one allows, the system still refuses."""
    service.write(f"{LOOK}/plain", "for everybody")
    service.write(f"{LOOK}/secret", "for root", mode=0o600)
    service.write("/etc/agentd/credentials/key", "a key", mode=0o644)
    files = [
        f"{LOOK}/secret",
        "/etc/agentd/environment",
        "/etc/agentd/agent.environment",
        "/etc/agentd/agentd.yaml",
        "/etc/agentd/credentials/key",
        "/var/lib/agentd/state.db",
    ]
    allowed: dict[str, Any] = {
        "tools": ["read_file", "run_command"],
        "files": {"allow": ["/"]},
        "commands": {"allow": [["cat", "*"]]},
    }
    await configure(service, server, **allowed)
    await service.start()
    await service.sh("ls " + " ".join(files))

    told = await called(
        service,
        server,
        plain=call("read_file", path=f"{LOOK}/plain"),
        **{f"read{number}": call("read_file", path=file) for number, file in enumerate(files)},
        **{f"cat{number}": call("run_command", argv=["cat", file]) for number, file in enumerate(files)},
    )

    assert "for everybody" in told["plain"]
    for number, file in enumerate(files):
        assert "denied" in told[f"read{number}"], file
        assert f"{file}: Permission denied" in told[f"read{number}"]
        assert "Permission denied" in told[f"cat{number}"], file
        assert 'stdout":""' in told[f"cat{number}"].replace(" ", "")


async def test_the_daemon_itself_is_shut_for_an_agent(service: Service, server: ModelServer) -> None:
    """Who reaches the API may silence alerts; who reaches the host's own socket says what agents may do."""
    service.write(f"{LOOK}/knock.py", KNOCK)
    argv = ["/opt/agentd/bin/python", f"{LOOK}/knock.py", "*", "/run/agentd/api.sock", "/run/agentd/agent.sock"]
    await configure(service, server, tools=["run_command"], commands={"allow": [argv]})
    await service.start()

    argv[2] = await service.unit(DAEMON, "MainPID")
    told = await called(service, server, knock=call("run_command", argv=argv))

    assert "opens" not in told["knock"]
    assert told["knock"].count("is shut: ") == 3, told["knock"]


async def test_tools_work_inside_of_the_sandbox(service: Service, server: ModelServer) -> None:
    """A sandbox that makes agents blind is one that people switch off."""
    target = await service.target()
    service.write(f"{LOOK}/mcp.py", (REPO / "tests/agent/mcp_plain.py").read_text())
    service.write("/var/log/app.log", "the disk is full\n", mode=0o640)
    await service.sh("chgrp adm /var/log/app.log; logger -t app the fan is loud")
    tools = ["run_command", "search_log", "query_journal", "http_get", "list_files", "plain.echo"]
    log = {"name": "app", "log": {"files": ["/var/log/app.log"]}, "rules": [{"name": "x", "type": "any", "match": "x"}]}
    await configure(
        service,
        server,
        [log],
        tools=tools,
        files={"allow": ["/var/log", "/usr/share/doc"]},
        commands={"allow": [["df", "-h"], ["free"], ["ps", "-e"]]},
        http={"allow": ["127.0.0.1"], "private_networks": True},
        mcp={"plain": {"command": ["/opt/agentd/bin/python", f"{LOOK}/mcp.py"], "tools": ["echo"]}},
    )
    await service.start()

    told = await called(
        service,
        server,
        df=call("run_command", argv=["df", "-h"]),
        free=call("run_command", argv=["free"]),
        ps=call("run_command", argv=["ps", "-e"]),
        log=call("search_log", watch="app", pattern="disk is (?P<what>full)"),
        journal=call("query_journal", grep="fan is .oud"),
        http=call("http_get", url=target.url),
        files=call("list_files", path="/var/log"),
        mcp=call("plain.echo", text="heard of MCP"),
    )

    assert "Filesystem" in told["df"]
    assert "Mem:" in told["free"]
    assert "PID" in told["ps"]
    assert "the disk is full" in told["log"]
    assert "the fan is loud" in told["journal"]
    assert '"status":200' in told["http"]
    assert "app.log" in told["files"]
    assert "heard of MCP" in told["mcp"]
    assert all(": ok" in each for each in told.values()), told


async def test_a_killed_host_interrupts_its_run_and_the_next_one_gets_a_fresh_host(
    service: Service, server: ModelServer
) -> None:
    """The kernel kills it when memory runs out. The page was sent before it was asked anything."""
    target = await service.target()
    target.status = 503
    server.answers(Reply(hang=True))
    await configure(service, server, [shop(target)])
    await service.start()
    await server.wait_for(1)
    await service.hook.message("alert.firing")
    first = await service.unit(HOST, "MainPID")

    await service.sh(f"systemctl kill -s KILL {HOST}")

    (run,) = await ended(service)
    assert (run["state"], run["status"]) == ("interrupted", None)
    assert "host ended" in run["error"]
    server.otherwise = finish("problem", "Seen again.")
    target.status = 200
    await service.hook.message("alert.resolved")
    target.status = 503
    updated = await service.hook.message("alert.updated")
    assert updated["data"]["finding"]["summary"] == "Seen again."
    assert [each["state"] for each in await runs(service)] == ["completed", "interrupted"]
    assert await service.unit(HOST, "MainPID") not in ("0", first)


LEAVE = """\
setsid env -i sleep 98765 >/dev/null 2>&1 &
until [ "$(ps -o sid= -p $! | tr -d ' ')" = $! ]; do :; done
"""


async def test_an_idle_host_ends_with_all_that_it_started(service: Service, server: ModelServer) -> None:
    """What a command leaves behind, in a session of its own and without a mark, holds no memory for ever."""
    service.write(f"{LOOK}/leave", LEAVE)
    argv = ["sh", f"{LOOK}/leave"]
    service.write(f"/etc/systemd/system/{HOST}.d/idle.conf", "[Service]\nEnvironment=AGENTD_AGENT_IDLE_S=2\n")
    await service.sh("systemctl daemon-reload")
    await configure(service, server, tools=["run_command"], commands={"allow": [argv]})
    await service.start()

    told = await called(service, server, leave=call("run_command", argv=argv))

    assert ": ok" in told["leave"]
    assert "sleep 98765" in await service.sh("ps -o args= -u agentd-agent")
    await host_ended(service)
    assert await service.unit(HOST, "Result") == "success"
    assert await service.sh("ps -o args= -u agentd-agent", check=False) == ""
    assert await service.unit(SOCKET, "SubState") == "listening"
    assert await called(service, server) == {}


async def test_without_its_socket_a_run_fails_and_says_how_to_mend_it(service: Service, server: ModelServer) -> None:
    """It was stopped by hand, say. Alerts go out as ever."""
    target = await service.target()
    await configure(service, server, [shop(target)])
    await service.start()
    await service.sh(f"systemctl stop {SOCKET}")

    target.status = 503

    await service.hook.message("alert.firing")
    (run,) = await ended(service)
    assert run["state"] == "failed"
    assert f"systemctl enable --now {SOCKET}" in run["error"]
    await service.sh(f"systemctl enable --now {SOCKET}")
    assert await called(service, server) == {}


async def test_a_host_that_cannot_start_fails_its_runs_soon_and_is_tried_again(
    service: Service, server: ModelServer
) -> None:
    """In the middle of an upgrade, say. systemd would start it ten times a second for as long as somebody waits."""
    target = await service.target()
    target.status = 503
    broken = "[Service]\nExecStart=\nExecStart=/bin/false\n"
    service.write(f"/etc/systemd/system/{HOST}.d/broken.conf", broken)
    await service.sh("systemctl daemon-reload")
    await configure(service, server, [shop(target)])
    await service.start()

    await service.hook.message("alert.firing")
    (run,) = await ended(service)

    assert run["state"] == "failed"
    assert f"journalctl -u {HOST}" in run["error"]
    assert 1 <= (await service.sh(f"journalctl -u {HOST}")).count("Failed with result") <= 5
    await service.sh(f"rm /etc/systemd/system/{HOST}.d/broken.conf; systemctl daemon-reload")
    assert await called(service, server) == {}


async def test_the_journal_knows_what_the_host_says_by_its_fields(service: Service, server: ModelServer) -> None:
    """`journalctl -u agentd-agent` is where people look; fields are what they filter by."""
    await configure(service, server)
    await service.start()

    def disturb() -> None:
        with socket.socket(socket.AF_UNIX) as talking:
            talking.connect(str(service.box.path("/run/agentd/agent.sock")))
            talking.sendall(struct.pack("!I", 3) + b"no!")
            talking.shutdown(socket.SHUT_WR)
            talking.recv(1)

    await asyncio.to_thread(disturb)

    async def look() -> list[dict[str, Any]]:
        return [each for each in await service.journal(HOST) if "wire_broken" in str(each["MESSAGE"])]

    (line,) = await until(look, "the host says what happened")
    assert line["AGENTD_EVENT"] == "wire_broken"
    assert line["PRIORITY"] == "3"
    assert line["SYSLOG_IDENTIFIER"] == "agentd"


async def test_a_restart_of_the_daemon_brings_a_fresh_host(service: Service, server: ModelServer) -> None:
    """After an upgrade: what runs still has the old program, and loads parts of the new one."""
    await configure(service, server)
    await service.start()
    await called(service, server)
    first = await service.unit(HOST, "MainPID")

    await service.sh(f"systemctl restart {DAEMON}")
    await called(service, server)

    assert first != "0"
    assert await service.unit(HOST, "MainPID") not in ("0", first)
    await service.sh(f"systemctl stop {DAEMON}")
    await host_ended(service)
    assert await service.unit(HOST, "Result") == "success"


def test_uninstalling_ends_what_runs_and_leaves_what_is_the_operators() -> None:
    """Whoever takes it off a machine wants nothing of it to run on, and may want it back."""
    with machine() as box:
        box.run(f"systemctl enable --now {DAEMON} {SOCKET} && systemctl start {HOST}")

        box.run(f"make -C {REPOSITORY} uninstall")

        assert box.run("ps -o args= -u agentd,agentd-agent", check=False) == ""
        assert box.run("systemctl list-units --all --no-legend 'agentd*'") == ""
        assert box.run("find /etc/systemd/system /opt /usr/local/bin /usr/local/share -name '*agentd*'") == ""
        assert "agentd.yaml" in box.run("ls /etc/agentd")
