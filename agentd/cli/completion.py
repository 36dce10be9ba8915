"""`agentd completion`: the script by which a shell completes commands, options and names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from agentd.errors import AgentdError


@click.command()
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """
    Print the script by which SHELL (bash, zsh or fish) completes commands, options and names.

    `make install` puts it where the shell looks for it. By hand: `eval "$(agentd completion bash)"` in ~/.bashrc,
    the same in ~/.zshrc, or `agentd completion fish > ~/.config/fish/completions/agentd.fish`.
    """
    from agentd.cli import cli

    maker = get_completion_class(shell)
    if maker is None:
        raise AgentdError(f"nothing is known of completion in {shell}")
    try:
        # Not through `source()`: bash would be started to say how old it is.
        script = maker(cli, {}, "agentd", "_AGENTD_COMPLETE")
        click.echo(script.source_template % script.source_vars())
    except (TypeError, ValueError, KeyError) as error:  # its template is not ours
        raise AgentdError(f"click has no completion for {shell} that we can print: {error}") from error
