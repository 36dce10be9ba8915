"""
The looks of a variable, and what makes two lines one template: line by line.
"""

from __future__ import annotations

import pytest

from agentd.logs.templates import Miner
from agentd.logs.templates.masks import skeleton, tokens


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ("Nov 21 15:57:16 web-1 app[77]: up", "<time> web-<num> app[<num>]: up"),
        ("2026-11-21T15:57:16.123+01:00 up", "<time> up"),
        ("2026-11-21 15:57:16,123 up", "<time> up"),
        ("Sat, 21 Nov 2026 15:57:16 GMT up", "<time> GMT up"),
        (
            '10.0.0.1 - - [21/Nov/2026:15:57:16 +0000] "GET /a HTTP/1.1" 200',
            '<ip> - - [<time> <num>] "GET <path> HTTP/<num>" <num>',
        ),
        ("peer ::ffff:192.0.2.1 or 2001:db8::1 or 192.0.2.0/24", "peer <ip> or <ip> or <ip>"),
        ("dst: /10.0.0.1:50010", "dst: <ip>"),
        ("lladdr 00:16:3e:5e:6c:00 up", "lladdr <mac> up"),
        ("job 58e2355c-c365-a7b9-d2dc-a82e4960ba01 done", "job <uuid> done"),
        ("at 0x7fed806eb5d and deadbeef01 and added", "at <hex> and <hex> and added"),
        ("took 3.4ms of 5 s, 12 MB free", "took <num> of <time>, <size> free"),
        ("sent 1234 bytes (1.21 KB)", "sent <size>"),
        ("sent 12 bytes", "sent <size>"),
        ("read /var/log/syslog.1 or C:\\Windows\\x.dll", "read <path> or <path>"),
        ("see https://example.net/a?b=c for bob@example.net", "see <url> for <email>"),
        ("blk_-123 on eth0 by worker-3", "blk_<num> on eth<num> by worker-<num>"),
        ("delete blk_1 blk_-22, blk_333", "delete blk_<num>"),
        ("ok=true, n=-5", "ok=<bool>, n=<num>"),
        ("a=1,b=2;c=x|d", "a=<num>, b=<num>; c=x| d"),
        ('tag="View Lock" msg="disk is full"', 'tag="<str>" msg="disk is full"'),
        ('{"msg":"user left","name":"Al Capone"}', '{"msg":"user left", "name":"<str>"}'),
        (
            'I0315 12:34:56.1 7 kubelet.go:12] "pod is gone" pod="a/b"',
            'I<num> <time> <num> kubelet.go:<num>] "pod is gone" pod="a/b"',
        ),
        ("it's what they've said", "it's what they've said"),
        ("Dropbox.exe *64 - open", "<path> - open"),
    ],
)
def test_variables_are_known_by_their_looks(line: str, pattern: str) -> None:
    """What is masked need not be learnt."""
    assert " ".join(tokens(skeleton(line.encode()))) == pattern


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("session opened for user root by (uid=0)", "session opened for user alice by (uid=1000)"),
        ("Failed password for root from 10.0.0.1 port 22 ssh2", "Failed password for bob from 10.0.0.2 port 9 ssh2"),
        ("uid=0 tty=ssh ruser= rhost=10.0.0.1 user=root", "uid=0 tty=NODEVssh ruser= rhost=a.example user=guest"),
        ("mapred.job.id is deprecated. Instead, use x.y", "user.name is deprecated. Instead, use a.b.c"),
        ("ask 10.0.0.1 to delete blk_1", "ask 10.0.0.1 to delete blk_1 blk_2 blk_3"),
        ("close, 0 bytes sent, lifetime <1 sec", "close, 2048 bytes (2.00 KB) sent, lifetime 00:01"),
        ('acquire tag="View Lock", uid=1', 'acquire tag="RILJ", uid=2'),
        ("lr:2331d66d cr:a035f694 xer:85137959", "lr:00000000 cr:12345678 xer:b65f492a"),
        ("relation 'orders' does not exist", "relation 'users' does not exist"),
        ("Changing view acls to: yarn", "Changing view acls to: alice"),
    ],
)
def test_lines_of_one_kind(first: str, second: str) -> None:
    """Each of these split one template in two once."""
    miner = Miner()

    assert miner.add_one(first) == miner.add_one(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("[instance: 4] VM Started (Lifecycle Event)", "[instance: 5] VM Stopped (Lifecycle Event)"),
        ("disk limit not specified, defaulting to unlimited", "vcpu limit not specified, defaulting to unlimited"),
        ("open through proxy a.example:1 HTTPS", "open through proxy b.example:2 SOCKS5"),
        ('10.0.0.1 "GET /a HTTP/1.1" 200 17', '10.0.0.1 "POST /a HTTP/1.1" 200 17'),
        ('level=info msg="started" id=3', 'level=error msg="started" id=3'),
        ('{"msg":"upload done","path":"/a","n":1}', '{"msg":"upload done","disk":"/a","n":1}'),
        ("new user added", "new user removed"),
        ("client connected", "client disconnected"),
        ("data TLB error interrupt", "data storage error interrupt"),
        ("Captive: en0: Active", "Captive: en0: Inactive"),
        ("connection from 10.0.0.1 () at noon", "connection from 10.0.0.1 (a.example) at noon"),
        ("rhost=10.0.0.1", "rhost=10.0.0.1 user=root"),
    ],
)
def test_lines_of_two_kinds(first: str, second: str) -> None:
    """Each of these would hide what happened behind a `<*>`."""
    miner = Miner()

    assert miner.add_one(first) != miner.add_one(second)


def test_a_header_makes_no_lines_alike() -> None:
    """Eight words of header in each line would outweigh any message of two."""
    miner = Miner()
    messages = [
        "data error",
        "core dump",
        "link x-1 up",
        "lr:deadbe01 cr:0",
        "fan 7 low",
        "a.b.c restarted",
        "d_e failed",
        "12 alignments",
    ]

    ids = {miner.add_one(f"- rack one node three RAS KERNEL INFO unit: {text}") for text in messages for _ in range(3)}

    assert len(ids) == len(messages)
