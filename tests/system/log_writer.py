"""
A process that appends numbered lines to several files, as fast as it can: run by `rotating.Writer`.

    python log_writer.py FOLDER STREAM…

It writes at full speed for a while and rests as long, so that two processors are enough for all who take part.
Each line is one write of 64 bytes to FOLDER/STREAM.log, opened for appending; the writer keeps its descriptor until it
is told to open the name anew, as a service does.
In, a command a line: `go S`, `open S`, `pause S`. Out: `opened S N` (N is the first line that goes there), `paused S N`
(N was the last line; it is one that is marked). It ends with its standard input.
"""

from __future__ import annotations

import os
import select
import sys
import time

LINE_BYTES = 64
MARK_EVERY = 6000
COUNT_EVERY = 20
BURST_S = 0.03
_AT_ONCE = 50


def line_of(stream: str, number: int) -> bytes:
    """Line `number` of a stream; one in MARK_EVERY is marked with its identity, one in COUNT_EVERY is to be counted."""
    text = f"{stream} {number:010d} did something"
    if number % MARK_EVERY == 0:
        text = f"{stream} {number:010d} MARK id={stream}-{number}"
    if number % COUNT_EVERY == 0:
        text += " COUNT"
    return text.ljust(LINE_BYTES - 1, ".").encode() + b"\n"


class Stream:
    def __init__(self, folder: str, name: str) -> None:
        self.name = name
        self.path = os.path.join(folder, f"{name}.log")
        self.next = 1
        self.pausing = False
        self.file = -1
        self.open()

    def open(self) -> None:
        if self.file >= 0:
            os.close(self.file)
        self.file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        say(f"opened {self.name} {self.next}")

    def write(self) -> bool:
        """Some lines; False when that is all for now."""
        for _ in range(_AT_ONCE):
            os.write(self.file, line_of(self.name, self.next))
            self.next += 1
            if self.pausing and (self.next - 1) % MARK_EVERY == 0:
                say(f"paused {self.name} {self.next - 1}")
                return False
        return True


def say(what: str) -> None:
    sys.stdout.write(what + "\n")
    sys.stdout.flush()


def main(folder: str, *names: str) -> None:
    streams = {name: Stream(folder, name) for name in names}
    going: list[Stream] = []
    waiting = b""
    rest_at = time.monotonic() + BURST_S
    while True:
        rest_s = 0.0
        if time.monotonic() >= rest_at:
            rest_s, rest_at = BURST_S, time.monotonic() + 2 * BURST_S
        if select.select([0], [], [], rest_s if going else None)[0]:
            told = os.read(0, 65536)
            if not told:
                return
            *commands, waiting = (waiting + told).split(b"\n")
            for command in commands:
                word, _, name = command.decode().partition(" ")
                stream = streams[name]
                if word == "open":
                    stream.open()
                elif word == "pause":
                    stream.pausing = True
                else:
                    stream.pausing = False
                    going.append(stream)
        going = [stream for stream in going if stream.write()]


if __name__ == "__main__":
    main(*sys.argv[1:])
