"""
Plugins: what is named loads, what is not is not even imported, what does not fit is said at its name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from config_folder import TOLD, Folder

from agentd.config import plugins
from agentd.deliver.formats import FORMATS, load
from agentd.watch import KINDS

PROBE = """
from agentd.records import Observation
from agentd.settings import Settings
from agentd.watch.probe import Kind

class Weather(Settings):
    town: str

class Look:
    def __init__(self, settings):
        self.settings = settings
    async def look(self, timeout_s):
        return Observation(values={"degrees": len(self.settings.town)})
    async def close(self):
        pass

WEATHER = Kind("weather", Weather, {"degrees": "how warm it is"}, lambda settings, name, tools: Look(settings))
"""
FORM = """
from agentd.deliver.formats import Rendered

def check(settings):
    if settings.body:
        raise ValueError("no body, please")

async def render(message, settings):
    return Rendered(b"{}")
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A distribution beside the environment's own, gone again after the test with all that it left."""
    site = tmp_path / "site"
    info = site / "weather_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: weather-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[agentd.probes]\nweather = weather_plugin:WEATHER\nhttp = weather_plugin:WEATHER\n"
        "storm = weather_plugin:WEATHER\nbroken = weather_plugin:nothing\n"
        "[agentd.formats]\nmatrix = weather_form\nodd = weather_plugin\n"
        "[agentd.tools]\nforecast = weather_tool:Forecast\n"
    )
    (site / "weather_plugin.py").write_text(PROBE)
    (site / "weather_form.py").write_text(FORM)
    monkeypatch.syspath_prepend(str(site))
    kinds, forms = dict(KINDS), dict(FORMATS)
    yield site
    for known, before in ((KINDS, kinds), (FORMATS, forms)):
        for name in known.keys() - before.keys():
            del known[name]
    plugins._loaded.clear()
    load.cache_clear()
    for name in ("weather_plugin", "weather_form"):
        sys.modules.pop(name, None)


def with_plugins(names: str, watches: str = "") -> str:
    watches = watches or "{name: a, tcp: {host: a, port: 1}}"
    return f"{TOLD}daemon: {{plugins: [{names}]}}\nwatches: [{watches}]\n"


def test_a_probe_that_is_named_is_a_source_like_any_other(tmp_path: Path, installed: Path) -> None:
    """Its settings, its variables and its conditions are checked at load, as those of our own."""
    folder = Folder(tmp_path)
    fine = "{name: town, weather: {town: Kiel}, expect: [degrees > 3]}"

    (watch,) = folder.load(with_plugins("weather", fine)).config.probes
    problems = folder.problems(with_plugins("weather", "{name: town, weather: {twn: Kiel}, expect: [degres > 3]}"))

    assert watch.kind == "weather"
    assert any("twn" in str(each) for each in problems)
    assert any("degres" in str(each) for each in problems)


def test_what_is_not_named_is_not_even_imported(tmp_path: Path, installed: Path) -> None:
    """A package that lies about must not run because it is there."""
    Folder(tmp_path).load(with_plugins("matrix"))

    assert "weather_plugin" not in sys.modules
    assert "weather" not in KINDS


def test_a_format_that_is_named_can_be_sent_in(tmp_path: Path, installed: Path) -> None:
    """Receivers that nobody else has are why there are plugins."""
    folder = Folder(tmp_path)
    hook = "webhooks: {chat: {url: 'https://chat.example/', format: matrix}}\n"
    text = with_plugins("matrix").replace(TOLD, "alerting: {notify: [chat]}\n" + hook)

    assert folder.load(text).config.webhooks["chat"].format == "matrix"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wether", "there is no plugin"),
        ("http", "comes along"),
        ("storm", "calls itself"),
        ("broken", "cannot be loaded"),
        ("odd", "no `check"),
    ],
)
def test_what_does_not_fit_is_said_at_its_name(name: str, words: str, tmp_path: Path, installed: Path) -> None:
    """A plugin that fails at the first alert would be noticed at the worst moment."""
    (problem,) = Folder(tmp_path).problems(with_plugins(name))

    assert words in str(problem)
    assert problem.key == "daemon.plugins[0]"


def test_a_tool_that_is_named_may_be_allowed(tmp_path: Path, installed: Path) -> None:
    """It is loaded where agents run, not in the daemon."""
    folder = Folder(tmp_path)
    allowed = "agent: {tools: [forecast]}\n"

    loaded = folder.load(allowed + with_plugins("forecast"))

    assert loaded.config.agent.tools == ("forecast",)
    assert "weather_tool" not in sys.modules
    assert any("forecast" in str(each) for each in folder.problems(allowed + with_plugins("")))
