"""The agent host as a process: when it makes room for a fresh one, and what it does with whoever speaks out of turn."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from modelserver import ModelServer, Reply

from agentd.agent.job import Job, Limits
from agentd.agent.wire import Wire
from agentd.llm.settings import ModelSettings


class Process:
    """A host that listens at `path`."""

    def __init__(self, path: Path, process: asyncio.subprocess.Process) -> None:
        self.path = path
        self.process = process
        self._writers: list[asyncio.StreamWriter] = []

    async def connect(self) -> Wire:
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        self._writers.append(writer)
        return Wire(reader, writer)

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def run(self, job: Job) -> Wire:
        """A run that the host has begun."""
        wire = await self.connect()
        wire.send("run", job=job.model_dump(mode="json"))
        while (frame := await wire.read()) is not None and frame["do"] != "record":
            pass
        assert frame is not None
        return wire


@contextlib.asynccontextmanager
async def hosting(folder: Path, *options: str) -> AsyncIterator[Process]:
    path = folder / "agent.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        fd = listening.fileno()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agentd.agent.host", "--fd", str(fd), *options),
            pass_fds=(fd,),
            start_new_session=True,
            env={"PATH": os.environ["PATH"]},
        )
        host = Process(path, process)
        try:
            yield host
        finally:
            await host.close()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def job(server: ModelServer, **more: Any) -> Job:
    settings = ModelSettings.model_validate(
        {"provider": "openai-compatible", "base_url": server.url, "model": "fake", "price": {"input": 0, "output": 0}}
    )
    return Job(run="run_1", goal="Look.", models={"default": settings}, model="default", **more)


async def outcome(wire: Wire) -> dict[str, Any]:
    """Of a run that asks for nothing but money."""
    async with asyncio.timeout(30):
        while (frame := await wire.read()) is not None:
            if frame["do"] == "outcome":
                return dict(frame["outcome"])
            if frame["do"] == "ask":
                wire.send("answer", id=frame["id"], value=None)
    raise AssertionError("the host hung up")


async def asked(wire: Wire) -> None:
    """Let the run have its money, and leave it with its model."""
    while (frame := await wire.read()) is not None:
        if frame["do"] == "ask":
            wire.send("answer", id=frame["id"], value=None)
            return


async def test_a_host_that_has_run_enough_ends_when_nothing_runs(tmp_path: Path) -> None:
    """What leaks, leaks no further than that; and nobody waits in the queue behind a long run meanwhile."""
    async with ModelServer() as server, hosting(tmp_path, "--runs", "2", "--idle", "1000") as process:
        server.answers(Reply(hang=True))
        server.otherwise = "Well."
        first = await process.run(job(server))
        await asked(first)
        await server.wait_for(1)
        for _ in range(6):
            await asyncio.sleep(0.5)  # it looks once a second whether it is to end, and nobody tells that it did not
            async with asyncio.timeout(10):
                other = await process.run(job(server))
                assert (await outcome(other))["state"] == "completed"
                other.close()
        assert process.process.returncode is None

        first.close()

        async with asyncio.timeout(20):
            assert await process.process.wait() == 0
        await server.until(lambda: server.open == 0)


async def test_an_idle_host_ends(tmp_path: Path) -> None:
    """Where nothing is asked nothing is loaded."""
    async with hosting(tmp_path, "--idle", "0.1") as process, asyncio.timeout(20):
        assert await process.process.wait() == 0


async def test_the_end_of_a_connection_is_the_end_of_its_run(tmp_path: Path) -> None:
    """Nobody waits for it any more: what it would still cost is lost. The others go on."""
    async with ModelServer() as server, hosting(tmp_path) as process:
        server.otherwise = Reply(hang=True)
        wires = [await process.run(job(server)) for _ in range(2)]
        for wire in wires:
            await asked(wire)
        await server.wait_for(2)

        wires[0].close()

        await server.until(lambda: server.open == 1)
        assert server.abandoned == 1
        server.otherwise = "Well."
        third = await process.run(job(server))
        assert (await outcome(third))["state"] == "completed"
        wires[1].close()


async def test_who_does_not_speak_the_protocol_is_hung_up_on(tmp_path: Path) -> None:
    """And whoever does is served all the same."""
    async with ModelServer() as server, hosting(tmp_path) as process:
        server.otherwise = "Well."
        for rubbish in (
            b"\xff\xff\xff\xff",
            b"\0\0\0\2{{",
            b'\0\0\0\x0f{"do":"dance!!"}',
            b"\0\0\0\x0c" + b'{"do":"run"}',
        ):
            reader, writer = await asyncio.open_unix_connection(str(process.path))
            writer.write(rubbish)
            async with asyncio.timeout(20):
                await reader.read()  # to its end
            writer.close()

        wire = await process.run(job(server))

        assert (await outcome(wire))["state"] == "completed"
        wire.close()


async def test_a_run_that_hangs_beyond_its_time_takes_the_process_with_it(tmp_path: Path) -> None:
    """Here the daemon never answers: the run ends by its own time, long before anybody is killed."""
    async with ModelServer() as server, hosting(tmp_path) as process:
        wire = await process.run(job(server, limits=Limits(time_s=0.5)))
        async with asyncio.timeout(30):
            while (frame := await wire.read()) is not None and frame["do"] != "outcome":
                pass

        assert frame is not None
        assert frame["outcome"]["state"] in ("stopped", "failed")
        assert server.requests == [], "no money, no question"
        wire.close()
