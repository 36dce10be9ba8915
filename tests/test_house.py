"""
The house keeps its floors: imports go down only, and rooms on one floor never import each other.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "agentd"

FLOORS = [
    ["errors", "settings"],
    ["clock", "records", "pacing", "secret"],
    ["memory", "telemetry", "condition", "net", "cron"],
    ["watch", "logs", "alert", "deliver", "llm", "fleet"],
    ["agent", "config"],
    ["pipeline", "schedule"],
    ["api"],
    ["daemon", "testing"],
    ["cli"],
    ["__main__"],
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Every agentd room that the file imports anywhere, in functions and type-checking blocks too."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "agentd" else [module]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("agentd.")}
    return rooms - {"__version__"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    """A room that reaches up, or across its floor, cannot be changed alone any more."""
    room = room_of(path)
    if room == "__init__":
        assert not imported_rooms(path)
        return
    wrong = {other for other in imported_rooms(path) if other != room and FLOOR[other] >= FLOOR[room]}

    assert not wrong, f"{room} (floor {FLOOR[room]}) imports {wrong}"


def test_every_room_stands_on_a_floor() -> None:
    """A new room must be given its floor on purpose."""
    rooms = {room_of(path) for path in FILES} - {"__init__"}

    assert rooms <= set(FLOOR)


def test_no_room_for_odds_and_ends() -> None:
    """A file called utils has no promise to keep."""
    assert not [path for path in FILES if path.stem in {"utils", "util", "helpers", "helper", "common", "misc"}]
