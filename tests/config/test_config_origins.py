"""Every value says where it comes from, and the view of the whole shows no secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from config_folder import TOLD, Folder

from agentd.config.masked import masked, masked_data

SECRETS = ("s3cret-0", "s3cret-1", "s3cret-2", "s3cret-3", "s3cret-4", "s3cret-5", "s3cret-6", "s3cret-7", "s3cret-8")

WHOLE = """
daemon:
  heartbeat: {url: "https://hc.example/s3cret-0"}
models:
  default: {provider: openai, model: m, api_key: s3cret-1}
  named: {provider: openai, model: m, api_key: "${env:THE_KEY}"}
webhooks:
  ops: {url: "https://hooks.example/services/s3cret-2", secret: whsec_czNjcmV0LTM=}
  chat:
    url: "https://chat.example/"
    headers: {Authorization: "Bearer ${env:THE_KEY}", X-Own: s3cret-3}
alerting: {notify: [ops]}
agent:
  mcp:
    one: {command: [server, --password, s3cret-4, --token=s3cret-5], tools: [t], env: {A_TOKEN: s3cret-6}}
watches:
  - {name: web, http: {url: "https://a.example/?token=s3cret-7&api_key=s3cret-8x9y"}}
  - {name: beat, heartbeat: {expect_every: 1h, token: "mixed-${env:THE_KEY}"}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.environment = {"THE_KEY": "a-key-0123456789", "STATE_DIRECTORY": str(tmp_path)}
    return folder


def test_no_secret_is_in_the_view(folder: Folder) -> None:
    """Wherever one may stand: keys, addresses, headers, words of a command."""
    view = masked(folder.load(WHOLE).config)
    text = json.dumps(view)

    assert [secret for secret in (*SECRETS, "a-key-0123456789", "mixed-", "czNjcmV0") if secret in text] == []
    assert view["models"]["default"]["api_key"] == "***"
    assert view["models"]["named"]["api_key"] == "${env:THE_KEY}", "a name is no secret"
    assert view["webhooks"]["chat"]["headers"] == {"Authorization": "Bearer ${env:THE_KEY}", "X-Own": "***"}
    assert view["watches"][1]["heartbeat"]["token"] == "***${env:THE_KEY}***"
    assert view["agent"]["mcp"]["one"]["command"][:3] == ["server", "--password", "***"]


def test_the_view_is_written_as_a_file_would_be(folder: Folder) -> None:
    """What is shown can be copied back."""
    view = masked(folder.load(WHOLE).config)

    assert view["api"]["task_timeout"] == "5m"
    assert view["watches"][0]["every"] == "1m"
    assert view["models"]["default"]["max_tokens"] == 4000
    assert view["daemon"]["heartbeat"] == {"url": "***", "every": "1m"}
    assert json.loads(json.dumps(view)) == view


def test_data_that_nobody_typed_is_masked_by_its_names() -> None:
    data = {"models": {"a": {"api_key": "k", "max_tokens": 5, "base_url": "http://u:pass1word@h/"}}, "x": None}

    assert masked_data(data) == {
        "models": {"a": {"api_key": "***", "max_tokens": 5, "base_url": "http://***@h/"}},
        "x": None,
    }


def test_each_value_says_its_line_variable_or_nothing(folder: Folder) -> None:
    """An operator who wonders why looks in one place and not in five."""
    folder.write(
        "webhooks: {extra: {url: 'https://b.example/'}}\nwatches: [{name: b, tcp: {host: b, port: 1}}]", "d/a.yaml"
    )
    folder.write("AGENTD_AGENT__RETRIES=1\n", ".env")
    folder.environment["AGENTD_SERVICE__LOG_LEVEL"] = "WARN"
    loaded = folder.load(
        "include: [d/*.yaml]\n"
        + TOLD
        + "agent:\n  max_steps: 3\n  files:\n    allow: [/a,\n      /b]\n"
        + "execution: {timeout_seconds: 5}\n"
        + "watches: [{name: a, tcp: {host: a, port: 1}}]\n"
    )
    main, origins = folder.path / "agentd.yaml", loaded.origins

    assert origins["agent.max_steps"] == f"{main}:5"
    assert origins["agent.files.allow[1]"] == f"{main}:8"
    assert origins["agent.retries"] == ".env AGENTD_AGENT__RETRIES"
    assert origins["daemon.log_level"] == "environment AGENTD_SERVICE__LOG_LEVEL"
    assert origins["api.task_timeout"] == f"{main}:9"
    assert origins["watches[0]"] == f"{main}:10"
    assert origins["watches[1]"] == f"{folder.path / 'd/a.yaml'}:2"
    assert origins["webhooks.extra.url"] == f"{folder.path / 'd/a.yaml'}:1"
    assert "agent.max_parallel" not in origins
    assert [watch.name for watch in loaded.config.watches] == ["a", "b"]
