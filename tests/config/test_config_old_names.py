"""Old and short names are taken in files, in the environment and in requests; every other one is refused as ever."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from config_folder import TOLD, Folder

from agentd.agent.permissions import check_command, check_path
from agentd.config.loader import Loaded, look_at
from agentd.config.old_names import listen_on, seconds, translate
from agentd.daemon.runs.jobs import permissions_of
from agentd.errors import AgentdError

WATCH = "watches: [{name: web, http: {url: 'http://127.0.0.1/'}}]\n"
BASE = TOLD + WATCH
OLD = """
model:
  provider: local
  model_name: qwen
  endpoint: http://127.0.0.1:8000/v1
  api_key: "${env:THE_KEY}"
  max_tokens: 1000
  temperature: 0.7
  timeout_seconds: 7
execution:
  max_steps: 11
  max_retries: 2
  retry_delay_seconds: 1.5
  timeout_seconds: 120
tools:
  enable_file_operations: true
  enable_command_execution: true
  working_directory: /srv
  allowed_paths: [/srv, /tmp]
  forbidden_commands: ["rm -rf", format, fdisk]
service:
  max_concurrent_tasks: 4
  default_task_timeout: 600
  enable_metrics: true
  log_level: WARNING
  cors: [https://status.example]
  rate_limiting: {requests_per_minute: 30, burst_size: 5}
  bind_address: 127.0.0.1:8787
"""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.environment = {"THE_KEY": "a-key-0123456789", "STATE_DIRECTORY": str(tmp_path)}
    return folder


def facts(loaded: Loaded) -> dict[str, Any]:
    config = loaded.config
    agent, api = config.agent, config.api
    return {
        "steps": agent.max_steps,
        "retries": agent.retries,
        "delay": agent.retry_delay,
        "directory": str(agent.working_directory),
        "paths": agent.files.allow,
        "write": agent.files.write,
        "forbid": agent.commands.forbid,
        "tools": {"write_file", "read_file", "run_command"} & set(agent.tools),
        "tasks": api.max_concurrent_tasks,
        "timeout": api.task_timeout,
        "cors": api.cors.allowed_origins,
        "rate": (api.rate_limiting.requests_per_minute, api.rate_limiting.burst_size),
        "listen": [str(each) for each in api.listen],
        "level": config.daemon.log_level,
    }


WANTED = {
    "steps": 11,
    "retries": 2,
    "delay": timedelta(seconds=1.5),
    "directory": "/srv",
    "paths": ("/srv", "/tmp"),
    "write": True,
    "forbid": ("rm -rf", "format", "fdisk"),
    "tools": {"write_file", "read_file", "run_command"},
    "tasks": 4,
    "timeout": timedelta(seconds=120),
    "cors": ("https://status.example",),
    "rate": (30, 5),
    "listen": ["127.0.0.1:8787"],
    "level": "warning",
}


def test_a_whole_file_of_old_names_is_understood(folder: Folder) -> None:
    """A service that moves over starts with the file that it has."""
    loaded = folder.load(BASE + OLD)
    model = loaded.config.models["default"]

    assert facts(loaded) == WANTED
    assert (model.provider, model.model, model.base_url) == ("openai-compatible", "qwen", "http://127.0.0.1:8000/v1")
    assert (model.max_tokens, model.temperature, model.timeout) == (1000, 0.7, timedelta(seconds=7))


def test_what_old_names_allow_and_forbid_holds_at_the_tools(folder: Folder) -> None:
    """A list of forbidden commands that nothing reads would be worse than none."""
    loaded = folder.load(BASE + OLD + 'agent: {commands: {allow: [[rm, -rf, "*"], [ls, "*"]]}}\n')
    permissions = permissions_of(loaded.config)

    assert check_path(permissions, "/srv/a") == "/srv"
    for path in ("/etc/hosts", "/srv/../etc/hosts"):
        with pytest.raises(AgentdError):
            check_path(permissions, path)
    check_command(permissions, ["ls", "/srv/a"])
    for argv in (["rm", "-rf", "/srv/a"], ["ls", "/etc/shadow"], ["fdisk", "/dev/sda"]):
        with pytest.raises(AgentdError):
            check_command(permissions, argv)


def test_each_can_be_set_by_the_environment_and_dotenv(folder: Folder) -> None:
    """In containers there is nothing else."""
    folder.environment |= {
        "AGENTD_MODEL__PROVIDER": "local",
        "AGENTD_MODEL__MODEL_NAME": "qwen",
        "AGENTD_MODEL__ENDPOINT": "http://127.0.0.1:8000/v1",
        "AGENTD_MODEL__API_KEY": "plain-0123456789",
        "AGENTD_EXECUTION__MAX_STEPS": "11",
        "AGENTD_EXECUTION__MAX_RETRIES": "2",
        "AGENTD_EXECUTION__RETRY_DELAY_SECONDS": "1.5",
        "AGENTD_EXECUTION__TIMEOUT_SECONDS": "120",
        "AGENTD_TOOLS__ENABLE_FILE_OPERATIONS": "true",
        "AGENTD_TOOLS__ENABLE_COMMAND_EXECUTION": "true",
        "AGENTD_TOOLS__WORKING_DIRECTORY": "/srv",
        "AGENTD_TOOLS__ALLOWED_PATHS": "[/srv, /tmp]",
        "BIND_ADDRESS": "127.0.0.1",
    }
    folder.write(
        'AGENTD_TOOLS__FORBIDDEN_COMMANDS="[rm -rf, format, fdisk]"\n'
        "AGENTD_SERVICE__MAX_CONCURRENT_TASKS=4\n"
        "AGENTD_SERVICE__LOG_LEVEL=WARNING\n"
        "AGENTD_SERVICE__CORS='[https://status.example]'\n"
        "AGENTD_SERVICE__RATE_LIMITING='{requests_per_minute: 30, burst_size: 5}'\n"
        "AGENTD_SERVICE__ENABLE_METRICS=true\n"
        "AGENTD_EXECUTION__MAX_STEPS=99\n",
        ".env",
    )
    loaded = folder.load(BASE + "agent: {max_steps: 3}\nmodels: {default: {provider: zhipu, model: glm-4}}\n")
    model = loaded.config.models["default"]

    assert facts(loaded) == WANTED
    assert (model.provider, model.model) == ("openai-compatible", "qwen")
    assert model.api_key is not None
    assert model.api_key.text == "plain-0123456789"
    assert loaded.origins["models.default.model"] == "environment AGENTD_MODEL__MODEL_NAME"
    assert loaded.origins["api.listen[0]"] == "environment BIND_ADDRESS"
    assert loaded.origins["agent.commands.forbid[0]"] == ".env AGENTD_TOOLS__FORBIDDEN_COMMANDS"


def test_the_present_name_of_a_variable_wins_over_the_old_one(folder: Folder) -> None:
    folder.environment |= {
        "AGENTD_MODEL__MODEL_NAME": "old",
        "AGENTD_MODELS__DEFAULT__MODEL": "new",
        "BIND_ADDRESS": "127.0.0.1:1",
        "AGENTD_API__LISTEN": "['127.0.0.1:2']",
    }
    config = folder.load(BASE + "model: {provider: zhipu}\n").config

    assert config.models["default"].model == "new"
    assert [str(each) for each in config.api.listen] == ["127.0.0.1:2"]


def test_old_names_are_noted_and_not_warned_of(folder: Folder) -> None:
    """What works needs no word at each start; `agentd check` says what it is called now."""
    folder.environment["AGENTD_EXECUTION__MAX_RETRIES"] = "1"
    loaded = folder.load(BASE + "model:\n  provider: zhipu\n  model_name: glm-4\n")

    assert not loaded.warnings
    notes = {(each.key, each.line): each.what for each in loaded.notices}
    assert set(notes) == {("model", 4), ("model.model_name", 6), ("AGENTD_EXECUTION__MAX_RETRIES", 0)}
    assert "models.default.model" in notes["model.model_name", 6]


@pytest.mark.parametrize(
    ("text", "key", "line", "words"),
    [
        ("model:\n  provider: zhipu\n  model_name: glm\n  max_tokens: 0\n", "models.default.max_tokens", 4, "range"),
        ("model:\n  provider: zhipu\n  model_nam: glm\n  model: glm\n", "models.default.model_nam", 3, "no key"),
        ("model: glm-4\n", "model", 1, "not a mapping"),
        ("execution:\n  max_step: 3\n", "execution.max_step", 2, "no key"),
        ("execution:\n  retry_delay_seconds: soon\n", "agent.retry_delay", 2, "duration"),
        ("execution: [1]\n", "execution", 1, "not a mapping"),
        ("tools:\n  enable_file_operations: 'yes'\n", "tools.enable_file_operations", 2, "neither true nor false"),
        ("tools:\n  allowed_paths: [srv]\n", "agent.files.allow[0]", 2, "absolute"),
        ("service:\n  metrics_port: 9090\n", "service.metrics_port", 2, "no key"),
        ("service:\n  log_level: loud\n", "daemon.log_level", 2, "cannot be"),
        ("agent: {max_steps: 3}\nexecution:\n  max_steps: 4\n", "execution.max_steps", 3, "something else"),
        ("model: {provider: zhipu, model_name: a, model: b}\n", "model.model_name", 1, "something else"),
        ("api: {task_timeout: 300}\n", "api.task_timeout", 1, "duration"),
        ("agent: {retry_delay: 3}\n", "agent.retry_delay", 1, "duration"),
        ("timeout_seconds: 3\n", "timeout_seconds", 1, "no key"),
    ],
)
def test_what_is_wrong_is_told_where_it_stands(folder: Folder, text: str, key: str, line: int, words: str) -> None:
    """Strictness is what finds a typing slip before the night; an old name is no way around it."""
    problem = folder.problem(BASE + text)

    assert (problem.key, problem.line - BASE.count("\n")) == (key, line)
    assert words in problem.what


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("AGENTD_EXECUTION__MAX_STEP", "3", "no key known here"),
        ("AGENTD_TOOLS__ENABLE_FILE_OPERATIONS", "maybe", "neither true nor false"),
        ("AGENTD_MODEL__MODEL_NAM", "x", "is no key known here"),
        ("AGENTD_SERVICE__CORS", "[a", "list is opened"),
        ("BIND_ADDRESS", "not an address", "address"),
        ("BIND_ADDRESS", "0.0.0.0:8787", "no key"),
    ],
)
def test_variables_of_old_names_are_no_less_strict(folder: Folder, name: str, value: str, words: str) -> None:
    """Off loopback without a key is refused by whatever name it was said."""
    folder.environment[name] = value
    problem = folder.problem(BASE + "models: {default: {provider: zhipu, model: glm-4}}\n")

    assert words in problem.what
    assert name in problem.file + problem.key


def test_variables_of_other_programs_are_left_alone(folder: Folder) -> None:
    folder.environment |= {"AGENTD_MODEL": "glm-4", "AGENTD_TOOLS": "hammer", "BIND_ADDRESS": " ", "MODEL_NAME": "x"}

    assert folder.load(BASE).config.api.listen == ()


def test_switches_add_and_remove_tools_and_nothing_else(folder: Folder) -> None:
    """Off is off, whatever the list says; on lets no command run that nobody listed."""
    default = folder.load(BASE).config.agent.tools
    off = folder.load(
        BASE + "tools: {enable_file_operations: false, enable_command_execution: false}\n"
        "agent: {tools: [read_file, run_command, dns_lookup]}\n"
    )
    assert off.config.agent.tools == ("dns_lookup",)
    assert not off.config.agent.files.write
    on = folder.load(BASE + "tools: {enable_command_execution: true}\n")
    assert on.config.agent.tools == (*default, "run_command")
    assert on.config.agent.commands.allow == ()
    assert any("is empty" in each.what for each in on.warnings)
    folder.environment["AGENTD_TOOLS__COMMAND_EXECUTION"] = "true"
    both = folder.load(BASE + "agent: {tools: [dns_lookup], commands: {allow: [[ls]]}}\n")
    assert both.config.agent.tools == ("dns_lookup", "run_command")


def test_the_shorter_of_two_times_for_a_task_holds(folder: Folder) -> None:
    """Old files say it for the execution and for the service, and both held."""
    for first, second in ((5, 600), (600, 5)):
        text = f"execution: {{timeout: {first}}}\nservice: {{default_task_timeout: {second}}}\n"
        assert folder.load(BASE + text).config.api.task_timeout == timedelta(seconds=5)


@pytest.mark.parametrize(("task", "service"), [("20", "600"), ("600", "20")])
def test_the_shorter_of_two_times_holds_by_variables_too(folder: Folder, task: str, service: str) -> None:
    """Which of two names comes first in the alphabet must decide nothing."""
    folder.environment |= {
        "AGENTD_EXECUTION__TIMEOUT": task,
        "AGENTD_SERVICE__DEFAULT_TASK_TIMEOUT": service,
    }
    assert folder.load(BASE).config.api.task_timeout == timedelta(seconds=20)
    folder.environment["AGENTD_API__TASK_TIMEOUT"] = "30s"
    assert folder.load(BASE).config.api.task_timeout == timedelta(seconds=30), "the present name counts alone"


def test_a_model_may_be_written_in_both_places(folder: Folder) -> None:
    config = folder.load(BASE + "model: {temperature: 1}\nmodels: {default: {provider: zhipu, model_name: a}}\n").config

    assert (config.models["default"].model, config.models["default"].temperature) == ("a", 1)


def test_what_is_translated_is_not_changed_itself() -> None:
    """Where a value stands is known by the very mapping that was read."""
    shared = {"model_name": "m", "provider": "zhipu"}
    data: dict[str, Any] = {
        "models": {"a": shared, "b": shared},
        "service": {"log_level": "INFO"},
        "daemon": {"instance": "x"},
    }
    found = translate(data)

    assert found.data["models"] == {name: {"model": "m", "provider": "zhipu"} for name in "ab"}
    assert found.data["daemon"] == {"instance": "x", "log_level": "info"}
    assert shared == {"model_name": "m", "provider": "zhipu"}
    assert data["daemon"] == {"instance": "x"}
    assert found.written(("models", "b", "model")) == ("models", "b", "model_name")
    plain: list[Any] = [None, [], {"agent": {"max_steps": 1}}, {"agent": 5, "models": None}]
    assert all(translate(untouched).data is untouched for untouched in plain)


@pytest.mark.parametrize(
    ("value", "read"),
    [(3, "3s"), (1.5, "1.5s"), ("3", "3s"), ("3s", "3s"), (True, True), (None, None), ([], []), ("soon", "soon")],
)
def test_bare_numbers_are_seconds(value: Any, read: Any) -> None:
    assert seconds(value) == read


@pytest.mark.parametrize(
    ("address", "read"),
    [
        ("127.0.0.1:80", ["127.0.0.1:80"]),
        ("127.0.0.1", ["127.0.0.1:8787"]),
        ("::1", ["[::1]:8787"]),
        ("[::1]", ["[::1]:8787"]),
        ("[::1]:80", ["[::1]:80"]),
        ("unix:/run/a.sock", ["unix:/run/a.sock"]),
        (["127.0.0.1:80"], ["127.0.0.1:80"]),
        (None, None),
    ],
)
def test_an_address_without_a_port_gets_ours(address: Any, read: Any) -> None:
    assert listen_on(address) == read


def test_a_request_may_use_them_too() -> None:
    problems, notices = look_at({"model": {"provider": "zhipu", "model_name": "glm-4", "api_key": "k"}})

    assert not [each for each in problems if not each.warning]
    assert {each.key for each in notices} == {"model", "model.model_name"}
