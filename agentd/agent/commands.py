"""
Command lines and the patterns that let them run.

In: argv, patterns of words, forbidden prefixes. Out: yes or no, or the prefix.
Promise: pure. A word of a pattern stands for itself, `*` for one word that does not begin with `-`, and `/folder/*`
for one path beneath that folder; nothing stands for several words or none. Forbidding errs towards too much.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

# These run what their arguments say: what is forbidden stays so behind them.
# fmt: off
_RUNNERS = frozenset({
    "sudo", "doas", "su", "runuser", "setpriv", "env", "nice", "ionice", "chrt", "taskset", "nohup", "timeout",
    "setsid", "stdbuf", "time", "xargs", "parallel", "find", "busybox", "toybox", "chroot", "unshare", "nsenter",
    "systemd-run", "flock", "watch", "script", "ssh", "sh", "bash", "dash", "ash", "zsh", "ksh", "fish", "csh",
    "tcsh", "command", "exec", "eval", "strace", "ltrace", "gdb", "perl", "python", "python3", "ruby", "awk",
    "gawk", "mawk",
})
# fmt: on
_SEPARATORS = re.compile(r"[\s;|&()`{}\"'$,<>]+")

IsOpen = Callable[[str, str | None], bool]
"""Whether a word that stands for a star may be used; the folder it has to lie beneath, if there is one."""


def words_match(pattern: Sequence[str], argv: Sequence[str], is_open: IsOpen) -> bool:
    """Whether the command line is one that the pattern means. The program is never a star."""
    if not pattern or len(pattern) != len(argv) or argv[0] != pattern[0] or _is_star(pattern[0]):
        return False
    return all(_word_matches(want, word, is_open) for want, word in zip(pattern[1:], argv[1:], strict=True))


def _is_star(word: str) -> bool:
    return word == "*" or (word.startswith("/") and word.endswith("/*"))


def _word_matches(want: str, word: str, is_open: IsOpen) -> bool:
    if not _is_star(want):
        return want == word
    if not word or word.startswith("-") or not word.isprintable():
        return False
    if want == "*":
        return is_open(word, None)
    beneath = want[:-1]
    return word.startswith(beneath) and ".." not in word.split("/") and is_open(word, beneath.rstrip("/") or "/")


def pattern_covers(wide: Sequence[str], narrow: Sequence[str]) -> bool:
    """Whether whatever `narrow` means is meant by `wide` too."""
    if not wide or len(wide) != len(narrow) or wide[0] != narrow[0] or _is_star(narrow[0]):
        return False
    return all(_covers(want, word) for want, word in zip(wide[1:], narrow[1:], strict=True))


def _covers(wide: str, narrow: str) -> bool:
    if wide == narrow:
        return True
    if not _is_star(wide) or not narrow or narrow.startswith("-"):
        return False
    return wide == "*" or (narrow.startswith(wide[:-1]) and ".." not in narrow.split("/"))


def forbidden_by(prefixes: Sequence[str], argv: Sequence[str]) -> str | None:
    """
    The forbidden prefix that the command line begins with, if it does.

    Compared with single spaces and the program without its folder; flags in any order and grouping (`-fr`, `-r -f`,
    `--recursive --force` are `-rf`); and behind programs that run others (sudo, env, sh -c, xargs, find -exec).
    """
    lines = [_words(argv)]
    if lines[0] and lines[0][0] in _RUNNERS:
        spread = [part for word in argv for part in _SEPARATORS.split(word) if part]
        lines += [_words(spread[start:]) for start in range(1, len(spread))]
    for prefix in prefixes:
        wanted = _words(prefix.split())
        if wanted and any(_begins(line, wanted) for line in lines):
            return prefix
    return None


def _words(argv: Sequence[str]) -> list[str]:
    words = [part for word in argv for part in word.split()]
    if words:
        words[0] = words[0].rstrip("/").rpartition("/")[2] or words[0]
    return words


def _begins(line: list[str], wanted: list[str]) -> bool:
    if " ".join(line).startswith(" ".join(wanted)):
        return True
    flags = wanted[1:]
    if not line or line[0] != wanted[0] or not flags or not all(flag.startswith("-") for flag in flags):
        return False
    given = _flags(line[1:])
    return all(flag in given for flag in _flags(flags))


def _flags(words: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for word in words:
        if word == "--":
            break
        if word.startswith("--"):
            # --recursive is -r for whoever forbids -r; if it is not, too much is forbidden.
            found |= {word.partition("=")[0], word[2:3].lower()}
        elif word.startswith("-"):
            found |= set(word[1:].lower())
    return found
