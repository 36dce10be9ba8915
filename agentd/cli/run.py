"""`agentd run`: the daemon in the foreground, as systemd starts it."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import sys
from pathlib import Path

import click

from agentd.cli.options import config_option
from agentd.config.loader import Loaded, find_config, load

_FULL_PASS_AFTER = 1000
"""Passes over what is of middle age; of these, each comes after some 7,000 objects more."""


@click.command()
@config_option
def run(config_path: Path | None) -> None:
    """Run the daemon in the foreground until SIGTERM; SIGHUP reloads the configuration."""
    path = find_config(config_path)
    loaded = load(path)
    sys.exit(live(path, loaded))


def live(path: Path, loaded: Loaded) -> int:
    """Run a daemon on the fastest loop there is; returns its exit code."""
    from agentd.daemon.app import Daemon
    from agentd.telemetry.logging import close_logging, open_logging

    # The watchdog's SIGABRT leaves the stack of every thread in the journal.
    faulthandler.enable()
    daemon = loaded.config.daemon
    open_logging(daemon.log_level, daemon.log_format)
    try:
        for warning in loaded.warnings:
            click.echo(str(warning), err=True)
        calm_collector()

        async def main() -> int:
            return await Daemon(path, loaded).run()

        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(main())
    finally:
        close_logging()


def calm_collector() -> None:
    """
    Let the garbage collector walk over everything only now and then.

    It stops all threads for that: 100 ms where ten thousand alerts fire, and at each quarter of growth. What was loaded
    stays until the end, and what is young is looked at as ever.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, _FULL_PASS_AFTER)


def _loop_factory() -> type[asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    loop: type[asyncio.AbstractEventLoop] = uvloop.Loop
    return loop
