"""
What the OpenAPI document promises, kept by the real daemon: Schemathesis asks it everything that the document allows,
and much that it does not, with all of its checks.

Longer: AGENTD_TEST_EXAMPLES=500. Again with the same requests: AGENTD_TEST_SEED.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest
from modelserver import ModelServer
from stage import Stage
from surface import SECRET, Surface, open_surface

SEED = int(os.environ.get("AGENTD_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
EXAMPLES = int(os.environ.get("AGENTD_TEST_EXAMPLES", "12"))
MOST_S = 240 + 20 * EXAMPLES
GROWN_MIB = 96

# Whoever fails here is named with all that is needed to ask it again, and `st explain CODE` says more.
SETTINGS = """
request-timeout = 15
continue-on-failure = true
suppress-health-check = ["all"]

[generation]
database = "none"

# What stands in the path is nearly always no name of anything. Half of the time it is one.
[dictionaries.names]
values = {names}
[parameters]
"path.name" = {{dictionary = "names", probability = 0.6}}
"path.id" = {{dictionary = "names", probability = 0.6}}
"path.fingerprint" = {{dictionary = "names", probability = 0.6}}
"query.before" = {{dictionary = "names", probability = 0.3}}
"query.watch" = {{dictionary = "names", probability = 0.5}}

[auth.openapi.key]
bearer = "{key}"
[auth.openapi.secret]
bearer = "{secret}"

# A body may be as the schema has it and too large all the same, and the other way round.
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "406", "409", "411", "413", "414", "415", "422", "429", "431"]
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "413", "429", "503"]
"""
# A stream does not end: what comes within a second is looked at.
STREAMS = ("get_events", "get_tasks_id_events")
STREAM = """
[[operations]]
include-operation-id = "{operation}"
request-timeout = 1
max-stream-events = 3
"""
# These take what no schema can say: models, tools, scenarios and paths that the configuration allows, matchers of
# silences, patterns, configurations. What they refuse is 422, with the reason.
BEYOND_SCHEMA = ("post_tasks", "post_tasks_batch", "post_silences", "put_config", "put_config_model")
BEYOND = """
[[operations]]
include-operation-id = "{operation}"
[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "413", "422", "429", "503"]
"""


@pytest.mark.slow
@pytest.mark.timeout(MOST_S + 120)
async def test_the_daemon_keeps_what_its_document_promises(tmp_path: Path) -> None:
    """No 500, no answer of another shape, nothing accepted or refused against the document, nobody let in unseen."""
    print(f"AGENTD_TEST_SEED={SEED}")
    async with Stage(tmp_path) as stage, ModelServer() as server:
        surface = await open_surface(stage, server)
        before = surface.daemon.resident_bytes()

        said, code = await asked_by_schemathesis(surface, tmp_path)

        assert surface.daemon.alive, (
            f"it ended with {surface.daemon.process.returncode}\n{surface.daemon.tail()}\n{said}"
        )
        assert code == 0, said
        await is_well(surface, before)


async def asked_by_schemathesis(surface: Surface, folder: Path) -> tuple[str, int]:
    """What it says, and its exit code."""
    document, settings = folder / "openapi.json", folder / "schemathesis.toml"
    answer = await surface.ask("GET", "/api/v1/openapi.json")
    document.write_text(json.dumps(closed(answer.json())))
    names = json.dumps(await surface.names())
    written = SETTINGS.format(names=names, key=surface.key, secret=SECRET)
    written += "".join(STREAM.format(operation=each) for each in STREAMS)
    settings.write_text(written + "".join(BEYOND.format(operation=each) for each in BEYOND_SCHEMA))
    program = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        f"--config-file={settings}",
        "run",
        str(document),
        f"--url={surface.url}",
        "--checks=all",
        "--phases=examples,coverage,fuzzing,stateful",
        f"--max-examples={EXAMPLES}",
        f"--seed={SEED}",
        "--no-color",
        "--warnings=off",
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(MOST_S):
            out, _ = await program.communicate()
    except TimeoutError:
        program.kill()
        out, _ = await program.communicate()
        pytest.fail(f"not within {MOST_S} s\n{out.decode()[-10_000:]}")
    assert program.returncode is not None
    return out.decode(), program.returncode


def closed(document: dict[str, Any]) -> dict[str, Any]:
    """The same document, by which an answer holds nothing that is not told there."""
    for name, schema in document["components"]["schemas"].items():
        if name != "Problem" and "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return document


async def is_well(surface: Surface, before: int) -> None:
    """After all that it still does what it is for."""
    stage, daemon = surface.stage, surface.daemon
    health = await surface.ask("GET", "/health")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    broken = [line for line in daemon.lines if "Traceback" in line or "defect" in line]
    assert not broken, broken[:3]
    grown_mib = (daemon.resident_bytes() - before) / 2**20
    assert grown_mib < GROWN_MIB, f"{grown_mib:.0f} MiB more than before"
    # As it would be for a person: a shop that was well goes down, and its message comes.
    await stage.api("POST", "/api/v1/watches/well/resume")
    for silence in (await stage.api("GET", "/api/v1/silences")).json()["silences"]:
        await stage.api("DELETE", f"/api/v1/silences/{silence['id']}")
    surface.well.status = 503
    await stage.hook.message("alert.firing", watch="well")
