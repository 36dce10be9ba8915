"""
Tasks for a daemon that runs, as a program asks for them; a key comes from `agentd key new NAME --scope operate`.

    python client.py /run/agentd/api.sock "Read the notes." "Then say what they mean."
    AGENTD_KEY=agentd_… python client.py http://127.0.0.1:8787 "Read the notes."

The tasks are done one after the other; what does not complete cancels the rest. Run again with the same AGENTD_ID, it
asks for nothing twice: it goes on watching what was asked for then.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid

from agentd.api.client import HttpTasks
from agentd.api.tasks import BatchAsked, TaskAsked


async def main(address: str, *texts: str) -> None:
    name = os.environ.get("AGENTD_ID") or f"example-{uuid.uuid4().hex[:12]}"
    asked = [TaskAsked(task=text, task_id=f"{name}.{number}") for number, text in enumerate(texts)]
    async with HttpTasks(address, key=os.environ.get("AGENTD_KEY")) as tasks:
        batch = await tasks.submit_batch(BatchAsked(tasks=asked, mode="sequential", on_failure="stop"))
        for task in batch["tasks"]:
            async for event in tasks.events(task["task_id"]):
                if event["event"] == "ToolExecutionStart":
                    print(f"… {event['tool']}", file=sys.stderr)
            view = await tasks.task(task["task_id"])
            print(f"{view['status']}: {view['result']['summary']}")


asyncio.run(main(*sys.argv[1:]))
