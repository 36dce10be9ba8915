"""
Which tasks wait for which.

In: tasks, in the order in which the model named them. Out: a `TaskGraph` that was found sound, or `GraphError`.
Promise: there is an order in which every task can run. A task that refers to another's output depends on it, said or
not. The message of a GraphError is read by the model and says what to change.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from agentd.agent.references import referred
from agentd.errors import AgentdError
from agentd.fleet.messages import Result, Task

MAX_TASKS = 100
_LONGEST_ID = 100


class GraphError(AgentdError):
    """The tasks make no graph that could run; the message says why, and how to mend it."""


class TaskGraph:
    """
    Tasks and what they depend on; unchangeable. `tasks` keep their order.

    limit: more tasks are refused. known: outputs, by id, of tasks that ran well before and are not in this graph;
    dependencies on them count as met, and inputs may refer to them.
    """

    __slots__ = ("_dependents", "_places", "_referring", "known", "tasks")

    def __init__(self, tasks: Iterable[Task], *, limit: int = MAX_TASKS, known: Iterable[Result] = ()) -> None:
        given = list(tasks)
        if len(given) > limit:
            raise GraphError(f"{len(given)} tasks at once; at most {limit} may run in one graph: ask for fewer")
        self.known = MappingProxyType({result.task: result.output for result in known if result.ok})
        self._places = _places(given)
        self._referring: set[str] = set()
        self.tasks: tuple[Task, ...] = tuple(self._checked(task) for task in given)
        self._dependents: dict[str, list[str]] = {}
        for task in self.tasks:
            for other in task.depends_on:
                self._dependents.setdefault(other, []).append(task.id)
        cycle = self._cycle()
        if cycle:
            raise GraphError(f"tasks wait for each other: {' → '.join(cycle)}; take one of these dependencies away")

    def _checked(self, task: Task) -> Task:
        needs = dict.fromkeys(task.depends_on)
        for other in needs:
            if other not in self._places and other not in self.known:
                raise GraphError(
                    f"task {_short(task.id)} depends on {_short(other)}, which is not among the tasks; "
                    f"they are {_listed(self._places)}"
                )
        spoken_of = referred(task.input, self.ids)
        if spoken_of:
            self._referring.add(task.id)
            needs.update(dict.fromkeys(sorted(spoken_of)))
        wanted = tuple(other for other in needs if other in self._places)
        return task if wanted == task.depends_on else replace(task, depends_on=wanted)

    def __len__(self) -> int:
        return len(self.tasks)

    def __iter__(self) -> Iterator[Task]:
        return iter(self.tasks)

    def __contains__(self, id: object) -> bool:
        return id in self._places

    def __getitem__(self, id: str) -> Task:
        """The task of this id. Raises KeyError."""
        return self.tasks[self._places[id]]

    @property
    def ids(self) -> Collection[str]:
        """Ids that an input may refer to."""
        return {**self._places, **self.known} if self.known else self._places

    @property
    def shape(self) -> str:
        """
        What it looks like, in one short stable word: `empty`, `single`, `parallel-4`, `chain-3` or `dag-6`.

        The number is of tasks. chain: each waits for the one before; parallel: none waits.
        """
        count = len(self.tasks)
        if count < 2:
            return "single" if count else "empty"
        edges = sum(len(task.depends_on) for task in self.tasks)
        if edges == 0:
            return f"parallel-{count}"
        line = edges == count - 1 and all(
            len(task.depends_on) <= 1 and len(self._dependents.get(task.id, ())) <= 1 for task in self.tasks
        )
        return f"chain-{count}" if line else f"dag-{count}"

    def dependents(self, id: str) -> Sequence[str]:
        """Ids of the tasks that wait for this one, in their order."""
        return self._dependents.get(id, ())

    def refers(self, id: str) -> bool:
        """Whether this task's input speaks of outputs."""
        return id in self._referring

    def ready(self, done: Collection[str]) -> list[Task]:
        """Tasks that may run once `done` have ended well, without these themselves."""
        return [task for task in self.tasks if task.id not in done and all(id in done for id in task.depends_on)]

    def after(self, ids: Iterable[str], results: Iterable[Result] = ()) -> TaskGraph:
        """
        These tasks, to be run again, and all that depends on them.

        Each of `ids` gets its next attempt and twice the time. results: of the run before; what went well there
        and is not run again counts as met, and inputs may go on referring to it. Unknown ids are left out.
        """
        again = {id for id in ids if id in self._places}
        wanted = set(again)
        to_visit = list(again)
        while to_visit:
            for other in self._dependents.get(to_visit.pop(), ()):
                if other not in wanted:
                    wanted.add(other)
                    to_visit.append(other)
        known = {result.task: result for result in results if result.ok and result.task not in wanted}
        known |= {id: Result(id, "", output) for id, output in self.known.items() if id not in known}
        # A dependency that is neither run again nor known to have ended well is dropped: whoever asks for this task
        # alone has decided that it may run.
        tasks = [
            replace(
                task,
                depends_on=tuple(id for id in task.depends_on if id in wanted),
                attempt=task.attempt + (task.id in again),
                timeout_s=task.timeout_s * (2 if task.id in again else 1),
            )
            for task in self.tasks
            if task.id in wanted
        ]
        return TaskGraph(tasks, limit=max(MAX_TASKS, len(tasks)), known=known.values())

    def to_json(self) -> list[dict[str, Any]]:
        return [task.to_json() for task in self.tasks]

    def _cycle(self) -> list[str]:
        """Ids along a cycle, the first again at the end; empty when there is none."""
        waiting = {task.id: len(task.depends_on) for task in self.tasks}
        free = [id for id, count in waiting.items() if not count]
        while free:
            id = free.pop()
            del waiting[id]
            for other in self._dependents.get(id, ()):
                waiting[other] -= 1
                if not waiting[other]:
                    free.append(other)
        if not waiting:
            return []
        # Whatever is left waits for something that is left: following that must come back to where it has been.
        id, path = next(iter(waiting)), []
        while id not in path:
            path.append(id)
            id = next(other for other in self[id].depends_on if other in waiting)
        return [_short(step) for step in (id, *reversed(path[path.index(id) :]))]


def _places(tasks: Sequence[Task]) -> dict[str, int]:
    places: dict[str, int] = {}
    for place, task in enumerate(tasks):
        if not task.id or len(task.id) > _LONGEST_ID:
            raise GraphError(f"the id of a task has 1 to {_LONGEST_ID} characters, not {_short(task.id)!r}")
        if task.id in places:
            raise GraphError(f"two tasks are called {_short(task.id)}; give each an id of its own")
        places[task.id] = place
    return places


def _short(id: str) -> str:
    return id if len(id) <= 60 else f"{id[:60]}…"


def _listed(ids: Collection[str]) -> str:
    names = [_short(id) for id in list(ids)[:12]]
    return ", ".join(names) + (" …" if len(ids) > len(names) else "")
