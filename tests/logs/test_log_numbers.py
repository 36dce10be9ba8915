"""What is shown of a watch of logs."""

from __future__ import annotations

from pathlib import Path

from agentd.api.views import shown_detail
from agentd.clock import SystemClock
from agentd.logs.opening import open_log
from agentd.logs.settings import LogSource, Rule
from agentd.memory.logs import LogMemory

RULES = [Rule(name="r", type="any", match="x")]


async def shown(folder: Path, **view: object) -> str:
    """WHAT in the list of watches, after the first look."""
    source = LogSource(files=(f"{folder}/*.log",))
    work = open_log("w", source, RULES, clock=SystemClock(), timezone="UTC", memory=LogMemory())
    numbers = work.numbers(work.take().batch)
    await work.source.close()
    return shown_detail({"summary": "", "log": numbers} | view)


async def test_a_watch_whose_pattern_meets_nothing_says_so(tmp_path: Path) -> None:
    """It is as quiet as a log in which all is well."""
    assert await shown(tmp_path) == "no file yet"
    assert await shown(tmp_path, summary="fires") == "fires"

    (tmp_path / "a.log").touch()

    assert await shown(tmp_path) == ""
