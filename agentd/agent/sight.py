"""
What came of a step: what the model is shown of it and told about it, and whether the run goes round in circles.

In: the tasks of a step and what they gave. Out: texts for the calls that asked, with hints; artifacts for the account.
Promise: every result becomes evidence; all texts of a step share one number of bytes. Nothing here waits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agentd.agent.account import Account
from agentd.agent.acting import Acted
from agentd.agent.evidence import Exhibits
from agentd.agent.observe import Observed, limits
from agentd.agent.repetition import Repetition, Seen
from agentd.fleet.messages import Result, Task

_CIRCLES = 2
"""After so many steps in a row that showed nothing new, a model that is held to a grammar can but give its answer."""
_REPEATED = "You made such a call before and it showed the same: do something else, or give your final answer."
_ALIKE = "You have asked like this many times. Go on with it only if that tells you something new."
_LAST_STEP = "One step is left: give your final answer now, from what is known."
_HINTS = {
    "replan": "Some of this failed: find another way.",
    "degrade": "Tools have failed again and again: give your final answer from what is known.",
}


class Sight:
    """One for each run. apart: calls are answered one by one, as native ones are."""

    def __init__(self, exhibits: Exhibits, account: Account, *, limit_bytes: int, apart: bool) -> None:
        self._exhibits = exhibits
        self._account = account
        self._limit_bytes = limit_bytes
        self._apart = apart
        self._repetition = Repetition()
        self._verdicts: list[Seen] = []
        self._circles = 0

    def begin(self) -> None:
        """A prompt begins."""
        self._circles = 0

    @property
    def in_circles(self) -> bool:
        """The last steps showed nothing new."""
        return self._circles >= _CIRCLES

    @property
    def hopeless(self) -> bool:
        """Everything in the last step had been asked again and again."""
        return bool(self._verdicts) and all(each == "stop" for each in self._verdicts)

    def of(self, tasks: Sequence[Task], acted: Acted, *, last_step: bool) -> dict[str | None, str]:
        """What the model is told, by the call that asked; of JSON actions there is one text, under None."""
        seen = self._verdicts = [
            self._repetition.saw(task.tool, task.input, result, step=self._account.steps)
            for task, result in zip(tasks, acted.results, strict=True)
        ]
        self._circles = self._circles + 1 if seen and set(seen) <= {"warn", "stop"} else 0
        self._artifacts(acted.results)
        hints = [_REPEATED] if {"warn", "stop"} & set(seen) else [_ALIKE] if "alike" in seen else []
        if acted.decision in _HINTS:
            hints.append(_HINTS[acted.decision])
        if last_step:
            hints.append(_LAST_STEP)
        texts = self._texts(tasks, acted)
        if hints:
            last = list(texts)[-1]
            texts[last] = "\n\n".join((texts[last], *hints))
        self._account.record("observation", purpose="step", text="\n\n".join(texts.values()))
        return texts

    def _texts(self, tasks: Sequence[Task], acted: Acted) -> dict[str | None, str]:
        groups: dict[str | None, list[Result]] = {}
        for task, result in zip(tasks, acted.results, strict=True):
            groups.setdefault(task.call_id if self._apart else None, []).append(result)
        inputs = {task.id: task.input for task in tasks}
        observed = [Observed(group, self._exhibits, acted.texts, inputs) for group in groups.values()]
        given = limits(observed, self._limit_bytes)
        return {call: each.within(limit) for call, each, limit in zip(groups, observed, given, strict=True)}

    def _artifacts(self, results: Sequence[Result]) -> None:
        for result in results:
            if result.ok and result.tool == "write_file" and isinstance(result.output, Mapping):
                path = result.output.get("path")
                if isinstance(path, str) and path not in self._account.artifacts:
                    self._account.artifacts.append(path)
