"""
Whether somebody's words stand in a text, word for word.

In: a text, and a quote of it by a model. Out: yes or no.
Promise: pure. What differs in writing alone makes no difference: how many blanks or line ends there are between words,
escapes of JSON, blanks around its colons and commas, forms of quotation marks and accents, what cannot be seen.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cached_property

_ESCAPE = re.compile(r"\\(?:[nrt]|([\"'\\/]))")
_UNSEEN = re.compile(
    # Colours of a terminal, and what takes no room, as `evidence.visible` writes them out; joiners as they are.
    r"\\(?:x1b|u001b)\[[0-9;]{0,20}[A-Za-z]|\\xad|\\u(?:200b|200e|200f|2060|feff)|[\u200b-\u200f\u2060\ufeff\u00ad]"
)
_AROUND = re.compile(r" ?([:,{}\[\]]) ?")
_ALIKE = str.maketrans(
    {
        **dict.fromkeys("‘’‚‛′`´", "'"),  # noqa: RUF001  marks that models change
        **dict.fromkeys("“”„‟″«»", '"'),
        **dict.fromkeys("‐‑‒–—−", "-"),  # noqa: RUF001  so do dashes
    }
)


class Wording:
    """A text, or a quote, in the ways in which it may be written."""

    def __init__(self, *texts: str) -> None:
        self._texts = texts

    @cached_property
    def _plain(self) -> tuple[str, ...]:
        written = dict.fromkeys(form for text in self._texts for form in (text, _unescaped(text)))
        # As it stands first: a piece of what is folded away is found there alone.
        squeezed = [" ".join(form.split()) for form in written]
        return tuple(form for form in dict.fromkeys((*squeezed, *map(_folded, squeezed))) if form)

    @cached_property
    def _tight(self) -> tuple[str, ...]:
        return tuple(form for form in (_AROUND.sub(r"\1", form) for form in self._plain) if form)

    def holds(self, quote: Wording) -> bool:
        return any(said in text for said in quote._plain for text in self._plain) or any(
            said in text for said in quote._tight for text in self._tight
        )


def _folded(text: str) -> str:
    if "\\" in text or not text.isascii():
        text = _UNSEEN.sub("", text)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text).translate(_ALIKE)
    elif "`" in text:
        text = text.replace("`", "'")
    return " ".join(text.split())


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: match[1] or " ", text) if "\\" in text else text
