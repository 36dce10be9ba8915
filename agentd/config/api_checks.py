"""
What the API's own keys cannot know: who may reach it, and whether its keys are any.

In: raw data as it was read. Out: problems with places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agentd.config.checks import Entry
from agentd.config.key_hash import check_hash
from agentd.config.values import parse_listen
from agentd.errors import ConfigError, Problem
from agentd.secret import SecretMissing, SecretText


def check_api(root: Entry, environment: Mapping[str, str], *, reads: bool = True) -> Iterator[Problem]:
    """
    environment: in which the hashes of keys are looked up, where the configuration names them only, if that is to be
    done at all (reads).
    """
    api = root.raw.get("api")
    if not isinstance(api, dict):
        return
    keys = api.get("keys")
    listed = keys if isinstance(keys, list) else []
    yield from _check_listen(root, api.get("listen"), has_keys=any(isinstance(each, dict) for each in listed))
    yield from _check_keys(root, listed, environment, reads)


def _check_listen(root: Entry, listen: Any, *, has_keys: bool) -> Iterator[Problem]:
    seen = set()
    for index, address in enumerate(listen if isinstance(listen, list) else ()):
        path = ("api", "listen", index)
        try:
            parsed = parse_listen(address)
        except ValueError:
            continue  # the model says so
        if parsed in seen:
            yield root.problem(path, f"{address} stands here twice", "remove one of the two")
        seen.add(parsed)
        if parsed.local:
            continue
        if has_keys:
            what = f"{address} can be reached by others, and what they send, keys too, is not encrypted"
            cure = "put a proxy that speaks TLS in front, and listen on 127.0.0.1"
            yield root.problem(path, what, cure, warning=True)
        else:
            what = f"{address} can be reached by others, and there is no key to ask them for"
            yield root.problem(path, what, "make one with `agentd key new NAME`, or listen on 127.0.0.1")


def _check_keys(root: Entry, keys: list[Any], environment: Mapping[str, str], reads: bool) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, key in enumerate(keys):
        if not isinstance(key, dict):
            continue
        path = ("api", "keys", index)
        if isinstance(name := key.get("name"), str):
            if name in first:
                place = root.locate(("api", "keys", first[name], "name"), False)
                cure = f"rename one; the first stands at {place.file}:{place.line}:{place.column}"
                yield root.problem((*path, "name"), f"a second key is called {name}", cure)
            first.setdefault(name, index)
        if isinstance(text := key.get("hash"), str) and (reads or "${" not in text):
            try:
                check_hash(SecretText(text).expand(environment))
            except ConfigError as error:
                what, _, cure = str(error).partition("; ")
                yield root.problem((*path, "hash"), what, cure)
            except (SecretMissing, ValueError):
                pass  # what looks at every secret says so
