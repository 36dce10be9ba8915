"""
What is read is valid UTF-8 with the offsets of the file, whatever stands in it.
"""

from __future__ import annotations

import codecs
import gzip
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import pytest
from following import Follower, placed
from hypothesis import given, settings
from hypothesis import strategies as st

from agentd.errors import AgentdError, ConfigError
from agentd.logs.follow import replay_file
from agentd.logs.follow.text import cut_lines, find_encoding
from agentd.logs.settings import LogSource


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


def test_overlong_line_is_cut_and_the_next_one_seen(log: Path) -> None:
    """One line must neither drop the file nor fill the memory."""
    log.write_bytes(b"one\n" + b"x" * 5000 + b"\ntwo\n")
    follower = Follower(log, max_line=1024)

    assert follower.read() == ["one", "x" * 1024, "two"]
    assert [line.offset for line in follower.placed] == [0, 4, 5005]
    assert follower.counters.truncated == 1
    follower.close()


def test_line_of_just_the_longest_length_is_whole(log: Path) -> None:
    """The limit is of what may be, not of what may not."""
    log.write_bytes(b"x" * 1024 + b"\n" + b"y" * 1025 + b"\n")
    follower = Follower(log, max_line=1024)

    assert follower.read() == ["x" * 1024, "y" * 1024]
    assert follower.counters.truncated == 1
    follower.close()


def test_restart_in_the_middle_of_an_overlong_line(log: Path) -> None:
    """The rest of it is no line of its own."""
    log.write_bytes(b"x" * 3_000_000)
    follower = Follower(log, max_line=1024)
    assert follower.read() == ["x" * 1024]
    follower.restart()
    assert follower.read() == []
    with log.open("ab") as file:
        file.write(b"yyy\nnext\n")

    assert follower.read() == ["next"]
    assert follower.counters.truncated == 0
    follower.close()


def test_line_of_100_mb_costs_no_memory(log: Path) -> None:
    """A binary dump in a log is a bad day, not the last one."""
    with log.open("wb") as file:
        file.write(b"before\n")
        for _ in range(100):
            file.write(b"z" * 1_000_000)
        file.write(b"\nafter\n")
    follower = Follower(log)
    tracemalloc.start()

    lines = follower.read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert lines == ["before", "z" * 65536, "after"]
    assert peak < 8 * 1024 * 1024
    follower.close()


def test_bytes_that_are_no_utf8_become_one_mark_each(log: Path) -> None:
    """Offsets of what follows must hold."""
    log.write_bytes(b"caf\xe9 \xff\xfe?\n" + "grün\n".encode() + b"\xe2\x82\n")
    follower = Follower(log)

    assert follower.read() == ["caf? ???", "grün", "??"]
    assert [line.offset for line in follower.placed] == [0, 9, 15]
    assert follower.counters.undecodable == 5
    follower.close()


def test_cut_leaves_no_half_character(log: Path) -> None:
    """A character at the limit is left out whole."""
    log.write_bytes(b"x" * 1023 + "ü".encode() + b"rest\nnext\n")
    follower = Follower(log, max_line=1024)

    assert follower.read() == ["x" * 1023, "next"]
    assert follower.counters.undecodable == 0
    follower.close()


def test_byte_order_mark_is_no_text(log: Path) -> None:
    """Else a pattern that begins with ^ misses the first line."""
    log.write_bytes(codecs.BOM_UTF8 + b"one\ntwo\n")
    follower = Follower(log)

    assert follower.read() == ["one", "two"]
    assert follower.placed[0].offset == 3
    follower.close()


def test_carriage_returns_stay(log: Path) -> None:
    """Taking them off is the parser's, or offsets would not hold."""
    log.write_bytes(b"one\r\ntwo\r\n")
    follower = Follower(log)

    assert follower.read() == ["one\r", "two\r"]
    follower.close()


@pytest.mark.parametrize(
    ("encoding", "bom", "codec"),
    [
        ("latin-1", b"", "latin-1"),
        ("cp1252", b"", "cp1252"),
        ("utf-16", codecs.BOM_UTF16_LE, "utf-16-le"),
        ("utf-16", codecs.BOM_UTF16_BE, "utf-16-be"),
        ("utf-16", b"", "utf-16-le"),
        ("utf-16-be", b"", "utf-16-be"),
        ("shift_jis", b"", "shift_jis"),
    ],
)
def test_other_encodings_are_transcoded_with_their_offsets(log: Path, encoding: str, bom: bytes, codec: str) -> None:
    """Evidence names the offset in the file, not in our text."""
    texts = ["plain", "é" if codec != "shift_jis" else "日本", "\u0a00" if "16" in codec else "x", "last"]
    raw = [f"{text}\n".encode(codec) for text in texts]
    log.write_bytes(bom + raw[0] + raw[1])
    follower = Follower(log, encoding=encoding)
    follower.read()
    follower.restart()
    with log.open("ab") as file:
        file.write(raw[2] + raw[3])
    follower.read()

    assert follower.lines == texts
    starts = [len(bom) + sum(len(line) for line in raw[:index]) for index in range(4)]
    assert [line.offset for line in follower.placed] == starts
    follower.close()


def test_half_a_character_of_utf16_waits(log: Path) -> None:
    """A newline may be half written too."""
    whole = "ab\ncd\n".encode("utf-16-le")
    log.write_bytes(whole[:5])
    follower = Follower(log, encoding="utf-16-le")
    assert follower.read() == []
    log.write_bytes(whole)

    assert follower.read() == ["ab", "cd"]
    follower.close()


@pytest.mark.parametrize("encoding", ["martian", "base64", "cp037", "utf-7"])
def test_encoding_without_lines_is_refused(log: Path, encoding: str) -> None:
    """At load, not as silence at run."""
    with pytest.raises(ConfigError, match="encoding"):
        Follower(log, encoding=encoding)


@given(
    data=st.binary(max_size=300).map(lambda data: data.replace(b"a", b"\n").replace(b"b", b"\n")),
    longest=st.integers(min_value=1, max_value=40),
    pieces=st.lists(st.integers(min_value=1, max_value=60), max_size=10),
)
@settings(max_examples=150, deadline=None)
def test_lines_are_cut_the_same_however_they_come(data: bytes, longest: int, pieces: list[int]) -> None:
    """What a file gives must not depend on when we looked."""
    encoding = find_encoding("utf-8")
    assert encoding is not None

    def lines(ends: list[int]) -> list[bytes]:
        found = []
        at, skipping = 0, False
        for end in ends:
            cut = cut_lines(data[:end], at, longest, encoding, skipping=skipping)
            for first, last, shortened in cut.pieces:
                found += (data[first:last] + (b"\n" if shortened else b"")).split(b"\n")[:-1]
            at, skipping = cut.end, cut.skipping
        return found

    whole = data[: data.rfind(b"\n") + 1].split(b"\n")[:-1]
    expected = [line[:longest] for line in whole]
    tail = data[data.rfind(b"\n") + 1 :]
    if len(tail) > longest:
        expected.append(tail[:longest])
    ends = [min(sum(pieces[:count]), len(data)) for count in range(1, len(pieces) + 1)]

    assert lines([len(data)]) == expected
    assert lines([*ends, len(data)]) == expected


@given(data=st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_text_is_always_utf8_of_the_same_length(data: bytes) -> None:
    """The matcher takes UTF-8 alone."""
    encoding = find_encoding("utf-8")
    assert encoding is not None

    text = encoding.decode(data + b"\n").text

    assert len(text) == len(data) + 1
    text.decode()


def _replay(path: Path, **given_settings: object) -> tuple[list[str], list[int]]:
    replay = replay_file(
        str(path), LogSource.model_validate(given_settings), complete=len, now=lambda: datetime.now(UTC)
    )
    lines, offsets, more = [], [], True
    behind = replay.size
    while more:
        batch = replay.read(100_000)
        assert batch.caught_up is None
        assert batch.behind_bytes <= behind
        behind = batch.behind_bytes
        more = batch.more
        for block in batch.blocks:
            for line in placed(block):
                lines.append(line.text)
                offsets.append(line.offset)
    assert behind == 0
    replay._part.close(replay._means)
    return lines, offsets


@pytest.mark.parametrize("packed", [False, True])
def test_replay_gives_the_whole_file(tmp_path: Path, packed: bool) -> None:
    """The last line too, though nobody ended it."""
    path = tmp_path / "any name"
    text = b"".join(b"%08d something\n" % number for number in range(50_000)) + b"unfinished"
    path.write_bytes(gzip.compress(text[:300_000]) + gzip.compress(text[300_000:]) if packed else text)

    lines, offsets = _replay(path)

    assert lines == [*(f"{number:08} something" for number in range(50_000)), "unfinished"]
    assert offsets[:2] == [0, 19]


def test_replay_of_a_damaged_file_ends_with_a_note(tmp_path: Path) -> None:
    """And with what could be read."""
    path = tmp_path / "app.log.gz"
    path.write_bytes(gzip.compress(b"".join(b"%d\n" % number for number in range(100_000)))[:60_000] + b"\xff" * 100)

    replay = replay_file(str(path), LogSource(), complete=len, now=lambda: datetime.now(UTC))
    notes, more = [], True
    while more:
        batch = replay.read(1 << 20)
        notes += batch.notes
        more = batch.more
    replay._part.close(replay._means)

    assert replay.counters.lines > 1000
    assert replay.counters.lost == 1
    assert "ended early" in notes[0]


def test_packed_bomb_is_unpacked_in_small_pieces(tmp_path: Path) -> None:
    """A few hundred kilobytes can hold hundreds of megabytes of nothing."""
    path = tmp_path / "bomb.gz"
    packer = __import__("zlib").compressobj(9, wbits=31)
    path.write_bytes(b"".join(packer.compress(b"b" * 1_000_000) for _ in range(60)) + packer.flush())
    tracemalloc.start()

    lines, _ = _replay(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert lines == ["b" * 65536]
    assert peak < 12 * 1024 * 1024


def test_replay_of_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """With what to do instead."""
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(AgentdError, match="give the path of a log file"):
            replay_file(str(path), LogSource(), complete=len, now=lambda: datetime.now(UTC))
