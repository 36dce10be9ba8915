"""The command `agentd`, and `python -m agentd`."""

from __future__ import annotations

from agentd.cli import main

if __name__ == "__main__":
    main()
