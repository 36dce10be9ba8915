"""
The parent's side of the template child.

In: a template and plain data, on a thread that may block. Out: text, or TemplateError, or RendererLost.
Promise: `render` returns within its deadline (and the half second a process takes to start) whatever the template does.
"""

from __future__ import annotations

from typing import Any

from agentd.deliver.formats.child import IDLE_S, Child, ChildLost
from agentd.errors import AgentdError

DEADLINE_S = 2.0
MAX_OUTPUT_BYTES = 2 * 1024 * 1024


class TemplateError(AgentdError):
    """The template cannot make text of this data, as the child itself reports; the message says where and why."""


class RendererLost(AgentdError):
    """The child gave no answer: killed, or out of time. That may be the template's doing or the machine's."""


class Renderer(Child):
    """A child that renders templates."""

    def __init__(self, *, deadline_s: float = DEADLINE_S, idle_s: float = IDLE_S) -> None:
        super().__init__("template_child.py", {"template": "", "data": {}, "most": 1}, idle_s=idle_s)
        self._deadline_s = deadline_s

    def render(self, template: str, data: dict[str, Any]) -> str:
        """Raises TemplateError, RendererLost, or OSError when no process can be started."""
        try:
            answer = self.ask({"template": template, "data": data, "most": MAX_OUTPUT_BYTES}, self._deadline_s)
        except ChildLost as error:
            # Nobody knows whether the template or a machine short of memory or CPU is to blame.
            raise RendererLost(f"{error}; is there a loop too many, or too little memory on this machine?") from error
        if "error" in answer:
            raise TemplateError(str(answer["error"]))
        return str(answer["text"])
