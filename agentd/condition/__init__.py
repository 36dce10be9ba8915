"""
Conditions in CEL (cel.dev): compiled once at load, asked at every look, explained when they do not hold.

In: the text of the config and the names it may read; later the values of an observation.
Out: true or false, a line for people with the values seen, and a `Judgement`.
Promise: what can be wrong at load is a ConfigError at load; after that nothing raises, whatever a target answers.
A value that is missing or of the wrong type makes a condition not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agentd.condition.reading import raise_unless_panic, read
from agentd.condition.shown import MAX_SHOWN_CHARS, Path, as_text, follow, preview, written
from agentd.condition.types import Types, check_comparisons, check_result
from agentd.records import Judgement, Observation, Verdict

if TYPE_CHECKING:
    from cel import Program

MAX_VALUE_DEPTH = 500
"""Converting a value recurses, and ends the process at some 10,000 levels."""
MAX_SHOWN_VALUES = 5


@dataclass(frozen=True, slots=True)
class Condition:
    """
    One compiled condition.

    source: as written. variables: the names it reads.
    """

    source: str
    variables: frozenset[str]
    _program: Program = field(compare=False, repr=False)
    _paths: tuple[Path, ...] = field(compare=False, repr=False)
    _whole: tuple[str, ...] = field(compare=False, repr=False)
    _members: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = field(compare=False, repr=False)
    _extra: Mapping[str, Callable[..., Any]] = field(compare=False, repr=False)

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether the condition is true of these values; False too when it cannot be computed. Never raises."""
        try:
            return self._compute(values) is True
        except Exception:
            return False
        except BaseException as panic:
            raise_unless_panic(panic)
            return False

    def explain(self, values: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """
        Why the condition does not hold: one line, and the values it read, by path, fit for JSON and cut short.

        To be asked only when it does not hold. Never raises.
        """
        parts: list[str] = []
        shown: dict[str, Any] = {}
        for path in self._paths[:MAX_SHOWN_VALUES]:
            name = written(path)
            found, value = follow(values, path)
            if not found:
                parts.append(f"{name} is missing")
                continue
            shown[name] = short = preview(value)
            parts.append(f"{name} = {as_text(short)}")
        read = f" ({', '.join(parts)})" if parts else ""
        return f"{' '.join(self.source.split())} {self._trouble(values)}{read}", shown

    def _trouble(self, values: Mapping[str, Any]) -> str:
        try:
            result = self._compute(values)
        except (KeyError, RuntimeError):  # the library's words for a missing member and a missing variable
            return "does not hold"
        except TypeError:
            return "cannot be computed: the types do not go together"
        except OverflowError:
            return "cannot be computed: a number is too large"
        except ZeroDivisionError:
            return "cannot be computed: division by zero"
        except IndexError:
            return "cannot be computed: the list is shorter"
        except Exception as error:
            return f"cannot be computed: {' '.join(str(error).split())[:MAX_SHOWN_CHARS]}"
        except BaseException as panic:
            raise_unless_panic(panic)
            return "cannot be computed"
        if isinstance(result, bool):
            return "does not hold"
        return f"is {as_text(preview(result))}, neither true nor false"

    def _compute(self, values: Mapping[str, Any]) -> Any:
        # Only what the program reads is handed over: every value handed over is converted, and one may be a
        # megabyte of JSON of which a single member is asked for.
        reading: dict[str, Any] = {}
        for name in self._whole:
            if name in values:
                value = values[name]
                if isinstance(value, dict | list | tuple) and _is_too_deep(value):
                    raise ValueError(f"{name} is nested deeper than {MAX_VALUE_DEPTH} levels")
                reading[name] = value
        for name, wanted in self._members:
            if name in values:
                reading[name] = _only(values[name], wanted)
        if self._extra:
            reading.update(self._extra)
        return self._program.execute(reading)


def compile_condition(text: str, variables: Collection[str] | None, types: Types | None = None) -> Condition:
    """
    Read one condition.

    variables: the names it may read; None: any, for what a log line brings is not known before. types: of which type
    they are, as far as that is known; with it, a condition must ask for something that can be otherwise. Raises
    ConfigError, `what; how to mend`, when it cannot be read, reads something else, calls a function that is not there,
    or can never be true or false.
    """
    parsed = read(text, variables, constants=types is None and variables is not None)
    whole, members = _needs(parsed.prefixes)
    condition = Condition(
        source=text.strip(),
        variables=frozenset(str(path[0]) for path in parsed.paths),
        _program=parsed.program,
        _paths=parsed.paths,
        _whole=whole,
        _members=members,
        _extra=parsed.extra,
    )
    if types is not None:
        check_comparisons(parsed.tokens, parsed.reads, types)
        check_result(text, parsed.paths, types, condition._compute)
    return condition


MAX_SHOWN = 20
"""So many values of an observation at most go with an alert."""


def judge(observation: Observation, conditions: Sequence[Condition]) -> Judgement:
    """What an observation is worth: every condition must hold. Pure, and never raises."""
    if observation.blind is not None:
        return Judgement(Verdict.BLIND, observation.blind)
    if observation.error is not None:
        return Judgement(Verdict.FAILING, observation.error)
    values = observation.values
    failed = [condition for condition in conditions if not condition.holds(values)]
    if not failed:
        return Judgement(Verdict.OK)
    summary, shown = failed[0].explain(values)
    for condition in (*failed, *conditions):
        if len(shown) >= MAX_SHOWN:
            break
        # What the others read tells as much: a slow 503 is another thing than a quick one.
        shown |= condition.explain(values)[1]
    if len(failed) > 1:
        summary += f" (and {len(failed) - 1} more)"
    if note := observation.notes.get("body"):
        summary += f"; {note}"
    return Judgement(Verdict.FAILING, summary, failed=tuple(each.source for each in failed), shown=shown)


def _needs(
    prefixes: Collection[Path],
) -> tuple[tuple[str, ...], tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]]:
    """Which variables are read whole, and of which others only these members."""
    by_root: dict[str, list[tuple[str, ...]]] = {}
    for root, *rest in prefixes:
        by_root.setdefault(str(root), []).append(tuple(str(member) for member in rest))
    whole = tuple(root for root, wanted in by_root.items() if () in wanted)
    # Shortest first: when a member is wanted whole, what is wanted of its members is there already.
    members = {root: sorted(set(wanted), key=len) for root, wanted in by_root.items() if root not in whole}
    return whole, tuple((root, tuple(_outermost(wanted))) for root, wanted in members.items())


def _outermost(paths: Sequence[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    for path in paths:
        if not any(path != other and path[: len(other)] == other for other in paths):
            yield path


def _only(value: Any, wanted: tuple[tuple[str, ...], ...]) -> Any:
    """A copy of `value` that holds no more than the wanted members; missing ones stay missing."""
    if not isinstance(value, dict):
        return _unless_too_deep(value)
    copy: dict[str, Any] = {}
    for path in wanted:
        source, target = value, copy
        for member in path[:-1]:
            inner = source.get(member, source)
            if not isinstance(inner, dict) or inner is source:
                break
            source, target = inner, target.setdefault(member, {})
        else:
            member = path[-1]
        if member in source:
            target[member] = _unless_too_deep(source[member])
    return copy


def _unless_too_deep(value: Any) -> Any:
    if isinstance(value, dict | list | tuple) and _is_too_deep(value):
        raise ValueError(f"a value is nested deeper than {MAX_VALUE_DEPTH} levels")
    return value


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_VALUE_DEPTH):
        inner: list[Any] = []
        for each in level:
            members = each.values() if isinstance(each, dict) else each
            inner += [member for member in members if isinstance(member, dict | list | tuple)]
        if not inner:
            return False
        level = inner
    return True
