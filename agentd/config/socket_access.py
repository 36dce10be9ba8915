"""
Whether the users and groups that `api.socket_access` names are there.

In: the checked section. Out: warnings; a directory of users may be away at the moment, and they may come later.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterator

from agentd.config.checks import Entry
from agentd.config.complaints import show
from agentd.config.service import SocketAccess
from agentd.errors import Problem

_SCOPES = ("read", "operate", "admin")


def check_socket_access(root: Entry, settings: SocketAccess) -> Iterator[Problem]:
    """Blocking: the user database may be elsewhere. root: the whole configuration."""
    for scope in _SCOPES:
        for index, name in enumerate(getattr(settings, scope)):
            if (what := _unknown(name)) is not None:
                cure = 'write the name of a user, `@` and that of a group, or "*" for everybody'
                yield root.problem(("api", "socket_access", scope, index), what, cure, warning=True)


def _unknown(name: str) -> str | None:
    try:
        if name.startswith("@"):
            grp.getgrnam(name[1:])
        elif name != "*":
            pwd.getpwnam(name)
    except (KeyError, ValueError):  # a null byte
        sort = "group" if name.startswith("@") else "user"
        return f"there is no {sort} {show(name.removeprefix('@'))} on this machine"
    except OSError:
        return None  # it cannot be told now
    return None
