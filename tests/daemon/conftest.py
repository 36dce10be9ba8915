"""Fixtures of the daemon's tests."""

from __future__ import annotations

from house import tell as tell
