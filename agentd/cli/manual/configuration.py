"""
agentd.yaml(5): every key of the configuration with its type, its default and what it is for, from the schema.

In: the schema that editors complete from, the example. Out: the page.
Promise: each model is described where it is met first; where it comes again, that place is named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from agentd import __version__
from agentd.cli.manual import roff
from agentd.config.schema import config_schema

Json = dict[str, Any]

_UNITS = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
_FORMS = {
    "(ms|s|m|h|d|w)": "duration",
    "(B|KB|MB|GB|KiB|MiB|GiB|TiB)": "size",
    "(s|m|h|d)$": "rate",
    "^[0-9]+ of [0-9]+$": "N of M",
    "^https?://": "address",
    "\\s*%$": "percentage",
}


def configuration_page(example: str) -> str:
    """example: text of a whole configuration, of which each section is shown beside its keys."""
    parts = _Parts(config_schema(), _sections(example))
    return roff.page("AGENTD.YAML", 5, __version__, "File formats", parts.all())


def _sections(example: str) -> dict[str, str]:
    """The text below each key at the top of the file, by that key."""
    found: dict[str, list[str]] = {}
    here: list[str] = []
    for line in example.split("\n"):
        if match := re.match(r"([a-z]+):", line):
            here = found.setdefault(match[1], [])
        here.append(line)
    return {key: "\n".join(lines).strip("\n") for key, lines in found.items()}


@dataclass
class _Parts:
    schema: Json
    examples: dict[str, str]
    met: dict[str, str] = field(default_factory=dict)

    def all(self) -> Iterator[str]:
        yield roff.section("NAME")
        yield "agentd.yaml \\- configuration of the monitoring daemon agentd"
        yield roff.section("DESCRIPTION")
        for text in _ABOUT:
            yield roff.paragraph(text)
        for name, form in _WRITTEN.items():
            yield roff.term(name, form)
        yield roff.section("KEYS")
        yield roff.paragraph(
            "`NAME` stands for a name of yours, `[]` for each item of a list. What is not required has a default, or "
            "may be left out."
        )
        for name, schema in self.schema["properties"].items():
            yield roff.subsection(name)
            yield roff.paragraph(f"{self._type(schema)}. {schema.get('description', '')}.")
            yield from self._below(name, schema)
            if name in self.examples:
                yield roff.paragraph("Example:")
                yield roff.verbatim(self.examples[name])
        yield roff.section("SEE ALSO")
        yield ".BR agentd (8)"

    def _below(self, path: str, schema: Json) -> Iterator[str]:
        """The keys of every mapping that may stand at the path."""
        for alternative in _alternatives(schema):
            if (reference := alternative.get("$ref")) is not None:
                yield from self._model(path, reference)
            elif "items" in alternative:
                yield from self._below(f"{path}[]", alternative["items"])
            elif (inner := _values(alternative)) is not None:
                yield from self._below(f"{path}.NAME", inner)

    def _model(self, path: str, reference: str) -> Iterator[str]:
        name = reference.rpartition("/")[2]
        model = self.schema["$defs"][name]
        if "properties" not in model:
            return
        if name in self.met:
            yield roff.term(f"{path}.*", f"The same keys as below `{self.met[name]}`.")
            return
        self.met[name] = path
        for key, schema in model["properties"].items():
            inner = f"{path}.{key}"
            yield roff.term(inner, self._line(schema, required=key in model.get("required", ())), _said(schema))
            yield from self._below(inner, schema)

    def _line(self, schema: Json, *, required: bool) -> str:
        parts = [self._type(schema)]
        default = schema.get("default")
        if required:
            parts.append("required")
        elif default not in (None, {}, [], "") and not isinstance(default, dict):
            parts.append(f"default: `{_shown(default, schema)}`")
        return "; ".join(parts)

    def _type(self, schema: Json) -> str:
        names = dict.fromkeys(self._type_of(each) for each in _alternatives(schema))
        if "duration" in names or "size" in names:  # bare numbers are told of where these are explained
            names = {name: None for name in names if name != "`0`" and not name.startswith("whole number")}
        return " or ".join(name for name in names if name)

    def _type_of(self, schema: Json) -> str:
        if (reference := schema.get("$ref")) is not None:
            inner = self.schema["$defs"][reference.rpartition("/")[2]]
            return "mapping" if "properties" in inner else self._type(inner)
        if "enum" in schema:
            return "one of " + ", ".join(f"`{each}`" for each in schema["enum"])
        if "const" in schema:
            return f"`{schema['const']}`"
        if "items" in schema:
            return f"list of {_plural(self._type(schema['items']))}"
        if schema.get("type") == "array":
            return "list"
        if (inner_value := _values(schema)) is not None:
            return f"mapping of names to {_plural(self._type(inner_value) or 'anything')}"
        if schema.get("type") == "object":
            return "mapping"
        return _plain(schema)


def _alternatives(schema: Json) -> Iterator[Json]:
    for key in ("anyOf", "oneOf"):
        if key in schema and "properties" not in schema:
            for each in schema[key]:
                yield from _alternatives(each)
            return
    if schema.get("type") != "null":
        yield schema


def _values(schema: Json) -> Json | None:
    """Of what the values of a mapping with free names are."""
    named = schema.get("patternProperties")
    if isinstance(named, dict) and named:
        return dict(next(iter(named.values())))
    free = schema.get("additionalProperties")
    return free if isinstance(free, dict) else None


def _plain(schema: Json) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        return " or ".join(_plain({"type": each}) for each in kind)
    if kind == "boolean":
        return "`true` or `false`"
    if kind in ("integer", "number"):
        return ("whole number" if kind == "integer" else "number") + _range(schema)
    if kind == "string":
        if schema.get("format") == "path":
            return "path"
        if any("${env:" in each for each in schema.get("examples", ())):
            return "secret"
        pattern = schema.get("pattern", "")
        return next((name for part, name in _FORMS.items() if part in pattern), "text")
    return ""


def _range(schema: Json) -> str:
    low, above, high = (schema.get(key) for key in ("minimum", "exclusiveMinimum", "maximum"))
    if low is not None and high is not None:
        return f", {low} to {high}"
    if low not in (None, 0):
        return f", at least {low}"
    if above is not None:
        return f", more than {above}" + ("" if high is None else f", at most {high}")
    return "" if high is None else f", at most {high}"


def _plural(name: str) -> str:
    return {"text": "texts", "mapping": "mappings", "secret": "secrets", "address": "addresses"}.get(name, name)


def _shown(default: Any, schema: Json) -> str:
    if isinstance(default, int) and not isinstance(default, bool) and "KiB" in json.dumps(schema):
        for unit, size in _UNITS:
            if default and default % size == 0:
                return f"{default // size}{unit}"
    if isinstance(default, list):
        return ", ".join(str(each) for each in default)
    return default if isinstance(default, str) else json.dumps(default)


def _said(schema: Json) -> str:
    text = str(schema.get("description", ""))
    return f"{text}." if text and text[-1] not in ".:?" else text


_ABOUT = (
    "YAML 1.2: `on`, `off`, `yes` and `no` are text, `0o17` is octal, and a key may stand once only. A key that is not "
    "known is an error. `agentd check` says what is wrong with the file and where; `agentd init` writes a first one; "
    "`agentd schema` prints a JSON Schema for editors.",
    "The main file is the one that `--config` or `$AGENTD_CONFIG` names, else `./agentd.yaml`, else "
    "`/etc/agentd/agentd.yaml`. Files that `include` names hold more `watches` and `webhooks`; files in `keys.d` "
    "beside the main file hold more `api.keys`, and nothing else.",
    "Every key outside of `watches` can be overridden by a variable of the environment, or of a file `.env` beside the "
    "main file: `AGENTD_DAEMON__LOG_LEVEL=debug` sets `daemon.log_level`. A running daemon reads all of it again on "
    "SIGHUP or `agentd reload`; a file with an error leaves it as it is.",
)

_WRITTEN = {
    "duration": "`250ms`, `30s`, `5m`, `4h`, `14d`, `2w`, several in a row: `1h30m`, or `0`.",
    "size": "`64KiB`, `512MiB`, `1GiB`, or a number of bytes.",
    "rate": "A number and a time: `1/s`, `10/m`, `100/h`.",
    "secret": "Is named, and read when it is used: `${env:NAME}` from the environment, `${file:/path}` from a file "
    "that may change at any time, `${credential:name}` from systemd's LoadCredential=.",
    "condition": "CEL (cel.dev); `agentd schema --variables` lists what each kind of watch may read.",
}
