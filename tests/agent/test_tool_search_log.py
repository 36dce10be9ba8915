"""search_log finds lines newest first, through rotation, within bounds, and only where it may look."""

from __future__ import annotations

import gzip
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tool_calls import call, context, failing

from agentd.agent.job import Permissions
from agentd.agent.port import ToolContext
from agentd.agent.tools.search_log import SearchLog
from agentd.agent.tools.searching import Budget, newest, wanted
from agentd.agent.tools.working import Stop
from agentd.fleet.messages import ErrorKind
from agentd.testing import FakeClock

SEARCH = SearchLog()
DENIED, INVALID = ErrorKind.DENIED, ErrorKind.INVALID_INPUT
NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


def lines(*ages_and_texts: tuple[float, str]) -> str:
    """Lines of so many minutes ago."""
    return "".join(f"{(NOW - timedelta(minutes=age)).isoformat()} {text}\n" for age, text in ages_and_texts)


def log(folder: Path, name: str, text: str, *, age: float = 0) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    at = (NOW - timedelta(minutes=age)).timestamp()
    os.utime(path, (at, at))
    return path


def over(*patterns: Path | str, read: Path | None = None, **limits: Any) -> ToolContext:
    allowed = Permissions(log_files={"app": tuple(map(str, patterns))}, read=(str(read),) if read else ())
    return context(allowed, clock=FakeClock(NOW), **limits)


def found(answer: Any) -> list[str]:
    return [match["line"].partition(" ")[2] for match in answer["matches"]]


async def test_the_newest_lines_come_first(tmp_path: Path) -> None:
    path = log(tmp_path, "app.log", lines((3, "error one"), (2, "fine"), (1, "error two")))

    answer = await call(SEARCH, over(path), watch="app", words="error")

    assert found(answer) == ["error two", "error one"]
    assert answer["matches"][0]["at"] == "2026-01-05T11:59:00.000Z"
    assert answer["files"] == [str(path)]


async def test_words_and_patterns(tmp_path: Path) -> None:
    path = log(tmp_path, "app.log", lines((3, "Disk FULL on sda"), (2, "disk ok"), (1, "code=503 a.b")))

    assert found(await call(SEARCH, over(path), watch="app", words="full disk")) == ["Disk FULL on sda"]
    assert found(await call(SEARCH, over(path), watch="app", pattern=r"code=5\d\d")) == ["code=503 a.b"]
    assert found(await call(SEARCH, over(path), watch="app", pattern="disk")) == ["disk ok"]
    assert len(found(await call(SEARCH, over(path), watch="app", pattern="disk", ignore_case=True))) == 2
    assert found(await call(SEARCH, over(path), watch="app", words="a.b")) == ["code=503 a.b"]
    assert found(await call(SEARCH, over(path), watch="app", words="a+b (")) == []
    assert len(found(await call(SEARCH, over(path), watch="app"))) == 3


async def test_a_pattern_that_cannot_be_taken_is_explained(tmp_path: Path) -> None:
    """RE2 knows no look-around; the model must learn what to write."""
    path = log(tmp_path, "app.log", "x\n")

    assert "pattern" in await failing(SEARCH, over(path), INVALID, watch="app", pattern="(?=a)b")
    await failing(SEARCH, over(path), INVALID, watch="app", pattern="(")


async def test_a_pathological_pattern_ends(tmp_path: Path) -> None:
    """The classic that hangs backtracking engines for years."""
    path = log(tmp_path, "app.log", "a" * 200_000 + "!\n")

    assert found(await call(SEARCH, over(path), watch="app", pattern="(a+)+$")) == []


async def test_time_bounds(tmp_path: Path) -> None:
    """Lines without a time are of the time of the line above them."""
    text = lines((90, "old")) + lines((30, "error mid")) + "  at trace error\n" + lines((5, "error new"))
    path = log(tmp_path, "app.log", text)

    assert found(await call(SEARCH, over(path), watch="app", words="error", since="1h", until="10m"))[1] == "error mid"
    assert len((await call(SEARCH, over(path), watch="app", since="1h"))["matches"]) == 3
    assert found(await call(SEARCH, over(path), watch="app", until="2026-01-05T11:00:00Z")) == ["old"]
    await failing(SEARCH, over(path), INVALID, watch="app", since="yesterday")


async def test_lines_around_a_find(tmp_path: Path) -> None:
    path = log(tmp_path, "app.log", "".join(f"line {number}\n" for number in range(10)))

    answer = await call(SEARCH, over(path), watch="app", pattern="line 5", context=2)

    assert answer["matches"][0]["before"] == ["line 3", "line 4"]
    assert answer["matches"][0]["after"] == ["line 6", "line 7"]


async def test_rotated_and_packed_files_go_on_where_the_live_one_ends(tmp_path: Path) -> None:
    """Who looks an hour back at midnight needs yesterday's file."""
    live = log(tmp_path, "app.log", lines((1, "error live")))
    log(tmp_path, "app.log.1", lines((100, "error one")), age=99)
    log(tmp_path, "app.log.2.gz", lines((300, "error older"), (200, "error two")), age=199)
    log(tmp_path, "other.log.1", lines((100, "error other")), age=99)

    every = await call(SEARCH, over(live), watch="app", words="error")
    recent = await call(SEARCH, over(live), watch="app", words="error", since="150m")
    alone = await call(SEARCH, over(live), watch="app", words="error", rotated=False)

    assert found(every) == ["error live", "error one", "error two", "error older"]
    assert found(recent) == ["error live", "error one"]
    assert not any("app.log.2" in file for file in recent["files"])
    assert found(alone) == ["error live"]


async def test_several_files_of_a_glob_are_joined_by_time(tmp_path: Path) -> None:
    log(tmp_path, "a.log", lines((4, "error a4"), (1, "error a1")))
    log(tmp_path, "b.log", lines((3, "error b3"), (2, "error b2")))

    answer = await call(SEARCH, over(tmp_path / "*.log"), watch="app", words="error")

    assert found(answer) == ["error a1", "error b2", "error b3", "error a4"]


async def test_a_limit_is_marked(tmp_path: Path) -> None:
    path = log(tmp_path, "app.log", lines(*((100 - n, f"error {n}") for n in range(100))))

    answer = await call(SEARCH, over(path), watch="app", words="error", limit=3)

    assert found(answer) == ["error 99", "error 98", "error 97"]
    assert answer["truncated"] is True
    assert "truncated" not in await call(SEARCH, over(path), watch="app", words="error", limit=100)


async def test_blocks_are_joined_without_loss(tmp_path: Path) -> None:
    """A file is read in blocks from its end; every line of it is found once, with its neighbours."""
    count = 60_000
    text = "".join(f"line {number:06} {'x' * (number % 90)}\n" for number in range(count))
    for name in ("app.log", "old.log.gz"):
        path = log(tmp_path, name, text)
        seen = []
        for ending in range(10):
            answer = await call(
                SEARCH, over(path), watch="app", pattern=rf"line \d{{3}}{ending:03} ", context=1, limit=200
            )
            for match in answer["matches"]:
                number = int(match["line"].split()[1])
                seen.append(number)
                assert not match.get("before") or int(match["before"][0].split()[1]) == number - 1
                assert number == 0 or match["before"]
                assert int(match["after"][0].split()[1]) == number + 1
        assert sorted(seen) == [n for n in range(count) if n % 1000 < 10], name


@pytest.mark.parametrize("name", ["app.log", "app.gz"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_line_is_found_once_whole_and_in_order(tmp_path: Path, name: str, newline: str) -> None:
    """Where one block ends and the next begins, no line is cut, lost or given twice, and none loses its neighbours."""
    whole = [f"line {number:06} {'x' * (number % 90)}" for number in range(60_000)]
    path = log(tmp_path, name, newline.join(whole) + newline)
    asked = wanted("line", None, ignore_case=False, around=1, since=None, until=None, now=NOW)

    with path.open("rb") as file:
        hits = newest(file.fileno(), asked, 100_000, Budget(Stop(60), 1 << 30))

    expected = [text.encode() for text in whole][::-1]
    assert [hit.line for hit in hits] == expected
    assert [hit.before[0].rstrip(b"\r") for hit in hits[:-1]] == expected[1:]
    assert [hit.after[0].rstrip(b"\r") for hit in hits[1:]] == expected[:-1]


@pytest.mark.parametrize("name", ["app.log", "app.gz"])
async def test_a_line_longer_than_a_block(tmp_path: Path, name: str) -> None:
    path = log(tmp_path, name, "first\n" + "y" * 3_500_000 + " needle\nlast needle\n")

    answer = await call(SEARCH, over(path), watch="app", words="needle")

    assert answer["matches"][0]["line"] == "last needle"
    assert len(answer["matches"]) == 2
    assert len(answer["matches"][1]["line"]) < 2200


async def test_bytes_looked_at_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of a hundred gigabytes must not cost an hour; the answer says that it ended early."""
    monkeypatch.setattr("agentd.agent.tools.search_log._MOST_BYTES", 3 << 20)
    path = log(tmp_path, "app.log", "needle\n" + "x" * 99 + "\n" * 1 + ("y" * 99 + "\n") * 80_000)

    answer = await call(SEARCH, over(path), watch="app", words="needle")

    assert (answer["matches"], answer["truncated"]) == ([], True)
    assert answer["scanned_bytes"] <= 3 << 20
    assert "since" in answer["note"]


async def test_a_bomb_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentd.agent.tools.search_log._MOST_BYTES", 3 << 20)
    path = tmp_path / "app.log.gz"
    path.write_bytes(gzip.compress(b"needle\n" + b"\n" * (40 << 20)))

    answer = await call(SEARCH, over(path), watch="app", words="needle")

    assert answer["scanned_bytes"] <= 3 << 20
    assert answer["truncated"] is True
    assert len(answer["matches"]) == 1


async def test_what_is_given_back_is_bounded(tmp_path: Path) -> None:
    path = log(tmp_path, "app.log", ("z" * 1900 + "\n") * 1000)

    answer = await call(SEARCH, over(path, max_output=20_000), watch="app", limit=200)

    assert len(str(answer)) < 20_000
    assert answer["truncated"] is True


async def test_only_named_watches_are_searched(tmp_path: Path) -> None:
    path = log(tmp_path, "app.log", "x\n")

    assert "app" in await failing(SEARCH, over(path), DENIED, watch="other")
    assert "app" in await failing(SEARCH, over(path), INVALID, words="x")


async def test_a_path_must_lie_beneath_what_may_be_read(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    path = log(inside, "app.log", "needle\n")
    log(inside, "app.log.1", "older needle\n", age=10)
    outside = log(tmp_path, "out.log", "needle\n")
    (inside / "link.log").symlink_to(outside)

    answer = await call(SEARCH, over(read=inside), path=str(path), words="needle")

    assert [match["line"] for match in answer["matches"]] == ["needle", "older needle"]
    await failing(SEARCH, over(read=inside), DENIED, path=str(outside))
    await failing(SEARCH, over(), DENIED, path=str(path))
    refused = await call(SEARCH, over(read=inside), path=str(inside / "link.log"))
    assert refused["matches"] == []
    assert "leads out" in str(refused["unread"])


async def test_links_in_a_log_folder_lead_nowhere(tmp_path: Path) -> None:
    """Who may write into the folder of a glob must not choose what a model reads."""
    folder = tmp_path / "logs"
    folder.mkdir()
    (tmp_path / "secret").write_text("needle of secrets\n")
    (folder / "evil.log").symlink_to(tmp_path / "secret")
    log(folder, "app.log", "needle\n")
    (folder / "app.log.1").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "pipe.log")

    answer = await call(SEARCH, over(folder / "*.log"), watch="app", words="needle")

    assert [match["line"] for match in answer["matches"]] == ["needle"]
    assert len(answer["unread"]) >= 2


async def test_a_link_that_the_configuration_names_is_followed(tmp_path: Path) -> None:
    """current.log may well lie elsewhere, and the operator said so."""
    (tmp_path / "logs").mkdir()
    target = log(tmp_path, "today.log", "needle\n")
    (tmp_path / "logs" / "current.log").symlink_to(target)

    answer = await call(SEARCH, over(tmp_path / "logs" / "current.log"), watch="app")

    assert [match["line"] for match in answer["matches"]] == ["needle"]


@pytest.mark.parametrize("where", ["of the test", "/etc/shadow", "/proc/self/environ"])
async def test_a_link_at_a_path_of_the_model_is_nobodys_word(tmp_path: Path, where: str) -> None:
    """Where no watch has a log, the model's path must not pass for the configuration's: it read /etc/shadow."""
    inside = tmp_path / "in"
    inside.mkdir()
    target = log(tmp_path, "private", "needle\n") if where == "of the test" else Path(where)
    (inside / "app.log").symlink_to(target)

    answer = await call(SEARCH, context(Permissions(read=(str(inside),))), path=str(inside / "app.log"))

    assert answer["matches"] == []
    assert "leads out" in str(answer["unread"])


@pytest.mark.parametrize("closed", ["/etc/shadow", "/proc/self/status"])
async def test_a_configured_log_swapped_for_a_link_to_a_secret(tmp_path: Path, closed: str) -> None:
    """Who may write the log's folder must not have the system's secrets read, the daemon often being root."""
    (tmp_path / "app.log").symlink_to(closed)
    (tmp_path / "again.log").symlink_to("app.log")

    for name in ("app.log", "again.log"):
        answer = await call(SEARCH, over(tmp_path / name), watch="app")

        assert (answer["matches"], answer["files"]) == ([], [])
        assert "closed" in str(answer["unread"]) or "leads out" in str(answer["unread"])


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a link to another user")
async def test_a_configured_link_of_another_user_leads_nowhere(tmp_path: Path) -> None:
    """The user of a service owns its log folder: a link there is the operator's only if the operator made it."""
    (tmp_path / "logs").mkdir()
    link = tmp_path / "logs" / "current.log"
    link.symlink_to(log(tmp_path, "private", "needle\n"))
    os.chown(link, 65534, 65534, follow_symlinks=False)

    answer = await call(SEARCH, over(link), watch="app")

    assert answer["matches"] == []
    assert "leads out" in str(answer["unread"])


async def test_a_link_behind_the_operators_link_stays_in_its_folder(tmp_path: Path) -> None:
    """current.log may lead into the folder of a service, whose links are then the service's own."""
    for name in ("logs", "service"):
        (tmp_path / name).mkdir()
    (tmp_path / "logs" / "current.log").symlink_to("../service/now.log")
    (tmp_path / "service" / "now.log").symlink_to("today.log")
    log(tmp_path / "service", "today.log", "needle\n")

    answer = await call(SEARCH, over(tmp_path / "logs" / "current.log"), watch="app")

    assert [match["line"] for match in answer["matches"]] == ["needle"]


async def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "app.log").symlink_to(tmp_path / "b.log")
    (tmp_path / "b.log").symlink_to(tmp_path / "a" / "app.log")

    answer = await call(SEARCH, over(tmp_path / "a" / "app.log"), watch="app")

    assert "too many links" in str(answer["unread"])


async def test_nothing_there_is_said(tmp_path: Path) -> None:
    answer = await call(SEARCH, over(tmp_path / "no.log", tmp_path / "none" / "*.log"), watch="app")

    assert answer["matches"] == []
    assert answer["note"]


async def test_hostile_lines_are_one_line_of_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"needle \x1b[2J \xff\xfe \xe2\x80\xae x\r\n")

    (match,) = (await call(SEARCH, over(path), watch="app", words="needle"))["matches"]

    assert match["line"] == "needle \ufffd[2J \ufffd\ufffd \ufffd x"


async def test_a_damaged_archive_keeps_the_rest(tmp_path: Path) -> None:
    live = log(tmp_path, "app.log", "needle\n")
    packed = bytearray(gzip.compress(b"older needle\n") + gzip.compress(os.urandom(3000)))
    packed[-8:] = b"\0" * 8
    (tmp_path / "app.log.1.gz").write_bytes(packed)

    answer = await call(SEARCH, over(live), watch="app", words="needle")

    assert [match["line"] for match in answer["matches"]] == ["needle", "older needle"]
    assert "damaged" in str(answer["unread"])
