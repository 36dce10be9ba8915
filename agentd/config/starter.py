"""
The first configuration of a new installation, as `agentd init DIR` writes it.

In: a folder. Out: `agentd.yaml`, the schema that editors complete from, and an empty folder for more watches.
Promise: nothing that is there is overwritten, and what is written loads as it stands.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from agentd.config.schema import config_schema
from agentd.errors import ConfigError

NAME = "agentd.yaml"
SCHEMA_NAME = "agentd.schema.json"


def write_starter(folder: Path) -> list[Path]:
    """
    Write the starter into `folder`, which is made when it is not there.

    Returns what was written. Raises ConfigError when one of the files exists already, or cannot be written.
    """
    template = files("agentd.config").joinpath("starter.yaml").read_text(encoding="utf-8")
    contents = {
        folder / NAME: template,
        folder / SCHEMA_NAME: json.dumps(config_schema(), indent=1, ensure_ascii=False) + "\n",
    }
    written: list[Path] = []
    try:
        (folder / "watches.d").mkdir(parents=True, exist_ok=True)
        if taken := [path for path in contents if path.exists()]:
            raise ConfigError(f"{taken[0]} is there already; choose another folder, or move it away")
        for path, text in contents.items():
            # "x": of two who write at once, one is told.
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
            written.append(path)
    except OSError as error:
        raise ConfigError(
            f"cannot write into {folder}: {error.strerror}; choose a folder that you may write"
        ) from error
    return written
