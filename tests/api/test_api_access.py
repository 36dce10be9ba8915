"""What the unix socket's peers may: the kernel's numbers against the configuration's names."""

from __future__ import annotations

import grp
import pwd
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from agentd.api import access
from agentd.api.access import Doorkeeper, Peer
from agentd.api.caller import NOBODY, Caller
from agentd.config.service import SocketAccess

OWN = 990
EVE, MALLORY, NOBODY_KNOWN = 1000, 1001, 4242
ADM, STAFF = 4, 50


@pytest.fixture(autouse=True)
def users(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A machine with two users and two groups; how often it was asked, and from which thread never."""
    uids, gids = {"root": 0, "eve": EVE, "mallory": MALLORY}, {"adm": ADM, "staff": STAFF}
    names = {uid: name for name, uid in uids.items()}
    asked = {"names": 0, "uids": 0, "groups": 0}

    def counted(kind: str, known: dict[Any, Any], **shape: str) -> Any:
        def look_up(key: Any) -> Any:
            assert threading.current_thread() is not threading.main_thread(), "a slow directory would hold the loop"
            asked[kind] += 1
            (name,) = shape
            return SimpleNamespace(**{name: known[key]})

        return look_up

    monkeypatch.setattr(pwd, "getpwnam", counted("uids", uids, pw_uid=""))
    monkeypatch.setattr(pwd, "getpwuid", counted("names", names, pw_name=""))
    monkeypatch.setattr(grp, "getgrnam", counted("groups", gids, gr_gid=""))
    return asked


async def caller(peer: Peer | None, **lists: tuple[str, ...]) -> Caller:
    return await Doorkeeper(SocketAccess(**lists), OWN).caller(peer)


@pytest.mark.parametrize(
    ("peer", "scope"),
    [
        (Peer(1, EVE, 100), "operate"),
        (Peer(1, MALLORY, 100), None),
        (Peer(1, MALLORY, ADM), "operate"),
        (Peer(1, MALLORY, 100, (7, ADM)), "operate"),
        (Peer(1, MALLORY, 100, (STAFF,)), "read"),
        (Peer(1, EVE, STAFF), "operate"),
        (Peer(1, 0, 0), "admin"),
        (Peer(1, OWN, OWN), "admin"),
        (Peer(1, NOBODY_KNOWN, 65534), None),
    ],
)
async def test_the_widest_scope_that_names_the_peer(peer: Peer, scope: str | None) -> None:
    """By user, by primary group, by any other group of the process; root and the daemon's own user always."""
    found = await caller(peer, admin=(), operate=("eve", "@adm"), read=("@staff",))

    assert found.scope == scope
    assert found.uid == peer.uid


async def test_the_audit_trail_gets_a_name() -> None:
    """Or a number, where the user database knows none."""
    assert (await caller(Peer(1, EVE, 100))).name == "eve"
    assert (await caller(Peer(1, 0, 0))).name == "root"
    assert (await caller(Peer(1, NOBODY_KNOWN, 100))).name == f"uid {NOBODY_KNOWN}"


async def test_everybody_reads_what_loopback_shows_and_no_more() -> None:
    """A web server that was broken into runs as some user too: what agents read in logs is not for it."""
    found = await caller(Peer(1, MALLORY, 100), read=("*",))

    assert found.via == "socket"
    assert (found.may("read"), found.may("records"), found.may("operate")) == (True, False, False)
    assert (await caller(Peer(1, EVE, 100), read=("*", "eve"))).may("records")


async def test_who_is_not_listed_may_nothing() -> None:
    """`read: [root]` closes the door."""
    found = await caller(Peer(1, MALLORY, 100), read=("root",))

    assert not any(found.may(what) for what in ("read", "records", "operate", "admin"))


async def test_a_peer_that_is_not_known_is_nobody() -> None:
    """However wide the lists are: `*` means users, not what cannot be told."""
    assert await caller(None, read=("*",), operate=("*",), admin=("*",)) == NOBODY


async def test_names_that_nobody_has_let_nobody_in() -> None:
    """A misspelt group must not become group 0, nor take the others with it."""
    lists = {"operate": ("ghost", "@ghosts", "@", "", "0", "eve"), "read": ()}

    assert (await caller(Peer(1, MALLORY, 0), **lists)).scope is None
    assert (await caller(Peer(1, EVE, 100), **lists)).scope == "operate"


async def test_the_user_database_is_not_asked_for_each_call(users: dict[str, int]) -> None:
    """It may be a directory on the other side of the world."""
    keeper = Doorkeeper(SocketAccess(operate=("eve",), admin=("@adm",), read=("*",)), OWN)

    for _ in range(100):
        await keeper.caller(Peer(1, MALLORY, 100))
        await keeper.caller(Peer(1, OWN, OWN))

    assert users == {"uids": 1, "groups": 1, "names": 2}


async def test_a_directory_that_hangs_lets_nobody_in_but_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cannot be looked up is not let in by default; root, who must mend it, is."""
    let_go = threading.Event()
    monkeypatch.setattr(access, "_LONGEST_S", 0.01)
    monkeypatch.setattr(pwd, "getpwnam", lambda name: let_go.wait(20))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: let_go.wait(20))
    keeper = Doorkeeper(SocketAccess(operate=("eve",), read=()), OWN)

    try:
        assert (await keeper.caller(Peer(1, 0, 0))).scope == "admin"
        found = await keeper.caller(Peer(1, EVE, 100))
        assert (found.scope, found.near, found.name) == (None, False, f"uid {EVE}")
    finally:
        let_go.set()
