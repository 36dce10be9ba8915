"""Commands: bounded in time, output and rights, and gone when the look is over."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from agentd.records import Observation
from agentd.watch import child as child_module
from agentd.watch.command import CommandProbe, CommandSettings

LONG = 30.0


def settings(*argv: str, **others: Any) -> CommandSettings:
    return CommandSettings.model_validate({"argv": list(argv)} | others)


async def look(*argv: str, timeout_s: float = LONG, **others: Any) -> Observation:
    probe = CommandProbe(settings(*argv, **others))
    try:
        return await probe.look(timeout_s)
    finally:
        await probe.close()


def python(code: str) -> tuple[str, str, str]:
    return sys.executable, "-c", code


def is_gone(pid: int) -> bool:
    """Dead, or a zombie that init has not fetched yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def gone(pid: int) -> bool:
    for _ in range(500):
        if is_gone(pid):
            return True
        await asyncio.sleep(0.01)
    return False


@pytest.fixture(autouse=True)
async def no_fd_left() -> AsyncIterator[None]:
    """Every look gives back what it opened."""
    await look("true")
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


async def test_exit_code_and_output_are_seen() -> None:
    """These are what conditions are written about."""
    seen = await look("sh", "-c", "echo out; echo err >&2; exit 3")

    assert seen.error is None
    assert seen.blind is None
    latency_ms = seen.values.pop("latency_ms")
    assert latency_ms > 0
    assert seen.values == {"exit_code": 3, "signal": "", "stdout": "out\n", "stderr": "err\n", "truncated": 0}


async def test_no_shell_reads_the_arguments() -> None:
    """What stands in argv is data."""
    assert (await look("echo", "$(id); `id` | *")).values["stdout"] == "$(id); `id` | *\n"


async def test_the_environment_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check must not inherit our secrets, nor our line to the service manager."""
    for name in ("SECRET", "NOTIFY_SOCKET", "LISTEN_FDS", "CREDENTIALS_DIRECTORY"):
        monkeypatch.setenv(name, "x")

    seen = await look("env", env={"TOKEN": "${env:SECRET}"})

    assert {line.partition("=")[0] for line in seen.values["stdout"].splitlines()} == {"PATH", "LANG", "TOKEN"}
    assert "TOKEN=x\n" in seen.values["stdout"]


async def test_a_missing_secret_is_blind() -> None:
    """Without it the check could not look; the target is not to blame."""
    seen = await look("true", env={"TOKEN": "${env:AGENTD_NOT_SET}"})

    assert seen.blind == "environment variable AGENTD_NOT_SET is not set"


async def test_stdin_is_given_and_ends() -> None:
    """More than a pipe holds, so that nothing waits for a reader; without it there is an end at once."""
    given = await look("wc", "-c", stdin="x" * 200_000)
    nothing = await look("wc", "-c")

    assert (given.values["stdout"].strip(), nothing.values["stdout"].strip()) == ("200000", "0")


async def test_the_working_directory_is_set(tmp_path: Path) -> None:
    """A relative program is meant from there too."""
    (tmp_path / "check").write_text("#!/bin/sh\npwd\n")
    (tmp_path / "check").chmod(0o755)

    seen = await look("./check", cwd=str(tmp_path))

    assert seen.values["stdout"] == f"{tmp_path}\n"


async def test_output_beyond_the_cap_is_counted_and_thrown_away() -> None:
    """A chatty check must neither fill our memory nor be killed for it."""
    seen = await look(*python("import sys; sys.stdout.write('x' * 300_000); sys.exit(4)"), max_output="1KiB")

    assert seen.values["exit_code"] == 4
    assert seen.values["stdout"] == "x" * 1024
    assert seen.values["truncated"] == 300_000 - 1024


async def test_bytes_that_are_no_text_are_replaced() -> None:
    """Output is a stranger's."""
    assert (await look("printf", r"a\377\0b")).values["stdout"] == "a\ufffd\0b"


async def test_death_by_signal_is_told_as_a_shell_does() -> None:
    """`exit_code == 0` must not hold, and a person wants the name."""
    seen = await look("sh", "-c", "kill -SEGV $$")

    assert (seen.values["exit_code"], seen.values["signal"]) == (128 + signal.SIGSEGV, "SIGSEGV")


@pytest.mark.parametrize(
    ("argv", "cwd", "says"),
    [
        (["agentd-no-such-program"], "/", "cannot run agentd-no-such-program: not found in PATH; write its full path"),
        (["/nowhere/check"], "/", "cannot run /nowhere/check: there is no such file"),
        (["/etc/passwd"], "/", "cannot run /etc/passwd: it is not executable for us"),
        (["/"], "/", "cannot run /: it is not executable for us"),
        (["true"], "/nowhere", "cannot run /nowhere: No such file or directory"),
    ],
)
async def test_what_cannot_be_run_is_blind(argv: list[str], cwd: str, says: str) -> None:
    """Nothing is known of the subject; a missing plugin must not page as a dead disk."""
    seen = await look(*argv, cwd=cwd)

    assert seen.error is None
    assert seen.blind is not None
    assert seen.blind.startswith(says)


async def test_a_program_behind_a_closed_folder_is_not_called_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is told of a missing file finds it there; what is missing is the right to get at it."""
    real = os.stat

    def closed(path: Any, *others: Any, **more: Any) -> os.stat_result:
        if path == "/closed/check":
            raise PermissionError(13, "Permission denied", path)
        return real(path, *others, **more)

    monkeypatch.setattr(os, "stat", closed)

    seen = await look("/closed/check")

    assert seen.blind == "cannot run /closed/check: permission denied; a folder on its path is closed to us"


@pytest.mark.parametrize("limits", [{}, {"files": 64}], ids=["bare", "limited"])
async def test_a_script_without_its_interpreter_is_blind(tmp_path: Path, limits: dict[str, int]) -> None:
    """Under a launcher too, where the exit status alone could be the script's own."""
    script = tmp_path / "check"
    script.write_text("#!/nowhere/sh\n")
    script.chmod(0o755)

    seen = await look(str(script), **limits)

    assert seen.blind is not None
    assert "No such file" in seen.blind


async def test_no_process_to_be_had_is_blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork fails when the machine is full; that is our trouble."""

    def full(*args: Any, **kwargs: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", full)

    assert (await look("true")).blind == "cannot run true: Resource temporarily unavailable"


async def test_programs_stuck_in_the_kernel_are_not_piled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead disk holds even the killed; one more every minute would fill the process table."""
    with subprocess.Popen(["sleep", "600"]) as sleeping:
        monkeypatch.setattr(child_module, "_stuck", [sleeping] * 16)

        assert "stuck in the kernel" in str((await look("true")).blind)

        sleeping.kill()
        sleeping.wait()
        assert (await look("true")).blind is None


async def test_limits_hold_in_the_child_from_its_start() -> None:
    """A runaway check must not take the machine down; no core dumps of it either."""
    seen = await look("sh", "-c", "ulimit -v; ulimit -t; ulimit -n; ulimit -c", memory="64MiB", cpu="1500ms", files=32)

    assert seen.values["stdout"].split() == ["65536", "2", "32", "0"]


async def test_a_limit_that_cannot_be_set_is_blind() -> None:
    """The check did not run, whatever the launcher's exit status says."""
    seen = await look("true", files=2**40)

    assert seen.blind is not None
    assert "NOFILE" in seen.blind


async def test_too_slow_is_an_error_and_its_family_is_killed(tmp_path: Path) -> None:
    """Grandchildren hold the pipes open; they must neither delay the look nor outlive it."""
    pids = tmp_path / "pids"
    script = f"sleep 600 & echo $! >> {pids}; echo $$ >> {pids}; echo begun; wait"

    seen = await look("sh", "-c", script, timeout_s=0.5)

    assert seen.error == "sh did not end within 0.5 s and was killed"
    assert seen.values["stdout"] == "begun\n"
    assert [await gone(int(pid)) for pid in pids.read_text().split()] == [True, True]


async def test_who_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking nicely has its limit."""
    monkeypatch.setattr(child_module, "TERM_GRACE_S", 0.1)
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )

    seen = await look(*python(code), timeout_s=1.0)

    assert seen.values["signal"] == "SIGKILL"


async def test_children_left_behind_are_killed() -> None:
    """A check that forgets a child every minute would fill the process table in a day."""
    seen = await look("sh", "-c", "sleep 600 & echo $!")

    assert seen.values["exit_code"] == 0
    assert await gone(int(seen.values["stdout"]))


async def test_a_child_that_left_the_group_does_not_hold_up_the_look() -> None:
    """It keeps our pipe open; the look ends with the leader all the same."""
    code = "import subprocess; print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)"
    seen = await look(*python(code))

    pid = int(seen.values["stdout"])
    assert not is_gone(pid)
    os.kill(pid, signal.SIGKILL)


async def test_a_cancelled_look_leaves_nothing_behind(tmp_path: Path) -> None:
    """A reload or a stop cancels looks in flight."""
    pids = tmp_path / "pids"
    os.mkfifo(pids)
    reader = asyncio.create_task(asyncio.to_thread(pids.read_text))
    task = asyncio.create_task(look("sh", "-c", f"sleep 600 & echo $! $$ > {pids}; wait"))
    found = (await reader).split()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert len(found) == 2
    assert [await gone(int(pid)) for pid in found] == [True, True]


async def test_cancelling_while_it_starts_leaves_nothing_behind(tmp_path: Path) -> None:
    """The thread that starts it finds that nobody waits any more."""
    mark = tmp_path / "pid"
    for _ in range(20):
        task = asyncio.create_task(look("sh", "-c", f"echo $$ >> {mark}; exec sleep 600"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await look("true")  # behind the others in the queue of starts
    started = mark.read_text().split() if mark.exists() else []

    assert all([await gone(int(pid)) for pid in started])


async def test_without_pidfd_the_exit_is_seen_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old kernels and sandboxes have no pidfd_open."""

    def missing(pid: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", missing)

    seen = await look("sh", "-c", "echo out; exit 7")

    assert (seen.values["exit_code"], seen.values["stdout"]) == (7, "out\n")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"argv": []}, "at least 1 item"),
        ({"argv": [""]}, "names the program"),
        ({"argv": ["a\0"]}, "NUL"),
        ({"argv": ["curl", "-H", "Authorization: ${env:TOKEN}"]}, "every user can see the arguments"),
        ({"argv": ["true"], "env": {"NOTIFY_SOCKET": "x"}}, "leave it out"),
        ({"argv": ["true"], "env": {"A=B": "x"}}, "no name of an environment variable"),
        ({"argv": ["true"], "files": 0}, "greater than or equal to 3"),
    ],
)
def test_wrong_settings_are_told_at_load(wrong: dict[str, Any], says: str) -> None:
    """And not at night."""
    with pytest.raises(ValidationError, match=says):
        CommandSettings.model_validate(wrong)


def test_a_shell_parameter_is_no_secret() -> None:
    """`${name:-default}` in a script of one's own is left alone."""
    assert settings("sh", "-c", "echo ${file:-none}").argv[2] == "echo ${file:-none}"
