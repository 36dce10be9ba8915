"""
The HTTP surface of a daemon: what is listened on, who is let in, and what the endpoints stand on.

In: a daemon whose parts are open. Out: the door and the servers, not started.
Promise: what only callers need is loaded with the first of them; a daemon that nobody asks stays small.
"""

from __future__ import annotations

import contextlib
import os
import socket
from functools import cache
from typing import TYPE_CHECKING

from agentd import __version__
from agentd.api.door import Door
from agentd.api.parts import PageSet, Parts
from agentd.api.reading import Reading
from agentd.api.server import ApiServer, make_servers
from agentd.daemon.notify import listen_fds
from agentd.daemon.sockets import open_sockets

if TYPE_CHECKING:
    from agentd.daemon.app import Daemon


def open_surface(daemon: Daemon, stack: contextlib.AsyncExitStack) -> tuple[Door, list[ApiServer]]:
    """stack: closes the sockets that are opened here. Raises CannotListen."""
    passed = [each for group in listen_fds().values() for each in group]
    addresses = daemon.config.api.find_listen(daemon.loaded.environment, daemon.state_dir)
    sockets = open_sockets(passed, addresses, has_keys=bool(daemon.config.api.keys), stack=stack)
    hosts = {"localhost", "127.0.0.1", "::1", daemon.instance, socket.gethostname()}
    hosts |= {address.host for address in addresses if address.host}
    door = Door(daemon.plan.config.api, names=hosts, own_uid=os.geteuid())
    return door, make_servers(_parts(daemon, door), sockets, door)


def page_url(daemon: Daemon) -> str | None:
    """Where people reach the page: what is listened on is known since the start, where a proxy is may change."""
    return daemon.config.api.model_copy(update={"public_url": daemon.plan.config.api.public_url}).page_url


def _parts(daemon: Daemon, door: Door) -> Parts:
    @cache
    def reading() -> Reading:
        from agentd.daemon.reading import Reader

        return Reader(daemon)

    @cache
    def pages() -> PageSet:
        from agentd.api.web.pages import Pages

        return Pages(
            daemon.control,
            reading(),
            daemon.tasks,
            daemon.settings,
            version=__version__,
            sessions=door.sessions,
            now=daemon.clock.now,
        )

    return Parts(
        daemon.control,
        tasks=daemon.tasks,
        reading=reading,
        settings=daemon.settings,
        feed=daemon.ring,
        metering=daemon.metering,
        keys=door.listing,
        pages=pages,
    )
