"""
The README is true: its configurations load, its commands and files exist.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qsl, urlsplit

import click
import httpx
import pytest
import yaml
from loopback import Authority, free_port
from modelserver import ModelServer
from running import running

from agentd.agent.prompts.template import PLACES, read_template
from agentd.api.beat import read_beat
from agentd.cli import COMMANDS, cli
from agentd.condition import judge
from agentd.config.key_hash import make_key
from agentd.config.loader import load
from agentd.daemon.assemble import open_log_watch, try_log
from agentd.daemon.inprocess import daemon_here
from agentd.daemon.vitals import VITALS
from agentd.logs.settings import RuleType
from agentd.pipeline.replay import replay
from agentd.records import Observation, Verdict
from agentd.testing import FakeClock
from agentd.watch import KINDS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
SECRETS = {
    "AUDIT_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "SLACK_URL": "https://slack.example/x",
    "BACKUP_TOKEN": "0123456789abcdef",
    "PAGERDUTY_KEY": "0123456789abcdef0123456789abcdef",
    "DEPLOY_SECRET": "fedcba9876543210",
    "ANTHROPIC_API_KEY": "sk-ant-0123456789",
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Every `agentd …` of the README, in blocks and in running text."""
    lines = [line.lstrip("$# ").split("#")[0] for block in blocks("console") for line in block.splitlines()]
    lines += re.findall(r"`(agentd [^`]*)`", README)
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [shlex.split(part)[1:] for part in parts if part.startswith("agentd ")]


def configurations() -> list[str]:
    return [block for block in blocks("yaml") if not block.startswith("scrape_configs:")]


def curls() -> list[str]:
    """Every request of the README that is made with curl, each on one line."""
    lines = "".join(blocks("console")).replace("\\\n", " ").splitlines()
    return [line.lstrip("$# ") for line in lines if line.startswith(("$ curl ", "# curl "))]


@pytest.mark.parametrize("text", configurations(), ids=lambda text: text.split("\n")[0].rstrip(":"))
def test_configurations_load_without_a_warning(text: str, tmp_path: Path) -> None:
    """What is copied from here must work."""
    path = tmp_path / "agentd.yaml"
    path.write_text(text)

    loaded = load(path, environment=SECRETS)

    assert [str(problem) for problem in loaded.warnings if "nobody is told" not in str(problem)] == []
    assert loaded.config.probes or loaded.config.logs


MDSTAT = """\
Personalities : [raid1] [raid6] [raid5] [raid4]
md1 : active raid5 sdc1[2] sdb1[1] sda1[0]
      1953260544 blocks super 1.2 level 5, 512k chunk, algorithm 2 [3/{up}] [{disks}]
      bitmap: 0/8 pages [0KB], 65536KB chunk

md0 : active raid1 sdb2[1] sda2[0]
      498688 blocks super 1.2 [2/2] [UU]

unused devices: <none>
"""


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (MDSTAT.format(up=3, disks="UUU"), Verdict.OK),
        (MDSTAT.format(up=2, disks="UU_"), Verdict.FAILING),
        (MDSTAT.format(up=2, disks="_UU"), Verdict.FAILING),
        (MDSTAT.format(up=1, disks="__U"), Verdict.FAILING),
        ("Personalities : [raid1_x]\nunused devices: <none>\n", Verdict.OK),
    ],
    ids=["whole", "last missing", "first missing", "two missing", "no array"],
)
def test_the_raid_watch_tells_a_whole_array_from_a_degraded_one(text: str, verdict: Verdict, tmp_path: Path) -> None:
    """An example that is copied and says ok for a broken array is worse than none."""
    (block,) = (each for each in blocks("yaml") if "mdstat" in each)
    path = tmp_path / "agentd.yaml"
    path.write_text(block)
    conditions = load(path, environment=SECRETS).conditions["raid"]

    seen = Observation(values={"exit_code": 0, "stdout": text, "stderr": ""})

    assert judge(seen, conditions).verdict is verdict


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_exist_with_their_options(words: list[str]) -> None:
    """A command of the README that is not there is the first thing that a newcomer meets."""
    command: click.Command = cli
    context = click.Context(command, info_name="agentd")
    for word in words:
        if word == "…" or not isinstance(command, click.Group):
            break
        found = command.get_command(context, word)
        assert found is not None, word
        command = found
    options = {name for option in command.params if isinstance(option, click.Option) for name in option.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_heartbeats_are_sent_as_the_daemon_reads_them() -> None:
    """The line goes into a cron job, and whether it means failure must not be found out in the night."""
    said = []
    for line in curls():
        words = shlex.split(line, comments=True)
        if "/heartbeat/" not in line:
            continue
        url = urlsplit(words[-1])
        assert url.path == "/api/v1/heartbeat/backup", "as in the example above it"
        said.append(read_beat(words[words.index("-d") + 1].encode(), parse_qsl(url.query)))

    assert said == [(True, "412 files"), (False, "disk full"), (False, "disk full")]


AUTH_LOG = "".join(
    f"Nov 20 09:{n:02}:00 web-1 sshd[{n}]: Failed password for root from 192.0.2.{n % 2} port {n} ssh2\n"
    for n in range(12)
)


def test_the_first_log_rule_fires_once_for_each_address(tmp_path: Path) -> None:
    """What a newcomer tries first must do what the text beside it says."""
    (text,) = (block for block in blocks("yaml") if "bruteforce" in block)
    (tmp_path / "agentd.yaml").write_text(text)
    (tmp_path / "auth.log").write_text(AUTH_LOG)
    config = load(tmp_path / "agentd.yaml", environment=SECRETS).config
    ssh = config.logs[0]
    clock = FakeClock(datetime(2026, 11, 21, tzinfo=UTC))
    watch, work = open_log_watch(ssh, config, clock, "web-1").watch, try_log(ssh, tmp_path / "auth.log", clock)

    report = replay(watch, work, instance="web-1", show=5, missed=True)

    assert [(event.alert.rule, event.alert.by["ip"], event.after.value) for event in report.timeline] == [
        ("bruteforce", "192.0.2.0", "firing"),
        ("bruteforce", "192.0.2.1", "firing"),
    ]
    assert (report.matched, report.missed) == (12, 0)


def test_every_alert_about_ourselves_is_in_the_table() -> None:
    """Who is woken by one looks it up; who writes a route needs its name."""
    listed = dict(re.findall(r"^\| `(\w+:?)(?:NAME)?` \| (.*?) \|$", README, flags=re.MULTILINE))

    assert {rule: listed.get(rule) for rule in VITALS} == {rule: vital.what for rule, vital in VITALS.items()}


def test_every_type_of_rule_is_in_the_table() -> None:
    """A rule that nobody knows of is used by nobody."""
    assert [name for name in get_args(RuleType) if f"`{name}`" not in README] == []


def test_every_kind_of_probe_is_in_the_table() -> None:
    """What is not in the table does not exist for a reader."""
    assert {key for key in re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE) if key in KINDS} == set(KINDS)


def test_named_files_are_there() -> None:
    """Links and paths go stale first."""
    named = re.findall(r"\]\(([^)]+)\)", README) + re.findall(r"`((?:conf|units|tests|agentd)/[\w./-]+)`", README)
    named += re.findall(r'\b(?:src|srcset)="([^"]+)"', README)

    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_command_is_mentioned() -> None:
    """A command that nobody reads of is not used."""
    assert [name for name in COMMANDS if f"agentd {name}" not in README and name != "demo"] == []


async def test_the_python_example_runs(tmp_path: Path) -> None:
    """It is copied before it is read."""
    (example,) = blocks("python")
    names: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), names)  # it is ours
    config = tmp_path / "agentd.yaml"
    async with ModelServer() as model:
        model.otherwise = lambda asked: "The journal of June is still there."
        config.write_text(
            f"daemon: {{state_dir: {tmp_path}/state}}\n"
            f"models: {{default: {{provider: openai-compatible, base_url: '{model.url}', model: m}}}}\n"
        )

        here = await names["in_this_process"](config)
        async with daemon_here(config):
            there = await names["over_the_socket"](f"{tmp_path}/state/api.sock")

    assert here == there == "The journal of June is still there."


@pytest.mark.parametrize("text", blocks("yml"))
def test_templates_of_prompts_can_be_read(text: str) -> None:
    """And what they name in braces is there."""
    template = read_template(text.encode())

    assert (template.prompt, template.words, template.strangers) != ("", (), ())
    assert template.strangers == ()
    for place in PLACES:
        assert f"`{{{{{place}}}}}`" in README


@contextmanager
def served(folder: Path, **api: Any) -> Iterator[tuple[str, str]]:
    """A daemon with what the requests of the README name. Gives its address and a key that may operate."""
    port = free_port()
    token, hashed = make_key("readme")
    settings = {
        "daemon": {"state_dir": str(folder / "state"), "memory_limit": "64GiB"},
        "api": {
            "listen": [f"127.0.0.1:{port}"],
            "keys": [{"name": "readme", "hash": hashed, "scope": "operate"}],
            "hooks": {"deploy": {"secret": "${env:DEPLOY_SECRET}"}},
            **api,
        },
        "models": {"default": {"provider": "openai-compatible", "base_url": "http://127.0.0.1:1/v1", "model": "m"}},
        "watches": [
            {"name": "shop", "every": "1h", "host": {"disk": "/"}, "expect": [], "public": True},
            {"name": "backup", "heartbeat": {"expect_every": "24h", "token": "${env:BACKUP_TOKEN}"}},
        ],
    }
    (folder / "agentd.yaml").write_text(yaml.safe_dump(settings))
    (folder / ".env").write_text("".join(f"{name}={text}\n" for name, text in SECRETS.items()))
    with running(folder / "agentd.yaml"):
        yield f"http://127.0.0.1:{port}", token


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl; `units/prepare test` brings it")
def test_every_request_is_answered(tmp_path: Path) -> None:
    """They are pasted into a shell, where a wrong quote or a path of yesterday is all that a reader sees."""
    refused = []
    with served(tmp_path) as (url, token):
        (tmp_path / "token").write_text(token)
        environment = {**os.environ, **SECRETS, "AGENTD_KEY": token}
        for line in curls():
            here = line.replace("http://127.0.0.1:8787", url).replace("/run/agentd/", f"{tmp_path}/state/")
            here = here.replace("curl ", "curl --silent --show-error --fail-with-body --max-time 2 ", 1)
            done = subprocess.run(
                ["bash", "-c", here], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
            )
            endless = "/api/v1/events" in line  # curl leaves with 28 when its time is over
            if done.returncode != (28 if endless else 0) or (endless and "retry:" not in done.stdout):
                refused.append((line, done.stdout, done.stderr))

    assert len(curls()) > 8
    assert refused == []


def test_what_the_page_section_names_is_there(tmp_path: Path) -> None:
    """Badges are put into other people's wikis; pages into their bookmarks."""
    (section,) = re.findall(r"^## The page$(.*?)^## ", README, flags=re.MULTILINE | re.DOTALL)
    paths = re.findall(r"`(/[^`\s]*)`", section)

    with served(tmp_path) as (url, _):
        found = {path: httpx.get(url + path).status_code for path in paths}

    assert found == dict.fromkeys(found, 200)
    assert len(found) >= 8


def test_the_document_of_the_api_has_words_for_all_that_can_be_asked(tmp_path: Path) -> None:
    """It is the reference that the README sends people to, and a viewer shows nothing else."""
    with served(tmp_path) as (url, _):
        document = httpx.get(f"{url}/api/v1/openapi.json").json()

    operations = {
        f"{method} {path}": each for path, methods in document["paths"].items() for method, each in methods.items()
    }
    assert [name for name, each in operations.items() if len(each["summary"]) < 8] == []
    bare = {
        f"{name}: {param['name']}"
        for name, each in operations.items()
        for param in each["parameters"]
        if param.get("description", param["name"]) == param["name"]
    }
    assert bare == set()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool; `units/prepare test` brings it")
def test_prometheus_takes_the_scrape_configuration(tmp_path: Path) -> None:
    """A file with a slip of the pen keeps the whole of Prometheus from starting."""
    (text,) = (block for block in blocks("yaml") if block.startswith("scrape_configs:"))
    (tmp_path / "token").write_text("agentd_x.y")
    path = tmp_path / "prometheus.yml"
    path.write_text(text.replace("/etc/prometheus/agentd.token", str(tmp_path / "token")))

    done = subprocess.run(["promtool", "check", "config", str(path)], capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr


def test_a_proxy_is_told_to_hold_no_events_back(tmp_path: Path) -> None:
    """Whoever sets one up without reading the README sees them at once, too."""
    told = {}
    with served(tmp_path) as (url, token), httpx.Client(headers={"Authorization": f"Bearer {token}"}) as client:
        task = client.post(f"{url}/api/v1/tasks", json={"task": "Look."}).json()["task_id"]
        for path in ("/api/v1/events", f"/api/v1/tasks/{task}/events"):
            with client.stream("GET", url + path) as stream:
                told[path] = stream.headers.get("X-Accel-Buffering")

    assert set(told.values()) == {"no"}, told


@contextmanager
def nginx(folder: Path, upstream: str) -> Iterator[httpx.Client]:
    """The nginx of the README, in front of a daemon. Gives a browser of somebody far away."""
    (text,) = blocks("nginx")
    port = free_port()
    authority = Authority(folder)
    pem = authority.issue(names=("status.example",))
    text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl").replace("http://127.0.0.1:8787", upstream)
    text = re.sub(r"/etc/ssl/status\.example\.(pem|key)", pem, text)
    places = " ".join(f"{name}_temp_path {folder}/{name};" for name in ("proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log stderr notice; worker_processes 1; {user}\n"
        f"events {{}}\nhttp {{ access_log off; client_body_temp_path {folder}/body; {places}\n{text}}}\n"
    )
    words = ["setpriv", "--pdeathsig", "TERM", "nginx", "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            seen = ""
            while "start worker process " not in seen:
                line = process.stderr.readline()
                assert line, seen
                seen += line
            context = ssl.create_default_context(cafile=authority.file)
            # By the name of its certificate and of the configuration, wherever that leads.
            with httpx.Client(
                base_url=f"https://127.0.0.1:{port}", verify=context, headers={"Host": f"status.example:{port}"}
            ) as client:
                client.event_hooks = {"request": [_by_name]}
                yield client
        finally:
            process.send_signal(signal.SIGTERM)


def _by_name(request: httpx.Request) -> None:
    request.extensions["sni_hostname"] = "status.example"


@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx (apt-get install nginx-light)")
def test_behind_the_proxy_everybody_needs_a_key_and_with_one_the_page_works(tmp_path: Path) -> None:
    """To the daemon all of them come over loopback; and forms, cookies and events have to get through."""
    with (
        served(tmp_path, public_url="https://status.example/") as (url, token),
        nginx(tmp_path, url) as browser,
    ):
        host = browser.headers["Host"]
        stranger = {
            path: browser.get(path).status_code for path in ("/", "/status", "/badges/shop.svg", "/api/v1/watches")
        }
        with browser.stream("GET", "/api/v1/events", headers={"Authorization": f"Bearer {token}"}) as events:
            first = next(events.iter_text())
        page = {"Origin": f"https://{host}", "Sec-Fetch-Site": "same-origin"}
        signed_in = browser.post("/login", data={"key": token}, headers=page)
        cookie = signed_in.headers["set-cookie"]
        own = {"Cookie": cookie.partition(";")[0]}
        shown = browser.get("/watches/shop", headers=own)
        (csrf,) = set(re.findall(r'name="csrf" value="([^"]+)"', shown.text))
        paused = browser.post("/watches/shop/pause", data={"csrf": csrf}, headers=page | own)
        bearer = {"Authorization": f"Bearer {token}"}
        watch = httpx.get(f"{url}/api/v1/watches/shop", headers=bearer).json()
        silent = httpx.get(f"{url}/api/v1/watches").status_code

    assert stranger == {"/": 401, "/status": 200, "/badges/shop.svg": 200, "/api/v1/watches": 401}
    assert silent == 401, "as a proxy would send it that says nothing of whom it speaks for"
    assert first.startswith("retry:")
    assert "secure" in cookie.lower()
    assert (signed_in.status_code, shown.status_code, paused.status_code) == (303, 200, 303)
    assert watch["paused"]
