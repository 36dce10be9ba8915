"""
What a model is told before it acts: built-in templates, those of the user's folder above them, rules, and the goal.

    global.yaml + project.yaml + scenarios/NAME.yaml + rules + shape of a finding + how to call tools  →  system prompt
    goal + circumstances + limits + what worked before + evidence at hand                              →  first message

In: a job and a folder. Out: text, the same for the same job and templates, so that a replay can compare it.
Promise: a template that cannot be read costs nothing but itself: the built-in one is used and `Prompts.problems` says
what is wrong. Files are looked at anew by every `load_prompts`, and read anew when they changed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from agentd.agent.evidence import Exhibits, defused, one_line, visible
from agentd.agent.excerpt import head_and_tail, shares, shortened, size_of
from agentd.agent.job import Job
from agentd.agent.prompts.inference import scenario_of
from agentd.agent.prompts.rules import rules, shape
from agentd.agent.prompts.template import MOST_BYTES, PLACES, BadTemplate, Template, read_template
from agentd.errors import ConfigError
from agentd.llm.port import ToolSpec
from agentd.settings import NAME_PATTERN

__all__ = ["BUILT_IN_SCENARIOS", "Prompts", "infer_scenario", "load_prompts"]

BUILT_IN_SCENARIOS = (
    "code_generation",
    "refactoring",
    "debugging",
    "testing",
    "documentation",
    "architecture",
    "optimization",
    "file_operations",
    "command_execution",
    "log_analysis",
    "endpoint_diagnosis",
    "incident_summary",
)
_HERE = Path(__file__).parent
_MOST_FILES = 200
_MOST_FOLDERS = 16
_GOAL_BYTES = 16 * 1024
_EXHIBIT_BYTES = 24 * 1024
_LEAST_OF_EXHIBIT = 120
_FRAME_BYTES = 100
MOST_GOAL_BYTES = 2 * _GOAL_BYTES + _EXHIBIT_BYTES
"""Of the first message; circumstances are bounded by their number."""
_MOST_STRATEGIES = 10
_STRATEGY_CHARS = 300
_MOST_LABELS = 20
_MOST_NAMED = 30
_FILE_TOOLS = {"read_file", "list_files", "write_file"}
_HOST_TOOLS = frozenset({"http_get", "dns_lookup", "tls_info"})
_COMMAND_TOOLS = frozenset({"run_command"})
_LOG_TOOLS = frozenset({"search_log"})
_HISTORY_TOOLS = frozenset({"query_history"})

_NAME = re.compile(NAME_PATTERN.strip("^$"))
_Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Prompts:
    """
    The templates as they stood when they were loaded.

    problems: what is wrong with files of the user's folder, each with its file and how to mend it.
    """

    common: Template
    project: Template
    scenarios: Mapping[str, Template]
    problems: tuple[str, ...] = ()

    def scenario(self, job: Job) -> str:
        """The job's scenario, or the one that its goal is meant for. Raises ConfigError for one that is not known."""
        name = job.scenario
        if not name:
            return scenario_of(job.goal, job, self.scenarios)
        if name not in self.scenarios:
            raise ConfigError(f"scenario {name[:60]!r} is not known; one of {', '.join(sorted(self.scenarios))}")
        return name

    def system(self, job: Job, *, tools: Sequence[ToolSpec] = (), guide: str = "") -> str:
        """
        The system prompt. Raises ConfigError for a scenario that is not known.

        guide: how to call tools by JSON actions, with their list; empty where the model is offered tools natively.
        """
        values = _values(job)
        templates = (self.common, self.project, self.scenarios[self.scenario(job)])
        parts = [template.filled(values) for template in templates]
        parts += [rules(json_protocol=bool(guide), has_tools=bool(tools)), guide.strip()]
        parts.append(shape(json_protocol=bool(guide), for_person=job.kind in ("task", "session")))
        return "\n\n".join(part for part in parts if part)

    def goal(self, job: Job, *, exhibits: Exhibits | None = None, limit_bytes: int = MOST_GOAL_BYTES) -> str:
        """
        The first message: what is asked, under which circumstances, and the evidence at hand, delimited as data.

        exhibits: the first of them are the job's, where somebody has kept those. limit_bytes: of the whole, as far as
        it can be cut: the goal is to half of it, and each exhibit before it is delimited.
        """
        exhibits = exhibits or Exhibits(job.run, job.exhibits)
        goal = head_and_tail(defused(visible(job.goal)).strip(), min(_GOAL_BYTES, limit_bytes // 2))
        parts = ["Goal: " + goal, _circumstances(job)]
        parts.append(
            f"Blocks of data in this run begin with <<{exhibits.fence.mark} and end with {exhibits.fence.mark}>>."
        )
        if job.strategies:
            lines = (one_line(each, _STRATEGY_CHARS) for each in job.strategies[:_MOST_STRATEGIES])
            hints = "\n".join(f"- {line}" for line in lines if line)
            parts.append(f"What worked before (hints, no orders):\n{exhibits.fence.block('hints', '', hints)}")
        if ids := exhibits.ids[: len(job.exhibits)]:
            room = limit_bytes - sum(size_of(part) + 2 for part in parts) - _FRAME_BYTES
            parts.append("Evidence at hand:\n" + _blocks(exhibits, ids, min(_EXHIBIT_BYTES, room)))
        return "\n\n".join(parts)


def _blocks(exhibits: Exhibits, ids: Sequence[str], limit_bytes: int) -> str:
    frames = [size_of(exhibits.block(id, "")) + 1 for id in ids]
    fitting = 0
    for frame in frames:
        if (fitting + 1) * _LEAST_OF_EXHIBIT + sum(frames[:fitting]) + frame > limit_bytes:
            break
        fitting += 1
    texts = [exhibits.text(id) for id in ids[:fitting]]
    given = shares([size_of(text) for text in texts], limit_bytes - sum(frames[:fitting]))
    blocks = [
        exhibits.block(id, shortened(text, share)) for id, text, share in zip(ids[:fitting], texts, given, strict=True)
    ]
    if fitting < len(ids):
        blocks.append(f"{len(ids) - fitting} more are kept and not shown, for want of room")
    return "\n".join(blocks)


def load_prompts(folder: str | None) -> Prompts:
    """
    The built-in templates and those of `folder` above them; what was read before is used while no file changed.

    folder: with `global.yaml`, `project.yaml`, `scenarios/NAME.yaml` or `NAME.yaml`, each optional; None: the built-in
    ones alone. Looks at the folder's files (a few milliseconds at most). Never raises.
    """
    built_in = _built_in()
    if folder is None:
        return built_in
    root = Path(folder)
    problems: list[str] = []
    files = _files(root, problems)
    signature = _signature(files)
    before = _loaded.get(folder)
    if before is not None and before[0] == signature and not problems:
        return before[1]
    prompts = _merged(built_in, root, files, problems)
    while len(_loaded) >= _MOST_FOLDERS:
        _loaded.pop(next(iter(_loaded)))
    _loaded[folder] = signature, prompts
    return prompts


def infer_scenario(goal: str, job: Job, prompts: Prompts | None = None) -> str:
    """The scenario that `goal` is meant for, whatever `job.scenario` says. prompts: default the built-in ones."""
    return scenario_of(goal, job, (prompts or _built_in()).scenarios)


_loaded: dict[str, tuple[_Signature, Prompts]] = {}


@cache
def _built_in() -> Prompts:
    return Prompts(
        read_template((_HERE / "global.yaml").read_bytes()),
        Template(""),
        {name: read_template((_HERE / "scenarios" / f"{name}.yaml").read_bytes()) for name in BUILT_IN_SCENARIOS},
    )


def _files(root: Path, problems: list[str]) -> list[Path]:
    """The template files of a folder: by the later of two of one scenario, its own folder's, things are decided."""
    found: list[Path] = []
    for folder in (root, root / "scenarios"):
        try:
            names = sorted(os.listdir(folder))
        except FileNotFoundError:
            if folder == root:
                problems.append(f"{root}: there is no such folder; the built-in prompts are used")
            continue
        except OSError as error:
            problems.append(f"{folder}: cannot be read ({error.strerror}); the built-in prompts are used")
            continue
        found += (folder / name for name in names if name.endswith((".yaml", ".yml")) and not name.startswith("."))
    if len(found) > _MOST_FILES:
        problems.append(f"{root}: {len(found)} templates, of which the first {_MOST_FILES} are read; remove some")
    return found[:_MOST_FILES]


def _signature(files: Sequence[Path]) -> _Signature:
    signature = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            signature.append((str(file), 0, 0, 0))
        else:
            # With the inode: two versions of one size may be written within the clock's step.
            signature.append((str(file), status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(signature)


def _merged(built_in: Prompts, root: Path, files: Sequence[Path], problems: list[str]) -> Prompts:
    common, project = built_in.common, built_in.project
    scenarios = dict(built_in.scenarios)
    for file in files:
        name = file.name.rsplit(".", 1)[0]
        try:
            template = _read(file)
        except BadTemplate as error:
            problems.append(f"{file}: {error} (the built-in one is used, if there is one)")
            continue
        problems += (
            f"{file}: {{{{{stranger}}}}} names nothing known and stays as it is; "
            f"there are {', '.join(PLACES)}, labels.NAME"
            for stranger in template.strangers
        )
        if file.parent == root and name == "global":
            common = template
        elif file.parent == root and name == "project":
            project = template
        elif not _NAME.fullmatch(name):
            problems.append(f"{file}: {name[:60]!r} cannot name a scenario; use letters, digits and _ . -")
        else:
            known = scenarios.get(name, Template(""))
            scenarios[name] = Template(
                template.prompt, template.words or known.words, template.hints or known.hints, template.about
            )
    return Prompts(common, project, scenarios, tuple(problems))


def _read(file: Path) -> Template:
    try:
        # What is no regular file (a FIFO) could block for good.
        if not file.is_file():
            raise BadTemplate("it is no file")
        with file.open("rb") as stream:
            return read_template(stream.read(MOST_BYTES + 1))
    except OSError as error:
        raise BadTemplate(f"cannot be read ({error.strerror}); let the agent's user read it") from None


def _values(job: Job) -> dict[str, str]:
    labels = {f"labels.{name}": value for name, value in job.labels.items()}
    values = {name: str(getattr(job, name) or "") for name in PLACES}
    return labels | values | {"instance": job.instance or "this machine"}


def _allowed(job: Job) -> Iterator[tuple[str, list[str]]]:
    """What tools may be asked about: a model that has to find out from denials spends its steps on them."""
    may, tools = job.permissions, frozenset(job.permissions.tools)
    named = (
        ("Files can be read beneath", _FILE_TOOLS, may.read),
        ("Hosts that can be asked", _HOST_TOOLS, may.http),
        ("Commands that can be run", _COMMAND_TOOLS, [" ".join(argv) for argv in may.commands]),
        ("Logs that can be searched, by watch", _LOG_TOOLS, list(may.log_files)),
        ("Watches", _HISTORY_TOOLS, job.watches),
    )
    for what, needed, names in named:
        if names and needed & tools:
            shown = [one_line(each, 200) for each in names[:_MOST_NAMED]]
            yield what, shown + ([f"and {len(names) - _MOST_NAMED} more"] if len(names) > _MOST_NAMED else [])


def _circumstances(job: Job) -> str:
    limits = job.limits
    where = [f"Watch: {one_line(job.watch, 100)}"] if job.watch != "task" else []
    where += [f"Machine: {one_line(job.instance, 100)}"] if job.instance else []
    where += [f"Now: {one_line(job.now, 40)} ({one_line(job.timezone, 60)})"] if job.now else []
    where += [f"Severity: {job.severity}"] if job.kind != "task" else []
    if job.labels:
        pairs = (
            f"{one_line(name, 60)}={one_line(value, 100)}" for name, value in list(job.labels.items())[:_MOST_LABELS]
        )
        where.append(f"Labels: {', '.join(pairs)}")
    where += [f"{what}: {', '.join(names)}" for what, names in _allowed(job)]
    most = [f"{limits.max_steps} steps", f"{limits.time_s:g} s", f"{limits.max_parallel} calls at once"]
    most += [f"{limits.tokens} tokens"] if limits.tokens is not None else []
    most += [f"{limits.usd:g} USD"] if limits.usd is not None else []
    return "\n".join([*where, f"At most: {', '.join(most)}; {limits.tool_timeout_s:g} s a call"])
