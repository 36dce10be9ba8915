"""
The `command` probe: run a program and look at how it ends and what it says.

In: argv, never a shell. Out: exit code, output, time.
Promise: a clean environment, no child left behind, bounded output. A program that cannot be run is `blind`: nothing is
known of its subject. One that runs and is too slow is an error.
"""

from __future__ import annotations

import math
import os
import re
import signal

from pydantic import Field, field_validator

from agentd.records import Observation
from agentd.secret import Secret, SecretMissing
from agentd.settings import PositiveDuration, Settings, Size
from agentd.watch.child import CannotStart, Ended, Limits, run_child
from agentd.watch.probe import Kind, Probe, ProbeTools

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SECRET = re.compile(r"\$\{(env|file|credential):[A-Za-z_/]")
# These speak to the service manager in our name.
_OURS = re.compile(r"NOTIFY_SOCKET|LISTEN_.*|WATCHDOG_.*")


class CommandSettings(Settings):
    """What stands under `command:`."""

    argv: list[str] = Field(min_length=1, description="The program and its arguments; no shell reads them")
    env: dict[str, Secret] = Field(
        default_factory=dict, description="Environment beside PATH and LANG; values may name secrets"
    )
    cwd: str = Field(default="/", description="Working directory")
    stdin: Secret | None = Field(default=None, description="Text given on standard input; may name secrets")
    max_output: Size = Field(default=65536, le=16 * 2**20, description="Bytes kept of each of stdout and stderr")
    memory: Size | None = Field(default=None, gt=0, description="Limit of address space (RLIMIT_AS)")
    cpu: PositiveDuration | None = Field(default=None, description="Limit of CPU time, in whole seconds (RLIMIT_CPU)")
    files: int | None = Field(default=None, ge=3, description="Limit of open files (RLIMIT_NOFILE)")

    @field_validator("argv")
    @classmethod
    def _check_argv(cls, argv: list[str]) -> list[str]:
        if not argv[0]:
            raise ValueError("the first word names the program; it is empty")
        for word in argv:
            if "\0" in word:
                raise ValueError("a NUL character cannot be part of an argument")
            if _SECRET.search(word):
                raise ValueError(
                    "every user can see the arguments of a process; hand the secret over by `env` or `stdin`"
                )
        return argv

    @field_validator("env")
    @classmethod
    def _check_env(cls, env: dict[str, Secret]) -> dict[str, Secret]:
        for name in env:
            if not name or "=" in name or "\0" in name:
                raise ValueError(f"{name!r} is no name of an environment variable; write e.g. TOKEN")
            if _OURS.fullmatch(name):
                raise ValueError(f"{name} speaks to the service manager for agentd; leave it out")
        return env


def clean_environment() -> dict[str, str]:
    """What every child gets: the search path and a UTF-8 locale, and nothing that may hold a secret."""
    return {"PATH": os.environ.get("PATH") or _DEFAULT_PATH, "LANG": os.environ.get("LANG") or "C.UTF-8"}


class CommandProbe:
    def __init__(self, settings: CommandSettings) -> None:
        self._settings = settings
        self._limits = Limits(
            memory_bytes=settings.memory,
            cpu_s=None if settings.cpu is None else math.ceil(settings.cpu.total_seconds()),
            open_files=settings.files,
        )

    async def look(self, timeout_s: float) -> Observation:
        settings = self._settings
        try:
            env = clean_environment() | {name: value.expand() for name, value in settings.env.items()}
            stdin = b"" if settings.stdin is None else settings.stdin.expand().encode(errors="surrogateescape")
            ended = await run_child(
                settings.argv,
                env=env,
                cwd=settings.cwd,
                stdin=stdin,
                timeout_s=timeout_s,
                max_output=settings.max_output,
                limits=self._limits,
            )
        except (CannotStart, SecretMissing) as problem:
            return Observation(blind=str(problem))
        return _observed(ended, settings.argv[0], timeout_s)

    async def close(self) -> None:
        """Nothing is held."""


def _observed(ended: Ended, program: str, timeout_s: float) -> Observation:
    by_signal = ended.returncode < 0
    values = {
        "exit_code": 128 - ended.returncode if by_signal else ended.returncode,
        "signal": _signal_name(-ended.returncode) if by_signal else "",
        "stdout": ended.stdout.decode(errors="replace"),
        "stderr": ended.stderr.decode(errors="replace"),
        "latency_ms": ended.duration_s * 1000,
        "truncated": ended.discarded_bytes,
    }
    error = f"{program} did not end within {timeout_s:g} s and was killed" if ended.timed_out else None
    return Observation(values=values, error=error, duration_s=ended.duration_s)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no names here
        return f"SIG{number}"


def _open(settings: CommandSettings, name: str, tools: ProbeTools) -> Probe:
    return CommandProbe(settings)


COMMAND = Kind(
    name="command",
    settings=CommandSettings,
    variables={
        "exit_code": "exit status; 128 plus the signal's number when a signal ended it, as in a shell",
        "signal": 'name of the signal that ended it, e.g. "SIGKILL", else ""',
        "stdout": "standard output, as UTF-8 text, cut at max_output",
        "stderr": "standard error, as UTF-8 text, cut at max_output",
        "latency_ms": "milliseconds from start to exit",
        "truncated": "bytes of output beyond max_output, thrown away; 0 when all was kept",
    },
    open=_open,
    network=False,
    expect=("exit_code == 0",),
    every=60.0,
)
