"""
Keys: who is let in, at what cost, and when not any more.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agentd.api import keys as module
from agentd.api.keys import WRONG_TOKENS, KnownKeys, check_hash, is_marked, make_key, name_of, verify
from agentd.api.service import TooMany
from agentd.config import key_hash
from agentd.config.service import ApiKey
from agentd.errors import ConfigError
from agentd.secret import SecretText

TOKEN = "agentd_ops.ocgqZOXZI6rcZr7aazTri31lIL2gtZV7n56p43RH2Ax"
HASH = "$scrypt$ln=14,r=8,p=1$WoAeq7rzxskSfHTv+r18tw$U1k5FoVt5cRNx9VcUh/g8qlWaRYRd/jRtWfQGk1Ecok"
OTHER_TOKEN = "agentd_ops.wSp5gh1v8QxwkhRWoYkIKAHkL6cErSQHt3In0pTwPxS"
OTHER_HASH = "$scrypt$ln=14,r=8,p=1$arOwxH6i+uj8nHPzsZUY4g$zSkN14hip0P808dn/Yq1VujlXBYp3quWBTBH6/0z7Ng"


def marked(number: int) -> str:
    """A wrong token as somebody could make it who has read the hash."""
    unmarked = f"agentd_ops.{number:036}"
    return unmarked + key_hash._parse(HASH).mark_of(unmarked)


def key(name: str = "ops", hash: str = HASH) -> ApiKey:
    return ApiKey(name=name, hash=SecretText(hash))


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tokens that were checked the slow way."""
    checked: list[str] = []

    def counting(token: str, hash_text: str) -> bool:
        checked.append(hash_text)
        return verify(token, hash_text)

    monkeypatch.setattr(module, "verify", counting)
    return checked


def test_a_token_fits_its_hash_and_no_other() -> None:
    """The whole of it."""
    assert verify(TOKEN, HASH)
    assert not verify(OTHER_TOKEN, HASH)
    assert not verify(TOKEN.replace("ops", "dev"), HASH)
    assert not verify(marked(1), HASH)
    assert (is_marked(TOKEN, HASH), is_marked(marked(1), HASH)) == (True, True)
    assert not is_marked(OTHER_TOKEN, HASH)
    assert not is_marked(TOKEN, None)
    assert TOKEN not in HASH


@pytest.mark.parametrize("name", ["ops", "a-b_c", "a.b.c", "0", "x" * 63])
def test_the_name_of_a_token_is_told_whatever_signs_it_holds(name: str) -> None:
    """One hash is checked, and it is the right one."""
    token, text = make_key(name)

    assert name_of(token) == name
    check_hash(text)


@pytest.mark.parametrize(
    "text",
    ["", "agentd_ops", "agentd_ops.", TOKEN + "x", TOKEN[:-1], f" {TOKEN}", TOKEN + "\n", "agentd_é." + "A" * 43],
)
def test_other_text_is_no_token(text: str) -> None:
    """It is turned away before anything costs time."""
    assert name_of(text) is None


@pytest.mark.parametrize("name", ["", "-x", "a/b", "a b", "x" * 64, "é", "a\n"])
def test_a_name_that_the_configuration_refuses_gets_no_key(name: str) -> None:
    """A key that cannot be written down is of no use."""
    with pytest.raises(ConfigError, match="no name of a key"):
        make_key(name)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("x", "no hash"),
        (HASH[:-5], "no hash"),
        (HASH + "=", "no hash"),
        (HASH.replace("scrypt", "argon2id"), "no hash"),
        (HASH.replace("ln=14", "ln=20"), "too long"),
        (HASH.replace("p=1", "p=999"), "too long"),
        (HASH.replace("r=8", "r=999"), "too long"),
        (HASH.replace("ln=14", "ln=1"), "no use"),
        (HASH.replace("r=8", "r=0"), "no use"),
        (HASH + "AA", "cut short"),
    ],
)
def test_a_hash_that_is_none_is_refused_with_a_cure(text: str, what: str) -> None:
    """Nor may it keep the daemon busy for a minute."""
    with pytest.raises(ConfigError, match=f"{what}.*agentd key new"):
        check_hash(text)
    assert not verify(TOKEN, text)


async def test_a_known_token_is_checked_once(checks: list[str]) -> None:
    """Each request with a key would take 40 ms otherwise."""
    known = KnownKeys([key()])

    found = [await known.find(TOKEN) for _ in range(3)]

    assert [each.name if each else None for each in found] == ["ops"] * 3
    assert len(checks) == 1


async def test_many_requests_with_one_new_token_wait_for_one_check(checks: list[str]) -> None:
    """A page opens six connections at once; a bench fifty."""
    known = KnownKeys([key()])

    found = await asyncio.gather(*(known.find(TOKEN) for _ in range(200)))

    assert {each.name if each else None for each in found} == {"ops"}
    assert len(checks) == 1


async def test_who_leaves_while_a_token_is_checked_does_not_end_the_check() -> None:
    """The next one has it known."""
    known = KnownKeys([key()])
    first, second = (asyncio.create_task(known.find(TOKEN)) for _ in range(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    first.cancel()

    assert (await second) is not None


async def test_invented_tokens_cost_no_check_and_lock_nobody_out(checks: list[str]) -> None:
    """Whoever reaches the port could otherwise keep out every key that was not used since the start."""
    known = KnownKeys([key()])
    invented = [f"agentd_{name}.{n:043}" for name in ("ops", "dev") for n in range(500)]

    found = await asyncio.gather(*(known.find(token) for token in [*invented, OTHER_TOKEN]))

    assert set(found) == {None}
    assert checks == []
    assert await known.find(TOKEN)
    assert checks == [HASH]


async def test_other_text_is_looked_at_by_nobody(checks: list[str]) -> None:
    """A bearer token of another system is turned away for nothing."""
    assert await KnownKeys([key()]).find("Zm9v") is None
    assert checks == []


async def test_wrong_tokens_are_checked_only_so_often(checks: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """They would keep a processor busy; who is known goes on meanwhile."""
    monkeypatch.setattr(module, "verify", lambda token, text: token == TOKEN)
    known = KnownKeys([key()])
    assert await known.find(TOKEN)
    for number in range(int(WRONG_TOKENS.count)):
        assert await known.find(marked(number)) is None

    with pytest.raises(TooMany) as refused:
        await known.find(marked(99))

    assert refused.value.retry_after_s >= 1
    assert await known.find(TOKEN)


async def test_a_crowd_of_wrong_tokens_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for its turn is bounded, and none of it is checked beyond the rate."""
    checked: list[str] = []

    def wrong(token: str, text: str) -> bool:
        checked.append(token)
        return False

    monkeypatch.setattr(module, "verify", wrong)
    known = KnownKeys([key()])

    answers = await asyncio.gather(*(known.find(marked(n)) for n in range(500)), return_exceptions=True)

    assert len(checked) <= WRONG_TOKENS.count + 1
    assert {type(each) for each in answers} == {TooMany, type(None)}


async def test_a_key_that_was_taken_away_is_not_found() -> None:
    """Revoked means now, for those too whom we remember."""
    known = KnownKeys([key()])
    assert await known.find(TOKEN)

    known.replace([])

    assert await known.find(TOKEN) is None


async def test_a_key_that_is_taken_away_while_it_is_checked_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reload does not wait for checks."""
    known = KnownKeys([key()])

    def reloaded(token: str, text: str) -> bool:
        known.replace([key(hash=OTHER_HASH)])
        return True

    monkeypatch.setattr(module, "verify", reloaded)

    assert await known.find(TOKEN) is None


async def test_after_a_reload_the_key_is_as_it_says_now_and_is_not_checked_anew(checks: list[str]) -> None:
    """A scope that was lowered holds at once."""
    known = KnownKeys([key()])
    assert await known.find(TOKEN)

    known.replace([ApiKey(name="ops", hash=SecretText(HASH), scope="admin")])
    found = await known.find(TOKEN)

    assert found is not None
    assert found.scope == "admin"
    assert len(checks) == 1


async def test_a_hash_that_was_rotated_in_its_file_counts_without_a_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the old token is out, however well we knew it."""
    monkeypatch.setattr(module, "_LOOK_AGAIN_S", 0.0)
    (tmp_path / "hash").write_text(HASH + "\n")
    known = KnownKeys([key(hash=f"${{file:{tmp_path}/hash}}")])
    assert await known.find(TOKEN)

    (tmp_path / "hash").write_text(OTHER_HASH)

    assert await known.find(TOKEN) is None
    assert await known.find(OTHER_TOKEN)


@pytest.mark.parametrize("content", [None, "", "not a hash", HASH.replace("ln=14", "ln=30")])
async def test_a_key_whose_hash_is_unusable_lets_nobody_in(content: str | None, tmp_path: Path) -> None:
    """And nobody is told that there is such a key."""
    if content is not None:
        (tmp_path / "hash").write_text(content)
    known = KnownKeys([key(hash=f"${{file:{tmp_path}/hash}}")])

    assert await known.find(TOKEN) is None


async def test_many_first_requests_find_the_hash_that_is_still_being_read(tmp_path: Path) -> None:
    """The second must not meet an empty place where the first one reads."""
    (tmp_path / "hash").write_text(HASH)
    known = KnownKeys([key(hash=f"${{file:{tmp_path}/hash}}")])

    found = await asyncio.gather(*(known.find(TOKEN) for _ in range(20)))

    assert None not in found
