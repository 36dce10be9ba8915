"""
A run as spans, by the GenAI conventions of OpenTelemetry: `invoke_agent`, `chat`, `execute_tool`.

In: the job, and what begins and ends in it. Out: spans of whatever provider this process has; without one they cost
next to nothing.
Promise: tokens are those of one call, never a sum; prompts and answers are in them only if the job says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agentd.agent.job import AgentPlan, Job, Outcome
from agentd.fleet.messages import Result, Task
from agentd.llm.port import Done, Request
from agentd.telemetry.redact import redact

_PROPAGATOR = TraceContextTextMapPropagator()
_LONGEST = 4096


class Spans:
    """Of one run; parents are handed on by hand, since calls run at once."""

    def __init__(self, job: Job) -> None:
        self._tracer = trace.get_tracer("agentd.agent")
        self._job = job
        carrier = {"traceparent": job.traceparent} if job.traceparent else {}
        self._context = _PROPAGATOR.extract(carrier)
        self._run: Span | None = None
        self.traceparent = job.traceparent

    def begin(self, text: str) -> None:
        """The agent is asked."""
        self._run = self._tracer.start_span(
            f"invoke_agent {self._job.watch}",
            self._context,
            SpanKind.INTERNAL,
            {
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.agent.name": self._job.watch,
                "gen_ai.conversation.id": self._job.run,
                "agentd.watch": self._job.watch,
                **self._content("gen_ai.input.messages", text),
            },
        )
        if self._run.is_recording():
            carrier: dict[str, str] = {}
            _PROPAGATOR.inject(carrier, trace.set_span_in_context(self._run))
            self.traceparent = carrier.get("traceparent", self.traceparent)

    def end(self, outcome: Outcome) -> None:
        if (run := self._run) is None:
            return
        self._run = None
        if run.is_recording():
            run.set_attribute("agentd.state", outcome.state)
            run.set_attribute("agentd.steps", outcome.steps)
            run.set_attributes(self._content("gen_ai.output.messages", outcome.answer))
            if outcome.state == "failed":
                run.set_status(Status(StatusCode.ERROR, outcome.error or "failed"))
        run.end()

    def planned(self, plan: AgentPlan) -> None:
        """What it has understood and means to do; the words of it only where prompts and answers may be shown."""
        if self._run is None or not self._run.is_recording():
            return
        self._run.set_attributes(
            {
                "agentd.plan.complexity": plan.complexity,
                "agentd.plan.estimated_steps": plan.estimated_steps,
                **self._content("agentd.plan.understanding", plan.understanding),
                **self._content("agentd.plan.approach", plan.approach),
                **self._content("agentd.plan.requirements", list(plan.requirements)),
            }
        )

    def chat(self, model: str, request: Request) -> Span:
        """Ended by `answered`, or by `failed`."""
        settings = self._job.models.get(model)
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": settings.provider if settings else "unknown",
            "gen_ai.request.model": settings.model if settings else model,
            "gen_ai.request.max_tokens": request.max_tokens,
            "gen_ai.conversation.id": self._job.run,
        }
        if request.temperature is not None:
            attributes["gen_ai.request.temperature"] = request.temperature
        if self._job.content != "none":
            shown = [{"role": message.role, "content": message.content} for message in request.messages[-2:]]
            attributes.update(self._content("gen_ai.input.messages", shown))
        return self._tracer.start_span(f"chat {model}", self._parent(), SpanKind.CLIENT, attributes)

    def answered(self, span: Span, done: Done) -> None:
        if span.is_recording():
            span.set_attributes(
                {
                    "gen_ai.response.model": done.served_by or done.model,
                    "gen_ai.response.finish_reasons": (done.stop_reason,),
                    "gen_ai.usage.input_tokens": done.usage.input_tokens,
                    "gen_ai.usage.output_tokens": done.usage.output_tokens,
                    "gen_ai.usage.cache_read.input_tokens": done.usage.cached_tokens,
                    **self._content("gen_ai.output.messages", done.message.content),
                }
            )
            if done.usd is not None:
                span.set_attribute("agentd.usd", done.usd)
        span.end()

    def failed(self, span: Span, kind: str, message: str) -> None:
        span.set_attribute("error.type", kind)
        span.set_status(Status(StatusCode.ERROR, message[:_LONGEST]))
        span.end()

    def tool(self, task: Task) -> Span:
        """Ended by `ended`."""
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": task.tool,
            "gen_ai.tool.call.id": task.call_id or task.id,
            "gen_ai.tool.type": "function",
            "agentd.task": task.id,
            **self._content("gen_ai.tool.call.arguments", task.input),
        }
        return self._tracer.start_span(f"execute_tool {task.tool}", self._parent(), SpanKind.INTERNAL, attributes)

    def ended(self, span: Span, result: Result) -> None:
        if span.is_recording():
            span.set_attributes(self._content("gen_ai.tool.call.result", result.output))
            if result.error is not None:
                span.set_attribute("error.type", result.error.value)
                span.set_status(Status(StatusCode.ERROR, result.message[:_LONGEST]))
        span.end()

    def _parent(self) -> Any:
        return self._context if self._run is None else trace.set_span_in_context(self._run)

    def _content(self, name: str, value: Any) -> Mapping[str, str]:
        if self._job.content == "none":
            return {}
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        return {name: (redact(text) if self._job.content == "redacted" else text)[:_LONGEST]}
