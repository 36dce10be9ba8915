"""read_file, write_file, list_files: nothing beneath no folder, whatever links and renames say."""

from __future__ import annotations

import gzip
import os
import socket
import stat
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest
from tool_calls import call, context, failing

from agentd.agent.job import Permissions
from agentd.agent.permissions import NotPermitted, check_path
from agentd.agent.port import ToolContext
from agentd.agent.tools import beneath
from agentd.agent.tools.list_files import ListFiles
from agentd.agent.tools.read_file import ReadFile, unpacked
from agentd.agent.tools.write_file import WriteFile
from agentd.fleet.messages import ErrorKind

READ, WRITE, LIST = ReadFile(), WriteFile(), ListFiles()
DENIED, ERROR = ErrorKind.DENIED, ErrorKind.TOOL_ERROR


@pytest.fixture
def inside(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed"
    folder.mkdir()
    (tmp_path / "secret").write_text("the secret\n")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a").write_text("the secret\n")
    return folder


def within(folder: Path, *more: Path, write: bool = False, **limits: Any) -> ToolContext:
    return context(Permissions(read=(str(folder), *map(str, more)), write=write), **limits)


async def test_a_file_is_read_in_pieces_that_join(inside: Path) -> None:
    """A model goes through a big file by next_offset; no byte may be lost or come twice, nor a character be cut."""
    text = "".join(f"line {number} - größer\n" for number in range(2000))
    (inside / "a").write_text(text)
    read, offset, pieces = "", 0, 0

    while True:
        answer = await call(READ, within(inside), path=str(inside / "a"), offset=offset, limit=1001)
        read += answer["text"]
        pieces += 1
        if not answer["more"]:
            break
        offset = answer["next_offset"]

    assert read == text
    assert answer["size"] == len(text.encode())
    assert pieces > 10


async def test_the_end_of_a_file_begins_with_a_whole_line(inside: Path) -> None:
    """Half a line misleads."""
    (inside / "a").write_text("".join(f"line {number}\n" for number in range(1000)))

    answer = await call(READ, within(inside), path=str(inside / "a"), tail=True, limit=25)

    assert answer["text"] == "line 998\nline 999\n"
    assert answer["more"] is False


async def test_a_short_file_has_the_same_end(inside: Path) -> None:
    (inside / "a").write_text("one\ntwo\n")

    assert (await call(READ, within(inside), path=str(inside / "a"), tail=True))["text"] == "one\ntwo\n"
    assert (await call(READ, within(inside), path=str(inside / "a"), offset=100))["text"] == ""


async def test_packed_files_are_unpacked(inside: Path) -> None:
    """Rotated logs are packed, often of several members."""
    whole = b"".join(b"line %d\n" % number for number in range(50_000))
    (inside / "a.gz").write_bytes(gzip.compress(whole[:300_001]) + gzip.compress(whole[300_001:]))
    path = str(inside / "a.gz")

    first = await call(READ, within(inside), path=path, limit=100)
    middle = await call(READ, within(inside), path=path, offset=300_000, limit=100)
    last = await call(READ, within(inside), path=path, tail=True, limit=30)

    assert first["text"].encode() == whole[:100]
    assert middle["text"].encode() == whole[300_000:300_100]
    assert last["text"] == "line 49998\nline 49999\n"
    assert (first["more"], last["more"]) == (True, False)


async def test_a_bomb_unpacks_no_further_than_its_limit(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte of zeros costs a kilobyte of disk."""
    monkeypatch.setattr("agentd.agent.tools.read_file._MAX_UNPACKED", 4 << 20)
    (inside / "bomb.gz").write_bytes(gzip.compress(b"a" * (64 << 20)))

    answer = await call(READ, within(inside), path=str(inside / "bomb.gz"), tail=True, limit=100)

    assert answer["unpacked_only"] <= (4 << 20) + 262144
    assert answer["more"] is True
    with (inside / "bomb.gz").open("rb") as file:
        assert max(map(len, unpacked(file.fileno()))) <= 262144


async def test_a_damaged_archive_is_said(inside: Path) -> None:
    packed = bytearray(gzip.compress(os.urandom(50_000)))
    packed[100:110] = b"\xff" * 10
    (inside / "a.gz").write_bytes(packed)

    assert "damaged" in await failing(READ, within(inside), ERROR, path=str(inside / "a.gz"), tail=True)


def test_what_stands_behind_an_archive_ends_it(inside: Path) -> None:
    """Tapes pad with zeros, and some programs append what is no archive."""
    (inside / "a.gz").write_bytes(gzip.compress(b"one\n") + b"\0" * 600_000 + gzip.compress(b"two\n") + b"junk")
    with (inside / "a.gz").open("rb") as file:
        assert b"".join(unpacked(file.fileno())) == b"one\ntwo\n"


def test_what_an_archive_still_holds_at_its_end_is_given(inside: Path) -> None:
    """zlib may have taken all its input and hold output back."""
    whole = b"\0" * 3_000_000 + b"end"
    packer = zlib.compressobj(9, wbits=31)
    (inside / "a.gz").write_bytes(packer.compress(whole) + packer.flush())
    with (inside / "a.gz").open("rb") as file:
        assert b"".join(unpacked(file.fileno())) == whole


async def test_binary_is_shown_as_such(inside: Path) -> None:
    """Bytes as text would cost a window and say nothing."""
    (inside / "a").write_bytes(b"\x7fELF\x02\x01\x01\0\0\0" + os.urandom(5000))

    answer = await call(READ, within(inside), path=str(inside / "a"))

    assert answer["binary"] is True
    assert answer["first_bytes"].startswith("7f 45 4c 46")
    assert "text" not in answer


async def test_control_characters_do_not_reach_the_model(inside: Path) -> None:
    """Escape sequences and marks that turn text around can hide what is said."""
    (inside / "a").write_text("a\x1b[2Jb\u202ec\tz\n")

    assert (await call(READ, within(inside), path=str(inside / "a")))["text"] == "a\ufffd[2Jb\ufffdc\tz\n"


async def test_output_stays_within_the_bound_of_the_call(inside: Path) -> None:
    (inside / "a").write_text("x" * 100_000)

    answer = await call(READ, within(inside, max_output=8192), path=str(inside / "a"), limit=100_000)

    assert answer["bytes"] == 4096
    assert answer["more"] is True


@pytest.mark.parametrize("way", ["../secret", "../../etc/passwd", "x/../../secret", "..", "./../secret"])
async def test_dots_lead_nowhere(inside: Path, way: str) -> None:
    (inside / "x").mkdir()
    message = await failing(READ, within(inside), DENIED, path=f"{inside}/{way}")
    assert str(inside) in message


async def test_a_refusal_says_what_is_allowed(inside: Path) -> None:
    """The model can only mend what it is told."""
    assert str(inside) in await failing(READ, within(inside), DENIED, path="/etc/hostname")
    assert "agent.files.allow" in await failing(READ, context(), DENIED, path="/etc/hostname")


async def test_links_that_stay_inside_are_followed(inside: Path) -> None:
    """current.log is often a link to the file of today, relative or absolute."""
    (inside / "logs").mkdir()
    (inside / "logs" / "today").write_text("hello\n")
    (inside / "relative").symlink_to("logs/../logs/today")
    (inside / "absolute").symlink_to(inside / "logs" / "today")
    (inside / "folder").symlink_to("logs")
    (inside / "logs" / "up").symlink_to("../relative")

    for name in ("relative", "absolute", "folder/today", "logs/up", "folder/up"):
        assert (await call(READ, within(inside), path=str(inside / name)))["text"] == "hello\n", name


async def test_a_link_into_another_allowed_folder_is_followed(inside: Path, tmp_path: Path) -> None:
    (inside / "link").symlink_to(tmp_path / "outside" / "a")

    assert (await call(READ, within(inside, tmp_path / "outside"), path=str(inside / "link")))["bytes"] == 11


@pytest.mark.parametrize(
    "target",
    ["../secret", "{out}/secret", "{out}/outside/a", "x/../../secret", "/etc/passwd", "/proc/self/environ", "chain1"],
)
async def test_links_that_leave_are_refused(inside: Path, tmp_path: Path, target: str) -> None:
    """Whoever writes into a log folder must not choose what a model reads."""
    (inside / "x").mkdir()
    (inside / "chain1").symlink_to("chain2")
    (inside / "chain2").symlink_to(tmp_path / "secret")
    (inside / "link").symlink_to(target.format(out=tmp_path))

    await failing(READ, within(inside), DENIED, path=str(inside / "link"))


async def test_links_of_folders_that_leave_are_refused(inside: Path, tmp_path: Path) -> None:
    (inside / "out").symlink_to(tmp_path / "outside")
    (inside / "up").symlink_to("..")

    for way in ("out/a", "up/secret", "up/outside/a"):
        await failing(READ, within(inside), DENIED, path=str(inside / way))
    await failing(LIST, within(inside), DENIED, path=str(inside / "out"))
    await failing(LIST, within(inside), DENIED, path=str(inside / "up"))


async def test_links_do_not_lead_into_what_is_closed(tmp_path: Path) -> None:
    """With / allowed, /proc is closed to a path; a link may not open it step by step."""
    way_up = os.path.relpath("/", tmp_path)
    (tmp_path / "link").symlink_to(f"{way_up}/proc/self/environ")
    (tmp_path / "folder").symlink_to(f"{way_up}/proc")
    (tmp_path / "fine").symlink_to(f"{way_up}/etc/hostname")

    assert await call(READ, context(Permissions(read=("/",))), path=str(tmp_path / "fine"))

    await failing(READ, context(Permissions(read=("/",))), DENIED, path=str(tmp_path / "link"))
    await failing(READ, context(Permissions(read=("/",))), DENIED, path=str(tmp_path / "folder" / "self" / "environ"))
    await failing(LIST, context(Permissions(read=("/",))), DENIED, path=str(tmp_path / "folder" / "self"))


async def test_links_in_circles_end(inside: Path) -> None:
    (inside / "a").symlink_to("b")
    (inside / "b").symlink_to("a")
    (inside / "self").symlink_to("self/self")
    (inside / "c").symlink_to(inside / "c")

    for name in ("a", "self", "c", "self/x"):
        assert "links" in await failing(READ, within(inside), ERROR, path=str(inside / name))


async def test_the_allowed_folder_may_be_a_link_itself(inside: Path, tmp_path: Path) -> None:
    """/var/run is one, and the operator named it."""
    (inside / "a").write_text("hello\n")
    (tmp_path / "named").symlink_to(inside)

    assert (await call(READ, within(tmp_path / "named"), path=str(tmp_path / "named" / "a")))["text"] == "hello\n"


async def test_a_folder_that_becomes_a_link_between_check_and_open(
    inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race that every check by path loses: here each name is opened in a folder that is held open."""
    (inside / "d").mkdir()
    (inside / "d" / "a").write_text("harmless\n")
    real = check_path
    swapped: list[str] = []

    def check_then_swap(*given: Any, **more: Any) -> str:
        folder = real(*given, **more)
        if not swapped:
            (inside / "d").rename(inside / "was")
            (inside / "d").symlink_to(tmp_path / "outside")
            swapped.append("done")
        return folder

    monkeypatch.setattr("agentd.agent.tools.beneath.check_path", check_then_swap)

    await failing(READ, within(inside), DENIED, path=str(inside / "d" / "a"))
    assert swapped


async def test_a_file_that_becomes_a_link_between_look_and_open(
    inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (inside / "a").write_text("harmless\n")
    real = os.stat

    def stat_then_swap(path: Any, **more: Any) -> os.stat_result:
        seen = real(path, **more)
        if path == "a" and more.get("dir_fd") is not None:
            (inside / "a").unlink()
            (inside / "a").symlink_to(tmp_path / "secret")
        return seen

    monkeypatch.setattr("agentd.agent.tools.beneath.os.stat", stat_then_swap)

    await failing(READ, within(inside), ERROR, path=str(inside / "a"))


async def test_swapping_all_the_time_never_lets_the_secret_out(inside: Path, tmp_path: Path) -> None:
    """The same race, blindly and often."""
    (inside / "d").mkdir()
    (inside / "d" / "a").write_text("harmless\n")
    (inside / "link").symlink_to(tmp_path / "outside")
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            os.rename(inside / "d", inside / "t")
            os.rename(inside / "link", inside / "d")
            os.rename(inside / "d", inside / "link")
            os.rename(inside / "t", inside / "d")

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(300):
            try:
                with beneath.open_file(Permissions(read=(str(inside),)), str(inside / "d" / "a")) as fd:
                    assert os.read(fd, 100) == b"harmless\n"
            except (OSError, NotPermitted):
                continue
    finally:
        over.set()
        swapping.join()


async def test_pipes_sockets_and_devices_are_not_opened(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a pipe waits for a writer, opening a device may do things."""
    opened: list[Any] = []
    real = os.open

    def noted(path: Any, *given: Any, **more: Any) -> int:
        opened.append(path)
        return real(path, *given, **more)

    monkeypatch.setattr("agentd.agent.tools.beneath.os.open", noted)
    os.mkfifo(inside / "pipe")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(inside / "socket"))
    (inside / "d").mkdir()
    try:
        assert "pipe" in await failing(READ, within(inside), ERROR, path=str(inside / "pipe"))
        assert "socket" in await failing(READ, within(inside), ERROR, path=str(inside / "socket"))
        assert "folder" in await failing(READ, within(inside), ERROR, path=str(inside / "d"))
        assert "folder" in await failing(READ, within(inside), ERROR, path=str(inside))
    finally:
        server.close()
    assert not {"pipe", "socket"} & set(opened)


async def test_what_is_not_there_is_said(inside: Path) -> None:
    assert "no such file" in await failing(READ, within(inside), ERROR, path=str(inside / "gone"))
    assert "no such file" in await failing(READ, within(inside), ERROR, path=str(inside / "gone" / "a"))
    (inside / "a").write_text("x")
    await failing(READ, within(inside), ERROR, path=str(inside / "a" / "b"))


async def test_no_descriptor_is_left(inside: Path, tmp_path: Path) -> None:
    """Months of calls, and 1,024 descriptors."""
    (inside / "a").write_text("x")
    (inside / "link").symlink_to(inside / "a")
    (inside / "out").symlink_to(tmp_path / "secret")
    await call(READ, within(inside), path=str(inside / "a"))
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(20):
        await call(READ, within(inside), path=str(inside / "link"))
        await failing(READ, within(inside), DENIED, path=str(inside / "out"))
        await failing(READ, within(inside), ERROR, path=str(inside / "gone"))
        await call(LIST, within(inside), path=str(inside), depth=3)

    assert len(os.listdir("/proc/self/fd")) <= before


async def test_writing_needs_its_permission(inside: Path) -> None:
    """Off until the configuration turns it on."""
    message = await failing(WRITE, within(inside), DENIED, path=str(inside / "a"), content="x")

    assert "agent.files.write" in message
    assert not (inside / "a").exists()


async def test_a_file_is_written_whole(inside: Path) -> None:
    given = within(inside, write=True)

    first = await call(WRITE, given, path=str(inside / "a"), content="größer\n")
    second = await call(WRITE, given, path=str(inside / "a"), content="new\n", replace=True)

    assert (first["created"], second["created"]) == (True, False)
    assert first["bytes"] == len("größer\n".encode())
    assert (inside / "a").read_text() == "new\n"
    assert os.listdir(inside) == ["a"]


async def test_a_file_that_is_there_stays_unless_told(inside: Path) -> None:
    (inside / "a").write_text("old\n")

    assert "replace" in await failing(WRITE, within(inside, write=True), ERROR, path=str(inside / "a"), content="x")
    assert (inside / "a").read_text() == "old\n"


async def test_mode_of_a_replaced_file_is_kept_and_never_setuid(inside: Path) -> None:
    """A script stays runnable for those who could run it; nothing becomes privileged."""
    (inside / "a").write_text("old")
    (inside / "a").chmod(0o4754)

    await call(WRITE, within(inside, write=True), path=str(inside / "a"), content="x", replace=True)

    assert stat.S_IMODE((inside / "a").stat().st_mode) == 0o754


async def test_nothing_is_written_through_links(inside: Path, tmp_path: Path) -> None:
    """Neither a link in place of the file nor one in place of the folder."""
    (inside / "link").symlink_to(tmp_path / "secret")
    (inside / "new").symlink_to(tmp_path / "made")
    (inside / "out").symlink_to(tmp_path / "outside")
    given = within(inside, write=True)

    await failing(WRITE, given, ERROR, path=str(inside / "link"), content="x", replace=True)
    await failing(WRITE, given, ERROR, path=str(inside / "new"), content="x")
    await failing(WRITE, given, DENIED, path=str(inside / "out" / "b"), content="x")
    await failing(WRITE, given, DENIED, path=str(inside / ".." / "b"), content="x")

    assert (tmp_path / "secret").read_text() == "the secret\n"
    assert not (tmp_path / "made").exists()
    assert os.listdir(tmp_path / "outside") == ["a"]
    assert sorted(os.listdir(inside)) == ["link", "new", "out"]


async def test_a_failed_write_leaves_the_old_file_and_no_litter(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk must not cost the file that is there."""
    (inside / "a").write_text("old\n")

    def full(fd: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agentd.agent.tools.write_file.os.write", full)

    message = await failing(WRITE, within(inside, write=True), ERROR, path=str(inside / "a"), content="x", replace=True)

    assert "No space left" in message
    assert (inside / "a").read_text() == "old\n"
    assert os.listdir(inside) == ["a"]


async def test_folders_and_half_characters_are_not_written(inside: Path) -> None:
    given = within(inside, write=True)
    await failing(WRITE, given, ERROR, path=str(inside), content="x")
    await failing(WRITE, given, ERROR, path=str(inside / "no" / "a"), content="x")
    await failing(WRITE, given, ErrorKind.INVALID_INPUT, path=str(inside / "a"), content="\ud800")


async def test_a_folder_is_listed(inside: Path) -> None:
    (inside / "b.log").write_text("12345")
    (inside / "a.txt").write_text("1")
    (inside / "d").mkdir()
    (inside / "l").symlink_to("/etc")

    answer = await call(LIST, within(inside), path=str(inside))

    kinds = {os.path.basename(entry["path"]): entry["kind"] for entry in answer["entries"]}
    assert kinds == {"a.txt": "file", "b.log": "file", "d": "folder", "l": "link"}
    assert answer["entries"][1]["size"] == 5
    assert answer["entries"][1]["changed"].endswith("Z")
    assert "truncated" not in answer


async def test_what_fills_a_disk_is_found(inside: Path) -> None:
    """The question of every disk alert: the largest files, however deep."""
    deep = inside / "a" / "b" / "c"
    deep.mkdir(parents=True)
    (deep / "huge.log").write_bytes(b"x" * 5000)
    (inside / "a" / "small.log").write_bytes(b"x")
    (inside / "a" / "mid.txt").write_bytes(b"x" * 500)

    by_size = await call(LIST, within(inside), path=str(inside), depth=5, sort="size", pattern="*.*", limit=2)

    assert [os.path.basename(entry["path"]) for entry in by_size["entries"]] == ["huge.log", "mid.txt"]
    assert (by_size["found"], by_size["truncated"]) == (3, True)


async def test_listing_goes_into_no_links(inside: Path, tmp_path: Path) -> None:
    (inside / "out").symlink_to(tmp_path / "outside")
    (inside / "loop").symlink_to(".")

    answer = await call(LIST, within(inside), path=str(inside), depth=10)

    assert answer["found"] == 2


async def test_a_folder_that_becomes_a_link_while_listed(
    inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (inside / "d").mkdir()

    def swap(path: str) -> bool:
        if path.endswith("/d") and not (inside / "d").is_symlink():
            (inside / "d").rmdir()
            (inside / "d").symlink_to(tmp_path / "outside")
        return False

    monkeypatch.setattr("agentd.agent.tools.list_files.is_closed", swap)

    answer = await call(LIST, within(inside), path=str(inside), depth=2)

    assert [os.path.basename(entry["path"]) for entry in answer["entries"]] == ["d"]
    assert answer["unread"]


async def test_listing_stops_at_its_bound(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mail spool has millions of files."""
    monkeypatch.setattr("agentd.agent.tools.list_files._MOST_LOOKED_AT", 50)
    for number in range(100):
        (inside / f"{number}").touch()

    answer = await call(LIST, within(inside), path=str(inside))

    assert answer["truncated"] is True
    assert "50 files" in answer["note"]


async def test_without_a_path_the_allowed_folders_are_told(inside: Path) -> None:
    assert await call(LIST, within(inside)) == {"folders": [str(inside)]}
    await failing(LIST, context(), DENIED)


async def test_names_of_files_are_no_way_to_the_terminal(inside: Path) -> None:
    """Who makes files chooses their names: bytes that are no text, escapes, line breaks."""
    (inside / "a\x1b[2J\nb").touch()
    os.close(os.open(os.fsencode(inside) + b"/\xff\xfe", os.O_CREAT | os.O_WRONLY))

    answer = await call(LIST, within(inside), path=str(inside))

    assert not any("\x1b" in entry["path"] for entry in answer["entries"])
    assert len(answer["entries"]) == 2


@pytest.mark.skipif(not os.access("/etc/shadow", os.R_OK), reason="would be refused by the system")
async def test_an_allowed_folder_that_is_swapped_for_a_link_opens_no_secret(tmp_path: Path) -> None:
    """Its path is the operator's word, but who may write in the folder above it chooses where that leads."""
    (tmp_path / "allowed").symlink_to("/etc")
    (tmp_path / "keys").symlink_to("/proc/self")

    message = await failing(READ, within(tmp_path / "allowed"), DENIED, path=f"{tmp_path}/allowed/shadow")
    assert "closed" in message
    await failing(
        WRITE, within(tmp_path / "allowed", write=True), DENIED, path=f"{tmp_path}/allowed/shadow", content="x"
    )
    await failing(READ, within(tmp_path / "keys"), DENIED, path=f"{tmp_path}/keys/status")
    await failing(LIST, within(tmp_path / "keys"), DENIED, path=f"{tmp_path}/keys")
