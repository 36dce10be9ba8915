"""
The tool `run_command`: a program from the list of allowed command lines.

In: argv. Out: exit code and output.
Promise: never a shell; a clean environment; the program leads a process group of its own, and nothing of that is left
when the call ends, by its exit, its time or by being cancelled; time, output, CPU, memory and open files are bounded.
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Mapping
from typing import Any

from agentd.agent.kin import mark
from agentd.agent.permissions import check_command
from agentd.agent.port import ToolContext, ToolFailure
from agentd.agent.tools.saying import clipped, line, readable, refusing
from agentd.agent.tools.working import Stop, on_thread
from agentd.fleet.messages import ErrorKind, WorkerClass
from agentd.llm.port import ToolSpec

# Of address space: programs of Go and the like reserve gigabytes that they never touch.
_MEMORY_BYTES = 4 << 30
_OPEN_FILES = 256
_TERM_S = 2.2
"""Left of the call's time for a program that is told to end to do so."""
_SAID_LATE = 2000


class RunCommand:
    name = "run_command"
    kind: WorkerClass = "io"
    repeatable = False
    spec = ToolSpec(
        name,
        "Run an allowed program and get exit code and output. argv is a list of words, no shell: no pipes, no "
        "redirection, no globs, no variables.",
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["argv"],
            "properties": {
                "argv": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 64,
                    "items": {"type": "string", "maxLength": 4096},
                    "description": 'The program and its arguments, such as ["df", "-h"]',
                }
            },
        },
    )

    async def call(self, input: Mapping[str, Any], context: ToolContext) -> Any:
        from agentd.watch.child import CannotStart, Limits, run_child
        from agentd.watch.command import clean_environment

        argv: list[str] = list(input["argv"])
        permissions = context.permissions

        def check(stop: Stop) -> None:
            # On a thread: where links lead is asked of the disk.
            check_command(permissions, argv, real=os.path.realpath)

        with refusing():
            await on_thread(check, timeout_s=context.timeout_s)
        timeout_s = max(context.timeout_s * 0.6, context.timeout_s - _TERM_S)
        most = max(1024, context.max_output // 4)
        try:
            ended = await run_child(
                argv,
                env=clean_environment() | permissions.environment | mark(),
                cwd=permissions.working_directory,
                timeout_s=timeout_s,
                max_output=most,
                limits=Limits(memory_bytes=_MEMORY_BYTES, cpu_s=math.ceil(timeout_s) + 1, open_files=_OPEN_FILES),
            )
        except CannotStart as error:
            raise ToolFailure(line(str(error), 500)) from error
        stdout, stderr = (readable(out.decode("utf-8", "replace")) for out in (ended.stdout, ended.stderr))
        if ended.timed_out:
            said = clipped((stdout or stderr).strip(), _SAID_LATE)[0]
            raise ToolFailure(
                f"{line(argv[0], 100)} did not end within {timeout_s:g} s and was killed"
                + (f"; until then it said:\n{said}" if said else ""),
                ErrorKind.TIMEOUT,
            )
        answer: dict[str, Any] = {"exit_code": ended.returncode, "stdout": stdout}
        if ended.returncode < 0:
            answer |= {"exit_code": 128 - ended.returncode, "signal": _name(-ended.returncode)}
        if stderr:
            answer["stderr"] = stderr
        if ended.discarded_bytes:
            answer |= {"truncated": True, "left_out_bytes": ended.discarded_bytes}
        return answer


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
