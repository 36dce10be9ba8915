"""
What can be done from the page: each by a plain form that works without scripts, and back to the page with a notice.

In: forms that were checked, from callers who may. Out: calls of the ports in the caller's name, then a redirect (303).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from agentd.api.endpoint import Call, Endpoint, Handler
from agentd.api.service import Service, TooMany
from agentd.api.sessions import cookies_in
from agentd.api.silence import SilenceAsked
from agentd.api.tasks import TaskService
from agentd.api.web import text
from agentd.api.web.forms import (
    COOKIE,
    AckForm,
    Form,
    LoginForm,
    PauseForm,
    RetryAllForm,
    Sessions,
    SilenceForm,
    own_path,
    read_lasting,
    reason_of,
    split_matchers,
)
from agentd.api.web.frame import Frame
from agentd.config.key_hash import name_of
from agentd.errors import AgentdError, ConfigError

Done = tuple[str, str] | tuple[str, str, int]
"""Where to go on when the form does not say so, the notice's code, and a number for it."""
Act = Callable[[Call], Awaitable[Done]]


class Actions:
    def __init__(self, service: Service, tasks: TaskService | None, frame: Frame, sessions: Sessions | None) -> None:
        self._service = service
        self._tasks = tasks
        self._frame = frame
        self._sessions = sessions

    def endpoints(self) -> list[Endpoint]:
        def form(path: str, act: Act, model: type[BaseModel] = Form) -> Endpoint:
            handle, media = self._form(act), "text/html"
            return Endpoint("POST", path, handle, "operate", form=model, documented=False, any_query=True, media=media)

        found = [
            form("/watches/{name}/check", self._check),
            form("/watches/{name}/pause", self._pause, PauseForm),
            form("/watches/{name}/resume", self._resume),
            form("/alerts/{fingerprint}/ack", self._ack, AckForm),
            form("/silences", self._silence, SilenceForm),
            form("/silences/{id}/end", self._end_silence),
            form("/outbox/retry", self._retry_all, RetryAllForm),
            form("/outbox/{id}/retry", self._retry),
            form("/outbox/{id}/drop", self._drop),
            form("/webhooks/{name}/enable", self._enable),
            form("/webhooks/{name}/test", self._test),
        ]
        if self._tasks is not None:
            found.append(form("/runs/{id}/cancel", self._cancel))
        if self._sessions is not None:
            found += [
                _open("GET", "/login", self._login_page),
                _open("POST", "/login", self._login, LoginForm),
                _open("POST", "/logout", self._logout, Form),
            ]
        return found

    def _form(self, act: Act) -> Callable[[Call], Awaitable[Response]]:
        async def handle(call: Call) -> Response:
            try:
                otherwise, code, *count = await act(call)
            except (AgentdError, HTTPException) as error:
                self._frame.changed()
                return await self._frame.problem(call.request, error)
            return self._frame.go_on(call.asked.back, code, *count, otherwise=otherwise)

        return handle

    # Watches.

    async def _check(self, call: Call) -> Done:
        name = call.path["name"]
        done = await self._service.check_now(name, by=call.by)
        return text.to("watches", name), "started" if done.get("run") else "checked"

    async def _pause(self, call: Call) -> Done:
        name, form = call.path["name"], call.asked
        lasting = _lasting(form.lasting)
        for_s = None if lasting is None else lasting.total_seconds()
        await self._service.pause(name, by=call.by, for_s=for_s, reason=reason_of(form.reason))
        return text.to("watches", name), "paused"

    async def _resume(self, call: Call) -> Done:
        name = call.path["name"]
        await self._service.resume(name, by=call.by)
        return text.to("watches", name), "resumed"

    # Alerts.

    async def _ack(self, call: Call) -> Done:
        fingerprint, form = call.path["fingerprint"], call.asked
        undo = bool(form.undo)
        await self._service.ack([fingerprint], by=call.by, comment=reason_of(form.comment), undo=undo)
        return text.to("alerts", fingerprint), "unacked" if undo else "acked"

    async def _silence(self, call: Call) -> Done:
        form = call.asked
        lasting = _lasting(form.lasting)
        if lasting is None:
            raise ConfigError("for: say for how long, such as 4h")
        asked = SilenceAsked(split_matchers(form.matchers), lasting, reason_of(form.reason))
        await self._service.silence(asked, by=call.by)
        return "/alerts", "silenced"

    async def _end_silence(self, call: Call) -> Done:
        await self._service.end_silence(call.path["id"], by=call.by)
        return "/alerts", "unsilenced"

    # Messages.

    async def _retry(self, call: Call) -> Done:
        await self._service.retry(call.path["id"], webhook=None, by=call.by)
        return "/outbox", "retried"

    async def _retry_all(self, call: Call) -> Done:
        done = await self._service.retry(None, webhook=call.asked.webhook.strip() or None, by=call.by)
        return "/outbox", "retried_all", int(done.get("retried") or 0)

    async def _drop(self, call: Call) -> Done:
        await self._service.drop(call.path["id"], by=call.by)
        return "/outbox", "dropped"

    async def _enable(self, call: Call) -> Done:
        await self._service.enable_webhook(call.path["name"], by=call.by)
        return "/outbox", "enabled"

    async def _test(self, call: Call) -> Done:
        done = await self._service.test_webhook(call.path["name"], by=call.by)
        return "/outbox", "tested" if done.get("ok") else "test_failed"

    # Runs.

    async def _cancel(self, call: Call) -> Done:
        assert self._tasks is not None
        await self._tasks.cancel(call.path["id"], by=call.by)
        return text.to("runs", call.path["id"]), "cancelled"

    # Sessions.

    async def _login_page(self, call: Call) -> Response:
        return await self._ask_for_key(call, call.request.query_params.get("next", "/"))

    async def _login(self, call: Call) -> Response:
        assert self._sessions is not None
        form = call.asked
        try:
            opened = await self._sessions.open(form.key)
        except TooMany as error:
            answer = await self._ask_for_key(call, form.next, f"Too many tries; wait {error.retry_after_s} s.", 429)
            answer.headers["Retry-After"] = str(error.retry_after_s)
            return answer
        client = call.request.client
        name = name_of(form.key) if opened is None else opened[1].name
        source = client.host if client is not None else "the unix socket"
        await self._service.signed_in(name or "", good=opened is not None, source=source)
        if opened is None:
            return await self._ask_for_key(call, form.next, "That key is not one of this daemon's.", 403)
        answer = self._frame.go_on(form.next, "welcome")
        answer.set_cookie(COOKIE, opened[0], path="/", httponly=True, samesite="strict", secure=self._sessions.secure)
        return answer

    async def _ask_for_key(self, call: Call, next: str, error: str = "", status: int = 200) -> Response:
        values: dict[str, Any] = {"next": own_path(next), "error": error}
        return await self._frame.own(call, "login.html", "Sign in", values, status=status)

    async def _logout(self, call: Call) -> Response:
        assert self._sessions is not None
        for cookie in cookies_in(call.request.headers.raw):
            self._sessions.close(cookie)
        answer = self._frame.go_on("/", "bye")
        answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict", secure=self._sessions.secure)
        return answer


def _open(method: str, path: str, handle: Handler, form: type[BaseModel] | None = None) -> Endpoint:
    return Endpoint(method, path, handle, "open", form=form, documented=False, any_query=True, media="text/html")


def _lasting(typed: str) -> timedelta | None:
    try:
        return read_lasting(typed)
    except ValueError as error:
        raise ConfigError(f"for: {error}") from None
