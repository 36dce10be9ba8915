"""The options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]


def config_option(command: Command) -> Command:
    return click.option(
        "--config",
        "-c",
        "config_path",
        type=click.Path(path_type=Path),
        help="The configuration; default: $AGENTD_CONFIG, ./agentd.yaml, /etc/agentd/agentd.yaml.",
    )(command)


def output_option(command: Command) -> Command:
    return click.option(
        "--output",
        "-o",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="How to print.",
    )(command)
