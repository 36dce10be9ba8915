"""`python -m agentd.cli.manual EXAMPLE FOLDER`; `make man` calls it."""

from __future__ import annotations

import sys
from pathlib import Path

from agentd.cli.manual import write_pages

write_pages(*map(Path, sys.argv[1:]))
