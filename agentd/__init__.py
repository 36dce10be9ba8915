"""agentd: watch endpoints and logs, decide, tell people; let an agent investigate."""

__version__ = "0.1.0"
