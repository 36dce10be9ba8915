"""
The service as its users have it: over HTTP with keys, over its socket, by commands, and in a program of their own.

A real daemon in a process of its own, and a model that is asked over HTTP; everything is seen from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import json
import math
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import pytest_asyncio
import yaml
from agents import run_of, submit, task_of, until
from loopback import free_port
from modelserver import Asked, Call, Reply, call, calls, failing
from prometheus_client.parser import text_string_to_metric_families
from service_place import Json, Service, environment_of_tests, opened

from agentd.api.client import HttpTasks, ask
from agentd.api.tasks import BatchAsked, TaskAsked, TaskService
from agentd.config.key_hash import make_key
from agentd.daemon.inprocess import daemon_here

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES = Path(__file__).resolve().parents[2] / "conf" / "examples"
TASKS, AT_ONCE = int(os.environ.get("AGENTD_TEST_TASKS", "300")), 50
HANG = Reply(hang=True)
REFUSED = failing(400, "I will not.")
GUEST, GUEST_HASH = make_key("guest")
SCENARIOS = (
    "code_generation",
    "refactoring",
    "debugging",
    "testing",
    "documentation",
    "architecture",
    "optimization",
    "file_operations",
    "command_execution",
    "log_analysis",
    "endpoint_diagnosis",
    "incident_summary",
)
ZHIPU = {"provider": "zhipu", "model_name": "glm-4", "api_key": "…", "max_tokens": 4000, "temperature": 0.7}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lasting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """One daemon for all tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("service")
    (folder / "prompts").mkdir()
    agent = {
        "commands": {
            "allow": [
                *(["echo", "*"], ["pwd"], ["printenv", "GREETING"], ["sleep", "60"], ["rm", "-rf", "*"]),
                *(["cat", f"{folder}/files/*"], ["sh", "-c", "*"]),
            ],
            "forbid": ["rm -rf", "format", "fdisk"],
        },
        "environment": ["GREETING"],
        "prompts": str(folder / "prompts"),
    }
    guest = {"name": "guest", "hash": GUEST_HASH, "scope": "operate"}
    async with opened(folder, keys=[guest], agent=agent) as service:
        yield service


@pytest.fixture
def service(lasting: Service) -> Service:
    """Whose model has been asked nothing yet."""
    lasting.server.requests.clear()
    lasting.server.otherwise = "All is well."
    return lasting


async def tried(service: Service, *of: Call, **more: Any) -> list[Json]:
    """What comes of calls of tools that a model makes."""
    service.server.answers(calls(*of), "Done.")
    steps: list[Json] = (await service.done(**more))["steps"]
    return steps


async def number(service: Service, name: str, **labels: str) -> float:
    """The sum of a metric's series that have these labels, as Prometheus reads it."""
    answer = await service.ask("GET", "/metrics")
    samples = [each for family in text_string_to_metric_families(answer.text) for each in family.samples]
    found = [each for each in samples if each.name == name]
    assert found, f"there is no {name}"
    return sum(each.value for each in found if labels.items() <= each.labels.items())


@contextlib.asynccontextmanager
async def edited(service: Service, **sections: Any) -> AsyncIterator[None]:
    """With these sections laid over those of its file, as an editor would, and taken by a reload; then as before."""
    before = service.stage.path.read_text()
    config = yaml.safe_load(before)
    for name, values in sections.items():
        config[name] = {**config.get(name, {}), **values} if isinstance(values, dict) else values
    service.stage.path.write_text(yaml.safe_dump(config, sort_keys=False))
    await reload(service)
    try:
        yield
    finally:
        service.stage.path.write_text(before)
        await reload(service)


async def reload(service: Service) -> None:
    answer = await service.api("POST", "/api/v1/reload")
    assert answer.status_code == 200, answer.text


# How it stands


@pytest.mark.parametrize(
    ("path", "kind", "holds"),
    [
        ("/health", "application/json", ["status"]),
        ("/api/v1/status", "application/json", ["state", "version"]),
        ("/api/v1/metrics", "application/json", ["metrics"]),
        ("/api/v1/tools", "application/json", ["tools"]),
        ("/metrics", "text/plain", []),
    ],
)
async def test_how_it_stands_is_told_to_whoever_may_look(
    service: Service, path: str, kind: str, holds: list[str]
) -> None:
    """A monitor on this machine needs no key; one elsewhere has one that may read; commands come by the socket."""
    answers = [
        await service.ask("GET", path),
        await service.ask("GET", path, key="read"),
        await service.stage.api("GET", path),
    ]

    for answer in answers:
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith(kind)
        if kind == "application/json":
            assert set(holds) <= answer.json().keys()


async def test_tools_are_listed_with_what_is_allowed(service: Service) -> None:
    """Who writes a task wants to know what an agent can do about it."""
    tools = {each["name"]: each for each in (await service.json("/api/v1/tools"))["tools"]}

    assert tools["read_file"]["allowed"]
    assert not tools["dns_lookup"]["allowed"]
    assert tools["read_file"]["input_schema"]["properties"]["path"]
    assert (await service.ask("GET", "/health")).json() == {"status": "ok"}


# Tasks


async def test_a_task_is_asked_for_and_its_answer_fetched(service: Service) -> None:
    """Everything that a caller can rely on is there, in its words."""
    plan: Json = {"understanding": "A note is wanted.", "approach": "Write it.", "complexity": "moderate"}
    plan |= {"estimated_steps": 2, "requirements": ["a folder"]}
    note = service.files / "note.txt"
    service.server.answers(
        calls(call("plan", **plan), call("write_file", path=str(note), content="hi")), "It is written."
    )

    taken = await service.api("POST", "/api/v1/tasks", {"task": "Write a note.", "metadata": {"ticket": 7}})
    task = await task_of(service, taken.json()["task_id"])

    assert taken.status_code == 202
    assert taken.json()["status"] == "pending"
    assert task["task_id"] == taken.json()["task_id"]
    assert task["status"] == "completed"
    result = task["result"]
    assert result.keys() == {"success", "summary", "details", "artifacts", "execution_time"}
    assert (result["success"], result["summary"], result["artifacts"]) == (True, "It is written.", [str(note)])
    assert result["details"]["answer"] == "It is written."
    assert result["execution_time"] > 0
    assert task["plan"] == plan
    (step,) = task["steps"]
    assert (step["tool"], step["ok"], step["error"]) == ("write_file", True, None)
    assert task["metrics"] == {
        "steps": 2,
        "tool_calls": 1,
        "model_calls": 2,
        "input_tokens": 20,
        "output_tokens": 10,
        "cached_tokens": 0,
        "usd": pytest.approx(3e-5),
        "models": ["default"],
    }
    assert task["metadata"] == {"ticket": 7}
    assert note.read_text() == "hi"


@pytest.mark.parametrize(("called", "complexity"), [(1, "simple"), (3, "moderate"), (6, "complex")])
async def test_a_plan_is_there_even_of_a_model_that_makes_none(service: Service, called: int, complexity: str) -> None:
    """Small models begin at once; callers read the same fields."""
    service.server.answers(calls(*(call("run_command", argv=["echo", str(each)]) for each in range(called))), "Done.")

    plan = (await service.done("Say numbers."))["plan"]

    assert plan.keys() == {"understanding", "approach", "complexity", "estimated_steps", "requirements"}
    assert (plan["understanding"], plan["complexity"], plan["estimated_steps"]) == ("Say numbers.", complexity, 2)


async def test_asking_twice_under_one_id_is_asking_once(service: Service) -> None:
    """The answer to the first request may be lost on its way."""
    asked = {"task": "Look around.", "task_id": "twice-1"}
    first = await service.api("POST", "/api/v1/tasks", asked)
    await task_of(service, "twice-1")

    again = await service.api("POST", "/api/v1/tasks", asked)
    other = await service.api("POST", "/api/v1/tasks", {**asked, "task": "Something else."})

    assert (first.status_code, again.status_code, other.status_code) == (202, 200, 409)
    assert again.json()["status"] == "completed"
    assert len(service.server.requests) == 1


async def test_a_task_under_way_is_cancelled(service: Service) -> None:
    """What goes on after that would be paid for by nobody who wants it."""
    service.server.answers(HANG)
    id = await submit(service)
    await service.server.wait_for(1)

    answer = await service.api("DELETE", f"/api/v1/tasks/{id}")

    assert answer.status_code == 200
    assert (await task_of(service, id))["status"] == "cancelled"
    await service.server.until(lambda: service.server.answering == 0)
    assert (await service.api("DELETE", f"/api/v1/tasks/{id}")).status_code == 409
    assert (await service.api("DELETE", "/api/v1/tasks/none")).status_code == 404
    assert (await service.api("GET", "/api/v1/tasks/none")).status_code == 404


async def test_a_parallel_batch_is_under_way_at_once(service: Service) -> None:
    """None of them is answered before all have asked."""
    together = asyncio.Event()

    async def when_all_have_come(asked: Asked) -> str:
        await together.wait()
        return "Done."

    service.server.otherwise = when_all_have_come
    tasks = [{"task": f"Do {each}."} for each in "abc"]
    answer = await service.api("POST", "/api/v1/tasks/batch", {"tasks": tasks, "mode": "parallel"})
    await service.server.wait_for(3)
    together.set()

    batch = answer.json()
    assert (answer.status_code, batch["mode"], len(batch["tasks"])) == (202, "parallel", 3)
    for task in batch["tasks"]:
        assert (await task_of(service, task["task_id"]))["status"] == "completed"


async def test_a_sequential_batch_is_done_one_after_the_other(service: Service) -> None:
    """The second may rest on what the first did."""
    tasks = [{"task": f"Do {each}."} for each in "abc"]
    answer = await service.api("POST", "/api/v1/tasks/batch", {"tasks": tasks, "mode": "sequential"})
    views = [await task_of(service, task["task_id"]) for task in answer.json()["tasks"]]

    assert [view["status"] for view in views] == ["completed"] * 3
    assert views[0]["ended_at"] <= views[1]["started_at"]
    assert views[1]["ended_at"] <= views[2]["started_at"]
    asked = [str(each.messages[1]["content"]) for each in service.server.requests]
    assert [text.split("\n")[0] for text in asked] == ["Goal: Do a.", "Goal: Do b.", "Goal: Do c."]


# What a request may say


async def test_a_request_says_where_and_with_what_it_is_done(service: Service) -> None:
    """Each part of it reaches the agent and its tools."""
    inner = service.files / "inner"
    inner.mkdir(exist_ok=True)
    context = {
        "working_directory": str(inner),
        "environment": {"GREETING": "good morning"},
        "tools": ["run_command", "read_file"],
        "constraints": {"max_execution_time": 60, "max_steps": 5, "allowed_paths": [str(inner)]},
    }
    service.server.answers(calls(call("run_command", argv=["pwd"]), call("run_command", argv=["printenv", "GREETING"])))

    task = await service.done("Where?", task_id="where-1", context=context, priority="critical", metadata={"a": [1]})

    assert (task["task_id"], task["priority"], task["metadata"]) == ("where-1", "critical", {"a": [1]})
    outputs = {json.loads(step["output"])["stdout"].strip() for step in task["steps"]}
    assert outputs == {str(inner), "good morning"}
    offered = set(service.server.requests[0].tools)
    assert {"run_command", "read_file"} <= offered
    assert not offered & {"write_file", "http_get", "list_files"}
    assert "At most: 5 steps, 60 s" in str(service.server.requests[0].messages[1]["content"])


@pytest.mark.parametrize(
    ("context", "named"),
    [
        ({"tools": ["dns_lookup"]}, "dns_lookup"),
        ({"working_directory": "/etc"}, "/etc"),
        ({"working_directory": "../.."}, "working_directory"),
        ({"environment": {"LD_PRELOAD": "/tmp/x.so"}}, "LD_PRELOAD"),
        ({"environment": {"PATH": "/tmp"}}, "PATH"),
        ({"constraints": {"allowed_paths": ["/"]}}, "/"),
        ({"constraints": {"allowed_paths": ["/etc"]}}, "/etc"),
        ({"constraints": {"max_steps": 0}}, "max_steps"),
        ({"constraints": {"max_execution_time": -1}}, "max_execution_time"),
        ({"sandbox": False}, "sandbox"),
    ],
)
async def test_a_request_can_only_narrow_what_is_allowed(service: Service, context: Json, named: str) -> None:
    """A key that may ask for tasks is no way around the configuration; what is wrong is named."""
    answer = await service.api("POST", "/api/v1/tasks", {"task": "Look around.", "context": context})

    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert named in answer.json()["detail"]
    assert service.server.requests == []


async def test_more_steps_than_are_configured_are_not_given(service: Service) -> None:
    """The configuration has the last word."""
    await service.done(context={"constraints": {"max_steps": 1000, "max_execution_time": 86_400}})

    assert "At most: 20 steps, 300 s" in str(service.server.requests[0].messages[1]["content"])


async def test_a_task_ends_at_its_step_limit(service: Service) -> None:
    """A model that goes round in circles costs with every round."""
    rounds = itertools.count()
    service.server.otherwise = lambda asked: calls(call("run_command", argv=["echo", f"round {next(rounds)}"]))

    task = await service.done(context={"constraints": {"max_steps": 3}})

    assert (task["status"], task["metrics"]["steps"], len(task["steps"])) == ("stopped", 3, 3)
    assert not task["result"]["success"]


async def test_a_task_ends_at_its_time_limit(service: Service) -> None:
    """Whoever waits for it gets an answer, whatever the model does."""
    service.server.otherwise = HANG

    task = await service.done(context={"constraints": {"max_execution_time": 1}})

    assert task["status"] == "stopped"
    assert 1 <= task["result"]["execution_time"] < 20


# Numbers


async def test_the_numbers_of_the_service_count_what_was_done(service: Service) -> None:
    """Dashboards that others have made read exactly these names."""

    async def numbers() -> dict[str, float]:
        names = ["requests_total", "request_duration_seconds_count", "tasks_total", "tasks_completed_total"]
        names += ["tasks_failed_total", "active_tasks"]
        return {name: await number(service, f"ai_agent_{name}") for name in names}

    def posted() -> Any:
        return number(service, "ai_agent_requests_total", method="POST", route="/api/v1/tasks", status="202")

    before, posted_before = await numbers(), await posted()
    await service.done()
    service.server.answers(REFUSED)
    assert (await service.done())["status"] == "failed"
    service.server.otherwise = HANG
    hanging = await submit(service)
    await service.server.wait_for(3)
    during, posted_during = await numbers(), await posted()
    await service.api("DELETE", f"/api/v1/tasks/{hanging}")
    await task_of(service, hanging)

    gone = {name: during[name] - before[name] for name in before}
    assert posted_during - posted_before == 3
    assert gone["requests_total"] == gone["request_duration_seconds_count"] > 3
    assert (gone["tasks_total"], gone["tasks_completed_total"], gone["tasks_failed_total"]) == (3, 1, 1)
    assert (gone["active_tasks"], during["active_tasks"]) == (1, 1)
    assert await number(service, "ai_agent_active_tasks") == 0
    resident = psutil.Process(service.daemon.pid).memory_info().rss / 2**20
    assert await number(service, "ai_agent_memory_usage_mb") == pytest.approx(resident, rel=0.3)
    assert 0 <= await number(service, "ai_agent_cpu_usage_percent") <= 100 * (os.cpu_count() or 1)


async def test_the_same_numbers_come_as_json(service: Service) -> None:
    """For whoever has no Prometheus."""
    await service.done()

    metrics = (await service.json("/api/v1/metrics"))["metrics"]

    assert {name for name in metrics if name.startswith("ai_agent_")} == {
        "ai_agent_requests_total",
        "ai_agent_request_duration_seconds",
        "ai_agent_tasks_total",
        "ai_agent_tasks_completed_total",
        "ai_agent_tasks_failed_total",
        "ai_agent_active_tasks",
        "ai_agent_cpu_usage_percent",
        "ai_agent_memory_usage_mb",
    }
    (series,) = metrics["ai_agent_tasks_total"]["series"]
    assert series["value"] == await number(service, "ai_agent_tasks_total")


# Who may


async def test_a_key_may_what_its_scope_says(service: Service) -> None:
    """A dashboard's key that leaks must not run anything."""

    async def statuses(key: str | None) -> list[int]:
        asked = [
            ("GET", "/api/v1/status", None),
            ("GET", "/api/v1/tasks", None),
            ("POST", "/api/v1/tasks", {"task": "Look around."}),
            ("PUT", "/api/v1/config", {"agent": {"max_steps": 20}}),
        ]
        return [(await service.ask(method, path, body, key=key)).status_code for method, path, body in asked]

    assert await statuses(None) == [200, 401, 401, 401]
    assert await statuses("read") == [200, 200, 403, 403]
    assert await statuses("operate") == [200, 200, 202, 403]
    assert await statuses("admin") == [200, 200, 202, 200]
    assert await statuses("agentd_admin." + "A" * 43) == [401, 401, 401, 401]
    await service.api("PUT", "/api/v1/config", {"agent": {"max_steps": None}})


async def test_a_key_is_made_by_a_command_kept_as_a_hash_and_revoked(service: Service) -> None:
    """Who reads the configuration, or a backup of it, has no key."""
    made = await service.agentd("key", "new", "robot", "--scope", "operate")
    token = made.out.strip()
    listed = await service.agentd("key", "list", "--output", "json")

    assert (await service.ask("POST", "/api/v1/tasks", {"task": "Look around."}, key=token)).status_code == 202
    assert {each["name"]: each["scope"] for each in listed.json["keys"]}["robot"] == "operate"
    secret = token.rpartition(".")[2]
    for path in service.stage.folder.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path
    assert "$scrypt$" in (service.stage.folder / "keys.d" / "robot.yaml").read_text()
    assert secret not in "\n".join(service.daemon.lines)

    assert (await service.agentd("key", "revoke", "robot")).code == 0
    assert (await service.ask("GET", "/api/v1/status", key=token)).status_code == 401


async def test_a_key_without_a_rate_of_its_own_is_held_to_sixty_a_minute_and_ten_at_once(service: Service) -> None:
    """A script that went wrong must not take the daemon's time; it is told when to come again."""
    config = await service.json("/api/v1/config")
    assert config["config"]["api"]["rate_limiting"] == {"requests_per_minute": 60, "burst_size": 10}
    assert not [key for key in config["origins"] if key.startswith("api.rate_limiting")]

    began = time.monotonic()
    answers = [await service.ask("GET", "/health", key=GUEST) for _ in range(40)]
    took_s = time.monotonic() - began

    good = [each.status_code for each in answers].count(200)
    assert [each.status_code for each in answers[:10]] == [200] * 10
    assert 10 <= good <= 10 + math.ceil(took_s)
    refused = [each for each in answers if each.status_code == 429]
    assert len(refused) == 40 - good
    assert {each.headers["retry-after"] for each in refused} == {"1"}
    assert {each.headers["content-type"] for each in refused} == {"application/problem+json"}

    async def let_in() -> bool:
        return (await service.ask("POST", "/api/v1/tasks", {"task": "Look around."}, key=GUEST)).status_code == 202

    began = time.monotonic()
    for _ in range(3):
        await until(let_in, "a second later there is room for one more")
    assert time.monotonic() - began >= 1.5, "one a second in the long run, no more"
    # Others are not held back by that, nor is the socket.
    assert (await service.stage.api("GET", "/health")).status_code == 200
    assert (await service.ask("GET", "/health")).status_code == 200


async def test_pages_of_other_origins_may_call_only_when_the_file_names_them(service: Service) -> None:
    """Any page in the operator's browser could ask the daemon otherwise."""
    asks = {"Origin": "https://status.example", "Access-Control-Request-Method": "POST"}
    asks |= {"Access-Control-Request-Headers": "authorization, content-type"}
    allowed = "access-control-allow-origin"
    for method, path in (("OPTIONS", "/api/v1/tasks"), ("GET", "/health")):
        assert allowed not in (await service.ask(method, path, **asks)).headers

    async with edited(service, api={"cors": {"allowed_origins": ["https://status.example"]}}):
        preflight = await service.ask("OPTIONS", "/api/v1/tasks", **asks)
        plain = await service.ask("GET", "/health", **asks)
        other = await service.ask("GET", "/health", **{**asks, "Origin": "https://evil.example"})

    assert (preflight.status_code, preflight.headers[allowed]) == (200, "https://status.example")
    assert plain.headers[allowed] == "https://status.example"
    assert "access-control-allow-credentials" not in plain.headers
    assert allowed not in other.headers


# What agents may not


@pytest.mark.parametrize("how", ["plainly", "by a link", "by a link to its folder", "by ..", "by a link in a link"])
@pytest.mark.parametrize("tool", ["read_file", "list_files", "write_file", "run_command"])
async def test_no_file_outside_of_the_allowed_folders_is_reached(service: Service, tool: str, how: str) -> None:
    """A model does what a log line talks it into; links and `..` are followed before anything is allowed."""
    outside = service.stage.folder / "outside"
    outside.mkdir(exist_ok=True)
    secret = outside / "secret"
    secret.write_text("the crown jewels")
    for name, to in {"file": secret, "folder": outside, "shadow": Path("/etc/shadow")}.items():
        link = service.files / f"link-to-{name}"
        if not link.is_symlink():
            link.symlink_to(to)
    twice = service.files / "link-to-link"
    if not twice.is_symlink():
        twice.symlink_to("link-to-file")
    files = service.files
    paths = {
        "plainly": ["/etc/shadow", str(secret)],
        "by a link": [f"{files}/link-to-shadow", f"{files}/link-to-file"],
        "by a link to its folder": [f"{files}/link-to-folder/secret", f"{files}/link-to-folder"],
        "by ..": [f"{files}/../../../../../../../../../etc/shadow", f"{files}/../outside/secret"],
        "by a link in a link": [f"{files}/link-to-link", f"{files}/./link-to-link"],
    }[how]
    of = {
        "read_file": lambda path: call("read_file", path=path),
        "list_files": lambda path: call("list_files", path=path),
        "write_file": lambda path: call("write_file", path=path, content="gone"),
        "run_command": lambda path: call("run_command", argv=["cat", path]),
    }[tool]

    steps = await tried(service, *map(of, paths))

    # Of a link itself `write_file` says that it is none, and writes nothing.
    refusals = {"denied"} if tool != "write_file" else {"denied", "tool_error"}
    assert {step["error"] for step in steps} <= refusals, steps
    assert len(steps) == len(paths)
    assert all(path.is_symlink() for path in files.glob("link-to-*"))
    seen = json.dumps(service.server.requests[-1].messages)
    assert "crown jewels" not in seen
    assert "root:" not in seen
    assert secret.read_text() == "the crown jewels"


async def test_a_request_that_narrows_the_folders_is_held_to_it(service: Service) -> None:
    """What the configuration lets be read is closed to this one task."""
    inner = service.files / "narrow"
    inner.mkdir(exist_ok=True)
    (inner / "mine").write_text("mine")
    (service.files / "theirs").write_text("theirs")
    reads = [call("read_file", path=str(inner / "mine")), call("read_file", path=str(service.files / "theirs"))]

    steps = await tried(service, *reads, context={"constraints": {"allowed_paths": [str(inner)]}})

    assert sorted(str(step["error"]) for step in steps) == ["None", "denied"]


@pytest.mark.parametrize(
    "argv",
    [
        ["rm", "-rf", "{keep}"],
        ["/bin/rm", "-rf", "{keep}"],
        ["rm", "-fr", "{keep}"],
        ["sh", "-c", "rm -rf {keep}"],
        ["sh", "-c", "true; rm -r -f {keep}"],
        ["sh", "-c", "fdisk -l"],
        ["format", "c:"],
        ["touch", "{keep}/new"],
        ["echo", "-n"],
    ],
    ids=" ".join,
)
async def test_a_dangerous_command_is_not_run(service: Service, argv: list[str]) -> None:
    """Not even where a pattern would let it run, and what no pattern names is not run either."""
    keep = service.files / "keep"
    keep.mkdir(exist_ok=True)

    (step,) = await tried(service, call("run_command", argv=[word.format(keep=keep) for word in argv]))

    assert step["error"] == "denied", step
    assert keep.is_dir()
    assert not list(keep.iterdir())


async def test_a_command_is_bounded(service: Service) -> None:
    """Time, output, memory and open files: what a model starts must not take the machine."""
    service.server.answers(
        calls(
            call("run_command", argv=["sleep", "60"]),
            call("run_command", argv=["sh", "-c", "ulimit -n; ulimit -v"]),
            call("run_command", argv=["sh", "-c", "yes | head -c 5000000"]),
        ),
        "Done.",
    )

    view = await service.done()

    steps = {step["id"]: step for step in view["steps"]}
    slow, limits, loud = (steps[id] for id in sorted(steps)[:3])
    assert slow["error"] == "timeout"
    files, memory_kib = json.loads(limits["output"])["stdout"].split()
    assert int(files) <= 1024
    assert int(memory_kib) <= 8 * 2**20
    assert len(loud["output"]) <= 4096
    seen = service.server.requests[-1]
    assert "left_out_bytes" in json.dumps(seen.messages)
    assert len(seen.body) < 200_000


async def test_a_request_is_bounded(service: Service) -> None:
    """Somebody's mistake, or worse, must not become the daemon's memory."""
    large = await service.api("POST", "/api/v1/tasks", {"task": "x" * 70_000})
    crowd = await service.api("POST", "/api/v1/tasks/batch", {"tasks": [{"task": "x"}] * 101})

    assert (large.status_code, crowd.status_code) == (413, 422)


# The configuration, read and changed while it runs


async def test_a_model_and_its_key_are_changed_without_a_restart(tmp_path: Path) -> None:
    """A key that leaked is replaced at once, and no check is missed for it."""
    settings = {"provider": "zhipu", "api_key": "${env:OLD_KEY}"}
    async with opened(tmp_path, settings=settings, environment={"OLD_KEY": "old-0123456789"}) as service:
        pid, server = service.daemon.pid, service.server
        await service.done()
        changed = await service.api("PUT", "/api/v1/config/model", {**ZHIPU, "api_key": "new-0123456789"})
        await service.done()

        before, after = server.requests
        assert changed.status_code == 200, changed.text
        assert (before.headers["authorization"], before.json["model"]) == ("Bearer old-0123456789", "fake")
        assert (after.headers["authorization"], after.json["model"]) == ("Bearer new-0123456789", "glm-4")
        assert (after.json["max_tokens"], after.json["temperature"]) == (4000, 0.7)
        assert service.daemon.alive
        assert service.daemon.pid == pid
        shown = await service.json("/api/v1/config")
        default = shown["config"]["models"]["default"]
        assert (default["provider"], default["model"], default["api_key"]) == ("zhipu", "glm-4", "***")
        assert {shown["origins"][f"models.default.{key}"] for key in ("model", "api_key", "max_tokens")} == {"overlay"}
        overlay = tmp_path / "state" / "overlay.json"
        assert stat.S_IMODE(overlay.stat().st_mode) == 0o600

        # As others have sent it all along, to the letter.
        literal = await service.api("PUT", "/api/v1/config/model", ZHIPU)
        assert literal.status_code == 200, literal.text
        assert "…" not in literal.text + (await service.api("GET", "/api/v1/config")).text
        assert (await service.api("PUT", "/api/v1/config/model", {"api_key": "third-0123456789"})).status_code == 200
        assert await service.daemon.stop() == 0
        service.daemon = await service.stage.start(OLD_KEY="old-0123456789")
        await service.done()
        assert server.requests[-1].headers["authorization"] == "Bearer third-0123456789"
        assert server.requests[-1].json["model"] == "glm-4"


async def test_limits_are_changed_without_a_restart(tmp_path: Path) -> None:
    """A queue that runs full on a bad day is given more room on that day."""
    async with opened(tmp_path) as service:
        pid = service.daemon.pid
        patch = {
            "execution": {"max_steps": 2, "max_retries": 1, "retry_delay_seconds": 2},
            "service": {"max_concurrent_tasks": 1, "default_task_timeout": 100},
            "api": {"rate_limiting": {"requests_per_minute": 120, "burst_size": 3}},
            "budgets": {"run": {"tokens": 50_000}},
        }
        answer = await service.api("PUT", "/api/v1/config", patch)
        assert answer.status_code == 200, answer.text

        config = (await service.json("/api/v1/config"))["config"]
        agent, api = config["agent"], config["api"]
        assert (agent["max_steps"], agent["retries"], agent["retry_delay"]) == (2, 1, "2s")
        assert (api["max_concurrent_tasks"], api["task_timeout"]) == (1, "1m40s")
        assert api["rate_limiting"] == {"requests_per_minute": 120, "burst_size": 3}
        await service.done()
        assert "At most: 2 steps, 100 s" in str(service.server.requests[0].messages[1]["content"])
        assert "50000 tokens" in str(service.server.requests[0].messages[1]["content"])
        service.server.otherwise = HANG
        first, second = await submit(service), await submit(service)
        await service.server.wait_for(2)
        assert (await service.json(f"/api/v1/tasks/{second}"))["status"] == "pending"
        for id in (second, first):
            await service.api("DELETE", f"/api/v1/tasks/{id}")
        assert (service.daemon.pid, service.daemon.alive) == (pid, True)


@pytest.mark.parametrize(
    "patch",
    [
        {"tools": {"allowed_paths": ["/"]}},
        {"tools": {"enable_command_execution": True}},
        {"tools": {"forbidden_commands": []}},
        {"agent": {"tools": ["run_command"]}},
        {"agent": {"files": {"allow": ["/"]}}},
        {"agent": {"commands": {"allow": [["rm", "-rf", "*"]]}}},
        {"agent": {"commands": {"forbid": []}}},
        {"agent": {"environment": ["LD_PRELOAD"]}},
        {"agent": {"working_directory": "/"}},
        {"agent": {"mcp": {"x": {"command": ["sh"]}}}},
        {"agent": {"http": {"allow": ["*"]}}},
        {"agent": {"prompts": "/tmp"}},
        {"watches": [{"name": "x", "command": {"argv": ["id"]}}]},
        {"webhooks": {"hook": {"url": "https://evil.example/"}}},
        {"webhooks": None},
        {"alerting": {"notify": []}},
        {"api": {"keys": []}},
        {"api": {"keys": [{"name": "x", "hash": "0", "scope": "admin"}]}},
        {"api": {"socket_access": {"admin": ["*"]}}},
        {"api": {"listen": ["0.0.0.0:80"]}},
        {"api": {"hooks": {"x": {"secret": "0123456789abcdef"}}}},
        {"service": {"cors": ["*"]}},
        {"daemon": {"plugins": ["evil"]}},
        {"include": ["/tmp/*.yaml"]},
        {"models": {"default": {"api_key": "${file:/etc/shadow}"}}},
        # What may be changed does not carry in what may not.
        {"agent": {"max_steps": 3, "tools": ["run_command"]}},
    ],
    ids=json.dumps,
)
async def test_what_acts_is_changed_in_the_files_alone(service: Service, patch: Json) -> None:
    """The key of a dashboard that may turn a limit must not become a shell on this machine."""
    before = await service.json("/api/v1/config")

    answer = await service.api("PUT", "/api/v1/config", patch)

    assert answer.status_code == 422, answer.text
    assert await service.json("/api/v1/config") == before


async def test_what_acts_is_changed_in_the_files_and_taken_by_a_reload(service: Service) -> None:
    """Without a restart either; whoever may write the file may do it."""
    pid = service.daemon.pid
    watches = [{"name": "beat", "heartbeat": {"expect_every": "1h", "grace": "1h"}}]

    async with edited(service, agent={"tools": ["read_file"]}, watches=watches):
        await service.done()
        watched = await service.json("/api/v1/watches")
    await service.done()

    assert [each["name"] for each in watched["watches"]] == ["beat"]
    changed, as_before = (set(asked.tools) for asked in service.server.requests)
    assert not changed & {"run_command", "write_file"}
    assert {"run_command", "write_file"} <= as_before
    assert (service.daemon.pid, service.daemon.alive) == (pid, True)


async def test_a_configuration_is_validated_before_it_is_used(service: Service) -> None:
    """With what is wrong, where, and how to mend it; nothing is changed by asking."""

    async def validated(config: Any) -> Json:
        answer = await service.ask("POST", "/api/v1/config/validate", {"config": config}, key="read")
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    before = await service.json("/api/v1/config")
    good = await validated({"model": {"provider": "zhipu", "model_name": "glm-4", "api_key": "…"}})
    bad = await validated({"model": {"provider": "zhipoo", "model_name": "glm-4"}, "execution": {"max_step": 3}})
    assert (await validated("# " + "x" * 200_000 + "\nwatches: []"))["valid"], "a large one, too"
    text = await validated("models:\n  default:\n    provider: zhipu\n    model: glm-4\n    max_tokens: many\n")

    assert (good["valid"], good["errors"]) == (True, [])
    assert any("no watches" in each["message"] for each in good["warnings"])
    assert not bad["valid"]
    errors = {each["key"]: each for each in bad["errors"]}
    assert "zhipu" in errors["models.default.provider"]["cure"]
    assert "max_steps" in errors["execution.max_step"]["cure"]
    assert [(each["key"], each["line"]) for each in text["errors"]] == [("models.default.max_tokens", 5)]
    assert await service.json("/api/v1/config") == before


FILE: Mapping[str, Json] = {
    "model": {"provider": "openai-compatible", "model": "of-the-file", "base_url": "http://127.0.0.1:1/v1"},
    "agent": {
        "tools": ["read_file", "list_files"],
        "max_steps": 19,
        "retries": 9,
        "retry_delay": "9s",
        "files": {"allow": ["/opt"], "write": True},
        "commands": {"allow": [["ls"]], "forbid": ["ls"]},
    },
}
# Its place in the configuration, what it is to be, the variable of old with its value, the value of that of today.
KEYS: tuple[tuple[str, Any, str, str, str], ...] = (
    ("models.default.provider", "zhipu", "MODEL__PROVIDER", "zhipu", "zhipu"),
    ("models.default.model", "glm-4", "MODEL__MODEL_NAME", "glm-4", "glm-4"),
    ("models.default.api_key", "***", "MODEL__API_KEY", "key-0123456789", "key-0123456789"),
    ("models.default.max_tokens", 1234, "MODEL__MAX_TOKENS", "1234", "1234"),
    ("models.default.temperature", 0.7, "MODEL__TEMPERATURE", "0.7", "0.7"),
    ("agent.max_steps", 7, "EXECUTION__MAX_STEPS", "7", "7"),
    ("agent.retries", 2, "EXECUTION__MAX_RETRIES", "2", "2"),
    ("agent.retry_delay", "3s", "EXECUTION__RETRY_DELAY", "3", "3s"),
    ("api.task_timeout", "1m17s", "EXECUTION__TIMEOUT", "77", "77s"),
    ("agent.files.write", False, "TOOLS__FILE_OPERATIONS", "false", "false"),
    ("agent.tools", ["run_command"], "TOOLS__COMMAND_EXECUTION", "true", "[run_command]"),
    ("agent.working_directory", "/srv", "TOOLS__WORKING_DIRECTORY", "/srv", "/srv"),
    ("agent.files.allow", ["/srv", "/tmp"], "TOOLS__ALLOWED_PATHS", "[/srv, /tmp]", "[/srv, /tmp]"),
    ("agent.commands.forbid", ["rm -rf"], "TOOLS__FORBIDDEN_COMMANDS", "[rm -rf]", "[rm -rf]"),
    ("api.max_concurrent_tasks", 4, "SERVICE__MAX_CONCURRENT_TASKS", "4", "4"),
    ("daemon.log_level", "debug", "SERVICE__LOG_LEVEL", "debug", "debug"),
    ("api.cors.allowed_origins", ["https://a.example"], "SERVICE__CORS", "[https://a.example]", "[https://a.example]"),
    ("api.rate_limiting.requests_per_minute", 30, "SERVICE__RATE_LIMITING__REQUESTS_PER_MINUTE", "30", "30"),
    ("api.rate_limiting.burst_size", 5, "SERVICE__RATE_LIMITING__BURST_SIZE", "5", "5"),
)


def at(data: Any, key: str) -> Any:
    for step in key.split("."):
        data = data[step]
    return data


@pytest.mark.parametrize("names", ["of old", "of today"])
@pytest.mark.parametrize("where", ["environment", ".env"])
async def test_each_key_of_the_service_is_overridden_by_a_variable(tmp_path: Path, where: str, names: str) -> None:
    """In a container there is nothing else; the answer says of each value where it comes from."""
    said = {}
    for key, _, old_name, old_value, value in KEYS:
        of_today = (f"AGENTD_{key.replace('.', '__').upper()}", value)
        said[key] = (f"AGENTD_{old_name}", old_value) if names == "of old" else of_today
    variables = dict(said.values())
    if names == "of old":
        variables["AGENTD_SERVICE__METRICS"] = "true"
    if where == ".env":
        (tmp_path / ".env").write_text("".join(f"{name}='{value}'\n" for name, value in variables.items()))
    environment = variables if where == "environment" else {}
    models = {"default": FILE["model"]}

    async with opened(
        tmp_path, environment=environment, models=models, agent=FILE["agent"], daemon={"log_level": "error"}
    ) as service:
        shown = await service.json("/api/v1/config")

    assert {key: at(shown["config"], key) for key, *_ in KEYS} == {key: wanted for key, wanted, *_ in KEYS}
    for key, (name, _) in said.items():
        origins = {each for path, each in shown["origins"].items() if path == key or path.startswith(f"{key}[")}
        both = {f"{where} AGENTD_TOOLS__FILE_OPERATIONS"} if key == "agent.tools" and names == "of old" else set()
        assert origins <= {f"{where} {name}", *both}, key
        assert origins, key


async def test_the_environment_wins_over_the_env_file_and_that_over_the_configuration(tmp_path: Path) -> None:
    """So one value can be tried without editing what is under version control."""
    (tmp_path / ".env").write_text("AGENTD_AGENT__MAX_STEPS=7\nAGENTD_AGENT__RETRIES=6\n")
    variables = {"AGENTD_AGENT__MAX_STEPS": "5", "AGENTD_SERVICE__DEFAULT_TASK_TIMEOUT": "88"}
    async with opened(tmp_path, environment=variables, agent={"max_steps": 9, "retries": 9}) as service:
        shown = await service.json("/api/v1/config")

    assert (shown["config"]["agent"]["max_steps"], shown["config"]["agent"]["retries"]) == (5, 6)
    assert shown["config"]["api"]["task_timeout"] == "1m28s"


SECRETS = {
    "a model's key in the file": "plain-model-key-0123456789",
    "a model's key of the environment": "env-model-key-0123456789",
    "a model's key that came over the API": "live-model-key-0123456789",
    "a webhook's address": "hook-path-token-0123456789",
    "a header of a webhook": "hook-header-token-0123456789",
    "a hook's secret": "hook-secret-0123456789",
    "a heartbeat's token": "beat-token-0123456789",
    "a header of an MCP server": "mcp-token-0123456789",
}


async def test_no_key_is_ever_shown(tmp_path: Path) -> None:
    """Not in an answer, a page, a log line, a message or a file but that which has to keep it."""
    plain, of_env, live, address, header, hook, beat, mcp = SECRETS.values()
    secrets = dict(SECRETS)
    webhook = {"url": f"http://127.0.0.1:9/{address}", "headers": {"Authorization": f"Bearer {header}"}}
    environment = {"MODEL_KEY": of_env, "MCP_TOKEN": mcp}
    servers = {"tools": {"url": "http://127.0.0.1:9/", "headers": {"Authorization": "${env:MCP_TOKEN}"}}}
    async with opened(
        tmp_path,
        environment=environment,
        settings={"api_key": plain, "retries": 0},
        daemon={"log_level": "debug"},
        agent={"mcp": servers, "http": {"allow": ["127.0.0.1"], "private_networks": True}},
    ) as service:
        secrets |= {f"the key {scope}": token.rpartition(".")[2] for scope, token in service.keys.items()}
        config = yaml.safe_load(service.stage.path.read_text())
        config["models"]["other"] = {**config["models"]["default"], "api_key": "${env:MODEL_KEY}"}
        config["webhooks"]["loud"] = webhook
        config["api"]["hooks"] = {"deploy": {"secret": hook}}
        config["watches"] = [{"name": "beat", "heartbeat": {"expect_every": "1h", "grace": "1h", "token": beat}}]
        service.stage.path.write_text(yaml.safe_dump(config))
        answers = [await service.api("POST", "/api/v1/reload")]
        assert answers[0].status_code == 200, answers[0].text

        # Servers say again what they refuse.
        def refusing(asked: Asked) -> Reply:
            return failing(400, f"malformed request of {asked.headers['authorization'].split()[-1]}")

        service.server.otherwise = refusing
        changed = {"name": "late", "provider": "local", "model_name": "m", "api_key": live}
        answers.append(await service.api("PUT", "/api/v1/config/model", {**changed, "base_url": service.server.url}))
        assert answers[-1].status_code == 200, answers[-1].text
        for name in ("default", "other", "late"):
            view = await service.done(model=name)
            assert view["status"] == "failed"
            assert "malformed request" in json.dumps(view)
            answers += [await service.api("GET", f"/api/v1/{what}/{view['task_id']}") for what in ("tasks", "runs")]
            answers += [await service.api("GET", f"/runs/{view['task_id']}")]
        sent = [asked.headers["authorization"] for asked in service.server.requests]
        assert set(sent) == {f"Bearer {each}" for each in (plain, of_env, live)}

        # Wrong in a way that has the value in it.
        for wrong in ({"temperature": live}, {"api_key": [live]}, {"provider": live}, {"base_url": live}):
            answers.append(await service.api("PUT", "/api/v1/config/model", {"name": "late", **wrong}))
            assert answers[-1].status_code == 422
        text = service.stage.path.read_text()
        answers.append(await service.api("POST", "/api/v1/config/validate", {"config": text}))
        answers.append(await service.api("POST", "/api/v1/config/validate", {"config": text.replace("mcp:", "mcq:")}))
        answers += [await service.ask("GET", "/api/v1/status", key=f"agentd_admin.{live}")]
        document = await service.json("/api/v1/openapi.json")
        paths = [path for path, ways in document["paths"].items() if "get" in ways and "{" not in path]
        paths = [path for path in paths if path != "/api/v1/events"]
        assert len(paths) > 15
        pages = ["/", "/settings", "/outbox", "/alerts", "/runs", "/memory", "/watches/beat", "/api/v1/watches/beat"]
        for path in [*paths, *pages]:
            for key in ("admin", "read", None):
                answers.append(await service.ask("GET", path, key=key, Accept="text/html, application/json"))
        words = ("config show", "config show --output json", "check", "models", "key list", "doctor")
        commands = await asyncio.gather(*(service.agentd(*each.split()) for each in words))
        assert commands[0].code == 0, commands[0].err
        assert await service.daemon.stop() == 0

        told = [each.text + str(each.headers) for each in answers]
        told += [each.out + each.err for each in commands]
        told += ["\n".join(service.daemon.lines)]
        kept = [path for path in (tmp_path / "state").rglob("*") if path.is_file() and path.name != "overlay.json"]
        assert kept
        for what, secret in secrets.items():
            for text in told:
                assert secret not in text, (what, text[max(0, text.index(secret) - 300) :][:600])
            for path in kept:
                assert secret.encode() not in path.read_bytes(), (what, path)
        assert live in (tmp_path / "state" / "overlay.json").read_text()


# The command line


async def test_a_task_on_the_command_line_is_told_as_one_wants_it(service: Service) -> None:
    """A person reads the answer, one who waits what is done, a script JSON."""
    said = {}
    for output in ("text", "verbose", "json"):
        service.server.answers(calls(call("run_command", argv=["echo", "hello there"])), "The disk is fine.")
        said[output] = await service.agentd("task", "Look at the disk.", "--output", output)
        assert said[output].code == 0, said[output].err

    assert said["text"].out == "The disk is fine.\n"
    assert "run_command" in said["verbose"].out
    assert "hello there" in said["verbose"].out
    assert said["verbose"].out.rstrip().endswith("The disk is fine.")
    view = said["json"].json
    assert (view["status"], view["result"]["summary"]) == ("completed", "The disk is fine.")
    assert view == await service.json(f"/api/v1/tasks/{view['task_id']}")
    service.server.answers(REFUSED)
    assert (await service.agentd("task", "Look at the disk.")).code == 1


async def test_one_can_talk_with_an_agent_on_the_command_line(service: Service) -> None:
    """It remembers what was said."""
    service.server.answers("The disk is full.", "The log is.")

    said = await service.agentd("interactive", typed="What is wrong?\nWhat fills it?\n")

    assert said.code == 0, said.err
    answers = [line for line in said.out.splitlines() if line.startswith("The ")]
    assert answers == ["The disk is full.", "The log is."]
    told = [message["content"] for message in service.server.requests[1].messages]
    assert "The disk is full." in told
    assert "What fills it?" in told


# Prompts


async def test_prompts_are_read_anew_for_each_task(service: Service) -> None:
    """Who tunes a prompt sees at once what it does; global, project and scenario in this order."""
    folder = service.stage.folder / "prompts"
    (folder / "scenarios").mkdir(exist_ok=True)
    files = {"global.yaml": "You are Ada.", "project.yaml": "This is a shop.", "scenarios/testing.yaml": "Test well."}

    async def prompt_of(**more: Any) -> str:
        service.server.requests.clear()
        await service.done("Write unit tests for the parser.", **more)
        return str(service.server.requests[0].messages[0]["content"])

    built_in = await prompt_of()
    try:
        for name, text in files.items():
            (folder / name).write_text(f"prompt: |\n  {text}\n")
        first = await prompt_of()
        (folder / "project.yaml").write_text("prompt: |\n  This is a bank.\n")
        second = await prompt_of()
        named = await prompt_of(scenario="debugging")
    finally:
        for name in files:
            (folder / name).unlink(missing_ok=True)

    assert "You are the agent of agentd" in built_in
    assert first.index("You are Ada.") < first.index("This is a shop.") < first.index("Test well.")
    assert "You are the agent of agentd" not in first
    assert "This is a bank." in second
    assert "This is a shop." not in second
    assert "Test well." not in named
    assert "find the cause of a fault" in named


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_each_scenario_ships(service: Service, scenario: str) -> None:
    """A file of the package that is missing would be found out by a customer."""
    await service.done("Look around.", scenario=scenario)

    prompts = [str(each.messages[0]["content"]) for each in service.server.requests]
    assert len(prompts) == 1
    assert re.search(r"^Scenario: \w+", prompts[0], re.MULTILINE)


async def test_a_scenario_that_there_is_not_names_those_that_there_are(service: Service) -> None:
    """Exactly these, with nothing added by anybody."""
    answer = await service.api("POST", "/api/v1/tasks", {"task": "x", "scenario": "poetry"})

    assert answer.status_code == 422
    assert all(scenario in answer.json()["detail"] for scenario in SCENARIOS)


@pytest.mark.parametrize(
    ("goal", "scenario"),
    [
        ("Write a function that parses dates.", "code_generation"),
        ("Refactor the parser into two modules.", "refactoring"),
        ("Why does the worker crash?", "debugging"),
        ("Write unit tests for the parser.", "testing"),
        ("Document the public functions in the README.", "documentation"),
        ("Design the architecture of a message queue.", "architecture"),
        ("Optimize the slow query.", "optimization"),
        ("Rename the files in this folder.", "file_operations"),
        ("Run the command df.", "command_execution"),
        ("Analyse the log lines of last night.", "log_analysis"),
        ("Check whether the endpoint answers: HTTP status and latency.", "endpoint_diagnosis"),
        ("Summarize the incident of last night.", "incident_summary"),
    ],
)
async def test_the_scenario_is_inferred_from_what_is_asked(service: Service, goal: str, scenario: str) -> None:
    """Nobody names it by hand; and a small model does better with the right words."""
    await service.done(goal)
    await service.done("x", scenario=scenario)

    inferred, named = (str(each.messages[0]["content"]) for each in service.server.requests)
    assert inferred == named


# From Python


async def test_one_interface_in_the_process_and_over_http(tmp_path: Path) -> None:
    """What begins inside of a program can move out of it without being written anew."""

    async def story(tasks: TaskService, name: str) -> list[Any]:
        done = await ask(tasks, "Look around.", task_id=f"{name}-1", metadata={"a": 1})
        batch = await tasks.submit_batch(
            BatchAsked(tasks=[TaskAsked(task="One."), TaskAsked(task="Two.")], mode="sequential"), by="me"
        )
        events = [event["event"] async for event in tasks.events(batch["tasks"][1]["task_id"], 0)]
        again = await tasks.submit(TaskAsked(task="Look around.", task_id=f"{name}-1", metadata={"a": 1}), by="me")
        listed = await tasks.tasks(status="completed", limit=3)
        models, tools = await tasks.models(), await tasks.tools()
        run = await tasks.run(done["task_id"])
        shapes = [sorted(view) for view in (done, batch, again, listed["tasks"][0], models[0], tools[0], run)]
        return [done["status"], done["result"]["summary"], events[0], events[-1], again["repeated"], shapes]

    async with opened(tmp_path / "outside") as service:
        config = yaml.safe_load(service.stage.path.read_text())
        config["daemon"] |= {"state_dir": str(tmp_path / "inside"), "memory_limit": "64GiB"}
        config["api"] = {"listen": [f"unix:{tmp_path}/inside.sock"]}
        config["webhooks"]["hook"]["secret"] = service.stage.hook.secret
        (tmp_path / "inside.yaml").write_text(yaml.safe_dump(config))
        async with daemon_here(tmp_path / "inside.yaml") as daemon:
            inside = await story(daemon.tasks, "inside")
            methods = {
                name for name, each in inspect.getmembers(TaskService) if not name.startswith("_") and callable(each)
            }
            assert methods
            assert all(hasattr(daemon.tasks, name) and hasattr(HttpTasks, name) for name in methods)
            async with HttpTasks(f"{tmp_path}/inside.sock") as tasks:
                assert (await tasks.task("inside-1")) == (await daemon.tasks.task("inside-1"))
        async with HttpTasks(str(service.stage.folder / "api.sock")) as tasks:
            by_socket = await story(tasks, "socket")
        async with HttpTasks(service.url, key=service.keys["operate"]) as tasks:
            over_tcp = await story(tasks, "tcp")

    assert inside[:2] == ["completed", "All is well."]
    assert inside == by_socket == over_tcp


async def test_the_examples_run(service: Service, tmp_path: Path) -> None:
    """They are what people begin with."""
    service.server.otherwise = "It is well."
    key = {**environment_of_tests(), "AGENTD_KEY": service.keys["operate"]}
    config = yaml.safe_load(service.stage.path.read_text())
    config["daemon"] |= {"state_dir": str(tmp_path / "state"), "memory_limit": "64GiB"}
    config["api"] = {}
    (tmp_path / "agentd.yaml").write_text(yaml.safe_dump(config))
    words = [
        [sys.executable, str(EXAMPLES / "in_process.py"), str(tmp_path / "agentd.yaml"), "How is it?"],
        [sys.executable, str(EXAMPLES / "client.py"), service.url, "How is it?"],
    ]
    if shutil.which("curl"):
        words.append(["sh", str(EXAMPLES / "api.sh"), "How is it?"])
    for each in words:
        said = await service.said(*each, **{**key, "AGENTD": service.url})
        assert said.code == 0, (each, said.err)
        assert "It is well." in said.out
    assert len(service.server.requests) == len(words)
    assert sorted(path.name for path in EXAMPLES.iterdir() if path.is_file()) == [
        "api.sh",
        "client.py",
        "in_process.py",
    ]


# What was understood, planned, done, and what came of it


async def test_understanding_plan_steps_and_result_are_seen_as_they_come(service: Service) -> None:
    """Who waits sees what it is about before it is done; who comes later sees all of it in the trace."""
    target = await service.stage.target()
    target.allowed = 0
    plan = {"understanding": "A page is to be read.", "approach": "Ask for it.", "complexity": "simple"}
    service.server.answers(
        calls(call("plan", **plan, estimated_steps=2, requirements=[]), call("http_get", url=target.url)),
        "The page says ok.",
    )
    id = await submit(service, "Read the page.")
    await service.stage.news.until(lambda: target.arrived, "the tool is at work")

    async def planned() -> Any:
        view = await service.json(f"/api/v1/tasks/{id}")
        assert view["status"] == "in_progress"
        return view["plan"]

    seen = await until(planned, "the plan is seen while its first step is under way", within_s=3)
    target.allowed = 1
    task, run = await task_of(service, id), await run_of(service, id)

    assert (seen["understanding"], seen["approach"]) == ("A page is to be read.", "Ask for it.")
    assert task["plan"] == seen
    assert [(step["tool"], step["ok"]) for step in task["steps"]] == [("http_get", True)]
    assert task["result"]["summary"] == "The page says ok."
    kinds = [line["kind"] for line in run["record"]]
    order = [kinds.index(kind) for kind in ("job", "model", "plan", "task", "result", "outcome")]
    assert order == sorted(order)

    async def spans() -> Any:
        found = (await service.json(f"/api/v1/runs/{id}/timeline"))["spans"]
        return found if any(each["name"].startswith("invoke_agent") for each in found) else None

    names = [each["name"] for each in await until(spans, "the trace is kept")]
    assert {"chat default", "execute_tool http_get"} <= set(names)
    page = (await service.api("GET", f"/runs/{id}")).text
    for text in ("A page is to be read.", "http_get", "The page says ok."):
        assert text in page


# Many at once, and in what order


@pytest.mark.timeout(300)
async def test_many_tasks_at_once_with_a_key_come_to_their_ends(tmp_path: Path) -> None:
    """Fifty at a time over TCP; none is lost, refused or asked for twice."""
    async with opened(tmp_path, api={"max_concurrent_tasks": 10}) as service:
        service.server.otherwise = lambda asked: str(asked.messages[1]["content"]).split("\n")[0]
        numbers = itertools.count()
        async with HttpTasks(service.url, key=service.keys["operate"]) as tasks:

            async def client() -> None:
                while (mine := next(numbers)) < TASKS:
                    await tasks.submit(TaskAsked(task=f"Look at {mine}.", task_id=f"t{mine}"))

            async def all_ended() -> bool:
                left = [await tasks.tasks(status=status, limit=1) for status in ("pending", "in_progress")]
                return not any(each["tasks"] for each in left)

            await asyncio.gather(*(client() for _ in range(AT_ONCE)))
            await until(all_ended, "all of them end", within_s=240)
            views = await asyncio.gather(*(tasks.task(f"t{each}") for each in range(TASKS)))

        assert [view["status"] for view in views] == ["completed"] * TASKS
        assert [view["result"]["summary"] for view in views] == [f"Goal: Look at {each}." for each in range(TASKS)]
        assert len(service.server.requests) == TASKS
        assert service.server.most_at_once <= 10
        assert await number(service, "ai_agent_tasks_completed_total") == TASKS


async def test_what_is_urgent_begins_first_and_of_that_the_oldest(tmp_path: Path) -> None:
    """Whoever asked first among equals is served first; each state is one that callers know."""
    async with opened(tmp_path, api={"max_concurrent_tasks": 1}) as service:
        release = asyncio.Event()

        async def held(asked: Asked) -> Reply:
            await release.wait()
            return Reply(text="Done.")

        service.server.answers(held)
        first = await submit(service, "first")
        await service.server.wait_for(1)
        waiting = {}
        for turn in (1, 2):
            for priority in ("low", "normal", "high", "critical"):
                waiting[f"{priority} {turn}"] = await submit(service, f"{priority} {turn}", priority=priority)
        loser = await submit(service, "never", priority="low")
        assert (await service.json(f"/api/v1/tasks/{first}"))["status"] == "in_progress"
        assert (await service.json(f"/api/v1/tasks/{loser}"))["status"] == "pending"
        await service.api("DELETE", f"/api/v1/tasks/{loser}")

        release.set()
        for id in waiting.values():
            await task_of(service, id)

        asked = [str(each.messages[1]["content"]).split("\n")[0] for each in service.server.requests]
        order = ["critical 1", "critical 2", "high 1", "high 2", "normal 1", "normal 2", "low 1", "low 2"]
        assert asked == [f"Goal: {each}" for each in ("first", *order)]
        assert (await service.json(f"/api/v1/tasks/{loser}"))["status"] == "cancelled"
        service.server.answers(REFUSED)
        assert (await service.done())["status"] == "failed"
        service.server.otherwise = calls(call("list_files", path=str(service.files)))
        assert (await service.done(context={"constraints": {"max_steps": 1}}))["status"] == "stopped"
        counted = {}
        for status in ("pending", "in_progress", "completed", "failed", "cancelled", "stopped"):
            counted[status] = len((await service.json(f"/api/v1/tasks?status={status}"))["tasks"])
        wanted = {"pending": 0, "in_progress": 0, "completed": 9, "failed": 1, "cancelled": 1, "stopped": 1}
        assert counted == wanted
        assert (await service.api("GET", "/api/v1/tasks?status=queued")).status_code == 422


# Names of old


OLD_FILE: Mapping[str, Json] = {
    "model": {"provider": "local", "model_name": "qwen", "timeout_seconds": 30},
    "execution": {"max_steps": 6, "max_retries": 1, "retry_delay_seconds": 0, "timeout_seconds": 90},
    "tools": {"enable_file_operations": True, "enable_command_execution": True},
}


@pytest.mark.parametrize("where", ["file", "environment", ".env"])
async def test_a_service_of_old_names_starts_and_works(tmp_path: Path, where: str) -> None:
    """Who moves over takes the file along, the unit with its variables, or the container's."""
    port = free_port()
    commands = {"commands": {"allow": [["pwd"]]}, "files": {"allow": [str(tmp_path)]}}
    async with opened(tmp_path) as service:
        await service.daemon.stop()
        config = yaml.safe_load(service.stage.path.read_text())
        del config["models"]
        config["agent"] = {"working_directory": str(tmp_path), **commands}
        del config["api"]["listen"]
        old = {section: dict(values) for section, values in OLD_FILE.items()}
        old["model"]["endpoint"] = service.server.url
        flat = {
            f"AGENTD_{section}__{key}".upper(): str(value).lower() if isinstance(value, bool) else str(value)
            for section, values in old.items()
            for key, value in values.items()
        }
        variables = {"BIND_ADDRESS": f"0.0.0.0:{port}"}
        if where == "file":
            config |= old
            config["api"]["bind_address"] = variables.pop("BIND_ADDRESS")
        elif where == "environment":
            variables |= flat
        else:
            lines = {**flat, **variables}
            (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
            variables = {}
        service.stage.path.write_text(yaml.safe_dump(config))
        service.daemon = await service.stage.start(**variables)
        service.client.base_url = httpx.URL(f"http://127.0.0.1:{port}")

        shown = (await service.json("/api/v1/config"))["config"]
        service.server.answers(
            calls(
                call("run_command", argv=["pwd"]),
                call("write_file", path=str(tmp_path / "made"), content="x"),
            ),
            "Done.",
        )
        task = await service.done()

    model, agent = shown["models"]["default"], shown["agent"]
    assert (model["provider"], model["model"], model["timeout"]) == ("openai-compatible", "qwen", "30s")
    assert (agent["max_steps"], agent["retries"], agent["retry_delay"]) == (6, 1, "0s")
    assert shown["api"]["task_timeout"] == "1m30s"
    assert agent["files"]["write"]
    assert {"read_file", "list_files", "write_file", "run_command"} <= set(agent["tools"])
    assert f"0.0.0.0:{port}" in shown["api"]["listen"]
    assert task["status"] == "completed"
    assert [step["ok"] for step in task["steps"]] == [True, True]
    assert service.server.requests[0].json["model"] == "qwen"


async def test_old_switches_switch_off_too(tmp_path: Path) -> None:
    """`enable_command_execution: false` that were not heard would be worse than an error."""
    tools = {"tools": ["read_file", "write_file", "run_command", "http_get"], "commands": {"allow": [["pwd"]]}}
    variables = {"AGENTD_TOOLS__ENABLE_COMMAND_EXECUTION": "false", "AGENTD_TOOLS__ENABLE_FILE_OPERATIONS": "false"}
    async with opened(tmp_path, environment=variables, agent=tools) as service:
        await service.done()
        shown = (await service.json("/api/v1/config"))["config"]["agent"]

        assert shown["tools"] == ["http_get"]
        assert not shown["files"]["write"]
        assert not set(service.server.requests[0].tools) & {"run_command", "write_file", "read_file"}
