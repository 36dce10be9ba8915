"""
`agentd key new|list|revoke`: who may call the API over TCP.

In: a name, a scope. Out: a file in `keys.d` beside the configuration, the token once on stdout, a reloaded daemon.
Promise: a configuration that was good stays good: what the check or the daemon refuses is taken back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from agentd.cli.client import NoDaemon, Refused, call
from agentd.cli.key_file import adding, is_ours, key_path, key_text, removing
from agentd.cli.names import key_names
from agentd.cli.options import config_option, output_option
from agentd.cli.place import Place, find_place
from agentd.cli.tables import clean, print_json, print_table, say
from agentd.config.complaints import did_you_mean
from agentd.config.key_hash import make_key
from agentd.config.loader import load
from agentd.config.service import ApiKey, RateLimiting, Scope
from agentd.errors import AgentdError, ConfigError

_NAMES = dict.fromkeys(get_args(Scope))


@click.group()
def key() -> None:
    """Make keys to the API, list them, revoke one."""


@key.command()
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice(list(_NAMES)),
    default="read",
    show_default=True,
    help="read: look at everything. operate: also acknowledge, silence, pause, retry, ask agents. admin: also change "
    "models and limits, reload.",
)
@click.option("--rate", type=click.IntRange(1), help="Its own rate: calls a minute, in the long run.")
@click.option("--burst", type=click.IntRange(1), help="Calls that may come at once.")
@click.option("--print", "only_print", is_flag=True, help="Write no file: print it, and the token on stderr.")
@config_option
@output_option
def new(
    name: str,
    scope: str,
    rate: int | None,
    burst: int | None,
    only_print: bool,
    config_path: Path | None,
    output: str,
) -> None:
    """
    Make a key. Its token is printed once, on stdout; only a hash of it is kept.

    The hash goes into keys.d/NAME.yaml beside the configuration, and a running daemon takes it at once.
    """
    token, hash_text = make_key(name)
    made: dict[str, Any] = {"name": name, "hash": hash_text, "scope": scope}
    if rate is not None or burst is not None:
        default = RateLimiting()
        made["rate_limiting"] = {
            "requests_per_minute": rate or default.requests_per_minute,
            "burst_size": burst or default.burst_size,
        }
    if only_print:
        click.echo(key_text(made), nl=False)
        click.echo(token, err=True)
        return
    place = _sound(find_place(config_path))
    for known, where in _keys(place):
        if known.name == name:
            raise AgentdError(f"there is a key {name} already, at {where}; choose another name, or revoke that one")
    with adding(place.path, name, key_text(made)) as path:
        _check(place)
        heard = _reload(place, f"key new {name}")
    if output == "json":
        print_json({"name": name, "scope": scope, "token": token, "file": str(path), "reloaded": heard})
        return
    click.echo(token)
    click.echo(f"The key stands in {path}. Its token is shown this once; it goes into a header:", err=True)
    click.echo("  Authorization: Bearer TOKEN", err=True)
    if not heard:
        click.echo("agentd is not running; the key holds from its next start", err=True)


@key.command("list")
@config_option
@output_option
def list_(config_path: Path | None, output: str) -> None:
    """List the keys of the configuration, and when each was last used, where the daemon can say."""
    place = _sound(find_place(config_path))
    used = _last_used(place)
    rows: list[dict[str, Any]] = [
        {
            "name": each.name,
            "scope": each.scope,
            "rate": None if each.rate_limiting is None else each.rate_limiting.model_dump(),
            "where": where,
            "last_used_at": used.get(each.name),
        }
        for each, where in _keys(place)
    ]
    if output == "json":
        print_json({"keys": rows})
        return
    shown = [row | {"rate": _shown_rate(row["rate"])} for row in rows]
    columns = {"name": "KEY", "scope": "SCOPE", "rate": "RATE", "last_used_at": "USED", "where": "WHERE"}
    print_table(shown, columns, empty="There are no keys; `agentd key new NAME` makes one.")


@key.command()
@click.argument("name", shell_complete=key_names)
@config_option
@output_option
def revoke(name: str, config_path: Path | None, output: str) -> None:
    """
    Take a key away that `key new` made; a running daemon forgets it at once.

    Also when something else is wrong with the configuration: the daemon lets the key go and stays with the rest as it
    is. What removing the key itself would break stops it: the last key of an address that others can reach.
    """
    place = find_place(config_path)
    path = key_path(place.path, name)
    sound = place.config is not None
    if sound:
        known = {each.name: where for each, where in _keys(place)}
        if name not in known:
            raise AgentdError(f"there is no key {name[:100]!r}; {did_you_mean(name, known)}")
        if known[name].rpartition(":")[0] != str(path) or not is_ours(path, name):
            raise AgentdError(f"{name} was written by hand; remove it at {known[name]}, then `agentd reload`")
    elif not is_ours(path, name):
        what = f"{name[:100]!r} is none of those that `key new` made"
        raise AgentdError(f"{what}; remove it where it was written, then `agentd reload`, which may be refused")
    with removing(path):
        if sound:
            _check(place)
    heard, refused = _let_go(place, name, path)
    text = f"{name} is revoked" + ("" if heard else "; agentd is not running, so nobody knew it")
    say({"name": name, "revoked": True, "reloaded": heard and refused is None}, output, text)
    if refused is not None:
        click.echo(f"the daemon let it go, and stays with the rest as it is: {refused}", err=True)


def _let_go(place: Place, name: str, path: Path) -> tuple[bool, Refused | None]:
    """
    Whether a daemon runs, and why it did not take the rest over. The file is gone already.

    Raises Refused when the daemon may know the key still.
    """
    try:
        call(place, "POST", "/api/v1/reload", {"why": f"key revoke {name}"})
    except NoDaemon:
        return False, None
    except Refused as refused:
        if _knows(place, name):
            raise Refused(
                f"{path} is removed, and the daemon that runs may know the key still: {refused}; "
                "`agentd reload` as root, or a restart, has it forget",
                refused.status,
            ) from refused
        return True, refused
    return True, None


def _knows(place: Place, name: str) -> bool:
    """Whether the daemon lets the key in, as far as can be told."""
    try:
        return any(row["name"] == name for row in call(place, "GET", "/api/v1/keys")["keys"])
    except (NoDaemon, Refused, KeyError, TypeError):
        return True


def _sound(place: Place) -> Place:
    if place.config is None:
        raise ConfigError(f"{place.path} has to be right first; `agentd check` shows what is wrong")
    return place


def _keys(place: Place) -> list[tuple[ApiKey, str]]:
    """Each key with where it stands, as FILE:LINE."""
    keys = place.config.api.keys if place.config is not None else ()
    return [(each, place.origins.get(f"api.keys[{index}].name", "")) for index, each in enumerate(keys)]


def _check(place: Place) -> None:
    """Raises InvalidConfig with what the change would break."""
    load(place.path, environment=place.environment, prices=False)


def _reload(place: Place, why: str) -> bool:
    """Whether a daemon took it over. Raises Refused when it did not."""
    try:
        call(place, "POST", "/api/v1/reload", {"why": why})
    except NoDaemon:
        return False
    except Refused as refused:
        raise Refused(f"the daemon did not take it, so nothing was changed: {refused}", refused.status) from refused
    return True


def _last_used(place: Place) -> dict[str, str]:
    try:
        answer = call(place, "GET", "/api/v1/keys")
        return {str(row["name"]): clean(row["last_used_at"]) for row in answer["keys"] if row.get("last_used_at")}
    except (NoDaemon, Refused, KeyError, TypeError, AttributeError):
        return {}


def _shown_rate(rate: dict[str, int] | None) -> str:
    return "" if rate is None else f"{rate['requests_per_minute']}/m, {rate['burst_size']} at once"
