"""
The manual pages, made from the code: agentd(8) from the commands, agentd.yaml(5) from the configuration's schema.

In: the commands, the schema, the example. Out: `agentd.8` and `agentd.yaml.5`, the same for the same code.

    python -m agentd.cli.manual conf/agentd.example.yaml units/man
"""

from __future__ import annotations

from pathlib import Path

NAMES = ("agentd.8", "agentd.yaml.5")


def make_pages(example: str) -> dict[str, str]:
    """The text of each page by its name. example: of a whole configuration."""
    from agentd.cli.manual.commands import commands_page
    from agentd.cli.manual.configuration import configuration_page

    return dict(zip(NAMES, (commands_page(), configuration_page(example)), strict=True))


def write_pages(example: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in make_pages(example.read_text(encoding="utf-8")).items():
        (folder / name).write_text(text, encoding="utf-8")
