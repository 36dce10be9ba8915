"""
What one action object means: calls, a graph, a plan, an answer.

In: an object that a model wrote, or the arguments of a native call. Out: `Actions`.
Promise: leniency stops where there are two ways to read it: then, and where something is missing, a `BadAction` tells
the model what is wrong with one example. Nothing that was asked for is dropped without a note. Bounded in number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agentd.errors import AgentdError
from agentd.llm.action_words import (
    ANSWER_KEYS,
    INPUT_KEYS,
    KINDS,
    LIST_KEYS,
    TOOL_KEYS,
    TYPE_KEYS,
    WRAPPERS,
    Fields,
    Kind,
    kind_in,
    plain,
    plan_of,
    says_something,
)
from agentd.llm.loosejson import BrokenJson, kind_of, read_object

MAX_CALLS = 64
MAX_TIMEOUT_S = 3600.0
FINISH, PLAN, RUN_GRAPH = "finish", "plan", "run_graph"

CALL_EXAMPLE = '{"type": "ToolCall", "tool": "http_get", "input": {"url": "https://shop.example/health"}}'
_PARALLEL_EXAMPLE = f'{{"type": "Parallel", "actions": [{CALL_EXAMPLE}]}}'
_GRAPH_EXAMPLE = (
    '{"type": "Graph", "tasks": [{"id": "a", "tool": "list_files", "input": {"path": "/var/log"}}, '
    '{"id": "b", "tool": "read_file", "input": {"path": "/var/log/syslog"}, "depends_on": ["a"]}]}'
)
_FINAL_EXAMPLE = '{"type": "Final", "answer": "The shop answers 503 because its database is down."}'
_PLAN_EXAMPLE = f'{{"type": "Plan", "understanding": "…", "approach": "…", "actions": [{CALL_EXAMPLE}]}}'


class BadAction(AgentdError):
    """
    The answer cannot be done; the message is for the model: what is wrong, and one example.

    call_id, tool: of the native call that is wrong, None when it is the text. otherwise: what to take the answer for
    when the model has no try left; None: it is good for nothing.
    """

    def __init__(
        self,
        message: str,
        *,
        call_id: str | None = None,
        tool: str | None = None,
        otherwise: Actions | None = None,
    ) -> None:
        super().__init__(message)
        self.call_id = call_id
        self.tool = tool
        self.otherwise = otherwise


@dataclass(frozen=True, slots=True)
class ToolUse:
    """
    One call. id: unique within the answer: the model's own or a number. depends_on: ids of the same answer, all known
    (there may be cycles). timeout_s: None when the model does not say. call_id: of the native call it came by;
    tasks of one graph share it.
    """

    tool: str
    input: Mapping[str, Any]
    id: str
    depends_on: tuple[str, ...] = ()
    timeout_s: float | None = None
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """What the model is to be told about something that ran no tool. call_id: the native call that this answers."""

    text: str
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Actions:
    """
    What one answer asks for.

    plan: `understanding approach complexity estimated_steps requirements`, those that were given, bounded plain JSON.
    calls: to be run, all at once but for `depends_on`. final: the answer, of any JSON type, None: there is none; never
    together with calls. notes: to go into the conversation; every native call is in `calls` or has a note.
    """

    plan: Mapping[str, Any] | None = None
    calls: tuple[ToolUse, ...] = ()
    final: Any | None = None
    notes: tuple[Note, ...] = ()


_ID = re.compile(r"[\w.:-]{1,64}")
_TIMEOUT = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*(ms|s|sec|seconds|m|min)?")
_UNITS = {"ms": 0.001, "m": 60.0, "min": 60.0}


@dataclass(slots=True)
class _Draft:
    tool: str
    input: Mapping[str, Any]
    id: str | None
    depends_on: list[str]
    timeout_s: float | None
    call_id: str | None
    scope: int


@dataclass(slots=True)
class Reading:
    """Takes the parts of one answer in turn, and puts them together."""

    example: str = CALL_EXAMPLE
    plan: dict[str, Any] | None = None
    finals: list[tuple[Any, str | None]] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    drafts: list[_Draft] = field(default_factory=list)
    scopes: int = 0

    def take(self, data: Any) -> None:
        """An action object, or a list of such. Raises BadAction."""
        if isinstance(data, list):
            self._all(data, "the list")
            return
        if not isinstance(data, Mapping):
            raise BadAction(f"An action is {kind_of(data)}, not an object. Write for example {self.example}")
        fields = Fields.of(data)
        kind, _ = kind_in(data)
        if kind is not Kind.PLAN and fields.known.get("plan") is not None:
            self._planned(fields.known["plan"])
        if kind is None:
            inner = next((fields.known[key] for key in WRAPPERS if isinstance(fields.known.get(key), Mapping)), None)
            if inner is None:
                raise BadAction(f"{_unknown(fields)} Write for example {self.example}")
            self.take(inner)
        elif kind is Kind.CALL:
            self._call(fields, None, 0)
        elif kind is Kind.PARALLEL:
            actions = fields.first(LIST_KEYS)
            if not isinstance(actions, list) or not actions:
                raise BadAction(f'A Parallel needs "actions", a list of actions. Write for example {_PARALLEL_EXAMPLE}')
            self._all(actions, "Parallel")
        elif kind is Kind.GRAPH:
            self.graph(fields.first(("tasks", "nodes", *INPUT_KEYS)), None)
        elif kind is Kind.FINAL:
            self._final(fields, data)
        else:
            self._plan(fields)

    def use(self, tool: str, input: Mapping[str, Any], call_id: str | None) -> None:
        """A call of a tool or of one of the special tools. Raises BadAction."""
        if tool == FINISH:
            self._finish(input, call_id)
        elif tool == RUN_GRAPH:
            self.graph(input.get("tasks"), call_id)
        elif _is_multi(tool):
            self._uses(input, call_id, tool)
        elif tool == PLAN:
            if not self._planned(input):
                raise BadAction('The plan needs "understanding" and "approach".', call_id=call_id, tool=tool)
            if call_id is not None:
                self.notes.append(Note("Noted. Now act on it.", call_id))
        else:
            self._draft(_Draft(tool, input, None, [], None, call_id, 0))

    def graph(self, tasks: Any, call_id: str | None) -> None:
        """The tasks of one graph. Raises BadAction."""
        if isinstance(tasks, Mapping) and isinstance(tasks.get("tasks"), list):
            tasks = tasks["tasks"]
        if not isinstance(tasks, list) or not tasks:
            raise BadAction(
                f'A graph needs "tasks", a list with at least one task. Write for example {_GRAPH_EXAMPLE}',
                call_id=call_id,
                tool=RUN_GRAPH if call_id else None,
            )
        self.scopes += 1
        for number, task in enumerate(tasks, 1):
            if not isinstance(task, Mapping):
                raise BadAction(
                    f"Task {number} of the graph is {kind_of(task)}, not an object. Write for example {_GRAPH_EXAMPLE}",
                    call_id=call_id,
                )
            self._call(Fields.of(task), call_id, self.scopes)

    def actions(self) -> Actions:
        """All that was taken. Raises BadAction when it does not fit together, or is nothing."""
        calls = self._calls()
        final, call_id = self.finals[0] if self.finals else (None, None)
        notes = list(self.notes)
        if calls and self.finals:
            text = "Your final answer was not taken, as tools were called with it. Give it alone, after their results."
            notes += [Note(text, each) for _, each in self.finals]
            final = None
        if not calls and final is None and self.plan is None:
            raise BadAction(f"Your answer holds no action. Write for example {self.example}", call_id=call_id)
        return Actions(self.plan, calls, final, tuple(notes))

    def _all(self, actions: list[Any], where: str) -> None:
        for number, action in enumerate(actions, 1):
            if not isinstance(action, Mapping | list):
                raise BadAction(
                    f"Action {number} of {where} is {kind_of(action)}, not an object. "
                    f"Write for example {_PARALLEL_EXAMPLE}"
                )
            self.take(action)

    def _uses(self, input: Mapping[str, Any], call_id: str | None, tool: str) -> None:
        """The calls in one of a tool that models of OpenAI were trained to wrap them in, offered or not."""
        uses = Fields.of(input).first(LIST_KEYS)
        if not isinstance(uses, list) or not uses or not all(isinstance(use, Mapping) for use in uses):
            raise BadAction("There is no such tool. Call each tool by itself.", call_id=call_id, tool=tool)
        for use in uses:
            self._call(Fields.of(use), call_id, 0)

    def _call(self, fields: Fields, call_id: str | None, scope: int) -> None:
        known = fields.known
        function = known.get("function")
        if isinstance(function, Mapping):
            # As the API of OpenAI writes a call.
            fields = Fields.of({**function, **{key: known[key] for key in ("id", "dependson") if key in known}})
            known = fields.known
        tool = fields.first(TOOL_KEYS)
        if tool is None:
            named = known.get("action"), fields.first(TYPE_KEYS)
            tool = next((each for each in named if isinstance(each, str) and plain(each) not in KINDS), None)
        if not isinstance(tool, str) or not tool.strip():
            example = self.example if scope == 0 else _GRAPH_EXAMPLE
            what = "A ToolCall" if scope == 0 else "A task of the graph"
            raise BadAction(f'{what} needs "tool", the name of a tool. Write for example {example}', call_id=call_id)
        tool = tool.strip().removeprefix("functions.")
        input = self._input(fields, tool, call_id)
        if scope == 0 and (tool in (FINISH, PLAN, RUN_GRAPH) or _is_multi(tool)):
            self.use(tool, input, call_id)
            return
        id = fields.first(("id", "taskid"))
        self._draft(
            _Draft(
                tool,
                input,
                str(id).strip() if isinstance(id, str | int) and not isinstance(id, bool) else None,
                self._depends_on(fields, tool, call_id),
                self._timeout_s(fields, tool, call_id),
                call_id,
                scope,
            )
        )

    def _input(self, fields: Fields, tool: str, call_id: str | None) -> Mapping[str, Any]:
        if not fields.has(INPUT_KEYS):
            # Arguments beside the tool's name.
            own = {"name": fields.known["name"]} if fields.known.get("name") not in (None, tool) else {}
            return {**own, **{key: value for key, value in fields.rest.items() if plain(key) != "action"}}
        given = fields.first(INPUT_KEYS)
        if given is None:
            return {}
        if isinstance(given, str):
            try:
                return read_object(given)
            except BrokenJson as error:
                raise BadAction(
                    f'The "input" of {tool[:80]} is text, not an object ({error}). Write for example {self.example}',
                    call_id=call_id,
                ) from error
        if not isinstance(given, Mapping):
            raise BadAction(
                f'The "input" of {tool[:80]} is {kind_of(given)}, not an object. Write for example {self.example}',
                call_id=call_id,
            )
        return given

    def _depends_on(self, fields: Fields, tool: str, call_id: str | None) -> list[str]:
        given = fields.first(("dependson", "dependencies"))
        items = [] if given is None or given == "" else given if isinstance(given, list) else [given]
        if not all(isinstance(item, str | int) and not isinstance(item, bool) for item in items):
            raise BadAction(
                f'"depends_on" of {tool[:80]} must be a list of ids. Write for example {_GRAPH_EXAMPLE}',
                call_id=call_id,
            )
        return list(dict.fromkeys(str(item).strip() for item in items))

    def _timeout_s(self, fields: Fields, tool: str, call_id: str | None) -> float | None:
        given = fields.first(("timeout", "timeouts", "timeoutseconds", "timeoutms"))
        if given is None:
            return None
        match = _TIMEOUT.fullmatch(str(given).strip()) if not isinstance(given, bool) else None
        seconds = float(match[1]) * _UNITS.get(match[2] or "", 1.0) if match is not None else 0.0
        if not match or seconds <= 0:
            raise BadAction(
                f'"timeout" of {tool[:80]} must be a number of seconds, such as 10; leave it out if unsure.',
                call_id=call_id,
            )
        seconds *= 0.001 if "timeoutms" in fields.known and not match[2] else 1.0
        return min(seconds, MAX_TIMEOUT_S)

    def _draft(self, draft: _Draft) -> None:
        if len(self.drafts) >= MAX_CALLS:
            raise BadAction(
                f"Your answer has more than {MAX_CALLS} calls. Begin with the most telling few.", call_id=draft.call_id
            )
        self.drafts.append(draft)

    def _final(self, fields: Fields, data: Mapping[str, Any]) -> None:
        answer = next((fields.known[key] for key in ANSWER_KEYS if says_something(fields.known.get(key))), None)
        if not isinstance(answer, Mapping) and (answer is None or fields.has(("summary", "status", "claims"))):
            # The finding stands in the action itself.
            own = {
                key: value
                for key, value in data.items()
                if plain(key) not in (*TYPE_KEYS, "plan", "action", *INPUT_KEYS) and says_something(value)
            }
            answer = own if fields.has(("summary", "status", "claims")) else fields.first(INPUT_KEYS)
        if not says_something(answer):
            raise BadAction(f'A Final needs "answer", what you found. Write for example {_FINAL_EXAMPLE}')
        self.finals.append((answer, None))

    def _finish(self, input: Mapping[str, Any], call_id: str | None) -> None:
        answer: Any = input
        if len(input) == 1:
            # A finding with nothing but its summary, or wrapped once more.
            key, value = next(iter(input.items()))
            answer = value if plain(key) in ANSWER_KEYS else input
        if not says_something(answer):
            raise BadAction(
                'finish needs at least "status" and "summary": what you found, in a sentence.',
                call_id=call_id,
                tool=FINISH,
            )
        self.finals.append((answer, call_id))

    def _plan(self, fields: Fields) -> None:
        nested = fields.known.get("plan")
        found = self._planned(fields.rest)
        if nested is not None:
            found = self._planned(nested) or found
        actions = fields.first((*LIST_KEYS, "action", "nextaction"))
        if isinstance(actions, Mapping):
            self.take(actions)
        elif isinstance(actions, list):
            self._all(actions, "the plan")
        elif not found:
            raise BadAction(f'A Plan needs "understanding" and "approach". Write for example {_PLAN_EXAMPLE}')

    def _planned(self, said: Any) -> bool:
        """Keep what is a plan in this; whether it said anything."""
        plan = plan_of(said)
        self.plan = {**(self.plan or {}), **plan} if plan else self.plan
        return bool(plan)

    def _calls(self) -> tuple[ToolUse, ...]:
        """The drafts with ids that are unique in the whole answer."""
        taken: dict[str, None] = {}
        ids: dict[tuple[int, str], str] = {}
        for draft in self.drafts:
            if draft.id is None:
                continue
            if (draft.scope, draft.id) in ids:
                raise BadAction(
                    f"Two tasks have the id {draft.id[:80]!r}; give each its own, as in {_GRAPH_EXAMPLE}",
                    call_id=draft.call_id,
                )
            fine = draft.id if _ID.fullmatch(draft.id) and draft.id not in taken else _free(taken)
            ids[draft.scope, draft.id] = fine
            taken[fine] = None
        calls = []
        for draft in self.drafts:
            if draft.id is None:
                id = _free(taken)
                taken[id] = None
            else:
                id = ids[draft.scope, draft.id]
            strangers = [each for each in draft.depends_on if (draft.scope, each) not in ids or each == draft.id]
            if strangers:
                raise BadAction(
                    f'"depends_on" of {draft.tool[:80]} names {strangers[0][:80]!r}, which is not the id of another '
                    f"task. Write for example {_GRAPH_EXAMPLE}",
                    call_id=draft.call_id,
                )
            depends_on = tuple(ids[draft.scope, each] for each in draft.depends_on)
            calls.append(ToolUse(draft.tool, draft.input, id, depends_on, draft.timeout_s, draft.call_id))
        return tuple(calls)


def _is_multi(tool: str) -> bool:
    return plain(tool).replace(".", "") == "multitooluseparallel"


def _free(taken: Mapping[str, None]) -> str:
    return next(str(number) for number in range(1, len(taken) + 2) if str(number) not in taken)


def _unknown(fields: Fields) -> str:
    said = fields.first(TYPE_KEYS)
    if said is None:
        return 'The object has no "type".'
    shown = json.dumps(said, ensure_ascii=False, default=str)[:60]
    return f'"type" is {shown}; it must be ToolCall, Parallel, Graph, Plan or Final.'
