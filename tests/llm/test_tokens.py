"""Tokens by estimate: cheap, the same everywhere, rather too many than too few."""

from __future__ import annotations

import timeit
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.llm.port import ChatMessage, Request, ToolCall, ToolSpec
from agentd.llm.tokens import count_message, count_request, count_tokens

PROSE = "The agent reads the log templates, looks for the first error, and tells people what it found. "
CODE = "def answer(self, question: str) -> list[int]:\n    return [ord(each) % 7 for each in question if each != '_']\n"
LOG = "Jan  5 12:00:01 web-1 sshd[1234]: Failed password for root from 192.0.2.17 port 53212 ssh2\n"
TOOL = ToolSpec("read_file", "Reads a file.", {"type": "object", "properties": {"path": {"type": "string"}}})


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        # By the published vocabularies of the large families: characters a token.
        pytest.param(PROSE * 20, 3.5, 5.0, id="prose"),
        pytest.param(CODE * 20, 2.2, 3.8, id="code"),
        pytest.param(LOG * 20, 2.2, 3.5, id="log lines"),
        pytest.param("9f2c1aeb77d04f3c" * 40, 1.2, 2.2, id="hex"),
        pytest.param("QmFzZTY0IGlzIG5vIHByb3NlIGF0IGFsbA" * 40, 1.2, 2.2, id="base64"),
        pytest.param("服务器无法连接到数据库，请检查网络设置。" * 20, 0.6, 1.1, id="Chinese"),  # noqa: RUF001 - Chinese commas are what is counted
        pytest.param("サーバーがデータベースに接続できません。" * 20, 0.6, 1.1, id="Japanese"),
        pytest.param("서버가 데이터베이스에 연결할 수 없습니다. " * 20, 0.6, 1.4, id="Korean"),
        pytest.param("Сервер не может подключиться к базе данных. " * 20, 1.6, 3.0, id="Russian"),
        pytest.param("🔥🚨" * 50, 0.3, 0.6, id="emoji"),
    ],
)
def test_characters_a_token_are_those_of_the_script(text: str, least: float, most: float) -> None:
    """By four characters a token, the usual rule, Chinese logs overflow a window that seemed a quarter full."""
    assert least <= len(text) / count_tokens(text) <= most


@given(st.text(alphabet=st.characters(codec=None)))
def test_any_text_is_counted(text: str) -> None:
    """Model output holds half characters, NULs and worse: none may end a run."""
    assert (count_tokens(text) > 0) == bool(text)


@given(st.text(), st.text())
def test_more_text_is_never_fewer_tokens(text: str, more: str) -> None:
    """A window that shrinks by adding to it would never be compacted."""
    assert count_tokens(text + more) >= count_tokens(text)


def test_a_hundred_thousand_characters_take_milliseconds() -> None:
    """It is asked before every call; what takes the loop's time here is taken from every run."""
    text = (PROSE + CODE + LOG) * 350

    assert min(timeit.repeat(lambda: count_tokens(text), number=1, repeat=5)) < 0.03


def test_everything_that_is_sent_is_counted() -> None:
    """Tools and schemas are often half of a question; what is not counted is not reserved."""
    plain = Request("You look at logs.", [ChatMessage("user", "Why?")])
    parts = [
        Request("You look at logs. " * 9, plain.messages),
        Request(plain.system_prompt, [*plain.messages, ChatMessage("assistant", "Because.")]),
        Request(plain.system_prompt, plain.messages, tools=[TOOL]),
        Request(plain.system_prompt, plain.messages, answer_schema=TOOL.input_schema),
    ]

    assert all(count_request(more) > count_request(plain) for more in parts)


@pytest.mark.parametrize(
    "more",
    [
        ChatMessage("assistant", "x", tool_calls=(ToolCall("c1", "read_file", '{"path": "/var/log/syslog"}'),)),
        ChatMessage("assistant", "x", thinking="The disk may be full."),
        ChatMessage("tool", "x", name="read_file", tool_call_id="c1"),
        ChatMessage("assistant", "x", provider_data={"thought_signature": "QmFzZTY0" * 20}),
    ],
    ids=["calls", "thinking", "answer of a tool", "provider's own"],
)
def test_everything_of_a_message_is_counted(more: ChatMessage) -> None:
    """Reasoning and calls go back to the model with each step and fill its window like any text."""
    assert count_message(more) > count_message(ChatMessage("assistant", "x"))


def test_what_was_counted_once_is_not_taken_for_what_it_became() -> None:
    """Messages and tools remember their tokens; the window cuts messages, and a cut one must weigh less."""
    long = ChatMessage("user", "so it goes on " * 500)
    weight = count_message(long)

    assert count_message(long) == weight
    assert count_message(replace(long, content="short")) < 10
    assert long == ChatMessage("user", "so it goes on " * 500)
