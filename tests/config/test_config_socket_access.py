"""A name in `socket_access` that nobody has: it lets nobody in, and nobody would say why."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentd.config.loader import load

WATCH = "watches: [{name: shop, http: {url: 'http://127.0.0.1:1/'}}]\n"


@pytest.mark.parametrize(
    ("access", "said"),
    [
        ('{read: ["*"], operate: [root], admin: []}', []),
        ('{operate: [rooot, "@no-such-group"]}', ['there is no user "rooot"', 'there is no group "no-such-group"']),
        ('{read: [""]}', ['there is no user ""']),
    ],
)
def test_users_and_groups_that_are_not_there_are_told(tmp_path: Path, access: str, said: list[str]) -> None:
    """A warning, not an error: a directory of users may be away when the daemon starts."""
    (path := tmp_path / "agentd.yaml").write_text(f"api: {{socket_access: {access}}}\n{WATCH}")

    warnings = [problem for problem in load(path).warnings if problem.key.startswith("api.socket_access")]

    assert [problem.what for problem in warnings] == [f"{each} on this machine" for each in said]
    assert all(problem.warning and problem.line == 1 for problem in warnings)
