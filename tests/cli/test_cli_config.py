"""What the commands about the configuration tell, beside the life of a daemon."""

from __future__ import annotations

from click.testing import CliRunner

from agentd.cli.config import schema
from agentd.errors import ConfigError
from agentd.watch import KINDS


def test_what_conditions_may_read_is_listed_for_people() -> None:
    """Otherwise the names are learnt from error messages only."""
    said = CliRunner().invoke(schema, ["--variables"])

    assert said.exit_code == 0
    for name, kind in KINDS.items():
        assert f"{name}: " in said.output
        assert all(f"  {variable} " in said.output for variable in kind.variables)


def test_one_kind_alone_is_listed_with_the_types() -> None:
    said = CliRunner().invoke(schema, ["--variables", "dns"])

    assert said.output.splitlines()[0].startswith("dns: ")
    assert "  rcode           text    NOERROR" in said.output
    assert "http:" not in said.output


def test_an_unknown_kind_is_answered_with_the_nearest() -> None:
    error = CliRunner().invoke(schema, ["--variables", "htp"]).exception

    assert isinstance(error, ConfigError)
    assert "did you mean `http`?" in str(error)
