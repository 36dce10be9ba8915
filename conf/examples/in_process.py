"""
agentd inside of a program of yours: the whole daemon, its watches too, on your event loop.

    python in_process.py agentd.yaml "Why is /var/log so large?"
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from agentd.api.client import ask
from agentd.daemon.inprocess import daemon_here


async def main(config: str, task: str) -> None:
    async with daemon_here(Path(config)) as daemon:
        view = await ask(daemon.tasks, task, context={"constraints": {"max_steps": 10}})
    print(view["result"]["summary"])
    print(f"{view['status']} after {len(view['steps'])} steps, {view['metrics']['usd']} USD", file=sys.stderr)


asyncio.run(main(*sys.argv[1:]))
