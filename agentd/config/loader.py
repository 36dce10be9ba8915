"""
From files to a `Config`, or to every problem they have.

In: the path of the main file, and the environment. Out: `Loaded`.
Promise: whatever stands in the files, the answer is a whole, checked configuration or InvalidConfig with all that is
wrong in file order, warnings too. Nothing is opened, started or sent; secrets are looked at and forgotten.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from agentd.condition import Condition
from agentd.config import checks, environment
from agentd.config.agent_checks import check_agent, check_prices, check_room, check_watch_agent
from agentd.config.agents import AgentSettings
from agentd.config.api_checks import check_api
from agentd.config.checks import Compiler, Entry, Names
from agentd.config.complaints import Locate, did_you_mean, known_keys, problems_of, thinned
from agentd.config.document import Document, KeyPath, Place, dotted, read_document
from agentd.config.key_files import check_key_file, find_key_files, with_keys
from agentd.config.log_checks import check_log
from agentd.config.models import Config
from agentd.config.references import SecretCheck
from agentd.config.watches import Defaults, Watch, complete, watch_model
from agentd.deliver.webhook import WebhookSettings
from agentd.errors import ConfigError, InvalidConfig, Problem
from agentd.watch import KINDS

Model = TypeVar("Model", bound=BaseModel)

PLACES = ("agentd.yaml", "/etc/agentd/agentd.yaml")
INCLUDED_KEYS = ("watches", "webhooks")


@dataclass(frozen=True, slots=True)
class Loaded:
    """
    A configuration that may be run.

    files: the main file and all it includes. warnings: problems that hinder nothing.
    environment: the real one over `.env`; secrets are expanded with it.
    conditions: by watch, what its probe must show, compiled.
    origins: where the value of a key comes from: `file:line`, `environment`, or the .env file (watches left out).
    """

    config: Config
    files: tuple[Path, ...]
    warnings: tuple[Problem, ...]
    environment: Mapping[str, str]
    conditions: Mapping[str, tuple[Condition, ...]]
    origins: Mapping[str, str]


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


def load(path: Path, *, environment: Mapping[str, str] | None = None, prices: bool = True) -> Loaded:
    """
    Read, merge and check a configuration.

    environment: default `os.environ`. prices: look whether budgets of dollars can be kept, which may start a process
    for half a second. Takes up to some seconds for 10,000 watches: not for the event loop's thread.
    Raises InvalidConfig, and nothing else, when there is an error among the problems.
    """
    return _Load(path, dict(os.environ if environment is None else environment), prices).run()


@dataclass(slots=True)
class _Load:
    path: Path
    environment: dict[str, str]
    prices: bool = True
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    compiler: Compiler = field(default_factory=Compiler)
    conditions: dict[str, tuple[Condition, ...]] = field(default_factory=dict)
    tools: list[str] = field(default_factory=list)

    def run(self) -> Loaded:
        document = self._read(self.path)
        if not isinstance(document.data, dict):
            if not self.problems:
                what = "is empty" if document.data is None else "is no mapping of keys"
                self._add(
                    [Problem(document.file, *document.start, "file", what, "`agentd init DIR` writes a first one")]
                )
            raise InvalidConfig(sorted(self.problems))
        root = with_keys(self._root(document), self._key_files())
        self._load_plugins(root)
        documents = [document, *self._included(document, root)]
        webhooks = self._webhook_entries(documents, root)
        watches = self._watch_entries(documents)
        secrets = SecretCheck(self.environment)
        config = self._config(root, secrets)
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
            files=tuple(self.files),
            warnings=tuple(sorted(set(warnings))),
            environment=self.environment,
            conditions=self.conditions,
            origins=dict(_origins(root.raw, root.locate)),
        )

    def _load_plugins(self, root: Entry) -> None:
        daemon = root.raw.get("daemon")
        names = daemon.get("plugins") if isinstance(daemon, dict) else None
        if isinstance(names, list) and names:
            from agentd.config.plugins import load_plugins

            self._add(load_plugins(root, names, self.tools))

    def _check_agents(self, root: Entry, watches: list[Entry], config: Config) -> None:
        entries = {entry.name: entry for entry in watches}
        self._add(check_agent(root, config, self.tools))
        for watch in config.watches:
            self._add(check_watch_agent(entries[watch.name], watch, config.agent, config.models))
        self._add(check_room(root, entries, config))
        if self.prices and not self.problems:
            self._add(check_prices(root, entries, config))

    def _with_whole_paths(self, agent: AgentSettings) -> AgentSettings:
        """A folder of prompts is meant from the file's own."""
        if agent.prompts is None:
            return agent
        return agent.model_copy(update={"prompts": (self.path.parent / agent.prompts.expanduser()).absolute()})

    def _add(self, problems: list[Problem] | Iterator[Problem]) -> None:
        for problem in problems:
            (self.warnings if problem.warning else self.problems).append(problem)

    # Reading

    def _read(self, path: Path) -> Document:
        document, problems = read_document(path)
        self.files.append(path)
        self._add(problems)
        return document

    def _root(self, document: Document) -> Entry:
        """The main file's mapping with the overrides of the environment in it."""
        folder = self.path.parent
        dotenv, problems = environment.read_dotenv(folder)
        self._add(problems)
        overrides = environment.apply_overrides(
            document.data, self.environment, dotenv, str(folder / ".env"), known_keys(Config)
        )
        self._add(overrides.problems)
        self.environment = {**dotenv, **self.environment}

        def locate(path: KeyPath, key: bool) -> Place:
            if origin := overrides.origin(path):
                return Place(f"{origin[1]} ({origin[0]})")
            return document.place(path, key=key)

        return Entry("", overrides.data, (), locate)

    def _key_files(self) -> list[Document]:
        paths, problems = find_key_files(self.path)
        self._add(problems)
        documents = [self._read(path) for path in paths]
        for document in documents:
            self._add(check_key_file(document))
        return documents

    def _included(self, document: Document, root: Entry) -> list[Document]:
        patterns = root.raw.get("include")
        found: dict[Path, Document] = {}
        for index, pattern in enumerate(patterns if isinstance(patterns, list) else ()):
            if not isinstance(pattern, str):
                continue
            for path in self._matching(pattern, index, root):
                if path in found or path in self.files or _same_file(path, self.path):
                    continue  # a wide glob meets the files of keys as well
                found[path] = self._read(path)
                self._check_included(found[path])
        return [each for each in found.values() if isinstance(each.data, dict)]

    def _matching(self, pattern: str, index: int, root: Entry) -> list[Path]:
        folder = self.path.parent
        where = ("include", index)
        try:
            if glob.has_magic(pattern):
                names = sorted(glob.glob(pattern, root_dir=folder, recursive=True))
                if not names:
                    self._add(_passed_over(pattern, folder, root, where))
                return [folder / name for name in names]
            if (folder / pattern).exists():
                return [folder / pattern]
        except (OSError, ValueError) as error:
            self._add([root.problem(where, f"cannot be looked for: {error}", "write a path or a glob")])
            return []
        self._add([root.problem(where, f"there is no file {folder / pattern}", "create it, or write a glob: *.yaml")])
        return []

    def _check_included(self, document: Document) -> None:
        if document.data is None:
            return
        if not isinstance(document.data, dict):
            place = document.place(())
            cure = "an included file holds `watches:` and `webhooks:`"
            self._add([Problem(place.file, place.line, place.column, "file", "is no mapping of keys", cure)])
            return
        for key in document.data:
            if key in INCLUDED_KEYS:
                continue
            place = document.place((key,), key=True)
            known = key in known_keys(Config)
            what = "stands in an included file" if known else "is no key known here"
            cure = f"move it to {self.path}" if known else did_you_mean(key, INCLUDED_KEYS)
            self._add([Problem(place.file, place.line, place.column, dotted((key,)), what, cure)])

    # Sorting out what was read

    def _webhook_entries(self, documents: list[Document], root: Entry) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for number, document in enumerate(documents):
            locate = root.locate if number == 0 else _locate_in(document)
            data = root.raw if number == 0 else document.data
            webhooks = data.get("webhooks")
            if webhooks is not None and not isinstance(webhooks, dict):
                cure = "write NAME: {url: …} for each"
                self._add([checks.problem(locate, ("webhooks",), "is not a mapping", cure)])
                continue
            for name, raw in (webhooks or {}).items():
                entry = Entry(name, raw, ("webhooks", name), locate)
                if name in entries:
                    self._add([self._second(entry, entries[name], "webhook")])
                    continue
                entries[name] = entry
        return entries

    def _watch_entries(self, documents: list[Document]) -> list[Entry]:
        entries: list[Entry] = []
        by_name: dict[str, Entry] = {}
        for document in documents:
            locate = _locate_in(document)
            watches = document.data.get("watches")
            if watches is not None and not isinstance(watches, list):
                cure = "write one watch an item, each begun by `- name:`"
                self._add([checks.problem(locate, ("watches",), "is not a list", cure)])
                continue
            for index, raw in enumerate(watches or ()):
                path = ("watches", index)
                if not isinstance(raw, dict):
                    self._add([checks.problem(locate, path, "is not a mapping", "write `name:` and a source")])
                    continue
                name = raw.get("name")
                entry = Entry(name if isinstance(name, str) else "", raw, path, locate)
                if entry.name in by_name:
                    self._add([self._second(entry, by_name[entry.name], "watch", "name")])
                elif entry.name:
                    by_name[entry.name] = entry
                entries.append(entry)
        return entries

    def _second(self, entry: Entry, first: Entry, sort: str, *path: str) -> Problem:
        place = first.locate((*first.path, *path), not path)
        return entry.problem(
            path,
            f"a second {sort} is called {entry.name}",
            f"rename one; the first stands at {place.file}:{place.line}:{place.column}",
            key=not path,
        )

    # Typing what was sorted out

    def _config(self, root: Entry, secrets: SecretCheck) -> Config | None:
        data = {key: value for key, value in root.raw.items() if key not in ("watches", "webhooks", "defaults")}
        config = self._typed(Config, data, root)
        self._add(secrets.problems(data, (), root.locate, config))
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
                for path, words in webhook.unusable(self.environment):
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
        self._add(check_api(root, self.environment))
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


def _passed_over(pattern: str, folder: Path, root: Entry, where: KeyPath) -> Iterator[Problem]:
    """A warning where a glob meets nothing and yet there are files beside what it looks for: `*.yaml`, and `a.yml`."""
    inside, _, last = pattern.rpartition("/")
    if glob.has_magic(inside) or not last.endswith((".yaml", ".yml")):
        return
    others = sorted(glob.glob("*.y*ml", root_dir=folder / inside)) if inside else []
    if others:
        what = f"matches no file, though {folder / inside / others[0]} is there"
        yield root.problem(where, what, "rename the file, or widen the glob", warning=True)


def _locate_in(document: Document) -> Locate:
    return lambda path, key: document.place(path, key=key)


def _same_file(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False


def _keys(raw: Any) -> list[str]:
    return list(raw) if isinstance(raw, dict) else []


def _rule_names(watch: Entry) -> list[str]:
    rules = watch.raw.get("rules")
    listed = rules if isinstance(rules, list) else []
    return [rule["name"] for rule in listed if isinstance(rule, dict) and isinstance(rule.get("name"), str)]


def _origins(data: Any, locate: Locate, path: KeyPath = ()) -> Iterator[tuple[str, str]]:
    pairs: Any = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in pairs:
        below = (*path, key)
        if below == ("watches",):
            continue
        if isinstance(value, dict | list) and value:
            yield from _origins(value, locate, below)
            continue
        place = locate(below, False)
        yield dotted(below), f"{place.file}:{place.line}" if place.line else place.file
