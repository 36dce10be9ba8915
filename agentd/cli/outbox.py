"""`agentd outbox`: the messages that wait, and the dead letters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from agentd.api.trouble import Hindrances, read_hindrances
from agentd.api.views import delivery_view
from agentd.cli.client import call, quoted, read_or_open
from agentd.cli.names import message_ids, webhook_names
from agentd.cli.options import config_option, output_option
from agentd.cli.place import Place, find_place
from agentd.cli.tables import print_facts, print_json, print_table, say
from agentd.errors import AgentdError
from agentd.memory import outbox as rows
from agentd.memory.store import Store


@click.group()
def outbox() -> None:
    """See, resend and drop messages that webhooks have not taken."""


@outbox.command("list")
@click.option("--state", type=click.Choice(rows.STATES), help="Only these; claimed ones are being sent.")
@click.option("--webhook", shell_complete=webhook_names, help="Only for this webhook.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 1000), help="At most so many.")
@config_option
@output_option
def list_(state: str | None, webhook: str | None, limit: int, config_path: Path | None, output: str) -> None:
    """List the messages that wait or are dead, oldest first."""
    place = find_place(config_path)

    async def offline(store: Store) -> dict[str, Any]:
        found = await store.state.read(lambda c: rows.rows(c, state=state, webhook=webhook, limit=limit))
        if webhook is not None and not found and place.config and webhook not in place.config.webhooks:
            known = ", ".join(sorted(place.config.webhooks)) or "none"
            raise AgentdError(f"no webhook {webhook!r}; known: {known}")
        hindrances = await store.state.read(read_hindrances)
        return {"deliveries": [delivery_view(row, note=_note(hindrances, row, place)) for row in found]}

    answer = read_or_open(place, "/api/v1/outbox", offline, state=state, webhook=webhook, limit=str(limit))
    if output == "json":
        print_json(answer)
        return
    columns = {
        "id": "ID",
        "state": "STATE",
        "webhook": "WEBHOOK",
        "type": "TYPE",
        "lane": "WATCH",
        "created_at": "CREATED",
    }
    columns |= {"due_at": "NEXT TRY", "attempts": "TRIES", "last_error": "LAST ERROR"}
    # A note says why there is no next try.
    shown = [row | ({"state": row["note"], "due_at": None} if row["note"] else {}) for row in answer["deliveries"]]
    filtered = " ".join(filter(None, [state, "messages", f"for {webhook}" if webhook else None]))
    empty = f"No {filtered}." if state or webhook else "The outbox is empty: nothing waits, nothing is undeliverable."
    print_table(shown, columns, empty=empty)


def _note(hindrances: Hindrances, row: rows.OutboxRow, place: Place) -> str | None:
    return hindrances.note(row.delivery.webhook, place.config.webhooks if place.config else None)


@outbox.command()
@click.argument("identity", metavar="ID", shell_complete=message_ids)
@config_option
@output_option
def show(identity: str, config_path: Path | None, output: str) -> None:
    """Show one message whole, with its payload."""
    place = find_place(config_path)

    async def offline(store: Store) -> dict[str, Any]:
        row = await store.state.read(lambda c: rows.get(c, identity))
        if row is None:
            raise AgentdError(f"no delivery {identity!r}; `agentd outbox list` shows them")
        return delivery_view(row, whole=True, note=_note(await store.state.read(read_hindrances), row, place))

    answer = read_or_open(place, f"/api/v1/outbox/{quoted(identity)}", offline)
    if output == "json":
        print_json(answer)
        return
    data = answer.pop("data")
    print_facts({key.replace("_", " "): value for key, value in answer.items() if value is not None})
    if data is not None:  # of a delivered one its words are not kept
        print_json(data)


@outbox.command()
@click.argument("identity", metavar="[ID]", required=False, shell_complete=message_ids)
@click.option("--all", "everything", is_flag=True, help="All dead ones that nothing newer has overtaken.")
@click.option("--webhook", shell_complete=webhook_names, help="With --all: only for this webhook.")
@config_option
@output_option
def retry(identity: str | None, everything: bool, webhook: str | None, config_path: Path | None, output: str) -> None:
    """Send a message again now."""
    if (identity is None) == (not everything):
        raise click.UsageError("name one ID, or write --all")
    place = find_place(config_path)
    if identity is not None:
        answer = call(place, "POST", f"/api/v1/outbox/{quoted(identity)}/retry")
        say(answer, output, f"{identity} is sent again now")
        return
    answer = call(place, "POST", "/api/v1/outbox/retry", {"webhook": webhook})
    say(answer, output, f"{answer['retried']} sent again, {answer['superseded']} superseded by newer ones and left")


@outbox.command()
@click.argument("identity", metavar="ID", shell_complete=message_ids)
@config_option
@output_option
def drop(identity: str, config_path: Path | None, output: str) -> None:
    """Give a message up for good."""
    answer = call(find_place(config_path), "DELETE", f"/api/v1/outbox/{quoted(identity)}")
    say(answer, output, f"{identity} is dropped")
