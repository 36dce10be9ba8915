"""
The configuration as JSON Schema (2020-12): for `agentd schema`, editors and the manual.

In: the models. Out: a plain dict. It describes what people write (durations and sizes as text), accepts what the
loader accepts, and refuses a misspelt key; what only the loader can know (references, conditions) it leaves open.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pydantic import Field, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import core_schema

from agentd.config.models import Config
from agentd.config.values import FailAfter
from agentd.config.watches import OTHER_SOURCES, watch_model
from agentd.deliver.formats import FORMATS
from agentd.settings import show_duration
from agentd.watch import KINDS

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def config_schema() -> dict[str, Any]:
    """The schema of the main file; an included file holds a part of the same."""
    watch = watch_model()
    items: Any = tuple[watch, ...]  # type: ignore[valid-type]  # built from KINDS when the program runs
    field = Config.model_fields["watches"]
    model = create_model("Config", __base__=Config, watches=(items, Field(default=(), description=field.description)))
    made: dict[str, Any] = model.model_json_schema(schema_generator=_Generator)
    schema: dict[str, Any] = {"$schema": DIALECT, **made, "title": "agentd configuration"}
    definitions = schema["$defs"]
    _shape_watch(definitions["Watch"])
    webhook = definitions["WebhookSettings"]["properties"]
    webhook["format"]["enum"] = sorted(FORMATS)
    webhook["format"].pop("examples", None)
    return schema


def _shape_watch(watch: dict[str, Any]) -> None:
    sources = (*KINDS, *OTHER_SOURCES)
    watch["oneOf"] = [{"required": [name]} for name in sources]
    watch["not"] = {"required": ["every", "cron"]}
    asked = watch["properties"]["investigate"]
    asked["anyOf"] = [{"type": "string", "minLength": 1}, *asked["anyOf"]]
    for name in (*KINDS, "log", "journal"):
        watch["properties"][name].pop("default", None)


class _Generator(GenerateJsonSchema):
    """Shows defaults as people write them."""

    def generate(self, schema: core_schema.CoreSchema, mode: JsonSchemaMode = "validation") -> JsonSchemaValue:
        made: JsonSchemaValue = _tidied(super().generate(schema, mode))
        return made

    def encode_default(self, dft: Any) -> Any:
        return _written(dft)


def _written(value: Any) -> Any:
    if isinstance(value, timedelta):
        return show_duration(value)
    if isinstance(value, list | tuple):
        return [_written(each) for each in value]
    if isinstance(value, dict):
        return {key: _written(each) for key, each in value.items()}
    fields: dict[str, FieldInfo] | None = getattr(type(value), "model_fields", None)
    if fields is not None:
        return {
            field.alias or name: _written(getattr(value, name))
            for name, field in fields.items()
            if getattr(value, name) is not None
        }
    if isinstance(value, FailAfter) and value.needed == value.of:
        return value.needed
    return value if value is None or type(value) in (bool, int, float, str) else str(value)


def _tidied(schema: Any) -> Any:
    """Without the titles that pydantic makes from names, and with names that do not match their pattern refused."""
    if isinstance(schema, list):
        return [_tidied(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "patternProperties" in schema:
        schema = {**schema, "additionalProperties": False}
    return {
        key: ({name: _tidied(each) for name, each in value.items()} if key in _MAPS else _tidied(value))
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str))
    }


_MAPS = frozenset({"properties", "$defs", "patternProperties"})
