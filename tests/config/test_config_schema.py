"""The published schema, the starter and the example agree with the loader."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel

from agentd.config.document import parse_document
from agentd.config.loader import load
from agentd.config.models import Config
from agentd.config.schema import config_schema
from agentd.config.starter import write_starter
from agentd.config.watches import watch_model
from agentd.errors import ConfigError, InvalidConfig

EXAMPLE = Path(__file__).parents[2] / "conf" / "agentd.example.yaml"


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(config_schema())


def data_of(text: bytes) -> Any:
    document, problems = parse_document(text, "a.yaml")
    assert not problems
    return document.data


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(config_schema())
    json.dumps(config_schema(), allow_nan=False)


def test_the_schema_accepts_the_example(validator: jsonschema.Draft202012Validator) -> None:
    """An editor must not underline what is right."""
    assert [error.message for error in validator.iter_errors(data_of(EXAMPLE.read_bytes()))] == []


def test_the_loader_accepts_the_example(tmp_path: Path) -> None:
    """Documentation that does not load teaches mistakes."""
    (tmp_path / "agentd.yaml").write_bytes(EXAMPLE.read_bytes())
    loaded = load(tmp_path / "agentd.yaml", environment={})

    assert len(loaded.config.watches) == 13
    assert [watch.kind for watch in loaded.config.probes] == [
        *("http", "tcp", "tls", "dns", "host", "systemd", "heartbeat", "command")
    ]


@pytest.mark.parametrize(("disks", "whole"), [("[UU]", True), ("[U_]", False), ("[_U]", False), ("[__]", False)])
def test_the_raid_of_the_example_is_failing_when_a_disk_is_gone(tmp_path: Path, disks: str, whole: bool) -> None:
    """People copy this watch; one that stays silent while a disk is lost is worse than none."""
    (tmp_path / "agentd.yaml").write_bytes(EXAMPLE.read_bytes())
    (condition,) = load(tmp_path / "agentd.yaml", environment={}).conditions["raid"]
    mdstat = f"Personalities : [raid1]\nmd0 : active raid1 sdb1[1] sda1[0]\n      976630464 blocks [2/2] {disks}\n"

    assert condition.holds({"stdout": mdstat}) is whole


@pytest.mark.parametrize(
    "text",
    [
        b"daemon: {log_levle: info}",
        b"watchs: []",
        b"daemon: {log_level: loud}",
        b"watches: [{name: a, http: {url: 'http://a/', metod: GET}}]",
        b"watches: [{name: a}]",
        b"watches: [{name: a, every: 1m, cron: '* * * * *', tcp: {host: a, port: 1}}]",
        b"watches: [{name: a, every: 10, tcp: {host: a, port: 1}}]",
        b"watches: [{name: agentd-x, tcp: {host: a, port: 1}}]",
        b"webhooks: {a: {url: 'https://a/', format: slcak}}",
        b"webhooks: {'a b': {url: 'https://a/'}}",
        b"alerting: {routes: [{when: 'x', notfiy: [a]}]}",
    ],
)
def test_the_schema_refuses_mistakes(validator: jsonschema.Draft202012Validator, text: bytes) -> None:
    """The editor is where a typing slip costs least."""
    assert not validator.is_valid(data_of(text))


def models_in(model: type[BaseModel], seen: set[type[BaseModel]]) -> Iterator[type[BaseModel]]:
    if model in seen:
        return
    seen.add(model)
    yield model
    for field in model.model_fields.values():
        for below in _models_of(field.annotation):
            yield from models_in(below, seen)


def _models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in getattr(annotation, "__args__", ()):
        yield from _models_of(each)


def test_every_key_says_what_it_is_for() -> None:
    """Completion, the manual and `is missing` problems all show it."""
    seen: set[type[BaseModel]] = set()
    silent = [
        f"{model.__name__}.{name}"
        for root in (Config, watch_model())
        for model in models_in(root, seen)
        for name, field in model.model_fields.items()
        if model.__module__.startswith("agentd.config") and not field.description
    ]

    assert not silent


def test_defaults_are_shown_as_people_write_them() -> None:
    definitions = config_schema()["$defs"]

    assert definitions["DaemonSettings"]["properties"]["drain_timeout"]["default"] == "20s"
    assert definitions["DaemonSettings"]["properties"]["host_rate"]["default"] == "100/s"
    assert definitions["Watch"]["properties"]["fail_after"]["default"] == 3
    assert definitions["AlertingSettings"]["properties"]["flapping"]["default"] == {
        "start": 30.0,
        "end": 25.0,
        "of": 20,
    }


def test_the_starter_loads_as_it_stands(tmp_path: Path) -> None:
    """The first thing a newcomer does must work."""
    written = write_starter(tmp_path / "new")
    loaded = load(written[0], environment={})

    assert [watch.name for watch in loaded.config.probes] == ["root-disk"]
    assert {warning.what for warning in loaded.warnings} == {"has no webhooks, so nobody is told of an alert"}


def test_the_starter_with_all_its_comments_removed_loads_too(tmp_path: Path) -> None:
    """What is commented out is what people uncomment next."""
    path = write_starter(tmp_path)[0]
    # A commented key or item, and not the prose between them.
    uncommented = re.sub(r"(?m)^( *)# ( *(- .*|[a-z]\w*:( .*)?))$", r"\1\2", path.read_text())
    path.write_text(uncommented)
    (tmp_path / "secret").write_text("whsec_" + "A" * 32)
    path.write_text(path.read_text().replace("/etc/agentd/audit-secret", str(tmp_path / "secret")))
    loaded = load(path, environment={"OPS_WEBHOOK_URL": "https://ops.example/", "OPENAI_API_KEY": "sk-0123456789"})

    assert len(loaded.config.probes) == 4
    assert set(loaded.config.webhooks) == {"ops", "audit"}
    assert set(loaded.config.models) == {"default"}
    assert loaded.config.agent.files.allow == ("/var/log",)
    assert [watch.name for watch in loaded.config.watches if watch.investigate] == ["website"]


def test_the_starter_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "agentd.yaml").write_text("mine")

    with pytest.raises(ConfigError, match="is there already"):
        write_starter(tmp_path)

    assert (tmp_path / "agentd.yaml").read_text() == "mine"
    assert not (tmp_path / "agentd.schema.json").exists()


def test_the_starter_says_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match="cannot write into"):
        write_starter(tmp_path / "file")


def test_an_invalid_configuration_is_one_message() -> None:
    """`str` of the error is what logs show."""
    with pytest.raises(InvalidConfig, match="does not exist"):
        load(Path("/nowhere/agentd.yaml"), environment={})
