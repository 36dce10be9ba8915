"""
What in the lines makes an alert: one class for each type of rule, and the engine that runs the rules of a watch.

In: hits and event times. Out: occurrences and the windows to store with them. Pure; see `RuleEngine`.
"""

from agentd.logs.rules.base import RESOLVE_AFTER as RESOLVE_AFTER
from agentd.logs.rules.base import RuleCounts as RuleCounts
from agentd.logs.rules.engine import TYPES as TYPES
from agentd.logs.rules.engine import RuleEngine as RuleEngine
from agentd.logs.rules.engine import digest_of as digest_of
