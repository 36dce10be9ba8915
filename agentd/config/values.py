"""
Values of the configuration that are more than a word: fail_after, addresses, labels.

In: what YAML gave. Out: small frozen values. Raises ValueError with what and how to mend.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema

MAX_WINDOW = 100

_N_OF_M = re.compile(r"([0-9]{1,6}) of ([0-9]{1,6})")
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*", re.ASCII)
_URL = re.compile(r"https?://[^\s/]+\S*")
_ORIGIN = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[^\s/\[\]:]+)(?::([0-9]{1,5}))?")
_USUAL_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class FailAfter:
    """Firing begins when `needed` of the last `of` checks failed; `3` is 3 of 3. 1 <= needed <= of <= 100."""

    needed: int
    of: int

    def __str__(self) -> str:
        return str(self.needed) if self.needed == self.of else f"{self.needed} of {self.of}"


def parse_fail_after(value: Any) -> FailAfter:
    """Read `3` or `3 of 5`."""
    if isinstance(value, FailAfter):
        return value
    needed = of = 0
    if isinstance(value, int) and not isinstance(value, bool):
        needed = of = value
    elif isinstance(value, str) and (match := _N_OF_M.fullmatch(" ".join(value.split()))):
        needed, of = int(match[1]), int(match[2])
    if 1 <= needed <= of <= MAX_WINDOW:
        return FailAfter(needed, of)
    raise ValueError(f"cannot read fail_after {_short(value)}; write 3, or 3 of 5 (at most {MAX_WINDOW})")


FailAfterField = Annotated[
    FailAfter,
    BeforeValidator(parse_fail_after),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": MAX_WINDOW},
                {"type": "string", "pattern": r"^[0-9]+ of [0-9]+$"},
            ],
            "examples": [3, "3 of 5"],
        }
    ),
]


@dataclass(frozen=True, slots=True)
class Listen:
    """One address the API listens on: a unix socket (`path`) or a TCP host and port."""

    path: str | None = None
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def local(self) -> bool:
        """True when only this machine can reach it."""
        if self.path is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_listen(value: Any) -> Listen:
    """Read `unix:/run/agentd/api.sock`, `127.0.0.1:8787` or `[::1]:8787`."""
    if isinstance(value, Listen):
        return value
    if isinstance(value, str):
        if value.startswith("unix:/") and len(value) > len("unix:/"):
            if len(value.encode()) - len("unix:") <= 107:  # sun_path of unix(7)
                return Listen(path=value.removeprefix("unix:"))
            raise ValueError("the path of a unix socket is longer than 107 bytes; choose a shorter one")
        try:
            return Listen(None, *_host_port(value))
        except ValueError:
            pass
    raise ValueError(
        f'cannot read address {_short(value)}; write "unix:/run/agentd/api.sock", "127.0.0.1:8787" or "[::1]:8787"'
    )


ListenField = Annotated[
    Listen,
    BeforeValidator(parse_listen),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^(unix:/.+|.+:[0-9]+)$",
            "examples": ["unix:/run/agentd/api.sock", "127.0.0.1:8787", "[::1]:8787"],
        }
    ),
]


def parse_host(value: Any) -> str:
    """Read the name or address that a Host header carries, without its port: `status.example`, `192.0.2.1`, `::1`."""
    if isinstance(value, str):
        host = value.lower().removesuffix(".")
        if _HOST.fullmatch(host) and len(host) <= 253:
            return host
        try:
            return str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))
        except ValueError:
            pass
    raise ValueError(f"cannot read name {_short(value)}; write it alone, without https:// and port: status.example")


HostField = Annotated[
    str,
    BeforeValidator(parse_host),
    WithJsonSchema({"type": "string", "pattern": r"^[^/]+$", "examples": ["status.example"]}),
]


def parse_origin(value: Any) -> str:
    """Read the origin of web pages as browsers send it: `https://status.example`, `http://[::1]:3000`."""
    if isinstance(value, str) and (match := _ORIGIN.fullmatch(value.lower())):
        scheme, host, port = match.groups()
        try:
            bare = parse_host(host)
            if (host[0] == "[") == (":" in bare) and (port is None or 1 <= int(port) <= 65535):
                usual = port is None or int(port) == _USUAL_PORTS[scheme]
                return f"{scheme}://" + (f"[{bare}]" if ":" in bare else bare) + ("" if usual else f":{int(port)}")
        except ValueError:
            pass
    if value == "*":
        raise ValueError("`*` is every web page there is; name those that may call, such as https://status.example")
    raise ValueError(
        f"cannot read origin {_short(value)}; write http or https, a name and a port, and nothing after them: "
        "https://status.example, http://192.0.2.1:3000"
    )


OriginField = Annotated[
    str,
    BeforeValidator(parse_origin),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": r"^https?://[^/*?#@]+$",
            "examples": ["https://status.example", "http://192.0.2.1:3000"],
        }
    ),
]


@dataclass(frozen=True, slots=True)
class Target:
    """A TCP address that is probed to learn whether our own network works."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"tcp:[{self.host}]:{self.port}" if ":" in self.host else f"tcp:{self.host}:{self.port}"


def parse_target(value: Any) -> Target:
    """Read `tcp:192.0.2.1:443` or `tcp:[2001:db8::1]:443`."""
    if isinstance(value, Target):
        return value
    if isinstance(value, str) and value.startswith("tcp:"):
        try:
            return Target(*_host_port(value.removeprefix("tcp:")))
        except ValueError:
            pass
    raise ValueError(f'cannot read target {_short(value)}; write "tcp:192.0.2.1:443" or "tcp:[2001:db8::1]:443"')


TargetField = Annotated[
    Target,
    BeforeValidator(parse_target),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^tcp:.+:[0-9]+$", "examples": ["tcp:192.0.2.1:443"]}),
]


def _host_port(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        ipaddress.IPv6Address(host)
    elif ":" in host:
        raise ValueError("an IPv6 address stands in brackets")
    if not host or not colon or re.search(r"[\s/]", host) or not re.fullmatch("[0-9]{1,5}", port):
        raise ValueError("not host:port")
    if not 1 <= int(port) <= 65535:
        raise ValueError("a port is 1 to 65535")
    return host, int(port)


def _url(text: str) -> str:
    if _URL.fullmatch(text):
        return text
    raise ValueError("is not an http:// or https:// address; write e.g. https://collector.example:4318")


Url = Annotated[
    str,
    AfterValidator(_url),
    WithJsonSchema({"type": "string", "pattern": r"^https?://", "description": "An http:// or https:// address"}),
]


def _label(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


Labels = dict[
    str,
    Annotated[
        str,
        BeforeValidator(_label),
        WithJsonSchema({"type": ["string", "number", "boolean"]}),
    ],
]
"""Names and values that alerts carry and routes match on."""


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
