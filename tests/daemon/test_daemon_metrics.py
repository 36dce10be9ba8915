"""The numbers of a whole daemon: what it did is what they say, and the tools that read them find no fault."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from house import BEAT, HOUR, House, Shop, Tell, http, tell
from loopback import Served, serving
from prometheus_client.parser import text_string_to_metric_families
from receiver import Receiver

from agentd.api.metering_port import Metering as Port
from agentd.daemon import metering
from agentd.daemon.app import Daemon
from agentd.errors import StoreError
from agentd.pipeline.watches import LogWatch
from agentd.telemetry.catalogue import CATALOGUE, METRICS
from agentd.telemetry.tally import OTHER, Admitted

__all__ = ["tell"]  # the fixture, by its name

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not there; `make test` installs it")

DISLIKED = ["ai_agent_memory_usage_mb metric names should not contain abbreviated units"]
"""A name that others have fixed long ago. Of `ai_agent_cpu_usage_percent`, no ratio, promtool 2.42 says nothing."""


class Text:
    """What `GET /metrics` gave, by name and labels."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }

    def of(self, name: str, **labels: str) -> float:
        return self.samples[name, frozenset(labels.items())]

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.samples}


async def scrape(daemon: Daemon) -> Text:
    port: Port = daemon.metering
    body, content_type = await port.prometheus()
    assert content_type.startswith("text/plain; version=0.0.4")
    return Text(body)


def lines(path: Path, count: int) -> None:
    with path.open("a") as file:
        file.writelines(f"line {number} of the day\n" for number in range(count))


async def a_while(house: House, receiver: Receiver, shop: Shop, log: Path) -> None:
    """In which something of everything happens: checks, alerts, deliveries, a retry, a dead letter, lines."""
    receiver.answers(503)
    await house.clock.advance(90)
    shop.up = False
    lines(log, 10)
    await house.clock.advance(240)
    receiver.answers(400)
    shop.up = True
    await house.clock.advance(120)
    shop.up = False
    await house.clock.advance(240)


def wants_all(house: House, log: Path, served: Served, hook: str) -> None:
    log.write_text("the first line\n")
    house.write(
        http(served),
        http(served, "till"),
        {
            "name": "app",
            "log": {"files": [str(log)], "start_at": "start"},
            "rules": [{"name": "bad", "type": "any", "match": "BAD"}],
        },
        hook=hook,
        budgets={"daemon_per_day": {"usd": 2.5, "tokens": 1000}},
    )


def test_what_a_daemon_did_is_what_its_numbers_say(tell: Tell) -> None:
    """Somebody decides by them whether to get up at night."""

    async def story(house: House) -> None:
        shop, log = Shop(), house.folder / "app.log"
        async with Receiver() as receiver, serving(shop.answer) as served:
            wants_all(house, log, served, receiver.url)
            async with house.living() as daemon:
                await a_while(house, receiver, shop, log)
                found = await scrape(daemon)

                done = found.of("agentd_checks_total", kind="http", verdict="ok")
                failed = found.of("agentd_checks_total", kind="http", verdict="failing")
                assert (done + failed, shop.looks) == (daemon.pipeline.checks, daemon.pipeline.checks)
                assert min(done, failed) >= 6
                assert found.of("agentd_check_duration_seconds_count", kind="http") == done + failed
                assert found.of("agentd_scheduler_lag_seconds_bucket", le="+Inf") == done + failed
                assert found.of("agentd_watches", verdict="failing") == 2
                assert found.of("agentd_watches", verdict="ok") == 1
                assert found.of("agentd_watch_up", watch="till", kind="http") == 0
                assert found.of("agentd_watch_up", watch="app", kind="log") == 1
                assert found.of("agentd_watch_blind", watch="till", kind="http") == 0
                assert found.of("agentd_alerts", state="firing", severity="warning") == 2
                assert found.of("agentd_alerts", state="firing", severity="info") == 0
                firings = found.of("agentd_alert_transitions_total", state="firing", severity="warning")
                assert firings == 4
                taken = found.of("agentd_delivery_attempts_total", webhook="ops", outcome="delivered")
                assert taken == len(receiver.taken)
                assert found.of("agentd_delivery_attempts_total", webhook="ops", outcome="delayed") == 1
                assert found.of("agentd_delivery_attempts_total", webhook="ops", outcome="refused") == 1
                assert found.of("agentd_delivery_retries_total", webhook="ops") == 1
                assert found.of("agentd_delivery_duration_seconds_count", webhook="ops") == taken
                assert found.of("agentd_dead_letters_total", webhook="ops") == 1
                assert found.of("agentd_outbox_messages", webhook="ops", state="dead") == 1
                assert found.of("agentd_outbox_messages", webhook="ops", state="waiting") == 0
                assert found.of("agentd_outbox_oldest_seconds", webhook="ops") == 0
                assert found.of("agentd_webhook_up", webhook="ops") == 1
                assert found.of("agentd_log_lines_total", watch="app") == 11
                assert found.of("agentd_log_bytes_total", watch="app") == log.stat().st_size
                assert found.of("agentd_log_behind_bytes", watch="app") == 0
                assert found.of("agentd_log_lag_seconds", watch="app") == 0
                assert found.of("agentd_log_templates", watch="app") == 2
                followed = daemon.pipeline.watches["app"]
                assert isinstance(followed, LogWatch)
                assert followed.work is not None
                followed.work.unread_since = house.clock.now() - timedelta(seconds=42)
                assert (await scrape(daemon)).of("agentd_log_lag_seconds", watch="app") == 42
                assert found.of("agentd_budget_limit_usd") == 2.5
                assert found.of("agentd_ready") == found.of("agentd_store_readable") == 1
                assert found.of("agentd_store_bytes", file="state", part="main") > 0
                assert found.of("agentd_store_write_duration_seconds_count", file="state") > 0
                assert found.of("agentd_loop_lag_seconds_count") > 0
                assert found.of("process_resident_memory_bytes") > 2**20
                assert found.of("process_open_fds") > 3

    tell(story)


def test_messages_that_wait_have_an_age(tell: Tell) -> None:
    """A receiver that is down for an hour is what one wants to be woken for by somebody else."""

    async def story(house: House) -> None:
        shop = Shop()
        shop.up = False
        async with Receiver() as receiver, serving(shop.answer) as served:
            house.write(http(served), hook=receiver.url)
            receiver.otherwise = 503
            async with house.living() as daemon:
                await house.clock.advance(HOUR)
                found = await scrape(daemon)

                assert found.of("agentd_outbox_messages", webhook="ops", state="waiting") >= 1
                assert 3000 < found.of("agentd_outbox_oldest_seconds", webhook="ops") < 3600
                assert found.of("agentd_webhook_up", webhook="ops") == 0
                receiver.otherwise = 200
                await house.clock.advance(HOUR)
                assert (await scrape(daemon)).of("agentd_delivery_delay_seconds_bucket", webhook="ops", le="900.0") == 0

    tell(story)


def test_watches_beyond_the_bound_are_one_series(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many series as there are watches would be what brings the reader down; a failure among the rest is seen."""

    async def story(house: House) -> None:
        shop, down = Shop(), Shop()
        down.up = False
        async with serving(shop.answer) as served, serving(down.answer) as failing:
            house.write(http(served, "first"), http(served, "second"), http(failing, "third"))
            async with house.living() as daemon:
                monkeypatch.setattr(daemon.metering, "_watches", Admitted(most=1))
                await house.clock.advance(200)
                found = await scrape(daemon)

                assert found.of("agentd_watch_up", watch="first", kind="http") == 1
                assert found.of("agentd_watch_up", watch=OTHER, kind="http") == 0
                assert sum(name == "agentd_watch_up" for name, _ in found.samples) == 2
                assert found.of("agentd_watches", verdict="ok") == 2

    tell(story)


def test_a_reload_is_told_of_with_its_time(tell: Tell) -> None:
    """A configuration that was refused at night is in use with the next restart, and then it is none."""

    async def story(house: House) -> None:
        house.write(BEAT)
        async with house.living() as daemon:
            began = (await scrape(daemon)).of("agentd_config_last_reload_success_timestamp_seconds")
            assert began == daemon.started_at.timestamp()
            good = house.config.read_text()
            await house.clock.advance(60)
            house.config.write_text("watches: 7")
            await daemon.reload()
            refused = await scrape(daemon)
            house.config.write_text(good)
            await daemon.reload()
            again = await scrape(daemon)

            assert refused.of("agentd_config_last_reload_successful") == 0
            assert refused.of("agentd_config_last_reload_success_timestamp_seconds") == began
            assert again.of("agentd_config_last_reload_successful") == 1
            assert again.of("agentd_config_last_reload_success_timestamp_seconds") == began + 60

    tell(story)


def test_requests_are_counted_by_route_and_their_labels_are_bounded(tell: Tell) -> None:
    """A scanner tries ten thousand methods and paths; its numbers must not outlive it."""

    async def story(house: House) -> None:
        house.write()
        async with house.living() as daemon:
            asked: Port = daemon.metering
            before = await scrape(daemon)
            assert before.of("ai_agent_requests_total", method="GET", route="/metrics", status="200") == 0
            asked.request_begun()
            asked.request_begun()
            asked.request_done("/api/v1/tasks", "POST", 202, 0.02)
            asked.request_begun()
            asked.request_done("/metrics", "GET", 200, 0.01)
            for number in range(3000):
                asked.request_begun()
                asked.request_done(f"/made/up/{number}", f"X{number}", 99, 0.5)
            found = await scrape(daemon)

            assert found.of("ai_agent_requests_total", method="POST", route="/api/v1/tasks", status="202") == 1
            assert found.of("ai_agent_request_duration_seconds_sum", method="POST", route="/api/v1/tasks") == 0.02
            assert found.of("ai_agent_requests_total", method="GET", route="/metrics", status="200") == 1
            assert found.of("agentd_api_requests_in_flight") == 1
            series = [labels for name, labels in found.samples if name == "ai_agent_requests_total"]
            assert len(series) <= 1002
            assert sum(name == "ai_agent_request_duration_seconds_sum" for name, _ in found.samples) <= 201

    tell(story)


def test_a_store_that_does_not_answer_costs_only_its_own_numbers(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk dies, numbers are what one looks at; and zero messages would be a lie."""

    async def story(house: House) -> None:
        house.write()
        async with house.living() as daemon:

            async def broken(query: Any) -> None:
                raise StoreError("the disk is gone")

            with monkeypatch.context() as patched:
                patched.setattr(daemon.store.state, "read", broken)
                found = await scrape(daemon)

            assert found.of("agentd_store_readable") == 0
            assert found.of("agentd_ready") == 1
            assert "agentd_outbox_messages" not in found.names
            assert "agentd_budget_spent_usd" not in found.names

    tell(story)


def test_who_asks_together_is_told_of_one_taking(tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred readers of a daemon with two thousand watches must not take all of its time; none is told old news."""

    async def story(house: House) -> None:
        house.write()
        async with house.living() as daemon:
            takes = 0
            take = metering.Metering._take

            async def counted(self: metering.Metering) -> Any:
                nonlocal takes
                takes += 1
                return await take(self)

            with monkeypatch.context() as patched:
                patched.setattr(metering.Metering, "_take", counted)
                await asyncio.gather(*(daemon.metering.json() for _ in range(100)))
                assert takes == 2  # the first one's own, and one that began after all others had asked
                await asyncio.gather(*(daemon.metering.prometheus() for _ in range(100)))
                assert takes == 4

    tell(story)


def test_json_says_the_same(tell: Tell) -> None:
    """For those who have no Prometheus; every metric stands in it, whether it has values or not."""

    async def story(house: House) -> None:
        shop, log = Shop(), house.folder / "app.log"
        async with Receiver() as receiver, serving(shop.answer) as served:
            wants_all(house, log, served, receiver.url)
            async with house.living() as daemon:
                await a_while(house, receiver, shop, log)
                text, said = await scrape(daemon), await daemon.metering.json()
        said = json.loads(json.dumps(said, allow_nan=False))

        assert set(said) == {"at", "metrics"}
        assert list(said["metrics"]) == [metric.name for metric in CATALOGUE]
        for name, metric in said["metrics"].items():
            assert (metric["type"], metric["help"]) == (METRICS[name].kind, METRICS[name].what)
            for series in metric["series"]:
                if metric["type"] == "histogram":
                    assert series["buckets"]["+Inf"] == series["count"]
                    continue
                if name.startswith(("agentd_watch", "agentd_check", "agentd_alert", "agentd_del", "agentd_log")):
                    assert text.of(name, **series["labels"]) == series["value"]

    tell(story)


@needs_promtool
def test_promtool_finds_no_fault_but_with_names_of_others(tell: Tell) -> None:
    """Names by the conventions are found by those who know them."""

    async def story(house: House) -> None:
        shop, log = Shop(), house.folder / "app.log"
        async with Receiver() as receiver, serving(shop.answer) as served:
            wants_all(house, log, served, receiver.url)
            async with house.living() as daemon:
                await a_while(house, receiver, shop, log)
                daemon.metering.request_begun()
                daemon.metering.request_done("/metrics", "GET", 200, 0.01)
                body = (await scrape(daemon)).body
        checked = subprocess.run([str(PROMTOOL), "check", "metrics"], input=body, capture_output=True, check=False)
        complaints = (checked.stdout + checked.stderr).decode().splitlines()

        assert complaints == DISLIKED

    tell(story)


CONF = Path(__file__).resolve().parents[2] / "conf"
_NAMES = re.compile(r"\b(?:agentd|ai_agent|process|python)_\w+")


def used_in_dashboard() -> set[str]:
    board: Mapping[str, Any] = json.loads((CONF / "grafana" / "agentd.json").read_text())
    targets = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    return set(_NAMES.findall(" ".join(targets)))


def used_in_rules() -> set[str]:
    rules: Mapping[str, Any] = yaml.safe_load((CONF / "prometheus" / "agentd.rules.yaml").read_text())
    return set(_NAMES.findall(" ".join(rule["expr"] for group in rules["groups"] for rule in group["rules"])))


def test_dashboard_and_rules_use_names_that_there_are(tell: Tell) -> None:
    """A name that was changed shows an empty panel, and an alert that never fires."""

    async def story(house: House) -> None:
        shop, log = Shop(), house.folder / "app.log"
        async with Receiver() as receiver, serving(shop.answer) as served:
            wants_all(house, log, served, receiver.url)
            async with house.living() as daemon:
                await a_while(house, receiver, shop, log)
                daemon.metering.request_begun()
                daemon.metering.request_done("/metrics", "GET", 200, 0.01)
                usage = {"input_tokens": 9, "output_tokens": 3, "cached_tokens": 0}
                daemon.agents.runs.asked.take({"model": "m", "usd": 0.1, "duration_s": 1, "usage": usage})
                daemon.agents.runs.ended.add(("task", "completed"))
                there = (await scrape(daemon)).names

        assert len(used_in_dashboard()) > 50
        assert len(used_in_rules()) > 20
        assert used_in_dashboard() - there == set()
        assert used_in_rules() - there == set()
        # Whatever the catalogue holds comes out of a daemon that does a little of everything.
        names = {metric.name + ("_count" if metric.kind == "histogram" else "") for metric in CATALOGUE}
        assert names - there == set()

    tell(story)
