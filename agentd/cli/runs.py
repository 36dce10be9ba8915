"""
`agentd runs` and `agentd replay`: what agents did, and whether today's code would do the same.

Runs are asked of the daemon, or read from its store when it is not there. A record is always read from the store
itself, beside a daemon too: it may be long, and is nobody else's business.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
from apsw import Connection

from agentd.api.tasks import run_view, run_with_record
from agentd.cli import FAILED
from agentd.cli.answer import answer_lines, prose, shown_seconds, shown_usd
from agentd.cli.client import call, quoted, read_or_open, read_store
from agentd.cli.errand import UNDER_WAY
from agentd.cli.names import run_ids, watch_names
from agentd.cli.newfile import new_file
from agentd.cli.options import config_option, output_option
from agentd.cli.place import Place, find_place
from agentd.cli.run_ids import has_run, whole_id
from agentd.cli.tables import clean, counted, print_facts, print_json, print_table
from agentd.cli.timeline import timeline
from agentd.config.complaints import did_you_mean
from agentd.errors import AgentdError
from agentd.memory import ledger, run_records
from agentd.memory.ledger import RunState
from agentd.memory.run_records import RunLine
from agentd.memory.store import Store

_LONGEST_LINE = 4 * 2**20


@click.command()
@click.argument("identity", metavar="[RUN]", required=False, shell_complete=run_ids)
@click.option("--watch", shell_complete=watch_names, help="Only of this watch; `task` are those that people asked for.")
@click.option("--state", type=click.Choice([state.value for state in RunState]), help="Only in this state.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="At most so many.")
@click.option("--cancel", is_flag=True, help="End RUN, which waits or is under way.")
@click.option(
    "--export", "file", type=click.Path(path_type=Path), help="Write the record of RUN to a new file (-: here)."
)
@config_option
@output_option
def runs(
    identity: str | None,
    watch: str | None,
    state: str | None,
    limit: int,
    cancel: bool,
    file: Path | None,
    config_path: Path | None,
    output: str,
) -> None:
    """
    List the runs of agents, newest first; or show RUN: its plan, what it did and when, what it found, what it cost.

    Of an id, so much is enough as no other run begins with.

    What --export writes, `agentd replay --file` reads: lines of JSON with seq, at_s, kind and data.
    """
    if identity is None:
        if file is not None or cancel:
            raise click.UsageError(f"name the run {'that is to end' if cancel else 'whose record is to be exported'}")
        _list(find_place(config_path), watch, state, limit, output)
        return
    place = find_place(config_path)
    identity = whole_id(place, identity)
    if cancel:
        _cancel(place, identity, output)
    elif file is not None:
        _export(place, identity, None if str(file) == "-" else file)
    else:
        _show(place, identity, output)


def _list(place: Place, watch: str | None, state: str | None, limit: int, output: str) -> None:
    known = place.config is None or watch in (None, "task", *(each.name for each in place.config.watches))

    async def offline(store: Store) -> dict[str, Any]:
        wanted = None if state is None else RunState(state)
        rows = await store.state.read(lambda c: ledger.runs(c, watch=watch, state=wanted, limit=limit))
        return {"runs": [run_view(row) for row in rows]}

    answer = read_or_open(place, "/api/v1/runs", offline, watch=watch, state=state, limit=str(limit))
    if not answer["runs"] and not known and watch is not None and not has_run(place, watch):
        names = [each.name for each in place.config.watches] if place.config else []
        raise AgentdError(f"no watch {watch[:100]!r}, and no run of it is kept; {did_you_mean(watch, names)}")
    if output == "json":
        print_json(answer)
        return
    columns = {"id": "RUN", "watch": "WATCH", "kind": "KIND", "state": "STATE", "due_at": "WHEN", "took": "TOOK"}
    columns |= {"steps": "STEPS", "tokens": "TOKENS", "cost": "COST", "summary": "WHAT"}
    filtered = " ".join(filter(None, [state, f"of {watch}" if watch else None]))
    print_table(
        [_row(run) for run in answer["runs"]],
        columns,
        cut=("summary",),
        empty=f"No runs{' ' if filtered else ''}{filtered}." if filtered else "No agent has run yet.",
    )


def _row(run: dict[str, Any]) -> dict[str, Any]:
    took_s = _took_s(run)
    ended = run["ended_at"] is not None
    return run | {
        "took": None if took_s is None else shown_seconds(took_s),
        "cost": shown_usd(run["usd"]) if ended and run["model_calls"] else None,
        "summary": run["summary"] or run["error"] or run["goal"],
    }


def _took_s(run: dict[str, Any]) -> float | None:
    if run["started_at"] is None or run["ended_at"] is None:
        return None
    return (datetime.fromisoformat(run["ended_at"]) - datetime.fromisoformat(run["started_at"])).total_seconds()


def _cancel(place: Place, identity: str, output: str) -> None:
    view = call(place, "DELETE", f"/api/v1/tasks/{quoted(identity)}")
    if output == "json":
        print_json(view)
    else:
        click.echo(clean(f"{view['task_id']} is {'ending' if view['status'] in UNDER_WAY else view['status']}"))


def _show(place: Place, identity: str, output: str) -> None:
    run = _whole_run(place, identity)
    if output == "json":
        print_json(run)
        return
    print_facts(_facts(run))
    if plan := run["plan"]:
        click.echo("\nplan")
        for key in ("understanding", "approach", "complexity", "estimated_steps"):
            if plan.get(key):
                click.echo(f"  {key.replace('_', ' ')}: {clean(plan[key])}")
        for each in plan.get("requirements") or ():
            click.echo(f"  requires: {clean(each)}")
    click.echo("\nwhat it did")
    for line in timeline(run["record"]):
        click.echo(f"  {line}")
    if not run["record"]:
        click.echo("  its record is not kept any more" if run["ended_at"] else "  nothing yet")
    elif not run["whole"]:
        click.echo("  parts of its record are not kept, or not shown")
    if found := list(answer_lines(run)):
        click.echo("\nwhat it found")
        for line in found:
            click.echo(line)


def _whole_run(place: Place, identity: str) -> dict[str, Any]:
    """The run with its record to the end: an answer holds a part of a long one."""

    async def offline(store: Store) -> dict[str, Any]:
        run = await store.state.read(lambda c: ledger.get(c, identity))
        if run is None:
            raise _unknown(identity)

        def page(after: int) -> Callable[[Connection], dict[str, Any]]:
            return lambda c: run_with_record(run, run_records.read(c, identity, after=after), after=after)

        whole = await store.history.read(page(-1))
        while whole["next"] is not None:
            _append(whole, await store.history.read(page(whole["next"])))
        return whole

    path = f"/api/v1/runs/{quoted(identity)}"
    run: dict[str, Any] = read_or_open(place, path, offline)
    while run["next"] is not None:
        _append(run, call(place, "GET", path, None, after=str(run["next"])))
    return run


def _append(run: dict[str, Any], page: dict[str, Any]) -> None:
    """page: the next part of the record. What is longer than the record of any run has no end."""
    run["record"] += page["record"]
    steps = pairwise([line["seq"] for line in run["record"]])
    run["whole"] = page["whole"] and run["record"][0]["seq"] <= 1 and all(one + 1 == other for one, other in steps)
    run["next"] = page["next"] if page["record"] and len(run["record"]) < run_records.MAX_LINES else None


def _facts(run: dict[str, Any]) -> dict[str, Any]:
    facts = {key: run[key] for key in ("id", "watch", "kind", "state", "error", "trigger", "fingerprint") if run[key]}
    facts["goal"] = prose(run["goal"])
    for key in ("due_at", "started_at", "ended_at"):
        if run[key]:
            facts[key.removesuffix("_at")] = run[key]
    if (took_s := _took_s(run)) is not None:
        facts["took"] = shown_seconds(took_s)
    calls = counted(run["model_calls"], "model call")
    facts["cost"] = f"{shown_usd(run['usd'])}, {run['tokens']:,} tokens, {calls}, {counted(run['steps'], 'step')}"
    if run["models"]:
        facts["models"] = ", ".join(run["models"])
    return facts


def _export(place: Place, identity: str, file: Path | None) -> None:
    lines = asyncio.run(read_store(place.state_dir, partial(_lines, identity=identity)))
    with new_file(file) as out:
        for line in lines:
            # ASCII alone: what a tool or a model said must not paint the terminal that this may go to.
            out.write(json.dumps({"seq": line.seq, "at_s": line.at_s, "kind": line.kind, "data": line.data}) + "\n")
    if file is not None:
        click.echo(f"{counted(len(lines), 'line')} written to {file}", err=True)


async def _lines(store: Store, *, identity: str) -> list[RunLine]:
    lines = await store.history.read(lambda c: run_records.of(c, identity))
    if not lines:
        if await store.state.read(lambda c: ledger.get(c, identity)) is None:
            raise _unknown(identity)
        raise AgentdError(f"{identity} has no record: it never began, or its record is not kept any more")
    return lines


def _unknown(identity: str) -> AgentdError:
    return AgentdError(f"no run {identity[:100]!r}; `agentd runs` shows them")


@click.command()
@click.argument("identity", metavar="[RUN]", required=False, shell_complete=run_ids)
@click.option("--file", type=click.Path(path_type=Path, dir_okay=False), help="A record that `runs --export` wrote.")
@config_option
@output_option
def replay(identity: str | None, file: Path | None, config_path: Path | None, output: str) -> None:
    """
    Run RUN again from its record, offline: no model is asked and no tool is called.

    Says what came of it, and each place where today's code goes another way than then. Exits with 0 when it goes the
    same way, with 1 when it does not, or when the record does not suffice.
    """
    if (identity is None) == (file is None):
        raise click.UsageError("name one RUN, or a --file")
    if file is not None:
        lines: Sequence[RunLine] = _read(file)
    else:
        place = find_place(config_path)
        whole = whole_id(place, identity or "")
        lines = asyncio.run(read_store(place.state_dir, partial(_lines, identity=whole)))
    if not run_records.is_whole(lines):
        click.echo("parts of the record are missing; where they are, it cannot be the same", err=True)
    answer = asyncio.run(_replay(lines))
    if output == "json":
        print_json(answer)
    else:
        _print_replay(answer)
    sys.exit(FAILED if answer["divergences"] else 0)


async def _replay(lines: Sequence[RunLine]) -> dict[str, Any]:
    from agentd.agent.divergence import is_cut_off
    from agentd.agent.port import Record
    from agentd.agent.registry import Registry
    from agentd.agent.replay import replay
    from agentd.agent.tools import BUILT_IN

    records = [Record(each.seq, each.at_s, each.kind, each.data) for each in lines]
    found = await replay(records, registry=Registry(BUILT_IN))
    return {
        "run": next((each.data.get("run") for each in lines if each.kind == "job"), None),
        "same": not found.divergences,
        "cut_off": is_cut_off(records),
        "recorded": None if found.recorded is None else found.recorded.model_dump(mode="json"),
        "outcome": found.outcome.model_dump(mode="json"),
        "divergences": [
            {"what": each.what, "place": each.place, "then": each.then, "now": each.now, "text": each.text}
            for each in found.divergences
        ],
    }


def _print_replay(answer: dict[str, Any]) -> None:
    cut_off = answer["cut_off"]
    if cut_off:
        click.echo("the record ends where the run was cut off; what there is of it is compared")
    for name, key in (("then", "recorded"), ("now", "outcome")):
        outcome = answer[key]
        if cut_off or outcome is None:
            continue
        said = (outcome["finding"] or {}).get("summary") or outcome["answer"] or outcome["error"] or ""
        click.echo(f"{name:<4}  {outcome['state']} in {counted(outcome['steps'], 'step')}: {clean(said)[:500]}")
    for each in answer["divergences"]:
        click.echo(click.style(clean(each["text"]), fg="yellow"))
    if answer["same"]:
        click.echo(f"today's code goes the same way{' up to there' if cut_off else ''}")
    else:
        click.echo(f"today's code goes another way: {counted(len(answer['divergences']), 'divergence')}")


def _read(file: Path) -> list[RunLine]:
    """Raises AgentdError, saying which line is none of a record."""
    found: list[RunLine] = []
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    found.append(_record(line, f"{file}:{number}"))
                if number > run_records.MAX_LINES:
                    raise AgentdError(f"{file}: more than {run_records.MAX_LINES:,} lines are no record of a run")
    except OSError as error:
        raise AgentdError(f"{file}: {error.strerror}") from error
    if not found:
        raise AgentdError(f"{file}: is empty; `agentd runs RUN --export FILE` writes a record")
    return found


def _record(line: bytes, where: str) -> RunLine:
    if len(line) > _LONGEST_LINE:
        raise AgentdError(f"{where}: the line is too long for a record")
    try:
        found = json.loads(line)
        seq, at_s, kind, data = found["seq"], found["at_s"], found["kind"], found["data"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise AgentdError(f"{where}: no line of a record, which is JSON with seq, at_s, kind and data") from error
    fits = isinstance(seq, int) and isinstance(at_s, int | float) and isinstance(kind, str) and isinstance(data, dict)
    if not fits:
        raise AgentdError(f"{where}: seq is a whole number, at_s one of seconds, kind a text and data an object")
    return RunLine(seq, float(at_s), kind, data)
