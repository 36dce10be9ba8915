"""Examples in the guide: what a small model copies is to be something that it may do."""

from __future__ import annotations

import json

from agentd.agent.examples import with_examples
from agentd.agent.job import Permissions
from agentd.agent.tools import BUILT_IN
from agentd.llm.actions import action_guide
from agentd.llm.port import ToolSpec

SPECS = [tool.spec for tool in BUILT_IN]


def shown(allowed: Permissions) -> dict[str, dict[str, object]]:
    lines = [line.partition("  # ")[0] for line in action_guide(with_examples(SPECS, allowed)).splitlines()]
    calls = [json.loads(line) for line in lines if line.startswith('{"type": "ToolCall"')]
    return {call["tool"]: call["input"] for call in calls}


def test_the_guide_shows_what_is_allowed() -> None:
    """A call of the guide that is denied teaches the model to give up."""
    inputs = shown(
        Permissions(
            read=("/srv/shop/", "/opt"),
            http=("*.example", "shop.example"),
            commands=(("systemctl", "status", "*"), ("df", "-h")),
            log_files={"shop": ("/srv/shop/*.log",)},
        )
    )

    assert inputs["read_file"] == {"path": "/srv/shop/app.log"}
    assert inputs["list_files"] == {"path": "/srv/shop/"}
    assert inputs["http_get"] == {"url": "https://shop.example/"}
    assert inputs["tls_info"] == {"host": "shop.example"}
    assert inputs["run_command"] == {"argv": ["df", "-h"]}
    assert inputs["search_log"]["watch"] == "shop"
    assert "/var/log" not in json.dumps(inputs)


def test_a_log_that_there_is_comes_before_a_made_up_name() -> None:
    """So that the copy even finds something."""
    logs = {"shop": ("/srv/*.log", "/srv/shop.log"), "other": ("/home/other.log",)}

    assert shown(Permissions(read=("/srv",), log_files=logs))["read_file"] == {"path": "/srv/shop.log"}
    assert shown(Permissions(commands=(("systemctl", "status", "*"),)))["run_command"] == {
        "argv": ["systemctl", "status", "NAME"]
    }
    assert shown(Permissions(http=("127.0.0.1",)))["http_get"] == {"url": "http://127.0.0.1/"}


def test_tools_of_others_stay_as_they_are() -> None:
    """Nobody knows what their keys mean."""
    spec = ToolSpec("box.read_file", "d", {"type": "object", "properties": {"path": {"type": "string"}}})

    assert with_examples([spec], Permissions(read=("/srv",))) == (spec,)
    assert with_examples(SPECS, Permissions()) == tuple(SPECS)
