"""
What people may do with the running daemon: the acting half of the `Service` behind the HTTP routes.

In: requests that were let in. Out: plain JSON values.
Promise: what was done is written to the audit trail, with the change where that is one of the store; what was asked for
and not done is not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import apsw

from agentd.api.beat import same_token
from agentd.api.service import Conflict, Forbidden, Json, NoCredentials, NoSecret, NotFound
from agentd.api.silence import SilenceAsked
from agentd.api.trouble import orphans, read_hindrances
from agentd.api.views import pause_view
from agentd.clock import iso
from agentd.daemon.standing import Standing, check_view
from agentd.errors import ConfigError, StoreError
from agentd.memory import audit, outbox
from agentd.pacing import Bucket
from agentd.pipeline.findings import GoalWatch
from agentd.pipeline.watches import LogWatch
from agentd.secret import Secret, SecretMissing
from agentd.settings import RateLimit
from agentd.watch.heartbeat import HeartbeatSettings

if TYPE_CHECKING:
    from agentd.daemon.app import Daemon

log = logging.getLogger("agentd.daemon")

# Whoever reaches the page may try keys: the trail is to be read, and must not be pushed out of itself by that.
FAILED_LOGINS = RateLimit(20, 3600.0)


# One for all, or who has no token could try which heartbeats there are.
_NO_BEAT = (
    "there is no heartbeat of this name, or the token is not its own; one without a token is reported over the unix "
    "socket alone, by users to whom `api.socket_access` gives the scope operate: give yours that, or the heartbeat a "
    "token"
)


class Acting:
    """The acting half of `Control`."""

    def __init__(self, daemon: Daemon, standing: Standing) -> None:
        self._daemon = daemon
        self._standing = standing
        self._missing: dict[str, str] = {}
        self._failed_logins = Bucket(FAILED_LOGINS)
        self._unwritten = 0

    async def ack(self, alerts: Sequence[str], *, by: str, comment: str, undo: bool) -> Json:
        return await self._daemon.people.ack(alerts, by=by, comment=comment, undo=undo)

    async def silence(self, asked: SilenceAsked, *, by: str) -> Json:
        return await self._daemon.people.silence(asked, by=by)

    async def end_silence(self, identity: str, *, by: str) -> Json:
        return await self._daemon.people.end_silence(identity, by=by)

    async def check_now(self, watch: str, *, by: str) -> Json:
        planned = self._standing.planned(watch)
        if isinstance(planned, LogWatch):
            raise Conflict(f"{watch} follows a log: every line is looked at when it comes")
        if isinstance(planned, GoalWatch):
            run = await self._daemon.agents.start_goal(watch, "manual", self._daemon.clock.now())
            await self._note(by, "check", watch, str(run or ""))
            return {"watch": self._standing.view(planned), "check": None, "run": run}
        await asyncio.wait([self._run_now(watch)])
        last = planned.last
        await self._note(by, "check", watch, last.judgement.verdict.value if last else "")
        return {"watch": self._standing.view(planned), "check": check_view(last) if last else None}

    async def pause(self, watch: str, *, by: str, for_s: float | None, reason: str) -> Json:
        self._standing.planned(watch)
        daemon = self._daemon
        lasting = None if for_s is None else timedelta(seconds=for_s)
        before = await daemon.keeping.pause(watch, by=by, lasting=lasting, reason=reason)
        planned = self._standing.planned(watch)  # unless a reload has taken it away meanwhile
        if isinstance(planned, LogWatch):
            await daemon.following.stop(watch)
        else:
            daemon.scheduler.pause(watch)
        daemon.feeding.paused_or_resumed(watch)
        return self._standing.view(planned) | {"replaced": pause_view(before) if before else None}

    async def resume(self, watch: str, *, by: str) -> Json:
        self._standing.planned(watch)
        if watch not in self._daemon.keeping.paused:
            raise Conflict(f"{watch} is not paused")
        await self._daemon.resume(watch, by=by)
        return self._standing.view(self._standing.planned(watch))

    async def retry(self, identity: str | None, *, webhook: str | None, by: str) -> Json:
        now, state = self._daemon.clock.now(), self._daemon.store.state
        if webhook is not None:
            await self._standing.known_receiver(webhook)
        if identity is None:
            done = await self._retry_dead(webhook, by=by)
        else:

            def change(connection: apsw.Connection) -> str:
                outcome = outbox.retry(connection, identity, now)
                if outcome == "retried":
                    audit.append(connection, by, "retry", identity, "", now)
                return outcome

            outcome = await state.write(change)
            if outcome == "missing":
                raise NotFound(f"no delivery {identity!r} that waits or is dead; `agentd outbox list` shows them")
            if outcome == "superseded":
                raise Conflict(f"{identity} is overtaken: the receiver has had something newer about this alert")
            if outcome == "claimed":
                raise Conflict(f"{identity} is being sent at this moment")
            done = {"retried": 1}
        self._daemon.courier.wake()
        return done

    async def _retry_dead(self, webhook: str | None, *, by: str) -> Json:
        """All of them, some hundred a transaction, so that alerts get their turn between."""
        now, retried = self._daemon.clock.now(), 0

        def change(connection: apsw.Connection) -> outbox.Retried:
            step = outbox.retry_dead(connection, now, webhook)
            if step.retried:
                audit.append(connection, by, "retry", webhook or "*", f"{step.retried} dead", now)
            return step

        while True:
            step = await self._daemon.store.state.write(change)
            retried += step.retried
            if not step.left or not step.retried:
                return {"retried": retried, "superseded": step.superseded}

    async def drop(self, identity: str, *, by: str) -> Json:
        now = self._daemon.clock.now()

        def change(connection: apsw.Connection) -> str:
            outcome = outbox.drop(connection, identity)
            if outcome == "dropped":
                audit.append(connection, by, "drop", identity, "", now)
            return outcome

        outcome = await self._daemon.store.state.write(change)
        if outcome == "claimed":
            raise Conflict(f"{identity} is being sent at this moment")
        if outcome == "missing":
            raise NotFound(f"no delivery {identity!r} that could be dropped; `agentd outbox list` shows them")
        self._daemon.courier.wake()
        return {"dropped": 1}

    async def test_webhook(self, webhook: str, *, by: str) -> Json:
        self._standing.known_webhook(webhook)
        outcome = await self._daemon.courier.send_test(webhook)
        await self._note(by, "test", webhook, "taken" if outcome.ok else f"status {outcome.status or 'none'}")
        return {
            "webhook": webhook,
            "ok": outcome.ok,
            "status": outcome.status,
            "error": outcome.error,
            "latency_ms": round(outcome.latency_s * 1000, 1),
            "answer": outcome.answer,
        }

    async def enable_webhook(self, webhook: str, *, by: str) -> Json:
        self._standing.known_webhook(webhook)
        now = self._daemon.clock.now()
        was_disabled = await self._daemon.courier.enable(webhook)
        await self._daemon.store.state.write(
            lambda connection: audit.append(connection, by, "enable", webhook, "", now)
        )
        return {"webhook": webhook, "enabled": True, "was_disabled": was_disabled}

    async def beat(self, watch: str, *, token: str | None, ok: bool, message: str, trusted: bool) -> Json:
        daemon = self._daemon
        planned = daemon.plan.watches.get(watch)
        settings = planned.source if planned else None
        found = settings if isinstance(settings, HeartbeatSettings) else None
        if not trusted:
            self._check_token(watch, found.token if found else None, token)
        if found is None:
            raise NotFound(f"no heartbeat watch {watch!r}")
        await daemon.events.admit_beat(watch, found.rate)
        now = daemon.clock.now()
        daemon.keeping.beats.beat(watch, now, ok, message)
        await daemon.keeping.save_beats()
        if watch in daemon.plan.watches and watch not in daemon.keeping.paused:
            self._run_now(watch)
        return {"watch": watch, "received_at": iso(now)}

    def _check_token(self, watch: str, token: Secret | None, given: str | None) -> None:
        """Raises NoCredentials, Forbidden, the same whether there is such a heartbeat or not; NoSecret."""
        if given is None:
            raise NoCredentials(_NO_BEAT)
        if token is None:
            raise Forbidden(_NO_BEAT)
        try:
            expected = token.expand()
        except SecretMissing as error:
            # Once, not per call: anybody may call.
            if self._missing.get(watch) != str(error):
                self._missing[watch] = str(error)
                log.warning("heartbeat_token_missing", extra={"watch": watch, "error": str(error)})
            raise NoSecret(f"the token of {watch} cannot be read now; the daemon's log says why") from error
        self._missing.pop(watch, None)
        if not same_token(given, expected):
            raise Forbidden(_NO_BEAT)

    async def hook(
        self, name: str, *, headers: Mapping[str, str], body: Callable[[], Awaitable[bytes]], trusted: bool
    ) -> Json:
        return await self._daemon.events.hook(name, headers=headers, body=body, trusted=trusted)

    async def reload(self, *, by: str, why: str = "") -> Json:
        why_not = await self._daemon.reload()
        await self._note(by, "reload" if why_not is None else "reload refused", "", why)
        if why_not is not None:
            raise ConfigError(f"the new configuration is refused, the old one runs on: {why_not}")
        found = await self._daemon.store.state.read(read_hindrances)
        lost = orphans(found.waiting, self._daemon.plan.webhooks)
        return {"reloaded": True, "note": "; ".join([*filter(None, [self._daemon.note]), *lost])}

    async def release(self, *, by: str) -> Json:
        if not self._daemon.ready.is_set():
            raise Conflict("the daemon is starting; try again when it runs")
        return {"was_held": await self._daemon.release(by=by)}

    async def signed_in(self, name: str, *, good: bool, source: str) -> None:
        if good:
            await self._note(f"key {name}", "login", "page", f"from {source}")
            return
        if not self._failed_logins.ready():
            self._unwritten += 1
            return
        await self._failed_logins.take()
        more = f"; {self._unwritten} more since the last of these" if self._unwritten else ""
        self._unwritten = 0
        await self._note("nobody", "login failed", "page", f"from {source}" + (f" as {name}" if name else "") + more)

    async def _note(self, by: str, action: str, target: str, detail: str) -> None:
        """Of what is done already, and is no change of the store: that it is not written down does not undo it."""
        now = self._daemon.clock.now()
        try:
            await self._daemon.store.state.write(lambda c: audit.append(c, by, action, target, detail, now))
        except StoreError as error:
            log.error("deed_not_written", extra={"who": by, "action": action, "target": target, "error": str(error)})

    def _run_now(self, watch: str) -> asyncio.Task[None]:
        try:
            return self._daemon.scheduler.run_now(watch)
        except RuntimeError as error:
            raise Conflict("the daemon is starting or stopping; try again when it runs") from error
