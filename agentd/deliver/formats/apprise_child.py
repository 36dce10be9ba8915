"""
The child's side: hand messages to Apprise, one JSON line in, one JSON line out, until the input ends.

Runs as a script and imports nothing of agentd. Nothing it says holds the URL: only the warnings of the library, which
the parent looks through once more.
"""

from __future__ import annotations

import json
import logging
import re
import resource
import sys
from typing import Any

MEMORY_BYTES = 1024 * 1024 * 1024
_MOST_LOG = 4000
_STATUS = re.compile(r"\berror=(\d{3})\b")


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A plugin that prints must not speak in our place.
    out, sys.stdout = sys.stdout, sys.stderr
    # Here and not at the first message: loading takes a second or more, which is none of the message's time.
    import apprise  # noqa: F401

    for line in sys.stdin.buffer:
        request = json.loads(line)
        answer = {"ok": True} if "hello" in request else notify(request)
        out.buffer.write(json.dumps(answer).encode() + b"\n")
        out.buffer.flush()


def notify(request: dict[str, Any]) -> dict[str, Any]:
    import apprise

    log = _Log()
    logger = logging.getLogger("apprise")
    logger.addHandler(log)
    logger.setLevel(logging.WARNING)
    try:
        # Literal text: the library would else look for files, emoji and escapes in what a log line says.
        asset = apprise.AppriseAsset(
            app_id="agentd", interpret_emojis=False, interpret_escapes=False, storage_mode="memory"
        )
        service = apprise.Apprise.instantiate(request["url"], asset=asset)
        if service is None:
            return {"ok": False, "unknown": True}
        if "overflow=" not in request["url"]:
            service.overflow_mode = apprise.OverflowMode.TRUNCATE
        done = service.notify(
            body=request["body"],
            title=request["title"],
            notify_type=apprise.NotifyType(request["type"]),
            body_format=apprise.NotifyFormat.TEXT,
        )
    except MemoryError:
        return {"ok": False, "log": "it needs too much memory"}
    except Exception as error:
        return {"ok": False, "log": f"{type(error).__name__}"}
    finally:
        logger.removeHandler(log)
    text = "; ".join(log.lines)[:_MOST_LOG]
    return {"ok": bool(done), "log": text, "statuses": _STATUS.findall(text)}


class _Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


if __name__ == "__main__":
    main()
