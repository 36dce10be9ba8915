"""
What people may ask of the running daemon: the `Service` behind the HTTP routes, in two halves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentd.daemon.acting import Acting
from agentd.daemon.lists import Lists
from agentd.daemon.standing import Standing

if TYPE_CHECKING:
    from agentd.daemon.app import Daemon


class Control(Lists, Acting):
    """Implements `agentd.api.service.Service` over the parts of a daemon."""

    def __init__(self, daemon: Daemon) -> None:
        standing = Standing(daemon)
        Lists.__init__(self, daemon, standing)
        Acting.__init__(self, daemon, standing)
