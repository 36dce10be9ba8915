"""
The outgoing heartbeat: somebody else is told, again and again, that this daemon lives and can deliver.

In: `daemon.heartbeat`, and why it must be withheld, if so. Out: a GET of its address.
Promise: silence means trouble. A beat goes out only when every part answered and some webhook works; what hinders it is
logged once, not once a minute. Nothing here waits longer than fifteen seconds, and nobody waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from agentd import __version__
from agentd.config.service import OutgoingHeartbeat
from agentd.deliver.sender import describe_failure, import_httpx
from agentd.net.tls import TlsSettings, context_for
from agentd.secret import SecretMissing, SecretText

log = logging.getLogger("agentd.heartbeat")

TIMEOUT_S = 15.0
ANSWER_S = 10.0
"""A part of the daemon that is silent for so long does not work."""
AGAIN_S = 5.0
"""After a beat that failed or was withheld the next is tried so soon, then twice as late each time, up to `every`."""


class Pulse:
    """
    settings: where to and how often; None: nowhere. withhold: asked before each beat; why none may go out, or None.
    trouble: what hinders it now, for people.
    """

    def __init__(self, settings: OutgoingHeartbeat | None, withhold: Callable[[], Awaitable[str | None]]) -> None:
        self._settings = settings
        self._withhold = withhold
        self._changed = asyncio.Event()
        self._misses = 0
        self.trouble: str | None = None

    def replace(self, settings: OutgoingHeartbeat | None) -> None:
        """Other settings; equal ones change nothing, others count from now on."""
        if settings != self._settings:
            self._settings, self._misses, self.trouble = settings, 0, None
            self._changed.set()

    async def run(self) -> None:
        """Beat until cancelled; the first time at once."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            next_s = None
            if self._settings is not None:
                began_s = loop.time()
                await self._beat(self._settings)
                next_s = began_s + self._pause_s(self._settings)
            try:
                async with asyncio.timeout_at(next_s):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _pause_s(self, settings: OutgoingHeartbeat) -> float:
        every_s = settings.every.total_seconds()
        return every_s if not self._misses else min(every_s, AGAIN_S * 2.0 ** min(self._misses - 1, 64))

    async def _beat(self, settings: OutgoingHeartbeat) -> None:
        try:
            why = await self._withhold()
        except Exception as error:
            why = str(error) or type(error).__name__
        if why is not None:
            self._missed("heartbeat_withheld", f"the outgoing heartbeat is withheld: {why}")
            return
        try:
            await beat(settings.url)
        except BeatFailed as error:
            self._missed("heartbeat_failed", f"the outgoing heartbeat cannot be sent: {error}")
            return
        if self._misses:
            log.info("heartbeat_goes_on", extra={"missed": self._misses})
        self._misses, self.trouble = 0, None

    def _missed(self, event: str, trouble: str) -> None:
        if not self._misses:
            log.error(event, extra={"why": trouble})
        self._misses += 1
        self.trouble = trouble


class BeatFailed(Exception):
    """Nobody took the beat; the text never holds the address."""


async def beat(url: SecretText) -> None:
    """Call the address once. Raises BeatFailed unless it answers 2xx; a redirection is not followed."""
    try:
        address = url.expand().strip()
    except SecretMissing as error:
        raise BeatFailed(str(error)) from error
    if not address.lower().startswith(("http://", "https://")):
        raise BeatFailed("url is no http or https address; look at the secret it names")
    # On a thread: it takes a tenth of a second the first time, for which the loop must not stand still.
    httpx: Any = await asyncio.to_thread(import_httpx)
    headers = {"User-Agent": f"agentd/{__version__}", "Accept-Encoding": "identity"}
    try:
        context = await context_for(TlsSettings())
        async with (
            asyncio.timeout(TIMEOUT_S),
            # A client for each beat: a connection kept for minutes is mostly dead when it is needed.
            httpx.AsyncClient(verify=context, trust_env=False, timeout=None) as client,
            client.stream("GET", address, headers=headers, follow_redirects=False) as response,
        ):
            status: int = response.status_code
    except TimeoutError as error:
        raise BeatFailed(f"no answer within {TIMEOUT_S:g} s") from error
    except Exception as error:
        raise BeatFailed(describe_failure(error)) from error
    if not 200 <= status < 300:
        raise BeatFailed(f"it answered {status}")
