"""The rules for Prometheus fire when they should."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

CONF = Path(__file__).resolve().parents[2] / "conf"
RULES = CONF / "prometheus" / "agentd.rules.yaml"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not there; `make test` installs it")


def promtool(*arguments: str) -> None:
    done = subprocess.run([str(PROMTOOL), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_the_rules_are_rules() -> None:
    """Prometheus refuses a whole file for one mistake, and watches nothing with it."""
    promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))


FIRES = {
    "AgentdDown": {"up{job='agentd', instance='a'}": "0x60"},
    "AgentdNotReady": {"agentd_ready{instance='a'}": "0x60"},
    "AgentdReloadRefused": {"agentd_config_last_reload_successful{instance='a'}": "0x60"},
    "AgentdMessagesWait": {"agentd_outbox_oldest_seconds{webhook='ops'}": "1000x60"},
    "AgentdWebhookDown": {"agentd_webhook_up{webhook='ops'}": "0x60"},
    "AgentdDeadLetters": {"agentd_dead_letters_total{webhook='ops'}": "0 0 1x58"},
    "AgentdMemoryHigh": {
        "process_resident_memory_bytes{instance='a', job='agentd'}": "90x60",
        "agentd_memory_limit_bytes{instance='a', job='agentd'}": "100x60",
    },
    "AgentdChecksLate": {"agentd_scheduler_overdue_seconds{instance='a'}": "90x60"},
    "AgentdLogBehind": {"agentd_log_lag_seconds{watch='app'}": "301x60"},
    "AgentdDiskFull": {"agentd_store_full{instance='a'}": "1x60"},
    "AgentdBudgetNearlySpent": {"agentd_budget_spent_usd": "0.95x60", "agentd_budget_limit_usd": "1x60"},
    "AgentdModelFails": {
        "agentd_model_calls_total{model='m', outcome='timeout'}": "0+2x60",
        "agentd_model_calls_total{model='m', outcome='ok'}": "0+1x60",
    },
}
"""What makes each rule fire within an hour, a sample a minute; nothing else fires by it but that nobody is there."""


@needs_promtool
@pytest.mark.parametrize("alert", FIRES)
def test_a_rule_fires_by_what_it_is_for(alert: str, tmp_path: Path) -> None:
    """A rule that never fires looks the same as one that has nothing to tell."""
    series = [{"series": name.replace("'", '"'), "values": values} for name, values in FIRES[alert].items()]
    query = 'count by (alertname) (ALERTS{alertname!="AgentdDown", alertstate="firing"})'
    if alert == "AgentdDown":
        query = query.replace("!=", "=")
    wanted = [{"labels": f'{{alertname="{alert}"}}', "value": 1}]
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": series,
                "promql_expr_test": [{"expr": query, "eval_time": "50m", "exp_samples": wanted}],
            }
        ],
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(test))

    promtool("test", "rules", str(file))


@needs_promtool
def test_a_daemon_that_is_well_fires_nothing(tmp_path: Path) -> None:
    """A rule that fires for nothing is switched off, and then it is not there for something."""
    well = {
        'up{job="agentd"}': "1x60",
        "agentd_ready": "1x60",
        "agentd_config_last_reload_successful": "1x60",
        'agentd_outbox_oldest_seconds{webhook="ops"}': "5x60",
        'agentd_webhook_up{webhook="ops"}': "1x60",
        'agentd_dead_letters_total{webhook="ops"}': "3x60",
        "process_resident_memory_bytes": "90x60",
        "agentd_memory_limit_bytes": "0x60",
        "agentd_store_full": "0x60",
        "agentd_store_readable": "1x60",
        "agentd_store_free_bytes": "5000000000x60",
        'agentd_model_calls_total{model="m", outcome="ok"}': "0+3x60",
        'agentd_model_calls_total{model="m", outcome="timeout"}': "0+1x60",
    }
    test = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in well.items()],
                "promql_expr_test": [{"expr": "ALERTS", "eval_time": "50m", "exp_samples": []}],
            }
        ],
    }
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(test))

    promtool("test", "rules", str(file))


def test_the_dashboard_goes_with_any_data_source() -> None:
    """An uid of somebody else's Grafana shows empty panels everywhere but there."""
    board = json.loads((CONF / "grafana" / "agentd.json").read_text())
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]

    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    assert {target["datasource"]["uid"] for panel in panels for target in panel["targets"]} == {"${datasource}"}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert [variable["name"] for variable in board["templating"]["list"]] == ["datasource", "instance"]
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert panel["targets"], panel["title"]
