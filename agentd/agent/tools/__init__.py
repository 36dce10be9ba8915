"""
What agents can do: one file per tool, one line here.

To add one, write the file and its two lines here. Third parties add theirs by the entry point group `agentd.tools`,
which the configuration must name before they load.
"""

from __future__ import annotations

from agentd.agent.port import Tool
from agentd.agent.tools.dns_lookup import DnsLookup
from agentd.agent.tools.http_get import HttpGet
from agentd.agent.tools.list_files import ListFiles
from agentd.agent.tools.query_history import QueryHistory
from agentd.agent.tools.query_journal import QueryJournal
from agentd.agent.tools.query_memory import QueryMemory
from agentd.agent.tools.read_file import ReadFile
from agentd.agent.tools.run_command import RunCommand
from agentd.agent.tools.search_log import SearchLog
from agentd.agent.tools.third_party import plugins
from agentd.agent.tools.tls_info import TlsInfo
from agentd.agent.tools.write_file import WriteFile

__all__ = ["BUILT_IN", "plugins"]

BUILT_IN: tuple[Tool, ...] = (
    HttpGet(),
    ReadFile(),
    WriteFile(),
    ListFiles(),
    RunCommand(),
    SearchLog(),
    QueryHistory(),
    QueryMemory(),
    QueryJournal(),
    DnsLookup(),
    TlsInfo(),
)
"""Every tool that comes along; which of them a run may use says its `Permissions.tools`."""
