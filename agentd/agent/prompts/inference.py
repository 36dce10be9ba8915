"""
Which scenario a goal is meant for, by its words, English and Chinese, and by what kind of run it is. Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from agentd.agent.job import Job
from agentd.agent.prompts.template import Template

LOGS_TITLE = "Log "
"""How the title of an exhibit begins that holds lines or templates of a log."""
_WORD_POINTS = 3
_HINT_POINTS = 1
_GOAL_CHARS = 4000


def scenario_of(goal: str, job: Job, templates: Mapping[str, Template]) -> str:
    """
    The scenario for `goal`.

    An investigation goes by what is watched; else the words decide, and where none is known, the kind of the run.
    """
    if job.kind == "investigate":
        name = "log_analysis" if watches_log(job) else "endpoint_diagnosis"
        if name in templates:
            return name
    text = goal[:_GOAL_CHARS].lower()
    points = {name: _points(text, template) for name, template in templates.items()}
    best = max(points, key=lambda name: points[name], default="")
    if best and points[best]:
        return best
    if job.kind == "goal":
        return "log_analysis" if watches_log(job) else "debugging"
    return "command_execution" if "run_command" in job.permissions.tools else "debugging"


def watches_log(job: Job) -> bool:
    """Whether the job's watch reads a log: it says so (`metadata.source`), has log files, or brings lines of it."""
    source = job.metadata.get("source")
    if isinstance(source, str):
        return source in ("log", "journal")
    return job.watch in job.permissions.log_files or any(each.title.startswith(LOGS_TITLE) for each in job.exhibits)


def _points(text: str, template: Template) -> int:
    return sum(
        points
        for words, points in ((template.words, _WORD_POINTS), (template.hints, _HINT_POINTS))
        for word in words
        if _pattern(word).search(text)
    )


@lru_cache(maxsize=2048)
def _pattern(word: str) -> re.Pattern[str]:
    """English words as the beginning of one (`refactor` in `refactoring`), short ones whole; Chinese anywhere."""
    if not word.isascii():
        return re.compile(re.escape(word))
    body = r"\s+".join(map(re.escape, word.split()))
    return re.compile(rf"(?<![a-z0-9_]){body}" + (r"(?![a-z0-9_])" if len(word) <= 4 else ""))
