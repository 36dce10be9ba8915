"""
From files to a `Config`, or to every problem they have.

In: the path of the main file, and the environment. Out: `Loaded`.
Promise: whatever stands in the files, the answer is a whole, checked configuration or InvalidConfig with all that is
wrong in file order, warnings too. Nothing is opened, started or sent; secrets are looked at and forgotten.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from agentd.condition import Condition
from agentd.config import checks
from agentd.config.agent_checks import check_agent, check_prices, check_room, check_watch_agent
from agentd.config.agents import AgentSettings
from agentd.config.api_checks import check_api
from agentd.config.checks import Compiler, Entry, Names
from agentd.config.complaints import problems_of, thinned
from agentd.config.document import MAX_DEPTH, Document, parse_document
from agentd.config.log_checks import check_log
from agentd.config.models import Config
from agentd.config.overlay import Overlay, deeper_than
from agentd.config.overlay_checks import check_addresses
from agentd.config.references import SecretCheck
from agentd.config.socket_access import check_socket_access
from agentd.config.sources import NOT_LAID, Sources
from agentd.config.watches import Defaults, Watch, complete, watch_model
from agentd.deliver.webhook import WebhookSettings
from agentd.errors import ConfigError, InvalidConfig, Problem
from agentd.watch import KINDS

Model = TypeVar("Model", bound=BaseModel)

PLACES = ("agentd.yaml", "/etc/agentd/agentd.yaml")
MAX_GIVEN_BYTES = 2**20
"""Of a configuration that is looked at by itself."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """
    A configuration that may be run.

    files: the main file and all it includes. warnings: problems that hinder nothing.
    environment: the real one over `.env`; secrets are expanded with it.
    conditions: by watch, what its probe must show, compiled.
    origins: where the value of a dotted key comes from, as `origins_of` says.
    overlay: what was laid over the files, or why it was not. notices: old names, and what they are called now.
    """

    config: Config
    files: tuple[Path, ...]
    warnings: tuple[Problem, ...]
    environment: Mapping[str, str]
    conditions: Mapping[str, tuple[Condition, ...]]
    origins: Mapping[str, str]
    overlay: Overlay = NOT_LAID
    notices: tuple[Problem, ...] = ()


def find_config(explicit: Path | None, environment: Mapping[str, str] | None = None) -> Path:
    """
    The main file: `explicit` (--config), $AGENTD_CONFIG, ./agentd.yaml or /etc/agentd/agentd.yaml, the first named.

    A file that was named is not looked for elsewhere. Raises ConfigError when none is there, or when this user may
    not see whether there is one.
    """
    if explicit is not None:
        return explicit
    if named := (os.environ if environment is None else environment).get("AGENTD_CONFIG"):
        return Path(named)
    for place in PLACES:
        try:
            if Path(place).exists():
                return Path(place)
        except OSError as error:
            raise ConfigError(
                f"{place} cannot be looked at: {error.strerror}; run this as the daemon's user, or name a file with -c"
            ) from error
    raise ConfigError(
        f"no configuration found: looked at --config, $AGENTD_CONFIG, {', '.join(PLACES)}; "
        "`agentd init DIR` writes a first one"
    )


def load(
    path: Path,
    *,
    environment: Mapping[str, str] | None = None,
    prices: bool = True,
    overlay: Overlay | None = None,
) -> Loaded:
    """
    Read, merge and check a configuration.

    environment: default `os.environ`. prices: look whether budgets of dollars can be kept, which may start a process
    for half a second. Takes up to some seconds for 10,000 watches: not for the event loop's thread.
    overlay: default: the one in the state folder; that one is passed over when nothing is wrong without it, and
    `Loaded.overlay.wrong` says why; one that is given must fit.
    Raises InvalidConfig, and nothing else, when there is an error among the problems.
    """
    variables = dict(os.environ if environment is None else environment)
    sources = Sources(path, variables, overlay)
    readable = sources.read()
    laid = sources.overlay or NOT_LAID
    if overlay is not None or not laid.data:
        return _Load(sources, prices).run(readable)
    try:
        return _Load(sources, prices).run(readable)
    except InvalidConfig as error:
        plain = Sources(path, variables, NOT_LAID)
        errors = [problem for problem in error.problems if not problem.warning]
        bare = _Load(plain, prices).run(plain.read())  # what is wrong without it is to be mended first
        more = f" (and {len(errors) - 1} more)" if errors[1:] else ""
        what = f"does not fit the files: {errors[0].key}: {errors[0].what}{more}"
        wrong = f"{what}; {errors[0].cure or 'change the one or the other'}"
        return with_overlay(bare, Overlay(laid.path, wrong=wrong))


def with_overlay(loaded: Loaded, overlay: Overlay) -> Loaded:
    """The same with an overlay that is not in effect, and a warning that says so."""
    warnings = sorted({*loaded.warnings, *_unlaid(overlay)})
    return replace(loaded, overlay=overlay, warnings=tuple(warnings))


def _unlaid(overlay: Overlay) -> list[Problem]:
    if overlay.wrong is None:
        return []
    what, _, cure = overlay.wrong.partition("; ")
    return [Problem(str(overlay.path), 0, 0, "overlay", f"{what}: it is not in effect", cure, True)]


def look_at(given: Any) -> tuple[list[Problem], list[Problem]]:
    """
    Check a configuration by itself: data, or the text of a file. Returns its problems, warnings too, and notices of old
    names.

    Nothing is read that it names: no other file, no secret, no environment, no plugin; nor the prices of models.
    Blocking, as `load`.
    """
    if isinstance(given, str):
        content = given.encode(errors="replace")
        if len(content) > MAX_GIVEN_BYTES:
            what = f"is larger than {MAX_GIVEN_BYTES // 2**20} MiB"
            return [Problem("configuration", 0, 0, "file", what, "send a part of it")], []
        document, problems = parse_document(content, "configuration")
    else:
        document, problems = Document("configuration", given), []
        if deeper_than(MAX_DEPTH, given):
            what = f"is nested deeper than {MAX_DEPTH} levels"
            return [Problem("configuration", 0, 0, "file", what, "flatten it")], []
    sources = Sources(Path("/configuration"), {}, NOT_LAID, alone=True, problems=problems)
    try:
        loaded = _Load(sources, prices=False, written=isinstance(given, str)).run(sources.take(document))
    except InvalidConfig as error:
        return error.problems, sources.notices
    return list(loaded.warnings), sources.notices


@dataclass(slots=True)
class _Load:
    """written: the data stood in a file, where no secret should."""

    sources: Sources
    prices: bool = True
    written: bool = True
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    compiler: Compiler = field(default_factory=Compiler)
    conditions: dict[str, tuple[Condition, ...]] = field(default_factory=dict)
    tools: list[str] = field(default_factory=list)

    def run(self, readable: bool) -> Loaded:
        sources, root = self.sources, self.sources.root
        if not readable:
            raise InvalidConfig(sorted(sources.problems))
        overlay = sources.overlay or NOT_LAID
        self._add(_unlaid(overlay))
        self._load_plugins(root)
        webhooks = sources.webhooks()
        watches = sources.watches()
        self._add(sources.problems)
        secrets = SecretCheck(sources.environment, reads=not sources.alone, plain=self.written)
        config = self._config(root, secrets)
        self._add(check_addresses(root, overlay, sources.overrides))
        valid_webhooks = self._webhooks(webhooks, secrets)
        defaults, typed_defaults = self._defaults(root)
        valid_watches = self._watches(watches, defaults, secrets)
        self._cross_check(root, webhooks, watches)
        if config is not None:
            config = config.model_copy(update={"watches": tuple(valid_watches)})
            self._check_agents(root, watches, config)
        warnings = thinned(self.warnings)
        if self.problems:
            raise InvalidConfig(sorted({*self.problems, *warnings}))
        assert config is not None
        # A name of a webhook that cannot be sent to yet stays out of sight, or messages to it would wait for ever.
        told = tuple(dict.fromkeys(name for name in config.alerting.notify if name in valid_webhooks))
        config = config.model_copy(
            update={
                "webhooks": valid_webhooks,
                "agent": self._with_whole_paths(config.agent),
                "defaults": typed_defaults,
                "alerting": config.alerting.model_copy(update={"notify": told}),
            }
        )
        return Loaded(
            config=config,
            files=tuple(sources.files),
            warnings=tuple(sorted(set(warnings))),
            environment=sources.environment,
            conditions=self.conditions,
            origins=sources.origins(),
            overlay=overlay,
            notices=tuple(sorted(set(sources.notices))),
        )

    def _load_plugins(self, root: Entry) -> None:
        daemon = root.raw.get("daemon")
        names = daemon.get("plugins") if isinstance(daemon, dict) else None
        if isinstance(names, list) and self.sources.alone:
            self.tools += [name for name in names if isinstance(name, str)]
        elif isinstance(names, list) and names:
            from agentd.config.plugins import load_plugins

            self._add(load_plugins(root, names, self.tools))

    def _check_agents(self, root: Entry, watches: list[Entry], config: Config) -> None:
        entries = {entry.name: entry for entry in watches}
        self._add(check_agent(root, config, self.tools))
        self._add(check_socket_access(root, config.api.socket_access))
        for watch in config.watches:
            self._add(check_watch_agent(entries[watch.name], watch, config.agent, config.models))
        self._add(check_room(root, entries, config))
        if self.prices and not self.problems:
            self._add(check_prices(root, entries, config))

    def _with_whole_paths(self, agent: AgentSettings) -> AgentSettings:
        """A folder of prompts is meant from the file's own."""
        if agent.prompts is None:
            return agent
        return agent.model_copy(update={"prompts": (self.sources.path.parent / agent.prompts.expanduser()).absolute()})

    def _add(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            (self.warnings if problem.warning else self.problems).append(problem)

    @property
    def _laid(self) -> str:
        """The overlay's file; the key that a model was given stands there in plain, and nobody else may read it."""
        return str((self.sources.overlay or NOT_LAID).path)

    # Typing what was sorted out

    def _config(self, root: Entry, secrets: SecretCheck) -> Config | None:
        data = {key: value for key, value in root.raw.items() if key not in ("watches", "webhooks", "defaults")}
        config = self._typed(Config, data, root)
        self._add(each for each in secrets.problems(data, (), root.locate, config) if each.file != self._laid)
        if config is not None:
            self._add(checks.check_sizes(root, config.daemon, config.memory))
        return config

    def _defaults(self, root: Entry) -> tuple[dict[str, Any], Defaults | None]:
        """The raw defaults that are valid; what is wrong with others is told once and not for every watch."""
        raw = root.raw.get("defaults")
        if raw is None:
            return {}, Defaults()
        entry = Entry("", raw, ("defaults",), root.locate)
        before = len(self.problems)
        typed = self._typed(Defaults, raw, entry)
        if not isinstance(raw, dict):
            return {}, None
        self._add(checks.check_schedule(entry, None, raw.get("timezone")))
        bad = {problem.key.removeprefix("defaults.").split(".")[0].split("[")[0] for problem in self.problems[before:]}
        return {key: value for key, value in raw.items() if key not in bad and value is not None}, typed

    def _webhooks(self, entries: dict[str, Entry], secrets: SecretCheck) -> dict[str, WebhookSettings]:
        valid = {}
        for name, entry in entries.items():
            # Through the config's own field, so that the name is checked as well.
            holder = Entry(name, {"webhooks": {name: entry.raw}}, (), entry.locate)
            typed = self._typed(Config, holder.raw, holder)
            webhook = None if typed is None else typed.webhooks[name]
            if isinstance(entry.raw, dict):
                self._add(secrets.problems(entry.raw, entry.path, entry.locate, webhook))
            if webhook is not None:
                unusable = () if self.sources.alone else webhook.unusable(self.sources.environment)
                for path, words in unusable:
                    what, _, cure = words.partition("; ")
                    # A secret alone is no list in the file.
                    written = path if isinstance(entry.raw.get(str(path[0])), dict | list) else path[:1]
                    self._add([entry.problem(written, what, cure)])
                valid[name] = webhook
        return valid

    def _watches(self, entries: list[Entry], defaults: dict[str, Any], secrets: SecretCheck) -> list[Watch]:
        model = watch_model()
        valid = []
        for entry in entries:
            entry.whole = complete(entry.raw, defaults)
            watch = self._typed(model, entry.whole, entry)
            conditions: list[Condition] = []
            self._add(checks.check_source(entry, KINDS))
            self._add(checks.check_schedule(entry, entry.raw.get("cron"), entry.whole.get("timezone")))
            self._add(checks.check_conditions(entry, KINDS, self.compiler, conditions))
            self._add(check_log(entry))
            self._add(secrets.problems(entry.raw, entry.path, entry.locate, watch))
            self._add(checks.check_missed(entry, KINDS))
            if watch is not None:
                self._add(checks.check_sense(entry, watch))
                valid.append(watch)
                self.conditions[watch.name] = tuple(conditions)
        return valid

    def _typed(self, model: type[Model], data: Any, entry: Entry) -> Model | None:
        try:
            return model.model_validate(data)
        except ValidationError as error:
            self._add(problems_of(error, model, data, entry.path, entry.locate))
            return None

    # What only the whole can tell

    def _cross_check(self, root: Entry, webhooks: dict[str, Entry], watches: list[Entry]) -> None:
        names = Names(
            webhooks=webhooks,
            watches={watch.name: _rule_names(watch) for watch in watches if watch.name},
            models=_keys(root.raw.get("models")),
            hooks=_keys((root.raw.get("api") or {}).get("hooks") if isinstance(root.raw.get("api"), dict) else None),
        )
        self._add(checks.check_root(root, names, self.compiler))
        self._add(check_api(root, self.sources.environment, reads=not self.sources.alone))
        if isinstance(defaults := root.raw.get("defaults"), dict):
            self._add(
                checks.check_named(root, ("defaults", "notify"), defaults.get("notify"), "webhook", names.webhooks)
            )
        for watch in watches:
            self._add(checks.check_references(watch, names))
        self._add(checks.check_cycles({watch.name: watch for watch in watches if watch.name}))
        self._check_told(root, webhooks, watches)

    def _check_told(self, root: Entry, webhooks: dict[str, Entry], watches: list[Entry]) -> None:
        if not watches:
            self._add([root.problem((), "has no watches, so nothing is looked at", "add `watches:`", warning=True)])
        if not webhooks:
            what = "has no webhooks, so nobody is told of an alert"
            self._add([root.problem((), what, "add `webhooks:` and `alerting.notify`", warning=True)])
            return
        alerting = root.raw.get("alerting")
        told = alerting.get("notify") if isinstance(alerting, dict) else None
        for watch in watches:
            if watch.whole.get("notify") is None and not told:
                what, cure = "nobody is told of its alerts", "add `notify` to it, or `alerting.notify` for all"
                self._add([watch.problem((), what, cure, warning=True)])


def _keys(raw: Any) -> list[str]:
    return list(raw) if isinstance(raw, dict) else []


def _rule_names(watch: Entry) -> list[str]:
    rules = watch.raw.get("rules")
    listed = rules if isinstance(rules, list) else []
    return [rule["name"] for rule in listed if isinstance(rule, dict) and isinstance(rule.get("name"), str)]
