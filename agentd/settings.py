"""
The words of the configuration file that every room's own config model is written in:
durations, sizes, rates, percentages, names, and the strict base model.

In: what YAML gave. Out: `timedelta`, bytes, events per second. Raises ValueError with what and how to mend,
which the loader turns into a problem with file, line and key.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

_DURATION_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)", re.ASCII)
_SIZE_UNITS = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|KB|MB|GB|KiB|MiB|GiB|TiB)", re.ASCII)
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
_NAME = re.compile(NAME_PATTERN.strip("^$"))
_RATE = re.compile(r"(\d+(?:\.\d+)?)/(s|m|h|d)", re.ASCII)


class Settings(BaseModel):
    """Base of every config model: an unknown key is an error, and nothing changes after load."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    @field_validator("*", mode="before")
    @classmethod
    def _as_the_schema_says(cls, value: Any, info: ValidationInfo) -> Any:
        # Pydantic would read "no" as false, "80" as 80 and true as 1, which the schema refuses.
        if isinstance(value, str | int) and (types := _plain_types(cls).get(info.field_name or "")):
            if bool in types and not isinstance(value, bool):
                raise ValueError(f"{_written(value)} is neither true nor false; write true or false")
            if bool not in types and isinstance(value, str | bool):
                bare = isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?", value, re.ASCII)
                cure = f"{value}, without quotes" if bare else "e.g. 3"
                raise ValueError(f"{_written(value)} is no number; write {cure}")
        return value


@cache
def _plain_types(model: type[BaseModel]) -> dict[str, frozenset[type]]:
    """Of the fields that are a bool or a number and nothing that a validator of their own reads: which of these."""
    found = {}
    for name, each in model.model_fields.items():
        if not any(isinstance(mark, BeforeValidator) for mark in each.metadata):
            types = frozenset(_alternatives(each.annotation)) - {type(None)}
            if types and types <= {bool, int, float}:
                found[name] = types
    return found


def _alternatives(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) in (Union, UnionType):
        for each in get_args(annotation):
            yield from _alternatives(each)
    elif get_origin(annotation) is Annotated and not any(
        isinstance(mark, BeforeValidator) for mark in annotation.__metadata__
    ):
        yield from _alternatives(get_args(annotation)[0])
    else:
        yield annotation


def _written(value: str | int) -> str:
    return f'"{value[:40]}"' if isinstance(value, str) else str(value).lower()


def parse_duration(value: Any) -> timedelta:
    """Read `250ms`, `30s`, `5m`, `4h`, `14d`, or several in a row (`1h30m`). A bare number is refused, save 0."""
    if isinstance(value, timedelta):
        return value
    if value == 0 and not isinstance(value, bool):
        return timedelta(0)
    if isinstance(value, str):
        text = value.strip()
        parts = _DURATION.findall(text)
        if parts and "".join(number + unit for number, unit in parts) == text:
            seconds = sum(float(number) * _DURATION_UNITS[unit] for number, unit in parts)
            if seconds <= 3_153_600_000:
                return timedelta(seconds=seconds)
            raise ValueError(f"{value!r} is longer than a hundred years")
    raise ValueError(f'cannot read duration {value!r}; write a number and a unit, e.g. "30s", "5m" or "14d"')


def positive_duration(value: Any) -> timedelta:
    duration = parse_duration(value)
    if duration <= timedelta(0):
        raise ValueError(f'{value!r} is not longer than zero; write e.g. "30s"')
    return duration


def show_duration(duration: timedelta) -> str:
    """The shortest spelling that `parse_duration` reads back: `90s`, `5m`, `1h30m`."""
    milliseconds = round(duration / timedelta(milliseconds=1))
    if milliseconds == 0:
        return "0s"
    text = ""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, milliseconds = divmod(milliseconds, size)
        if count:
            text += f"{count}{unit}"
    return text


def parse_size(value: Any) -> int:
    """Read `64KiB`, `512MiB`, `1GiB` (or decimal KB, MB, GB) into bytes."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return value
    if isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        size = float(match[1]) * _SIZE_UNITS[match[2]]
        if size >= 2**63:
            raise ValueError(f"{value[:40]!r} is more than any machine has")
        return int(size)
    raise ValueError(f'cannot read size {value!r}; write a number and a unit, e.g. "64KiB", "512MiB" or "1GiB"')


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`count` events per `per` seconds; a burst of `count` is allowed."""

    count: float
    per: float

    def __str__(self) -> str:
        unit = {1.0: "s", 60.0: "m", 3600.0: "h", 86400.0: "d"}.get(self.per, f"{self.per:g} s")
        return f"{self.count:g}/{unit}"


def parse_rate(value: Any) -> RateLimit:
    """Read `1/s`, `10/m`, `80000/m`."""
    if isinstance(value, RateLimit):
        return value
    if isinstance(value, str) and (match := _RATE.fullmatch(value.replace(" ", ""))) and 0 < float(match[1]) <= 1e9:
        return RateLimit(float(match[1]), float(_DURATION_UNITS[match[2]]))
    raise ValueError(f'cannot read rate {value!r}; write a count and a unit of time, e.g. "1/s" or "10/m"')


_DURATION_SCHEMA = {
    "anyOf": [{"type": "string", "pattern": r"^(\d+(\.\d+)?(ms|s|m|h|d|w))+$"}, {"const": 0}],
    "description": "A duration: 250ms, 30s, 5m, 4h, 14d",
    "examples": ["30s", "5m", "1h"],
}

Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(show_duration, return_type=str),
    WithJsonSchema(_DURATION_SCHEMA),
]
"""Zero or longer."""

PositiveDuration = Annotated[
    timedelta,
    BeforeValidator(positive_duration),
    PlainSerializer(show_duration, return_type=str),
    WithJsonSchema(_DURATION_SCHEMA),
]

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^\d+(\.\d+)?\s*(B|KB|MB|GB|KiB|MiB|GiB|TiB)$"},
                {"type": "integer", "minimum": 0},
            ],
            "description": "A size: 64KiB, 512MiB, 1GiB",
            "examples": ["64KiB", "512MiB", "1GiB"],
        }
    ),
]
"""Bytes."""

Rate = Annotated[
    RateLimit,
    BeforeValidator(parse_rate),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^\d+(\.\d+)?\s*/\s*(s|m|h|d)$",
            "description": "A rate: 1/s, 10/m",
            "examples": ["1/s", "50/m"],
        }
    ),
]


def _name(text: str) -> str:
    if _NAME.fullmatch(text):
        return text
    raise ValueError(
        f"{_shown(text)} cannot be a name; use letters, digits and _ . - (at most 63, the first a letter or digit)"
    )


Name = Annotated[
    str,
    AfterValidator(_name),
    WithJsonSchema({"type": "string", "pattern": NAME_PATTERN, "description": "A name: letters, digits, _ . -"}),
]
"""What a watch, webhook, model or rule is called."""


def parse_percent(value: Any) -> float:
    """Read `30%` or `30` into 30.0."""
    number: Any = value
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?\s*%", value.strip()):
        number = float(value.strip().rstrip("% "))
    if isinstance(number, int | float) and not isinstance(number, bool) and 0 <= number <= 100:
        return float(number)
    raise ValueError(f'cannot read percentage {_shown(value)}; write 0% to 100%, e.g. "30%"')


Percent = Annotated[
    float,
    BeforeValidator(parse_percent),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*%$"},
                {"type": "number", "minimum": 0, "maximum": 100},
            ],
            "examples": ["30%"],
        }
    ),
]


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
