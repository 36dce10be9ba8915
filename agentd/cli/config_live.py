"""`agentd config show`, `set`, `unset`: the configuration in effect, where it comes from, and what changes live."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from agentd.cli.client import NoDaemon, Refused, call
from agentd.cli.options import config_option, output_option
from agentd.cli.place import Place, find_place
from agentd.cli.tables import clean, print_json, print_table, say
from agentd.config.complaints import SECRET_KEYS, did_you_mean
from agentd.config.document import dotted, parse_value
from agentd.config.loader import load
from agentd.config.masked import masked, shown_value
from agentd.config.old_names import translate
from agentd.config.overlay import LIVE, is_live, leaves
from agentd.errors import ConfigError
from agentd.llm.settings import ModelSettings

Json = dict[str, Any]

PATH = "/api/v1/config"
_OLD_FIELDS = ("model_name", "endpoint", "api_base", "timeout_seconds", "max_retries")


@click.group()
def config() -> None:
    """See the configuration in effect; change models and limits while the daemon runs."""


@config.command()
@click.argument("key", required=False)
@click.option("--all", "everything", is_flag=True, help="Defaults too.")
@config_option
@output_option
def show(key: str | None, everything: bool, config_path: Path | None, output: str) -> None:
    """
    Print the configuration in effect, without secrets, and where each value comes from.

    KEY, such as models or agent.max_steps, prints a part. Of watches the file says more; -o json has them all.
    """
    view = _view(find_place(config_path))
    if output == "json":
        print_json(view)
        return
    if key == "watches":
        click.echo("watches stand in the file; `agentd watches NAME` shows one, and -o json here all")
        return
    origins: dict[str, str] = view["origins"]
    shown = {name: value for name, value in _leaves(view["config"]) if not name.startswith("watches")}
    if key is not None:
        _check_known(key, shown)
    rows = []
    for name, value in shown.items():
        origin = _origin(origins, name)
        if (everything or origin) and (key is None or _is_within(name, key)):
            rows.append({"key": name, "value": shown_value(value), "from": origin or "default"})
    empty = f"nothing is set there; `agentd config show {key or ''} --all` shows the defaults".replace("  ", " ")
    print_table(rows, {"key": "KEY", "value": "VALUE", "from": "FROM"}, empty=empty, cut=["value"])
    if trouble := (view.get("overlay") or {}).get("trouble"):
        click.echo(f"what was changed live is not in effect: {clean(trouble)}", err=True)


def _view(place: Place) -> Json:
    try:
        view: Json = call(place, "GET", PATH)
        return view
    except NoDaemon:
        click.echo("no daemon runs; as the files have it:", err=True)
    loaded = load(place.path, environment=place.environment, prices=False)
    overlay = loaded.overlay
    return {
        "config": masked(loaded.config),
        "origins": dict(loaded.origins),
        "live": list(LIVE),
        "overlay": {"file": str(overlay.path), "keys": list(overlay.keys), "trouble": overlay.wrong},
        "note": "",
    }


def _leaves(data: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(data, dict) and data:
        for name, each in data.items():
            yield from _leaves(each, f"{key}.{name}" if key else name)
    elif isinstance(data, list) and any(isinstance(each, dict) for each in data):
        for number, each in enumerate(data):
            yield from _leaves(each, f"{key}[{number}]")
    else:
        yield key, data


def _is_within(name: str, key: str) -> bool:
    return f"{name}.".replace("[", ".").startswith(f"{key}.".replace("[", "."))


def _check_known(key: str, all_keys: Mapping[str, Any]) -> None:
    """
    all_keys: dotted key to value, of all there is. Raises ConfigError for a key that is none of them.

    What is below a key without a value is not judged: there may be more than can be seen.
    """
    if any(
        _is_within(name, key) or (value in (None, {}, []) and _is_within(key, name)) for name, value in all_keys.items()
    ):
        return
    known = {".".join(name.split(".")[: end + 1]) for name in all_keys for end in range(name.count(".") + 1)}
    above, _, last = key.rpartition(".")
    beside = [name.rpartition(".")[2] for name in known if name.rpartition(".")[0] == above]
    if not beside:
        raise ConfigError(f"there is no key {key}; {did_you_mean(key, known)}")
    guess = did_you_mean(last, sorted(beside))
    raise ConfigError(f"there is no key {key}; {guess.replace('`', f'`{above}.', 1) if above else guess}")


def _origin(origins: dict[str, str], key: str) -> str:
    if key in origins:
        return origins[key]
    within = next((each for name, each in origins.items() if name.startswith((f"{key}[", f"{key}."))), "")
    return within or next((each for name, each in origins.items() if key.startswith((f"{name}[", f"{name}."))), "")


@config.command("set")
@click.argument("key")
@click.argument("value", required=False)
@config_option
@output_option
def set_(key: str, value: str | None, config_path: Path | None, output: str) -> None:
    """
    Change a model or a limit of the running daemon, such as `agent.max_steps 30` or `models.default.model glm-4`.

    VALUE is read as in the file. A model's own key is asked for, or read from stdin: whoever lists processes would see
    it here. What is changed is kept in overlay.json of the state folder; `unset` takes it back.
    """
    steps = steps_of(key)
    secret = steps[-1] in SECRET_KEYS
    if secret and value is not None:
        raise ConfigError(
            f"{key}: others can see what stands in a command line; leave it out, and you are asked for it"
        )
    typed = value is not None
    if value is None:
        value = _asked_for(key, secret)
    try:
        parsed = value if secret else parse_value(value)
    except ValueError as error:
        raise ConfigError(f"{key}: the value {error}") from error
    if typed and _holds_secret(parsed):
        told = f"{key}: others can see a key that stands in a command line; leave the value out, and it is asked for"
        click.secho(told, fg="yellow", err=True)
    if parsed is None:
        raise ConfigError(f"{key}: there is no value; `agentd config unset {key}` takes back what was set")
    _change(steps, parsed, config_path, output)


@config.command()
@click.argument("key")
@config_option
@output_option
def unset(key: str, config_path: Path | None, output: str) -> None:
    """Take back what was changed live: KEY is again as files and environment say."""
    steps = steps_of(key)
    view: Json = call(find_place(config_path), "GET", PATH)
    overlay = view["overlay"]
    # One that cannot be used is mended by any change, so it is not judged by what it seems to hold.
    if not overlay["trouble"] and not any(_is_within(name, _present(steps)) for name in overlay["keys"]):
        _check_known(_present(steps), dict(_leaves(view["config"])))
        say({"changed": [], "warnings": []}, output, f"{key} was not changed live; nothing is taken back")
        return
    _change(steps, None, config_path, output)


def _nested(steps: list[str], value: Any) -> Any:
    for step in reversed(steps):
        value = {step: value}
    return value


def _present(steps: list[str]) -> str:
    """The dotted key as it is called now."""
    return next((dotted(path) for path, _ in leaves(translate(_nested(steps, None)).data)), dotted(tuple(steps)))


def _holds_secret(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_holds_secret, value))
    if not isinstance(value, dict):
        return False
    held = (isinstance(each, str) and "${" not in each for key, each in value.items() if key in SECRET_KEYS)
    return any(held) or any(map(_holds_secret, value.values()))


def _asked_for(key: str, secret: bool) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.read().strip("\r\n")
    answer: str = click.prompt(key, hide_input=secret)
    return answer


def steps_of(key: str) -> list[str]:
    """A dotted key as steps; the name of a model may hold dots itself."""
    steps = key.split(".")
    if not all(steps):
        raise ConfigError(f"{key!r} is no key; write e.g. agent.max_steps")
    if steps[0] == "models" and len(steps) > 2:
        fields = (*ModelSettings.model_fields, *_OLD_FIELDS)
        end = next((index for index in range(2, len(steps)) if steps[index] in fields), len(steps))
        return ["models", ".".join(steps[1:end]), *steps[end:]]
    return steps


def _explain(place: Place, steps: list[str]) -> None:
    """Raises ConfigError when the key itself is why a change was refused: it is none, or of a model that is not yet."""
    view: Json = call(place, "GET", PATH)
    if steps[0] == "models" and len(steps) > 2 and steps[1] not in view["config"]["models"]:
        raise ConfigError(
            f"there is no model {steps[1]} yet; make it whole first: "
            f"`agentd config set models.{steps[1]} '{{provider: …, model: …}}'`, then {steps[-1]}"
        )
    if not is_live(tuple(_present(steps).split("."))):
        _check_known(_present(steps), dict(_leaves(view["config"])))


def _change(steps: list[str], value: Any, config_path: Path | None, output: str) -> None:
    place = find_place(config_path)
    try:
        answer = call(place, "PUT", PATH, _nested(steps, value))
    except Refused as refused:
        if refused.status not in (400, 422):
            raise
        _explain(place, steps)
        raise
    if output == "json":
        print_json(answer)
        return
    click.echo(clean(f"{'taken back' if value is None else 'changed'}: {', '.join(answer['changed'])}"))
    for warning in answer["warnings"]:
        click.echo(clean(warning), err=True)
