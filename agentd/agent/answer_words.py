"""
The words by which models say how things stand, how bad it is and how sure they are, English and Chinese.

Keys are as `finding` reads words: lower case, `_` for spaces and hyphens.
"""

from __future__ import annotations

from typing import Literal, TypeVar

from agentd.records import Severity

T = TypeVar("T")


def _meaning(table: dict[T, str]) -> dict[str, T]:
    return {word: value for value, words in table.items() for word in words.split()}


STATUS: dict[str, Literal["ok", "problem"]] = _meaning(
    {
        "ok": "ok okay good fine healthy normal nominal success succeeded successful done complete completed resolved "
        "pass passed no_problem no_issue no_issues none_found all_clear green 正常 健康 成功 完成 已完成 无异常",
        "problem": "problem problems issue issues bad fail failed failing failure error errors broken down degraded "
        "unhealthy abnormal anomaly critical warning alert incident firing red 异常 故障 失败 错误 有问题 问题",
    }
)
UNCLEAR = _meaning(
    {True: "unclear unknown uncertain inconclusive undetermined mixed partial unsure n/a 不清楚 未知 不明 不确定"}
)
SEVERITY: dict[str, Severity] = _meaning(
    {
        Severity.INFO: "info informational information notice low none ok normal debug trivial p4 p5 sev4 sev5 green "
        "sev_4 sev_5 信息 提示 低 正常",
        Severity.WARNING: "warning warn medium moderate minor error p3 sev3 sev_3 yellow orange amber "
        "警告 中 中等 一般",
        Severity.CRITICAL: "critical crit high severe major serious fatal emergency urgent alert blocker disaster "
        "p0 p1 p2 sev0 sev1 sev2 sev_0 sev_1 sev_2 red 严重 紧急 高 致命 危急",
    }
)
CONFIDENCE: dict[str, float] = _meaning(
    {
        1.0: "certain sure definite full 确定 肯定",
        0.95: "very_high extremely_high 很高",
        0.85: "high strong likely 高",
        0.6: "medium moderate fair average possible 中 中等",
        0.3: "low weak unlikely 低",
        0.1: "very_low none unknown 很低",
    }
)
