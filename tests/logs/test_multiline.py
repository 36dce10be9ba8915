"""Which lines belong together: traces as the languages really print them, and what holds for any text at all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentd.errors import ConfigError
from agentd.logs.multiline import MAX_BYTES, MAX_LINES, Joiner, make_joiner

AUTO = make_joiner("auto")


def split(text: str, joiner: Joiner = AUTO) -> list[str]:
    data = text.encode()
    return [data[begin:end].decode() for begin, end in joiner.entries(data)]


PYTHON = """\
2026-11-20 09:00:00,123 ERROR app: could not serve
Traceback (most recent call last):
  File "/srv/app/views.py", line 12, in show
    return load(key)
           ^^^^^^^^^
  File "/srv/app/store.py", line 4, in load
    raise KeyError(key)
KeyError: 'shop'
"""
CHAINED = """\
Traceback (most recent call last):
  File "a.py", line 2, in f
    int("x")
ValueError: invalid literal for int() with base 10: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 4, in <module>
    f()
app.errors.Broken: no number

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "a.py", line 9, in <module>
    raise RuntimeError from error
RuntimeError
"""
GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "a.py", line 1, in <module>
  |     raise ExceptionGroup("several", errors)
  | ExceptionGroup: several (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | ValueError: one
    +---------------- 2 ----------------
    | Traceback (most recent call last):
    |   File "a.py", line 7, in g
    | TypeError: two
    +------------------------------------
"""
SYNTAX = """\
Traceback (most recent call last):
  File "main.py", line 1, in <module>
    import broken
  File "broken.py", line 3
    def f(:
          ^
SyntaxError: invalid syntax
"""
JAVA = """\
2026-11-20 09:00:00.123 ERROR 12 --- [main] c.e.App : request failed
java.lang.IllegalStateException: no pool
\tat com.example.Pool.take(Pool.java:42)
\tat com.example.App.main(App.java:7)
\tSuppressed: java.io.IOException: close
\t\tat com.example.Pool.close(Pool.java:50)
Caused by: java.net.ConnectException: Connection refused
\tat java.base/sun.nio.ch.Net.connect(Native Method)
\t... 23 more
"""
JAVA_MAIN = """\
Exception in thread "main" java.lang.NullPointerException
\tat Main.main(Main.java:3)
Caused by: kotlin.KotlinNullPointerException
\tat MainKt.f(Main.kt:9)
\t... 1 more
"""
GO = """\
panic: runtime error: index out of range [5] with length 3 [recovered]
\tpanic: again

[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x47a1b2]

goroutine 1 [running]:
main.(*Server).handle(0xc000012345, {0x1, 0x2})
\t/src/main.go:12 +0x1d
net/http.HandlerFunc.ServeHTTP(...)
\t/usr/local/go/src/net/http/server.go:2136
created by main.main in goroutine 7
\t/src/main.go:30 +0x85

goroutine 18 [chan receive, 2 minutes]:
main.worker()
\t/src/worker.go:9 +0x25
exit status 2
"""
GO_SERVED = """\
2026/11/20 09:00:00 http: panic serving 10.0.0.1:5000: boom
goroutine 7 [running]:
net/http.(*conn).serve.func1()
\t/usr/local/go/src/net/http/server.go:1868 +0xb9
"""
NODE = """\
/srv/app/index.js:12
    throw new TypeError('no shop')
    ^

TypeError: no shop
    at Object.<anonymous> (/srv/app/index.js:12:11)
    at node:internal/main/run_main_module:23:47 {
  code: 'E_SHOP'
}

Node.js v20.11.1
"""
NODE_REJECTED = """\
node:internal/process/promises:288
            triggerUncaughtException(err, true /* fromPromise */);
            ^

[UnhandledPromiseRejection: This error originated by throwing inside of an async function] {
  code: 'ERR_UNHANDLED_REJECTION'
}

Node.js v18.19.0
"""
NODE_LOGGED = """\
TypeError: Cannot read properties of undefined (reading 'id')
    at handler (/srv/app/routes.js:9:21)
    at process.processTicksAndRejections (node:internal/process/task_queues:95:5)
"""
DOTNET = """\
Unhandled exception. System.InvalidOperationException: no shop
 ---> System.Net.Sockets.SocketException (111): Connection refused
   at System.Net.Sockets.Socket.Connect(EndPoint remoteEP)
   --- End of inner exception stack trace ---
   at Shop.Program.Main(String[] args) in /src/Program.cs:line 12
--- End of stack trace from previous location ---
   at Shop.Program.<Main>(String[] args)
"""
RUBY = """\
app.rb:3:in `load': no shop (RuntimeError)
\tfrom app.rb:7:in `block in run'
\tfrom app.rb:9:in `<main>'
"""
RAILS = """\
F, [2026-11-20T09:00:00.123456 #12] FATAL -- : RuntimeError (no shop):
app/controllers/shop_controller.rb:12:in `show'
lib/middleware.rb:4:in `call'
"""
PHP = """\
[20-Nov-2026 09:00:00 UTC] PHP Fatal error:  Uncaught RuntimeException: no shop in /srv/a.php:3
Stack trace:
#0 /srv/b.php(12): load('shop')
#1 {main}

Next LogicException: worse in /srv/a.php:9
Stack trace:
#0 {main}
  thrown in /srv/a.php on line 9
"""
RUST = """\
thread 'main' panicked at src/main.rs:2:5:
called `Option::unwrap()` on a `None` value
stack backtrace:
   0: rust_begin_unwind
             at /rustc/abc/library/std/src/panicking.rs:645:5
   1: main::main
note: run with `RUST_BACKTRACE=full` for a verbose backtrace
"""
RUST_OLD = """\
thread 'worker-1' panicked at 'no shop', src/main.rs:2:5
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace
"""
PRETTY = """\
{
  "level": "error",
  "tags": [
    "a"
  ]
}
"""
TRACES = {
    "python": PYTHON,
    "chained": CHAINED,
    "group": GROUP,
    "syntax": SYNTAX,
    "java": JAVA,
    "java_main": JAVA_MAIN,
    "go": GO,
    "go_served": GO_SERVED,
    "node": NODE,
    "node_rejected": NODE_REJECTED,
    "node_logged": NODE_LOGGED,
    "dotnet": DOTNET,
    "ruby": RUBY,
    "rails": RAILS,
    "php": PHP,
    "rust": RUST,
    "rust_old": RUST_OLD,
    "pretty": PRETTY,
}
HEADS = [
    "2026-11-20T09:00:00Z up",
    "2026-11-20 09:00:00,123 INFO up",
    "[2026-11-20 09:00:00] up",
    "2026/11/20 09:00:00 up",
    "Nov  5 09:00:01 host sshd[1]: up",
    "<34>1 2026-11-20T09:00:00Z h p - - - up",
    "[Fri Nov 20 09:00:00.123456 2026] [core:error] up",
    "20-Nov-2026 09:00:00.123 INFO [main] up",
    "I1120 09:00:00.123456       1 main.go:12] up",
    "1234:M 20 Nov 2026 09:00:00.123 * up",
    '10.0.0.1 - - [20/Nov/2026:09:00:00 +0000] "GET / HTTP/1.1" 200 1',
    '{"level":"info","msg":"up"}',
    "time=2026-11-20T09:00:00Z level=info msg=up",
    "level=info msg=up",
    "INFO:root:up",
    "WARN  up",
    "[error] up",
    "09:00:00.123 [main] up",
    "1763629200.123    200 10.0.0.1 TCP_MISS",
    "Nov 20, 2026 9:00:00 AM org.example.App up",
    "  2026-11-20T09:00:00.123Z  INFO app: up",
]


@pytest.mark.parametrize("name", TRACES)
def test_a_trace_is_one_entry(name: str) -> None:
    """An alert that shows half a traceback sends people back to the file."""
    assert split(TRACES[name]) == [TRACES[name].rstrip("\n")]


@pytest.mark.parametrize("name", TRACES)
@pytest.mark.parametrize("head", HEADS)
def test_a_line_with_time_or_level_begins_anew_after_any_trace(name: str, head: str) -> None:
    """What is swallowed by the trace before it is never seen for itself."""
    assert split(TRACES[name] + head + "\n")[1:] == [head]


@pytest.mark.parametrize("name", TRACES)
def test_an_ordinary_line_begins_anew_after_any_trace(name: str) -> None:
    """Programs without times in their logs have traces too."""
    assert split(f"started well\nand so on\n{TRACES[name]}listening on port 80\n") == [
        "started well",
        "and so on",
        TRACES[name].rstrip("\n"),
        "listening on port 80",
    ]


@pytest.mark.parametrize("first", TRACES)
@pytest.mark.parametrize("second", TRACES)
def test_two_traces_in_a_row_are_two_entries(first: str, second: str) -> None:
    """A storm of failures must be counted one by one."""
    assert split(TRACES[first] + TRACES[second]) == [TRACES[first].rstrip("\n"), TRACES[second].rstrip("\n")]


def test_windows_line_ends_change_nothing() -> None:
    """A .NET or Java service on Windows writes the same traces; no entry ends with a carriage return."""
    for text in TRACES.values():
        windows = text.replace("\n", "\r\n")

        assert split(windows) == [windows.rstrip("\r\n")]


def test_indented_lines_belong_to_the_line_above() -> None:
    """Query plans, headers, maps: what is indented explains what is not."""
    assert split("LOG\n  a\n\tb\nnext\n") == ["LOG\n  a\n\tb", "next"]


def test_a_traceback_without_log_line_stands_alone() -> None:
    """After a line that shows neither time nor level nothing says that the traceback is its own."""
    assert split("started\n" + SYNTAX) == ["started", SYNTAX.rstrip("\n")]


def test_what_follows_the_last_line_of_a_traceback_begins_anew() -> None:
    """`Error: x` after a traceback is the next thing that went wrong."""
    assert split(PYTHON + "retry: soon\n")[1:] == ["retry: soon"]


def test_no_entry_is_longer_than_its_bounds() -> None:
    """A file of indented lines would otherwise be one entry of a gigabyte."""
    text = b"head\n" + b" x\n" * 1200 + b" " + b"y" * 70_000 + b"\n z\n"

    sizes = [text.count(b"\n", begin, end) + 1 for begin, end in AUTO.entries(text)]

    assert sizes == [500, 500, 201, 1, 1]
    assert AUTO.complete(b" x\n" * MAX_LINES) == 3 * MAX_LINES
    assert AUTO.complete(b"x" * MAX_BYTES + b"\n") == MAX_BYTES + 1


def test_the_last_entry_may_go_on() -> None:
    """At the edge of a block nobody knows yet whether the next line is one more frame."""
    text = ("one\n" + PYTHON).encode()

    assert AUTO.complete(text) == 4
    assert AUTO.complete(b"") == 0


def test_a_pattern_says_what_begins_an_entry() -> None:
    """Where guessing fails, the operator knows."""
    joiner = make_joiner(r"^\d+\)")

    assert split("lead\n1) a\n b\nc\n22) d\n", joiner) == ["lead", "1) a\n b\nc", "22) d"]


def test_a_pattern_that_RE2_cannot_take_is_an_error_at_load() -> None:
    """Later there is nobody to read it."""
    with pytest.raises(ConfigError, match="look-around"):
        make_joiner("(?<=x)")


def test_many_hits_in_one_endless_run_cost_no_more_than_its_length() -> None:
    """A hostile file must not stall the log thread: no line is looked at anew for every hit."""
    looked = 0

    class Counting:
        def begins(self, line: bytes) -> bool:
            nonlocal looked
            looked += 1
            return False

        def sure(self, line: bytes, before: bytes) -> bool:
            return self.begins(line)

    from agentd.logs.multiline import Joined

    joiner = Joined(Counting)
    text = b" x\n" * 20_000

    for index in range(0, len(text), 3):
        joiner.bounds(text, index)

    assert looked < 6 * 20_000


LINES = st.lists(
    st.sampled_from([line for text in TRACES.values() for line in text.splitlines()] + HEADS)
    | st.sampled_from(["", " ", "x", "x y", "\t", "}", "^", "x: y", "panic: x", "goroutine 1 [x]:", "note: x", "\r"])
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"), max_size=20),
    max_size=60,
)
JOINERS = {"plain": make_joiner(None), "auto": AUTO, "pattern": make_joiner("^[a-z]")}


@pytest.mark.parametrize("name", JOINERS)
@given(LINES, st.booleans())
@settings(deadline=None, max_examples=150)
def test_bounds_agree_with_entries_and_entries_cover_the_text(name: str, lines: list[str], windows: bool) -> None:
    """The rules see entries by `bounds`, the replay by `entries`: they must see the same."""
    joiner = JOINERS[name]
    text = "".join(line + ("\r\n" if windows else "\n") for line in lines).encode()
    entries = list(joiner.entries(text))
    begins = [begin for begin, _ in entries]

    assert begins[:1] == ([0] if text else [])
    assert begins == sorted(set(begins))
    for (begin, end), after in zip(entries, [*begins, len(text)][1:], strict=True):
        assert begin <= end <= after
        assert not text[end:after].strip(b"\r\n")
        assert after == len(text) or text[after - 1 : after] == b"\n"
        for index in {begin, (begin + after) // 2, after - 1}:
            assert joiner.bounds(text, index) == (begin, end)
    assert joiner.complete(text) in {*begins, len(text)}


@given(st.binary(max_size=400))
@settings(deadline=None)
def test_any_bytes_are_taken(data: bytes) -> None:
    """Log files hold what attackers put there."""
    for joiner in JOINERS.values():
        entries = list(joiner.entries(data))

        assert [joiner.bounds(data, begin) for begin, _ in entries] == entries
