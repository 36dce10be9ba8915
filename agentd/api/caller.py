"""
Who calls: known by the unix socket's peer, by an API key, by a session of the page, or by nobody.

Out: `Caller`, which says what it may. The gate makes it; routes only ask it.
Promise: what a caller may comes from the configuration alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scope = Literal["read", "operate", "admin"]
Access = Literal["open", "read", "records", "operate", "admin", "own"]
"""
What a route asks for. open: everybody, whoever reaches the port. read: whoever knows a key, and on loopback everybody.
records: what agents read and said, so a known caller. operate, admin: a scope. own: the route checks a secret itself.
"""

_RANK: dict[str, int] = {"read": 1, "operate": 2, "admin": 3}


@dataclass(frozen=True, slots=True)
class Caller:
    """
    name: as the audit trail shows it. scope: None for somebody unknown. csrf: the session's token against forged forms.

    near: unknown as the caller is, it came over loopback, under a name of ours. uid: of the process behind the unix
    socket.
    """

    name: str
    scope: Scope | None
    via: Literal["socket", "key", "session", "nobody"]
    near: bool = False
    csrf: str = ""
    uid: int | None = None

    @property
    def known(self) -> bool:
        return self.scope is not None

    def may(self, access: Access) -> bool:
        if access in ("open", "own"):
            return True
        if access == "read":
            return self.known or self.near
        needed = 1 if access == "records" else _RANK[access]
        return self.scope is not None and _RANK[self.scope] >= needed


NOBODY = Caller("nobody", None, "nobody")
