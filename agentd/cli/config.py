"""`agentd check`, `agentd init`, `agentd schema`: the configuration before it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from agentd.cli import WRONG
from agentd.cli.check_agents import check_agents
from agentd.cli.options import config_option, output_option
from agentd.cli.place import environment_for
from agentd.cli.tables import clean_lines, counted, print_json
from agentd.config.agent_places import check_agent_places
from agentd.config.loader import find_config, load
from agentd.config.log_places import check_places
from agentd.errors import ConfigError, InvalidConfig, Problem


@click.command()
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@config_option
@output_option
def check(strict: bool, config_path: Path | None, output: str) -> None:
    """Check the configuration and print every problem as FILE:LINE:COLUMN. Exits with 2 when there is an error."""
    path = find_config(config_path)
    try:
        loaded = load(path, environment=environment_for(path))
    except InvalidConfig as error:
        _print_problems(error.problems, output)
        errors = sum(not problem.warning for problem in error.problems)
        click.echo(f"{counted(errors, 'error')}: this configuration will not be run", err=True)
        sys.exit(WRONG)
    places = [*check_places(loaded), *check_agent_places(loaded, path), *check_agents(path, loaded)]
    problems = sorted({*loaded.warnings, *places})
    _print_problems(problems, output)
    if errors := sum(not problem.warning for problem in problems):
        click.echo(f"{counted(errors, 'error')}: it would be run, and its agents would fail", err=True)
        sys.exit(WRONG)
    config = loaded.config
    watches = len(config.probes) + len(config.logs) + len(config.goals)
    what = f"{counted(watches, 'watch')} and {counted(len(config.webhooks), 'webhook')}"
    for notice in loaded.notices if output != "json" else ():
        click.echo(clean_lines(str(notice).replace(": warning: ", ": note: ", 1)))
    if keys := loaded.overlay.keys:
        click.echo(f"{loaded.overlay.path} is laid over it: {', '.join(keys)}", err=True)
    click.echo(f"{path}: {what}, ready to run", err=True)
    if strict and problems:
        sys.exit(WRONG)


def _print_problems(problems: Sequence[Problem], output: str) -> None:
    if output == "json":
        ready = all(problem.warning for problem in problems)
        print_json({"ready": ready, "problems": [asdict(problem) for problem in problems]})
        return
    for problem in problems:
        click.echo(clean_lines(problem))


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
def init(folder: Path) -> None:
    """Write a commented starter configuration into DIR; nothing that is there is overwritten."""
    from agentd.config.starter import write_starter

    for path in write_starter(folder):
        click.echo(f"wrote {path}")
    click.echo(f"next: edit it, then `agentd check -c {folder}/agentd.yaml` and `agentd run -c {folder}/agentd.yaml`")


@click.command()
@click.option("--payload", is_flag=True, help="The schema of the messages that webhooks get, instead.")
@click.option(
    "--variables",
    "variables_of",
    is_flag=False,
    flag_value="",
    metavar="[KIND]",
    help="What the conditions of one kind of watch, or of each, may read, instead.",
)
def schema(payload: bool, variables_of: str | None) -> None:
    """Print the JSON Schema of the configuration, for editors and other tools."""
    if variables_of is not None:
        _print_variables(variables_of)
        return
    if payload:
        from agentd.deliver.payload import payload_schema

        print_json(payload_schema())
        return
    from agentd.config.schema import config_schema

    print_json(config_schema())


def _print_variables(name: str) -> None:
    from agentd.config.complaints import did_you_mean
    from agentd.config.readable import types_of
    from agentd.watch import KINDS

    if name and name not in KINDS:
        raise ConfigError(f"there is no kind of watch called {name}; {did_you_mean(name, KINDS)}")
    width = max(len(variable) for kind in KINDS.values() for variable in kind.variables)
    for number, kind in enumerate([KINDS[name]] if name else KINDS.values()):
        expects = "; ".join(kind.expect) or "nothing"
        click.echo(f"{chr(10) if number else ''}{kind.name}: when the watch names no `expect`: {expects}")
        types = types_of(kind.name)
        for variable, meaning in kind.variables.items():
            type_ = types.get((variable,), "any")
            click.echo(f"  {variable:<{width}}  {'' if type_ == 'any' else type_:<6}  {meaning}")
