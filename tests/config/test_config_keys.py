"""Keys of the API in the configuration: several files of them, and what is no key."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_folder import TOLD, Folder

HASH = "$scrypt$ln=14,r=8,p=1$tWT9rp2hcN28LhRUMYRrLg$fDRHNI1XVaLc7DhLlMnLuBwddAg3t2roOQgeFmSOlnM"
WATCHES = TOLD + "watches: [{name: web, http: {url: 'http://a.example/'}}]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path)
    folder.write(WATCHES)
    return folder


def key(name: str, hash: str = HASH) -> str:
    return f"api:\n  keys:\n    - {{name: {name}, hash: '{hash}'}}\n"


def test_keys_stand_in_files_of_their_own_too(folder: Folder) -> None:
    """One is added and taken away without a hand in anybody's file."""
    folder.write(key("b"), "keys.d/b.yaml")
    folder.write(key("c"), "keys.d/c.yaml")
    folder.write("# none\n", "keys.d/d.yaml")
    folder.write("no yaml: [", "keys.d/e.yaml.bak")

    loaded = folder.load(WATCHES + key("a"))

    assert [each.name for each in loaded.config.api.keys] == ["a", "b", "c"]
    assert loaded.origins["api.keys[1].name"] == f"{folder.path}/keys.d/b.yaml:3"
    assert folder.path / "keys.d/c.yaml" in loaded.files
    assert not loaded.warnings


def test_a_wide_glob_meets_the_files_of_keys_without_harm(folder: Folder) -> None:
    """They are read once, as keys."""
    folder.write(key("b"), "keys.d/b.yaml")

    assert len(folder.load("include: ['**/*.yaml']\n" + WATCHES).config.api.keys) == 1


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("watches: []", "watches", 1),
        ("[]", "file", 1),
        ("api: x", "api", 1),
        ("api:\n  keys: []\n  listen: ['0.0.0.0:80']\n", "api.listen", 3),
        ("api: {keys: {}}", "api.keys", 1),
        ("api:\n  keys:\n    - {hash: '$'}\n", "api.keys[0].name", 3),
    ],
)
def test_what_is_no_key_in_there_is_told_with_its_place(folder: Folder, text: str, key: str, line: int) -> None:
    """Who may add a key may not open a port."""
    folder.write(text, "keys.d/bad.yaml")

    told = {problem.key: (problem.file, problem.line) for problem in folder.problems()}

    assert told[key] == (f"{folder.path}/keys.d/bad.yaml", line)


def test_a_second_key_of_one_name_is_refused_with_the_place_of_the_first(folder: Folder) -> None:
    """Else which one holds is luck."""
    folder.write(key("a"), "keys.d/a.yaml")

    problem = folder.problem(WATCHES + key("a"))

    assert problem.key == "api.keys[1].name"
    assert problem.file.endswith("keys.d/a.yaml")
    assert f"{folder.path}/agentd.yaml:" in problem.cure


def test_a_hash_that_is_none_is_refused_where_it_stands(folder: Folder) -> None:
    """Nobody could ever use that key, and its owner would not know why."""
    problem = folder.problem(WATCHES + key("a", "x"))

    assert (problem.key, problem.what) == ("api.keys[0].hash", "is no hash of a key")
    assert "agentd key new" in problem.cure


def test_a_named_hash_is_looked_at_where_it_can_be_seen(folder: Folder) -> None:
    """A file with the token instead of the hash is the mistake to expect."""
    folder.write("agentd_a.token", "hash")
    problem = folder.problem(WATCHES + key("a", f"${{file:{folder.path}/hash}}"))
    assert problem.what == "is no hash of a key"

    folder.write(HASH, "hash")
    assert not folder.load().warnings


def test_a_credential_that_only_the_service_sees_is_a_warning(folder: Folder) -> None:
    """`agentd check` is typed in a shell."""
    assert list(folder.warnings(WATCHES + key("a", "${credential:a}"))) == ["api.keys[0].hash"]


def test_with_a_key_strangers_may_call_and_the_open_line_is_warned_of(folder: Folder) -> None:
    """The key itself goes over it."""
    folder.write(key("a"), "keys.d/a.yaml")

    warnings = folder.warnings(WATCHES + "api: {listen: ['0.0.0.0:8787', '127.0.0.1:80']}\n")

    assert list(warnings) == ["api.listen[0]"]
    assert "not encrypted" in warnings["api.listen[0]"]


@pytest.mark.parametrize(
    ("host", "known"),
    [("status.example", "status.example"), ("Status.Example.", "status.example"), ("'[::1]'", "::1"), ("a_b", "a_b")],
)
def test_names_of_a_proxy_are_taken(folder: Folder, host: str, known: str) -> None:
    """As a Host header gives them, whatever their case."""
    assert folder.load(WATCHES + f"api: {{hosts: [{host}]}}\n").config.api.hosts == (known,)


@pytest.mark.parametrize(
    "host", ["https://status.example", "'status.example:443'", "'*'", "''", "a..b", "1", "x" * 300]
)
def test_what_is_no_name_is_refused(folder: Folder, host: str) -> None:
    """A name that no header carries would lock everybody out."""
    problem = folder.problem(WATCHES + f"api: {{hosts: [{host}]}}\n")

    assert problem.key == "api.hosts[0]"
    assert "status.example" in problem.cure


@pytest.mark.parametrize(
    ("origin", "sent"),
    [
        ("https://status.example", "https://status.example"),
        ("HTTPS://Status.Example:443", "https://status.example"),
        ("http://localhost:03000", "http://localhost:3000"),
        ("'http://[::1]:80'", "http://[::1]"),
        ("http://192.0.2.1:443", "http://192.0.2.1:443"),
    ],
)
def test_origins_are_kept_as_browsers_send_them(folder: Folder, origin: str, sent: str) -> None:
    """They are compared letter by letter."""
    api = folder.load(WATCHES + f"api: {{cors: {{allowed_origins: [{origin}]}}}}\n").config.api
    assert api.cors.allowed_origins == (sent,)


@pytest.mark.parametrize(
    "origin",
    [
        "'*'",
        "https://*",
        "https://*.status.example",
        "status.example",
        "https://status.example/",
        "https://status.example/page",
        "https://user@status.example",
        "https://status.example:0",
        "https://status.example:99999",
        "'https://status.example:'",
        "https://::1",
        "'https://[status.example]'",
        "'https://[192.0.2.1]'",
        "file:///",
        "'null'",
        "''",
        "7",
        '"https://status.example\\nhttps://evil.example"',
    ],
)
def test_what_is_no_origin_of_web_pages_is_refused(folder: Folder, origin: str) -> None:
    """`*` lets every page that somebody near opens read what loopback may, and a slash too many lets none."""
    problem = folder.problem(WATCHES + f"api: {{cors: {{allowed_origins: [{origin}]}}}}\n")

    assert problem.key == "api.cors.allowed_origins[0]"
    assert "https://status.example" in problem.cure
