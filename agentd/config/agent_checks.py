"""
What agents are told in several places must fit together: tools, models, budgets, MCP servers.

In: raw data as it was read, typed where it is valid. Out: problems with file, line, key and cure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from ipaddress import ip_network
from typing import Any

from agentd.config.agents import AgentSettings, Budget, BudgetSettings, DayBudget
from agentd.config.checks import Entry, check_named
from agentd.config.complaints import did_you_mean, show
from agentd.config.document import KeyPath
from agentd.config.models import Config
from agentd.config.watches import Watch
from agentd.errors import ConfigError, Problem
from agentd.llm.providers import check as check_model
from agentd.llm.providers import missing_extra
from agentd.llm.settings import ModelSettings
from agentd.settings import show_duration

BUILT_IN_TOOLS = (
    "http_get",
    "read_file",
    "write_file",
    "list_files",
    "run_command",
    "search_log",
    "query_history",
    "query_memory",
    "query_journal",
    "dns_lookup",
    "tls_info",
)
OF_GOALS = ("model", "tools", "budget", "scenario", "runbook", "report", "missed")


def check_agent(root: Entry, config: Config, plugins: Collection[str]) -> Iterator[Problem]:
    """`agent`, `models` and `budgets` fit together. plugins: names that the configuration lets load."""
    agent = config.agent
    known = known_tools(agent, plugins)
    yield from check_named(root, ("agent", "tools"), _listed(root.raw, "agent", "tools"), "tool", known)
    if agent.model is not None and agent.model not in config.models:
        cure = did_you_mean(agent.model, config.models)
        yield root.problem(("agent", "model"), f"there is no model {show(agent.model)}", cure)
    for index, folder in enumerate(agent.files.allow):
        if not folder.startswith("/"):
            cure = f"write the whole path, e.g. /srv/{folder}"
            yield root.problem(("agent", "files", "allow", index), f"{show(folder)} is no absolute path", cure)
    for index, host in enumerate(agent.http.allow):
        if (wrong := _no_host(host)) is not None:
            yield root.problem(("agent", "http", "allow", index), *wrong)
    for name, model in config.models.items():
        try:
            check_model(name, model)
        except ConfigError as error:
            _, _, words = str(error).partition(": ")
            what, _, cure = words.partition("; ")
            yield root.problem(("models", name), what, cure, key=True)
        if (extra := missing_extra(model)) is not None:
            what = f"provider {model.provider} needs a library that is not installed"
            cure = f"install agentd[{extra}] (`make install EXTRAS={extra}`)"
            yield root.problem(("models", name, "provider"), what, cure, warning=True)
    for name, server in agent.mcp.items():
        if (server.command is None) == (server.url is None):
            what = "names neither `command` nor `url`" if server.command is None else "names both `command` and `url`"
            yield root.problem(("agent", "mcp", name), what, "write one of them", key=True)
        elif not server.tools:
            what = "names no `tools`, so none of its tools may be used"
            yield root.problem(("agent", "mcp", name), what, "list those that agents may use", key=True, warning=True)
    if "write_file" in agent.tools and not agent.files.write:
        what = "is named, and `agent.files.write` is off: it can write nothing"
        yield root.problem(("agent", "tools"), f"write_file {what}", "set `agent.files.write: true`", warning=True)
    if "run_command" in agent.tools and not agent.commands.allow:
        what = "run_command is named, and `agent.commands.allow` is empty: it can run nothing"
        yield root.problem(("agent", "tools"), what, "list the commands", warning=True)


def _no_host(pattern: str) -> tuple[str, str] | None:
    """What is wrong with it, and the cure: an address with more than a host in it never matches."""
    if "://" in pattern:
        host = pattern.partition("://")[2].split("/")[0]
        return f"{show(pattern)} is an address; hosts are allowed, whatever is asked there", f"write {show(host)}"
    if "/" in pattern:
        try:
            ip_network(pattern, strict=False)
        except ValueError:
            host = pattern.split("/")[0]
            return f"{show(pattern)} has a path; hosts are allowed, with all their paths", f"write {show(host)}"
    host, _, port = pattern.rpartition(":")
    if port.isdecimal() and ":" not in host:
        return f"{show(pattern)} has a port; hosts are allowed, with all their ports", f"write {show(host)}"
    return None


def known_tools(agent: AgentSettings, plugins: Collection[str]) -> list[str]:
    """All tools that may be named."""
    of_servers = [f"{name}.{tool}" for name, server in agent.mcp.items() for tool in server.tools]
    return [*BUILT_IN_TOOLS, *of_servers, *plugins]


def check_watch_agent(entry: Entry, watch: Watch, agent: AgentSettings, models: Collection[str]) -> Iterator[Problem]:
    """A watch asks for no tool beyond those of `agent`; what only goals have stands at goals alone."""
    yield from _check_tools(entry, (), entry.raw, agent)
    asked = entry.raw.get("investigate")
    if isinstance(asked, dict):
        yield from _check_tools(entry, ("investigate",), asked, agent)
    if watch.goal is None:
        for key in OF_GOALS:
            if key in entry.raw and (key != "missed" or watch.kind is None):
                what = "means something for a `goal` alone"
                cure = f"write it beneath `investigate`, or remove `{key}`" if key in ("model", "tools") else ""
                yield entry.problem((key,), what, cure or f"remove `{key}`", key=True, warning=True)
    if watch.goal is not None and entry.raw.get("expect"):
        cure = "remove `expect`; with `report: state` the finding's status is the watch's state"
        yield entry.problem(("expect",), "a goal is answered by an agent: there is nothing to compare", cure, key=True)
    if watch.goal is not None and watch.investigate is not None:
        what = "has a goal already: what it finds is not investigated again"
        yield entry.problem(("investigate",), what, "remove `investigate`", key=True)
    if (watch.goal is not None or watch.investigate is not None) and not models:
        source = "goal" if watch.goal is not None else "investigate"
        what = "asks for an analysis, and no model is configured: only evidence is gathered"
        yield entry.problem((source,), what, "add one beneath `models`", key=True, warning=True)
    if watch.investigate is not None and watch.investigate.wait.total_seconds() > 600:
        what = f"holds the alert itself back for {show_duration(watch.investigate.wait)}"
        yield entry.problem(("investigate", "wait"), what, "write 10m or less", warning=True)


def _check_tools(entry: Entry, path: KeyPath, raw: Mapping[str, Any], agent: AgentSettings) -> Iterator[Problem]:
    tools = raw.get("tools")
    own = [name for name in tools if isinstance(name, str)] if isinstance(tools, list) else None
    for index, name in enumerate(own or ()):
        if name not in agent.tools:
            what = f"{show(name)} is not among the tools of `agent`; a watch can only narrow these"
            cure = f"use one of {', '.join(agent.tools) or 'none'}, or add it to `agent.tools`"
            yield entry.problem((*path, "tools", index), what, cure)
    usable = agent.tools if own is None else own
    for index, step in enumerate(raw.get("runbook") or () if isinstance(raw.get("runbook"), list) else ()):
        tool = step.get("tool") if isinstance(step, dict) else None
        if isinstance(tool, str) and tool not in usable:
            what = f"{show(tool)} is not among the tools that may be used here"
            yield entry.problem((*path, "runbook", index, "tool"), what, f"use one of {', '.join(usable) or 'none'}")


def check_prices(root: Entry, watches: Mapping[str, Entry], config: Config) -> Iterator[Problem]:
    """A budget of dollars holds no model whose price nobody knows, unless a budget of tokens stands beside it."""
    limits: list[tuple[Entry, KeyPath, Budget | DayBudget]] = [
        (root, ("budgets", name), getattr(config.budgets, name)) for name in BudgetSettings.model_fields
    ]
    for watch in config.watches:
        entry = watches.get(watch.name)
        if entry is not None and watch.budget is not None:
            limits.append((entry, ("budget",), watch.budget))
        if entry is not None and watch.investigate is not None and watch.investigate.budget is not None:
            limits.append((entry, ("investigate", "budget"), watch.investigate.budget))
    asked = [(entry, path, limit) for entry, path, limit in limits if limit.usd is not None and limit.tokens is None]
    if not asked or not config.models:
        return
    unknown = _unpriced(config.models)
    for entry, path, limit in asked:
        if unknown:
            named = ", ".join(unknown)
            what = f"${limit.usd:g} cannot be kept: the price of {named} is not known"
            cure = "add `tokens` beside `usd`, or a `price` to the model"
            yield entry.problem((*path, "usd"), what, cure)


def check_room(root: Entry, watches: Mapping[str, Entry], config: Config) -> Iterator[Problem]:
    """A budget pays for one answer of the model that it is for, at least; one of zero is meant so."""
    for name in BudgetSettings.model_fields:
        yield from _check_room(root, ("budgets", name), getattr(config.budgets, name), tuple(config.models), config)
    for watch in config.watches:
        entry, investigate = watches.get(watch.name), watch.investigate
        if entry is not None and watch.budget is not None:
            yield from _check_room(entry, ("budget",), watch.budget, _asked(watch.model, config), config)
        if entry is not None and investigate is not None and investigate.budget is not None:
            asked = _asked(investigate.model, config)
            yield from _check_room(entry, ("investigate", "budget"), investigate.budget, asked, config)


def _asked(model: str | None, config: Config) -> tuple[str, ...]:
    first = model or config.agent.model or ("default" if "default" in config.models else None)
    known = config.models.get(first) if first is not None else None
    return tuple(config.models) if known is None or first is None else (first, *known.fallback)


def _check_room(
    entry: Entry, path: KeyPath, budget: Budget | DayBudget, names: Collection[str], config: Config
) -> Iterator[Problem]:
    models = [config.models[name] for name in names if name in config.models]
    if not models:
        return
    least = min(model.max_tokens for model in models)
    if budget.tokens and budget.tokens < least:
        what = f"{budget.tokens:,} tokens pay for no call: the answer alone may take {least:,} (`max_tokens`)"
        yield entry.problem((*path, "tokens"), what, "write more, or a smaller `max_tokens` at the model", warning=True)
    usd = [model.price.output * model.max_tokens / 1e6 for model in models if model.price is not None]
    if budget.usd and len(usd) == len(models) and budget.usd < min(usd):
        what = f"${budget.usd:g} pay for no call: the answer alone may cost ${min(usd):g} (`max_tokens`)"
        yield entry.problem((*path, "usd"), what, "write more, or a smaller `max_tokens` at the model", warning=True)


def _unpriced(models: Mapping[str, ModelSettings]) -> tuple[str, ...]:
    from agentd.llm.prices import unpriced

    return unpriced(models, usd=0.0, tokens=None)


def _listed(raw: Any, *path: str) -> Any:
    for step in path:
        raw = raw.get(step) if isinstance(raw, dict) else None
    return raw
