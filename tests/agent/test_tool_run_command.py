"""run_command runs what is listed, as it is listed, and leaves nothing of it."""

from __future__ import annotations

import asyncio
import os
import select
import sys
from pathlib import Path
from typing import Any

import pytest
from tool_calls import call, context, failing

from agentd.agent.job import Permissions
from agentd.agent.port import ToolContext
from agentd.agent.tools.run_command import RunCommand
from agentd.fleet.messages import ErrorKind

RUN = RunCommand()
DENIED, ERROR = ErrorKind.DENIED, ErrorKind.TOOL_ERROR


def running(
    *patterns: tuple[str, ...], timeout_s: float = 10.0, max_output: int = 256 * 1024, **more: Any
) -> ToolContext:
    return context(Permissions(commands=patterns, **more), timeout_s=timeout_s, max_output=max_output)


def script(folder: Path, text: str) -> str:
    path = folder / "script"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


async def test_an_allowed_program_runs() -> None:
    answer = await call(RUN, running(("echo", "*")), argv=["echo", "hello"])

    assert answer == {"exit_code": 0, "stdout": "hello\n"}


async def test_failing_is_an_answer(tmp_path: Path) -> None:
    """grep ends with 1 when it found nothing; the model reads why."""
    path = script(tmp_path, "echo out; echo err >&2; exit 3")

    assert await call(RUN, running((path,)), argv=[path]) == {"exit_code": 3, "stdout": "out\n", "stderr": "err\n"}


async def test_no_shell_reads_the_words() -> None:
    """What a shell would run, expand or redirect is a word like any other."""
    word = "$(id);`id`|id>/tmp/x&&*?~${HOME}"

    assert (await call(RUN, running(("echo", "*")), argv=["echo", word]))["stdout"] == word + "\n"


async def test_what_is_not_listed_does_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    message = await failing(RUN, running(("echo", "*")), DENIED, argv=["touch", str(marker)])
    await failing(RUN, running(("echo", "*")), DENIED, argv=["echo", "-e", "x"])
    await failing(RUN, running(("echo", "*")), DENIED, argv=["echo", "-e"])
    await failing(RUN, running(), DENIED, argv=["echo", "x"])
    await failing(RUN, running(("rm", "-rf", "*"), forbid=("rm -rf",)), DENIED, argv=["rm", "-rf", str(tmp_path)])

    assert "echo *" in message
    assert tmp_path.exists()
    assert not marker.exists()


async def test_links_to_what_is_closed_are_refused(tmp_path: Path) -> None:
    """A star takes paths, but no link to a process's secrets."""
    (tmp_path / "link").symlink_to("/proc/self/environ")
    (tmp_path / "fine").write_text("fine")

    assert (await call(RUN, running(("cat", "*")), argv=["cat", str(tmp_path / "fine")]))["stdout"] == "fine"
    await failing(RUN, running(("cat", "*")), DENIED, argv=["cat", str(tmp_path / "link")])
    await failing(RUN, running(("cat", "*"), working_directory=str(tmp_path)), DENIED, argv=["cat", "link"])


async def test_a_pattern_with_a_folder_keeps_to_it(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.write_text("secret")
    (inside / "a").write_text("fine")
    (inside / "link").symlink_to(outside)
    given = running(("cat", f"{inside}/*"))

    assert (await call(RUN, given, argv=["cat", str(inside / "a")]))["stdout"] == "fine"
    await failing(RUN, given, DENIED, argv=["cat", str(inside / "link")])
    await failing(RUN, given, DENIED, argv=["cat", f"{inside}/../out"])
    await failing(RUN, given, DENIED, argv=["cat", str(outside)])


async def test_environment_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of models stand in ours."""
    monkeypatch.setenv("API_KEY", "sk-secret")

    answer = await call(RUN, running(("env",), environment={"REGION": "eu"}), argv=["env"])

    names = {line.partition("=")[0] for line in answer["stdout"].splitlines()}
    assert {"PATH", "LANG", "REGION"} <= names <= {"PATH", "LANG", "REGION", "PWD", "_", "SHLVL"}


async def test_it_runs_where_it_may(tmp_path: Path) -> None:
    assert (await call(RUN, running(("pwd",), working_directory=str(tmp_path)), argv=["pwd"]))["stdout"].strip() == str(
        tmp_path
    )


def has_ended(pid: int) -> bool:
    """Killed is not ended: on a busy machine that takes a moment, which is waited for."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], 10)[0])
    finally:
        os.close(fd)


async def test_a_hung_program_is_killed_with_its_children(tmp_path: Path) -> None:
    """Its whole group: what it started must not stay."""
    path = script(tmp_path, f"sleep 1000 & echo $! > {tmp_path}/child; echo begun; wait")

    message = await failing(RUN, running((path,), timeout_s=1.0), ErrorKind.TIMEOUT, argv=[path])

    assert "begun" in message
    child = int((tmp_path / "child").read_text())
    assert has_ended(child)


async def test_cancelling_kills_it(tmp_path: Path) -> None:
    """Nobody waits for it any more."""
    path = script(tmp_path, f"echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 1000")
    task = asyncio.ensure_future(call(RUN, running((path,)), argv=[path]))
    while not (tmp_path / "pid").exists():
        await asyncio.sleep(0.005)
    pid = int((tmp_path / "pid").read_text())

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_output_is_bounded() -> None:
    code = "import sys; [sys.stdout.write('x' * 65536) for _ in range(200)]"

    argv = [sys.executable, "-c", code]

    answer = await call(RUN, running(tuple(argv), max_output=64 * 1024), argv=argv)

    assert len(answer["stdout"]) == 16 * 1024
    assert answer["truncated"] is True
    assert answer["left_out_bytes"] == 200 * 65536 - 16 * 1024


async def test_memory_is_bounded() -> None:
    """One command must not take the machine down."""
    code = "x = bytearray(6 << 30)"

    answer = await call(RUN, running((sys.executable, "-c", code)), argv=[sys.executable, "-c", code])

    assert answer["exit_code"] == 1
    assert "MemoryError" in answer["stderr"]


async def test_a_signal_is_named(tmp_path: Path) -> None:
    path = script(tmp_path, "kill -SEGV $$")

    answer = await call(RUN, running((path,)), argv=[path])

    assert (answer["exit_code"], answer["signal"]) == (139, "SIGSEGV")


async def test_a_program_that_is_not_there_is_said() -> None:
    assert "not found" in await failing(RUN, running(("no-such-program",)), ERROR, argv=["no-such-program"])


async def test_output_that_is_no_text_is_made_text(tmp_path: Path) -> None:
    path = script(tmp_path, r"printf '\033[2J\377a'")

    assert (await call(RUN, running((path,)), argv=[path]))["stdout"] == "\ufffd[2J\ufffda"
