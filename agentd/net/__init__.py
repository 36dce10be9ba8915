"""
Reaching other machines: which addresses are allowed, and the transport that probes measure with.

address      names to addresses, what counts as public, which failures are our own (`blind`)
certificate  what a certificate says, read from its DER bytes

Promise: whatever the other side does ends as an answer or a `NetFailure`, within the caller's deadline and in
bounded memory, and cancelling leaves no socket behind.
"""

from __future__ import annotations

from agentd.net.address import NetFailure, classify, is_public, resolve, resolve_checked

__all__ = ["NetFailure", "classify", "is_public", "resolve", "resolve_checked"]
