"""
The evidence of a run: what tools and logs said, each piece under an id that a finding can cite.

In: text from anywhere, written by whoever. Out: the same text, safe to be shown to a model and to be kept.
Promise: secrets are taken out before anything is kept; what a reader cannot see is written out; no text can end the
block that it stands in; memory is bounded. The same run id and texts give the same blocks, so that a replay matches.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from agentd.agent.excerpt import COUNT_MARK, head_and_tail, size_of
from agentd.agent.job import Exhibit
from agentd.agent.quoting import Wording
from agentd.telemetry.redact import redact

MOST_EXHIBITS = 1000
MOST_BYTES = 256 * 1024
MOST_BYTES_OF_ALL = 8 * 1024 * 1024
_TITLE_CHARS = 200
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")
_HIDDEN = re.compile(
    # Control characters save tab and newline; what changes the direction of reading; what takes no room; tags and
    # variation selectors, in which whole sentences can be hidden; halves of characters. (Joiners are part of scripts.)
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028\u2029"
    "\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff\ud800-\udfff]"
)
_LINE_ENDS = re.compile(r"\r+\n")
_CHAT_TOKENS = re.compile(
    # By these the chat templates of models tell who speaks; some servers take them for that within a text too.
    r"<[|\uff5c][^<>\n]{1,60}[|\uff5c]>|</?s>|<(?:start|end)_of_turn>|\[/?(?:INST|SYSTEM_PROMPT|TOOL_CALLS)\]"
    r"|<</?SYS>>|</?(?:tool_call|tool_response|think|function_calls|system|assistant|user)>",
    re.IGNORECASE,
)
_DEFUSED = str.maketrans({"<": "‹", ">": "›", "|": "¦", "\uff5c": "¦", "[": "(", "]": ")"})  # noqa: RUF001  look alike on purpose


def visible(text: str) -> str:
    """`text` with every character that hides, or hides others, written out (`\\x1b`, `\\u202e`); CR LF becomes LF."""
    if "\r" in text:
        text = _LINE_ENDS.sub("\n", text)
    return _HIDDEN.sub(_written_out, text)


def defused(text: str) -> str:
    """`text` in which the marks of chat templates (`<|im_start|>`, `[INST]`) are spelled so that they are none."""
    return _CHAT_TOKENS.sub(lambda match: match[0].translate(_DEFUSED), text)


def one_line(text: str, chars: int) -> str:
    """`text` redacted, visible, on one line of at most `chars` characters."""
    line = " ".join(defused(visible(redact(text[: max(4 * chars, 16_384)]))).split())
    return line if len(line) <= chars else line[: chars - 1] + "…"


class Fence:
    """
    The delimiter of one run: `<<data-1f2e3d4c e4 title`, lines, `data-1f2e3d4c>>`.

    mark: hashed from the run's id, so nobody can know it beforehand, and a replay finds the same.
    """

    def __init__(self, run: str) -> None:
        self.mark = "data-" + hashlib.blake2b(run.encode("utf-8", "replace"), digest_size=5).hexdigest()
        self._mark = re.compile(re.escape(self.mark), re.IGNORECASE)

    def clean(self, text: str) -> str:
        """`text` redacted, visible and without the mark."""
        return self.shown(redact(text))

    def shown(self, text: str) -> str:
        """`text`, that was redacted, visible and without the mark."""
        return self._mark.sub("[mark removed]", defused(visible(text)))

    def block(self, id: str, title: str, text: str) -> str:
        """A block of data. title and text: cleaned here once more in so far as they could end it."""
        line = self._mark.sub("[mark removed]", " ".join(title.split()))
        body = self._mark.sub("[mark removed]", text)
        return f"<<{self.mark} {id}{' ' if line else ''}{line}\n{body}\n{self.mark}>>"


class Exhibits:
    """
    What was seen in one run.

    run: its id, which gives the fence. most: how many exhibits are kept; bytes, bytes_of_all: of one and of all
    together, as UTF-8; what is longer is kept with its head and tail.
    """

    def __init__(
        self,
        run: str = "",
        exhibits: Iterable[Exhibit] = (),
        *,
        most: int = MOST_EXHIBITS,
        bytes: int = MOST_BYTES,
        bytes_of_all: int = MOST_BYTES_OF_ALL,
    ) -> None:
        self.fence = Fence(run)
        self._most, self._bytes, self._left = most, bytes, bytes_of_all
        self._kept: dict[str, Exhibit] = {}
        self._steps: dict[str, str] = {}
        self._wordings: dict[str, Wording] = {}
        self._last_quote: tuple[str, Wording] | None = None
        self._kept_bytes = 0
        self._next = 1
        for each in exhibits:
            self.add(each.id, each.title, each.text)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._kept)

    @property
    def all(self) -> tuple[Exhibit, ...]:
        """As they are kept, in their order."""
        return tuple(self._kept.values())

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, id: str, title: str, text: str, *, clean: bool = False) -> str:
        """
        Keep an exhibit. Returns its id: another one where this is taken or no id; empty when there are too many.

        clean: the fence has cleaned the text already.
        """
        if len(self._kept) >= self._most:
            return ""
        if not _ID.fullmatch(id) or id in self._kept:
            id = self._free()
        # Half of what is left, so that there is always room for one more.
        limit = min(self._bytes, self._left // 2)
        # Cut roughly before, since looking for secrets costs time, and well beyond what stays, lest half of one does.
        kept = head_and_tail(text if clean else self.fence.clean(head_and_tail(text, 4 * limit + 4096)), limit)
        size = size_of(kept)
        self._left -= size
        self._kept_bytes += size
        self._kept[id] = Exhibit(id=id, title=self.fence.clean(one_line(title, _TITLE_CHARS)), text=kept)
        return id

    def keep(self, title: str, text: str, *, step: str = "", clean: bool = False) -> str:
        """Keep an exhibit under the next free id. step: of the task that gave it, by which it may be cited too."""
        id = self.add("", title, text, clean=clean)
        if id and step:
            self._steps[step.lower()] = id
        return id

    @property
    def bytes(self) -> int:
        """Of all that is kept."""
        return self._kept_bytes

    def text(self, id: str) -> str:
        """What is kept under `id`; empty when nothing is."""
        exhibit = self._kept.get(id)
        return exhibit.text if exhibit else ""

    def title(self, id: str) -> str:
        exhibit = self._kept.get(id)
        return exhibit.title if exhibit else ""

    def block(self, id: str, text: str | None = None) -> str:
        """The exhibit as a model is shown it. text: an excerpt of it to show instead."""
        return self.fence.block(id, self.title(id), self.text(id) if text is None else text)

    def known(self, cited: str) -> str | None:
        """The id that somebody means who wrote `e4`, `[E4]`, `#e4` or the step's id `s3.1`."""
        name = cited.strip().strip("[](){}<>#\"'`*:;,. ")
        if name in self._kept:
            return name
        low = name.lower()
        return next((id for id in self._kept if id.lower() == low), None) or self._steps.get(low)

    def said(self, id: str, quote: str) -> bool:
        """Whether `quote` stands in the exhibit word for word, however it is written (`quoting`)."""
        if id not in self._kept:
            return False
        wording = self._wordings.get(id)
        if wording is None:
            wording = self._wordings[id] = Wording(self._kept[id].text)
        return wording.holds(self._worded(quote))

    def _worded(self, quote: str) -> Wording:
        """The quote as it may stand in an exhibit; the same one is mostly looked up in several."""
        if self._last_quote is None or self._last_quote[0] != quote:
            shown = self.fence.clean(quote)
            # A piece may look like a secret that the whole did not.
            self._last_quote = quote, Wording(shown, COUNT_MARK.sub("", shown), visible(quote))
        return self._last_quote[1]

    def _free(self) -> str:
        while f"e{self._next}" in self._kept:
            self._next += 1
        return f"e{self._next}"


def _written_out(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
