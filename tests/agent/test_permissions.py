"""What may be done is asked here and nowhere else: paths, command lines, hosts, and how they are narrowed."""

from __future__ import annotations

from typing import Any

import pytest

from agentd.agent.hosts import canonical_host, host_matches, host_pattern_covers
from agentd.agent.job import Permissions
from agentd.agent.permissions import (
    Asked,
    NotPermitted,
    check_command,
    check_host,
    check_path,
    folder_of,
    is_closed,
    narrow,
)

ALLOWED = Permissions(
    tools=("read_file", "run_command", "http_get"),
    read=("/var/log", "/srv"),
    write=True,
    commands=(("df", "-h"), ("du", "-xd1", "*"), ("tail", "/var/log/*"), ("systemctl", "status", "*")),
    forbid=("rm -rf", "format", "fdisk"),
    http=("*.example.com", "api.test", "10.1.0.0/16"),
    private_networks=True,
    working_directory="/srv",
    environment={"MODE": "a"},
    log_files={"ssh": ("/var/log/auth.log",), "app": ("/var/log/app/*.log",)},
)


def test_nothing_asked_is_all_that_is_allowed() -> None:
    """A watch that says nothing gets what `agent:` says."""
    assert narrow(ALLOWED, Asked()) == ALLOWED


def test_less_is_given_as_asked() -> None:
    """Narrowing is what a watch and a request may do."""
    left = narrow(
        ALLOWED,
        Asked(
            tools=["read_file"],
            read=["/var/log/app/"],
            write=False,
            commands=[["du", "-xd1", "/srv"], ["tail", "/var/log/app/*"]],
            forbid=["du -xd1 /"],
            http=["shop.example.com", "*.eu.example.com", "10.1.2.0/24"],
            private_networks=False,
            working_directory="/var/log/app",
            watches=["ssh"],
            journal=False,
        ),
    )

    assert left.tools == ("read_file",)
    assert left.read == ("/var/log/app",)
    assert left.commands == (("du", "-xd1", "/srv"), ("tail", "/var/log/app/*"))
    assert left.forbid == ("rm -rf", "format", "fdisk", "du -xd1 /")
    assert left.http == ("shop.example.com", "*.eu.example.com", "10.1.2.0/24")
    assert (left.write, left.private_networks, left.journal) == (False, False, False)
    assert left.working_directory == "/var/log/app"
    assert left.log_files == {"ssh": ("/var/log/auth.log",)}


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"tools": ["write_file"]}, "write_file"),
        ({"read": ["/etc"]}, "/etc"),
        ({"read": ["/"]}, "/"),
        ({"read": ["/var/log/../../etc"]}, "/var/log/../../etc"),
        ({"read": ["/var/logs"]}, "/var/logs"),
        ({"read": ["var/log"]}, "var/log"),
        ({"commands": [["df"]]}, "df"),
        ({"commands": [["*", "-h"]]}, "* -h"),
        ({"commands": [["du", "-xd1", "-L"]]}, "du -xd1 -L"),
        ({"commands": [["tail", "*"]]}, "tail *"),
        ({"commands": [["tail", "/var/log/../../etc/*"]]}, "tail /var/log"),
        ({"http": ["*"]}, "*"),
        ({"http": ["example.com"]}, "example.com"),
        ({"http": ["*.com"]}, "*.com"),
        ({"http": ["10.0.0.0/8"]}, "10.0.0.0/8"),
        ({"http": ["evilexample.com"]}, "evilexample.com"),
        ({"working_directory": "/root"}, "/root"),
        ({"environment": {"OTHER": "1"}}, "OTHER"),
        ({"environment": {"MODE": "b"}}, "MODE"),
        ({"watches": ["kernel"]}, "kernel"),
    ],
)
def test_more_is_refused_by_name(asked: dict[str, Any], named: str) -> None:
    """Who asked for too much must learn what it was, and nothing of it may be granted."""
    with pytest.raises(NotPermitted) as caught:
        narrow(ALLOWED, Asked(**asked))

    assert named in str(caught.value)


@pytest.mark.parametrize("key", ["write", "private_networks", "journal"])
def test_what_is_off_cannot_be_asked_on(key: str) -> None:
    """A request may only take away."""
    off: dict[str, Any] = {key: False}
    on: dict[str, Any] = {key: True}

    with pytest.raises(NotPermitted, match=key):
        narrow(Permissions(**off), Asked(**on))


def test_everything_wrong_is_named_at_once() -> None:
    """One error after the other would cost a round each."""
    with pytest.raises(NotPermitted, match=r"write_file.*; .*/etc"):
        narrow(ALLOWED, Asked(tools=["write_file"], read=["/etc"]))


def test_environment_is_set_by_listed_names_only() -> None:
    """A request names values for names that the configuration opened."""
    assert narrow(ALLOWED, Asked(environment={"REGION": "eu"}), settable=["REGION"]).environment == {
        "MODE": "a",
        "REGION": "eu",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [("LD_PRELOAD", "/tmp/x.so"), ("PATH", "/tmp"), ("NOTIFY_SOCKET", "/x"), ("A", "x\0"), ("A", "${env:KEY}")],
)
def test_some_variables_are_never_set_by_a_request(name: str, value: str) -> None:
    """They change what a program is, speak in our name, or look like a secret's name."""
    with pytest.raises(NotPermitted):
        narrow(ALLOWED, Asked(environment={name: value}), settable=[name])


def test_folder_is_the_widest_that_holds_the_path() -> None:
    """A folder beside one of a like name is another."""
    assert folder_of(["/srv/a", "/srv"], "/srv/a/x") == "/srv"
    assert folder_of(["/srv"], "/srv") == "/srv"
    assert folder_of(["/srv/"], "//srv//a/./b") == "/srv"
    assert folder_of(["/srv"], "/srvx/a") is None
    assert folder_of(["/"], "/etc/passwd") == "/"


@pytest.mark.parametrize(
    "path",
    ["/srv/../etc/passwd", "/srv/a/../../etc", "../etc", "etc", "", "/srv/\0", "/srv/\ud800", "//etc/passwd", "/SRV/a"],
)
def test_paths_that_lead_out_are_refused(path: str) -> None:
    """By their text alone already; whoever opens them asks again at each step."""
    with pytest.raises(NotPermitted):
        check_path(ALLOWED, path)


def test_writing_is_off_until_it_is_on() -> None:
    """A folder that may be read may not be written."""
    with pytest.raises(NotPermitted, match="write"):
        check_path(Permissions(read=("/srv",)), "/srv/a", write=True)


@pytest.mark.parametrize(
    "path",
    [
        "/proc/self/environ",
        "/proc/1/root/etc/shadow",
        "//proc/1/environ",
        "/dev/sda",
        "/sys/firmware",
        "/run/credentials/agentd.service/key",
        "/etc/shadow",
        "/etc/shadow-",
        "/etc/./gshadow",
        "/root/.ssh/id_ed25519",
        "/etc/ssh/ssh_host_ed25519_key",
    ],
)
def test_secrets_of_the_system_are_closed(path: str) -> None:
    """Who allows / or /etc does not mean these."""
    assert is_closed(path)
    with pytest.raises(NotPermitted):
        check_path(Permissions(read=("/", "/etc")), path)


def test_a_folder_named_within_what_is_closed_is_open() -> None:
    """An operator may want /proc/net, and then says so."""
    assert check_path(Permissions(read=("/", "/proc/net")), "/proc/net/dev") == "/proc/net"


def allowed(argv: list[str], **more: Any) -> bool:
    try:
        check_command(ALLOWED.model_copy(update=more), argv)
    except NotPermitted:
        return False
    return True


@pytest.mark.parametrize(
    "argv",
    [
        ["df", "-h"],
        ["du", "-xd1", "/"],
        ["du", "-xd1", "srv"],
        ["tail", "/var/log/a.log"],
        ["systemctl", "status", "a"],
    ],
)
def test_commands_that_fit_a_pattern_may_run(argv: list[str]) -> None:
    assert allowed(argv)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        [""],
        ["df"],
        ["df", "-h", "/"],
        ["df", "-H"],
        ["/tmp/df", "-h"],
        ["du", "-xd1"],
        ["du", "-xd1", "-L"],
        ["du", "-xd1", "--files0-from=/etc/shadow"],
        ["du", "-xd1", ""],
        ["du", "-xd1", "a", "b"],
        ["du", "-xd1", "a\n-L"],
        ["du", "-xd1", "a\0"],
        ["du", "-xd1", "/proc/1"],
        ["du", "-xd1", "/./proc//1"],
        ["du", "-xd1", "/srv/../proc/1"],
        ["du", "-xd1", "../proc/1/environ"],
        ["du", "-xd1", "/etc/shadow"],
        ["du", "-xd1", "if=/proc/1/environ"],
        ["du", "-xd1", "@/etc/shadow"],
        ["du", "-xd1", "file:///etc/shadow"],
        ["du", "-xd1", "file:/etc/shadow"],
        ["du", "-xd1", "FiLe:/etc/shadow"],
        ["du", "-xd1", " file:/etc/shadow"],
        ["du", "-xd1", "file://localhost/etc/shadow"],
        ["du", "-xd1", "file:///etc/sh[a]dow"],
        ["du", "-xd1", "file:///etc/%73hadow"],
        ["du", "-xd1", "file:shadow"],
        ["du", "-xd1", "url=file:/etc/shadow"],
        ["du", "-xd1", "@file:/etc/shadow"],
        ["du", "-xd1", "jar:file:/etc/shadow"],
        ["du", "-xd1", "{http://x.example,file:/etc/shadow}"],
        ["du", "-xd1", "f{i,a}le:///etc/sh[a-a]dow"],
        ["du", "-xd1", "[f-f]ile:/etc/shadow"],
        ["du -xd1 /"],
        ["tail", "/etc/passwd"],
        ["tail", "/var/log/../../etc/passwd"],
        ["tail", "/var/log/"],
        ["tail", "var/log/a"],
        ["sh", "-c", "df -h"],
    ],
)
def test_commands_beside_the_patterns_are_refused(argv: list[str]) -> None:
    """A star is one word that is no option, and no way to what is closed."""
    assert not allowed(argv)


@pytest.mark.parametrize(
    "word",
    ["profile:x", "/srv/file", "a.file:1", "file: not found", "http://[::1]:80/file", "[::1]:80", "http://x/{a,b}:/c"],
)
def test_what_only_looks_like_a_file_url_is_a_word(word: str) -> None:
    assert allowed(["du", "-xd1", word])


def test_a_link_beneath_a_star_is_followed_before_it_is_allowed() -> None:
    """A name that looks harmless may lead to /proc, or out of the folder that the pattern names."""
    real = {"/srv/link": "/proc/1/environ", "/var/log/link": "/etc/passwd"}.get
    with pytest.raises(NotPermitted):
        check_command(ALLOWED, ["du", "-xd1", "/srv/link"], real=lambda path: real(path, path))
    with pytest.raises(NotPermitted):
        check_command(ALLOWED, ["tail", "/var/log/link"], real=lambda path: real(path, path))


def test_a_program_is_never_a_star() -> None:
    """A pattern that begins with a star would allow everything."""
    assert not allowed(["rm", "x"], commands=(("*", "x"), ("*",), ("/bin/*", "x")))


@pytest.mark.parametrize(
    "argv",
    [
        ["rm", "-rf", "/srv"],
        ["/bin/rm", "-rf", "/srv"],
        ["//bin//rm", "-rf", "/"],
        ["rm", " -rf", "/"],
        ["rm -rf /"],
        ["rm  -rf", "/"],
        ["rm", "-fr", "/"],
        ["rm", "-r", "-f", "/"],
        ["rm", "/", "-rf"],
        ["rm", "-Rfv", "/"],
        ["rm", "--recursive", "--force", "/"],
        ["sudo", "rm", "-rf", "/"],
        ["/usr/bin/env", "A=b", "/bin/rm", "-r", "-f", "/"],
        ["sh", "-c", "true;rm -rf /"],
        ["bash", "-c", "$(rm -rf /)"],
        ["xargs", "rm", "-rf"],
        ["find", "/", "-exec", "rm", "-rf", "{}", ";"],
        ["fdisk", "/dev/sda"],
        ["/sbin/fdisk"],
        ["format", "c:"],
    ],
)
def test_forbidden_prefixes_hold_whatever_is_allowed(argv: list[str]) -> None:
    """A pattern written too widely must not undo them."""
    wide = ALLOWED.model_copy(update={"commands": (tuple(argv),)})

    with pytest.raises(NotPermitted, match="forbidden"):
        check_command(wide, argv)


@pytest.mark.parametrize(
    "argv", [["rm", "-r", "/srv/a"], ["rm", "a"], ["echo", "rm -rf"], ["git", "log", "--format=x"]]
)
def test_what_only_looks_like_a_forbidden_prefix_runs(argv: list[str]) -> None:
    assert allowed(argv, commands=(tuple(argv),))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Shop.Example.COM.", "shop.example.com"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("\uff45xample\u3002com", "example.com"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0X7F.1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("\u2460\u2461\u2466.0.0.1", "127.0.0.1"),
        ("[::1]", "::1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("[::FFFF:7f00:1]", "127.0.0.1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
    ],
)
def test_a_host_has_one_spelling(written: str, meant: str) -> None:
    """What is compared must be what is connected to."""
    assert canonical_host(written) == meant


@pytest.mark.parametrize(
    "written",
    ["", ".", "a..b", "-a.b", "a b", "a/b", "a@b", "a:b", "a%2eb", "256.1.1.1", "1.2.3.4.5", "a.1", "fe80::1%eth0",
     "[::1", "a\0b", "x" * 300, "\ud800.com", "a\\b"],
)  # fmt: skip
def test_what_is_no_host_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        canonical_host(written)


@pytest.mark.parametrize(
    ("pattern", "host", "fits"),
    [
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.Example.com.", "a.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "evilexample.com", False),
        ("*.example.com", "example.com.evil.test", False),
        ("bücher.example", "xn--bcher-kva.example", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("2130706433", "127.0.0.1", True),
        ("*.0.0.1", "127.0.0.1", False),
        ("10.0.0.0/8", "10.9.8.7", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8", "shop.example", False),
        ("*", "shop.example", True),
        ("", "shop.example", False),
        ("*.", "shop.example", False),
    ],
)
def test_patterns_of_hosts(pattern: str, host: str, fits: bool) -> None:
    assert host_matches(pattern, host) is fits


def test_patterns_cover_narrower_ones() -> None:
    """Narrowing compares patterns with patterns."""
    assert host_pattern_covers("*.example.com", "*.a.example.com")
    assert host_pattern_covers("*.example.com", "*.example.com")
    assert not host_pattern_covers("a.example.com", "*.a.example.com")
    assert not host_pattern_covers("*.a.example.com", "*.example.com")
    assert not host_pattern_covers("*.example.com", "10.0.0.0/8")


def test_no_hosts_allowed_is_none() -> None:
    """Empty means nothing, and the message says which key opens it."""
    with pytest.raises(NotPermitted, match=r"agent\.http\.allow"):
        check_host(Permissions(), "shop.example")
    assert check_host(ALLOWED, "API.test.") == "api.test"
