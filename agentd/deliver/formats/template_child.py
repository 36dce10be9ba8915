"""
The child's side: render templates, one JSON line in, one JSON line out, until the input ends.

Runs as a script and imports nothing of agentd. Jinja's sandbox keeps a template from reaching Python; the process's
own limits and the parent's alarm keep it from taking too much. The parent checks templates with the same environment.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY_BYTES = 512 * 1024 * 1024


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    environment = make_environment()
    compiled: dict[str, Any] = {}
    for line in sys.stdin.buffer:
        request = json.loads(line)
        source = request["template"]
        try:
            if source not in compiled:
                if len(compiled) >= 64:
                    compiled.clear()
                compiled[source] = environment.from_string(source)
            answer = {"text": write(compiled[source], request["data"], request["most"])}
        except MemoryError:
            answer = {"error": "it needs too much memory"}
        except Exception as error:
            answer = {"error": f"{where(error)}{str(error) or type(error).__name__}"[:500]}
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


def make_environment() -> ImmutableSandboxedEnvironment:
    """What templates are written in. Nothing of one is worked out before it is rendered."""
    from jinja2 import StrictUndefined, pass_context
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Environment(ImmutableSandboxedEnvironment):
        def getattr(self, obj: Any, attribute: str) -> Any:
            # Jinja looks for methods first: `alert.values` would be `dict.values`.
            if isinstance(obj, dict) and attribute in obj:
                return obj[attribute]
            return super().getattr(obj, attribute)

    @pass_context
    def as_it_is(context: Any, value: Any) -> Any:
        """Jinja writes down what `{{ 'a' * 10 ** 9 }}` is when it compiles, unless what shows it needs a context."""
        return value

    environment = Environment(
        undefined=StrictUndefined, autoescape=False, cache_size=0, optimized=False, finalize=as_it_is
    )
    environment.globals.pop("lipsum", None)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "default": name_what_is_missing}
    return environment


def write(template: Any, data: dict[str, Any], most: int) -> str:
    parts: list[str] = []
    size = 0
    for part in template.generate(data):
        size += len(part)
        if size > most:
            raise ValueError(f"it writes more than {most} characters")
        parts.append(part)
    return "".join(parts)


def name_what_is_missing(value: Any) -> Any:
    """What `tojson` cannot write is mostly something undefined, which says its name when it is read as text."""
    str(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def where(error: BaseException) -> str:
    """`line 3: `, when the error shows where in the template it arose."""
    number = getattr(error, "lineno", None)
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            number = trace.tb_lineno
        trace = trace.tb_next
    return f"line {number}: " if number else ""


if __name__ == "__main__":
    main()
