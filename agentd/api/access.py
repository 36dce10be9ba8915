"""
Who is at the other end of a unix socket, and what `api.socket_access` lets that user do.

In: the credentials that the kernel took down when the peer connected. Out: `Caller`s.
Promise: what a peer may is told by the kernel and the configuration alone, never by what the peer says. A peer without
credentials is nobody. root and the daemon's own user may always do everything: they could take the process itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import pwd
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from agentd.api.caller import NOBODY, Caller
from agentd.config.service import SocketAccess

EVERYBODY = "*"
_ROOT = 0
_FRESH_S = 60.0
_LONGEST_S = 2.0
_MOST_NAMES = 1000
# One of its own: a directory that hangs must not take the threads that others work on.
_THREAD = ThreadPoolExecutor(1, "users")


@dataclass(frozen=True, slots=True)
class Peer:
    """
    The process behind a unix socket, as it was when it connected.

    gid: its primary group. groups: its supplementary ones. Numbers that this user namespace does not know are the
    kernel's overflow user and group (65534).
    """

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Numbers:
    """A list of users and @groups, as the kernel counts them."""

    uids: frozenset[int]
    gids: frozenset[int]

    def has(self, peer: Peer) -> bool:
        return peer.uid in self.uids or not self.gids.isdisjoint((peer.gid, *peer.groups))


@dataclass(slots=True)
class _Known:
    """What the user database said, and when (monotonic seconds)."""

    admin: _Numbers
    operate: _Numbers
    read: _Numbers
    since: float


class Doorkeeper:
    """
    settings: who may what. own_uid: of the daemon.

    A user is in a group when its process is, as with files: who was added to a group logs in anew.
    """

    def __init__(self, settings: SocketAccess, own_uid: int) -> None:
        self._settings = settings
        self._own_uid = own_uid
        self._known: _Known | None = None
        self._looking: asyncio.Future[_Known] | None = None
        self._names: dict[int, str] = {}
        self._everybody = {
            scope: EVERYBODY in listed
            for scope, listed in (("admin", settings.admin), ("operate", settings.operate), ("read", settings.read))
        }

    async def caller(self, peer: Peer | None) -> Caller:
        """
        What the peer may: the widest of the scopes whose list names it.

        Whom only the `*` of `read` lets in is unknown and near, as everybody is on loopback: what agents read and said
        is for users that are named. The user database may be a slow directory: it is asked on a thread, for two seconds
        at most, and not again for a minute.
        """
        if peer is None:
            return NOBODY
        if peer.uid in (_ROOT, self._own_uid):
            return Caller(await self._name(peer.uid), "admin", "socket", uid=peer.uid)
        known = await self._lists()
        name = await self._name(peer.uid)
        if self._everybody["admin"] or known.admin.has(peer):
            return Caller(name, "admin", "socket", uid=peer.uid)
        if self._everybody["operate"] or known.operate.has(peer):
            return Caller(name, "operate", "socket", uid=peer.uid)
        if known.read.has(peer):
            return Caller(name, "read", "socket", uid=peer.uid)
        if self._everybody["read"]:
            return Caller(name, None, "socket", near=True, uid=peer.uid)
        return Caller(name, None, "nobody", uid=peer.uid)

    async def _lists(self) -> _Known:
        known = self._known
        if known is not None and time.monotonic() - known.since < _FRESH_S:
            return known
        if self._looking is None:
            self._looking = asyncio.get_running_loop().run_in_executor(_THREAD, _look_up, self._settings)
            self._looking.add_done_callback(self._looked)
        if known is not None:
            return known  # a minute old, and renewed meanwhile: nobody waits for that
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.shield(self._looking), _LONGEST_S)
        nobody = _Numbers(frozenset(), frozenset())
        return self._known or _Known(nobody, nobody, nobody, time.monotonic())

    def _looked(self, looking: asyncio.Future[_Known]) -> None:
        self._looking = None
        if not looking.cancelled() and looking.exception() is None:
            self._known = looking.result()
            self._names.clear()

    async def _name(self, uid: int) -> str:
        """For the audit trail: the user's name, or its number where the user database knows none in time."""
        if uid == _ROOT:
            return "root"
        found = self._names.get(uid)
        if found is None:
            found = f"uid {uid}"
            with contextlib.suppress(KeyError, TimeoutError, OSError):
                asking = asyncio.get_running_loop().run_in_executor(_THREAD, pwd.getpwuid, uid)
                found = (await asyncio.wait_for(asking, _LONGEST_S)).pw_name
            if len(self._names) < _MOST_NAMES:
                self._names[uid] = found
        return found


def _look_up(settings: SocketAccess) -> _Known:
    """Blocking: the user database may be elsewhere."""
    return _Known(_numbers(settings.admin), _numbers(settings.operate), _numbers(settings.read), time.monotonic())


def _numbers(listed: Iterable[str]) -> _Numbers:
    """Names that nobody has are left out; `agentd check` tells of them."""
    uids, gids = set(), set()
    for each in listed:
        with contextlib.suppress(KeyError, ValueError, OSError):
            if each.startswith("@"):
                gids.add(grp.getgrnam(each[1:]).gr_gid)
            elif each != EVERYBODY:
                uids.add(pwd.getpwnam(each).pw_uid)
    return _Numbers(frozenset(uids), frozenset(gids))
