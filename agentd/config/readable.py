"""
Of which type is what the conditions of each kind read: by this a comparison that can never hold is found at load.

In: the name of a kind. Out: types by path. A kind that is not in the table is taken at its word: its variables may
be anything.
"""

from __future__ import annotations

from functools import cache

from agentd.condition.types import Type, Types

_TIMING = "latency_ms dns_ms connect_ms"
_DISK = "total_bytes used_bytes free_bytes used_percent inodes_used_percent"
_LOAD = "one five fifteen per_cpu_one per_cpu_five per_cpu_fifteen"
_MEMORY = "total_bytes available_bytes used_percent swap_total_bytes swap_used_percent"


def _of(owner: str, members: str) -> str:
    return " ".join(f"{owner}.{member}" for member in members.split())


_TABLE: dict[str, dict[Type, str]] = {
    "http": {
        "number": f"status {_TIMING} tls_ms first_byte_ms body_bytes cert_days_left redirects",
        "text": "text http_version headers.*",
        "map": "headers",
        "any": "body",
    },
    "tcp": {"number": f"{_TIMING} tls_ms first_byte_ms", "text": "text", "bool": "connected"},
    "tls": {
        "number": f"{_TIMING} tls_ms cert_days_left",
        "text": "cert_not_after cert_subject cert_issuer verify_error protocol cipher cert_sans.*",
        "list": "cert_sans",
        "bool": "verified",
    },
    "dns": {
        "number": f"{_TIMING} ttl",
        "text": "rcode answers.* records.*",
        "list": "answers records",
        "bool": "authoritative",
    },
    "command": {"number": "exit_code latency_ms truncated", "text": "signal stdout stderr"},
    "systemd": {
        "number": "restarts.*",
        "text": "failed.* active.* missing.* units.*",
        "list": "failed active missing",
        "map": "units restarts",
    },
    "host": {
        "number": " ".join(
            (
                "uptime_s cpu.used_percent",
                *(_of("disk", _DISK), _of("disks.*", _DISK), _of("load", _LOAD), _of("memory", _MEMORY)),
            )
        ),
        "text": "disk.path disks.*.path",
        "bool": "disk.read_only disk.is_mount disks.*.read_only disks.*.is_mount",
        "map": "disk disks disks.* load memory cpu",
    },
    "heartbeat": {"number": "beat_age_s beats", "text": "message", "bool": "last_ok"},
}


@cache
def types_of(kind: str) -> Types:
    """Types by path of the variables of a kind's conditions."""
    return {tuple(path.split(".")): type_ for type_, paths in _TABLE.get(kind, {}).items() for path in paths.split()}
