"""
Turn what pydantic says into problems that an operator can act on.

In: a ValidationError, the document the values came from, and the model. Out: problems with place, key, words, cure.
Pydantic speaks of types and unions; a person wrote YAML and wants to know what to write instead.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agentd.config.document import KeyPath, Place, dotted
from agentd.errors import Problem

SECRET_KEYS = frozenset({"secret", "api_key", "routing_key", "token", "password", "hash", "headers", "url"})
_MAX_SHOWN = 60
_MAX_KNOWN = 40

Locate = Callable[[KeyPath, bool], Place]
"""Where a path of the merged data stands; True asks for the key, False for the value."""

_KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
    type(None): "nothing",
}


def problems_of(
    error: ValidationError, model: type[BaseModel], data: Any, prefix: KeyPath, locate: Locate
) -> list[Problem]:
    """
    Every mistake that the error names, one problem for each key.

    data: what was validated; prefix: where it stands in the file; locate: gives the place of a path in the file.
    """
    by_path: dict[KeyPath, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        by_path.setdefault(_path_in(data, detail["loc"], detail["type"]), []).append(detail)
    return [_problem(path, details, model, prefix, locate) for path, details in by_path.items()]


def known_keys(model: type[BaseModel]) -> list[str]:
    """The keys that a mapping of this model may have, as they are written."""
    return [field.alias or name for name, field in model.model_fields.items()]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question that names the nearest known word, or what is known when nothing is near."""
    import difflib  # only for what is spelled wrong

    names = list(known)
    if close := difflib.get_close_matches(word, names, n=1, cutoff=0.6):
        return f"did you mean `{close[0]}`?"
    if not names:
        return "there is none"
    shown = ", ".join(names[:_MAX_KNOWN]) + (", …" if len(names) > _MAX_KNOWN else "")
    return f"known here: {shown}"


def show(value: Any) -> str:
    """A value as the file might write it, cut short."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"


def _path_in(data: Any, loc: Sequence[int | str], kind: str) -> KeyPath:
    """The part of pydantic's location that exists in the data: it also names union branches and validators."""
    path: list[int | str] = []
    here = data
    for step in loc:
        if _has(here, step):
            here = here[step]
            path.append(step)
    if kind == "missing" and loc:
        path.append(loc[-1])
    return tuple(path)


def _has(here: Any, step: int | str) -> bool:
    if isinstance(here, dict):
        return step in here
    return isinstance(here, list | tuple) and isinstance(step, int) and step < len(here)


def _problem(
    path: KeyPath, details: list[ErrorDetails], model: type[BaseModel], prefix: KeyPath, locate: Locate
) -> Problem:
    detail = details[0]
    kind = detail["type"]
    if kind == "extra_forbidden":
        return _unknown(path, model, prefix, locate)
    if kind == "missing":
        place = locate(prefix + path[:-1], True)
        owner = model_at(model, path[:-1])
        field = (
            next((each for name, each in owner.model_fields.items() if (each.alias or name) == path[-1]), None)
            if owner
            else None
        )
        about = f" ({_lowered(field.description)})" if field is not None and field.description else ""
        return Problem(*_flat(place), dotted(prefix + path), "is missing", f"add `{path[-1]}:`{about}")
    place = locate(prefix + path, "[key]" in detail["loc"])
    hidden = any(step in SECRET_KEYS for step in path)
    what, cure = _words(detail, hidden)
    others = dict.fromkeys(_words(other, hidden)[1] for other in details[1:])
    cure = "; or ".join([cure, *(other for other in others if other and other != cure)])
    return Problem(*_flat(place), dotted(prefix + path), what, cure)


def _unknown(path: KeyPath, model: type[BaseModel], prefix: KeyPath, locate: Locate) -> Problem:
    place = locate(prefix + path, True)
    word = str(path[-1])
    owner = model_at(model, path[:-1])
    above = model_at(model, path[:-2]) if len(path) > 1 else None
    if above is not None and word in known_keys(above) and isinstance(path[-2], str):
        cure = f"it belongs one level up, beside `{path[-2]}`"
        return Problem(*_flat(place), dotted(prefix + path), "is no key known here", cure)
    cure = did_you_mean(word, known_keys(owner)) if owner else "remove it"
    if owner is not None and not cure.startswith("did you mean"):
        for name, field in owner.model_fields.items():
            below = _model_in(field.annotation)
            if below is not None and word in known_keys(below):
                cure = f"it may belong below `{field.alias or name}:`; {cure}"
                break
    return Problem(*_flat(place), dotted(prefix + path), "is no key known here", cure)


def _words(detail: ErrorDetails, hidden: bool) -> tuple[str, str]:
    kind, value = detail["type"], detail.get("input")
    context = detail.get("ctx", {})
    shown = "this" if hidden else show(value)
    is_a = _KINDS.get(type(value), type(value).__name__)
    if kind in ("value_error", "assertion_error"):
        what, _, cure = str(context.get("error", detail["msg"])).partition("; ")
        return what, cure
    if kind.startswith("string_") and kind.endswith(("type", "unicode")):
        quote = "" if hidden or isinstance(value, dict | list | tuple) else f': "{show(value)}"'
        return f"is {is_a}, not text", "write text" if value is None else f"put it in quotes{quote}"
    if kind.startswith("bool_"):
        return f"{shown} is neither true nor false", "write true or false"
    if kind in ("int_from_float", "int_type", "int_parsing", "int_parsing_size"):
        return f"{shown} is no whole number", "write e.g. 3"
    if kind in ("float_type", "float_parsing", "finite_number"):
        return f"{shown} is no number", "write e.g. 0.5"
    if kind in ("list_type", "tuple_type", "set_type"):
        return f"is {is_a}, not a list", "write [a, b], or one item a line after `- `"
    if kind in ("dict_type", "model_type", "model_attributes_type", "mapping_type"):
        return f"is {is_a}, not a mapping", "write its keys below it, indented"
    if kind in ("literal_error", "enum"):
        names = [each.strip("' ") for each in str(context.get("expected", "")).replace(" or ", ", ").split(", ")]
        return f"cannot be {shown}", did_you_mean(str(value), names).replace("known here: ", "write one of ")
    if kind == "string_pattern_mismatch":
        return f"{shown} is not of the form that is read here", f"it must match {context.get('pattern')}"
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        word = {"greater_than": "more than", "greater_than_equal": "at least", "less_than": "less than"}
        limit = next(iter(context.values()), "")
        return f"{shown} is out of range", f"write {word.get(kind, 'at most')} {limit}"
    if kind in ("too_short", "string_too_short"):
        return (
            "is empty" if not value else f"is shorter than {context.get('min_length')}",
            "fill it in, or remove the key",
        )
    if kind in ("too_long", "string_too_long"):
        return f"is longer than {context.get('max_length')}", "make it shorter"
    return detail["msg"][:1].lower() + detail["msg"][1:], ""


def thinned(warnings: list[Problem], most: int = 3) -> list[Problem]:
    """At most so many warnings of the same words, the last of them counting the rest."""
    by_words: dict[str, list[Problem]] = {}
    for warning in warnings:
        by_words.setdefault(warning.what, []).append(warning)
    kept: list[Problem] = []
    for what, group in by_words.items():
        kept += group[:most]
        if len(group) > most:
            last = kept.pop()
            kept.append(
                Problem(
                    last.file,
                    last.line,
                    last.column,
                    last.key,
                    f"{what} (and {len(group) - most} more)",
                    last.cure,
                    True,
                )
            )
    return kept


def model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """The model of the mapping at `path`, if it has one."""
    here: Any = model
    for step in path:
        here = _below(here, step)
    return _model_in(here)


def _below(annotation: Any, step: int | str) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            if step in (field.alias or name, name):
                return field.annotation
        return None
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _below(args[0], step)
    if origin in (Union, types.UnionType):
        return next((found for each in args if (found := _below(each, step)) is not None), None)
    if origin is dict:
        return args[1]
    if origin in (list, tuple) and isinstance(step, int):
        return args[0]
    return None


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Annotated, Union, types.UnionType):
        return next((found for each in get_args(annotation) if (found := _model_in(each)) is not None), None)
    return None


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _flat(place: Place) -> tuple[str, int, int]:
    return place.file, place.line, place.column
