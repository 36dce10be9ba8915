"""
Answering the model: every call of a message gets its reply, whatever came of it.

In: a message of the model, what is to be said to its calls. Out: the messages that follow it.
Promise: pure. Each native call is answered by its id exactly once, or providers refuse all that follows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agentd.llm.actions import Note
from agentd.llm.port import ChatMessage


def replies(
    message: ChatMessage, texts: Mapping[str | None, str], rest: str, notes: Sequence[Note] = ()
) -> list[ChatMessage]:
    """
    texts: by the id of the native call; under None what is said to the message as a whole. rest: to calls, or to a
    message, of which nothing else is said. notes: what the reading of the message has to say about it.
    """
    told = dict(texts)
    for note in notes:
        key = note.call_id if message.tool_calls else None
        told[key] = f"{told[key]}\n\n{note.text}" if key in told else note.text
    general = told.pop(None, "")
    if not message.tool_calls:
        return [ChatMessage("user", general or rest)]
    answered = [
        ChatMessage("tool", told.get(call.id) or rest, name=call.name, tool_call_id=call.id)
        for call in message.tool_calls
    ]
    return [*answered, ChatMessage("user", general)] if general else answered
