"""
Templates of log lines: a flood of lines becomes a table of the kinds of lines in it.

    block ─▶ Miner (shapes, then words, then likeness) ─▶ templates ─▶ rows for people, changes for the stores
"""

from agentd.logs.templates.miner import Miner, New
from agentd.logs.templates.table import Changes, Counted, Row, Sample, StoredTemplate

__all__ = ["Changes", "Counted", "Miner", "New", "Row", "Sample", "StoredTemplate"]
