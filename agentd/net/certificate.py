"""
What a certificate says, read from its DER bytes.

`SSLSocket.getpeercert()` is empty whenever verification is off, and just then (expired, unknown issuer) the dates are
wanted; the bytes are there always. Python decodes them only in private functions, so this reads the few fields
needed: X.509 v3 by RFC 5280 §4.1, DER by X.690 §8.
In: DER bytes of anybody. Out: `Certificate`. Raises ValueError for bytes that are none; reads no byte twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address


@dataclass(frozen=True, slots=True)
class Certificate:
    """
    subject, issuer: as `CN=example.com, O=Example`, in the certificate's order, special characters escaped (RFC 4514).
    sans: the names it is valid for: host names, addresses, and mail addresses or URIs where there are any.
    """

    subject: str
    issuer: str
    sans: tuple[str, ...]
    not_before: datetime
    not_after: datetime

    def days_left(self, now: datetime) -> float:
        """Days until it expires, negative when it has."""
        return (self.not_after - now).total_seconds() / 86400


_INTEGER, _OCTETS, _OID, _SEQUENCE, _SET = 0x02, 0x04, 0x06, 0x30, 0x31
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_SAN = bytes.fromhex("551d11")
_ENCODINGS = {0x0C: "utf-8", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1C: "utf-32-be", 0x1E: "utf-16-be"}
_ATTRIBUTES = {
    bytes.fromhex("550403"): "CN",
    bytes.fromhex("550405"): "serialNumber",
    bytes.fromhex("550406"): "C",
    bytes.fromhex("550407"): "L",
    bytes.fromhex("550408"): "ST",
    bytes.fromhex("55040a"): "O",
    bytes.fromhex("55040b"): "OU",
    bytes.fromhex("2a864886f70d010901"): "emailAddress",
    bytes.fromhex("0992268993f22c640119"): "DC",
}

_Element = tuple[int, bytes]


@lru_cache(maxsize=256)
def read_certificate(der: bytes) -> Certificate:
    """Read the fields. Cached, because a watched host shows the same certificate for months."""
    certificate = _only(der, _SEQUENCE)
    fields = _elements(_first(certificate, _SEQUENCE))
    tag, content = _next(fields)
    if tag == _VERSION:
        tag, content = _next(fields)
    _expect(tag, _INTEGER)  # serial number
    _expect(_next(fields)[0], _SEQUENCE)  # signature algorithm
    issuer = _name(_take(fields, _SEQUENCE))
    validity = _elements(_take(fields, _SEQUENCE))
    not_before, not_after = _time(*_next(validity)), _time(*_next(validity))
    subject = _name(_take(fields, _SEQUENCE))
    _take(fields, _SEQUENCE)  # public key
    sans: tuple[str, ...] = ()
    for tag, content in fields:
        if tag == _EXTENSIONS:
            sans = _subject_alt_names(content)
    return Certificate(subject, issuer, sans, not_before, not_after)


def _elements(data: bytes) -> Iterator[_Element]:
    position, end = 0, len(data)
    while position < end:
        if end - position < 2:
            raise ValueError("certificate ends inside an element")
        tag, length = data[position], data[position + 1]
        position += 2
        if tag & 0x1F == 0x1F:
            raise ValueError("certificate holds a tag of many bytes")
        if length & 0x80:
            size = length & 0x7F
            if not 1 <= size <= 4 or position + size > end:
                raise ValueError("certificate holds a length that cannot be")
            length = int.from_bytes(data[position : position + size], "big")
            position += size
        if position + length > end:
            raise ValueError("certificate ends inside an element")
        yield tag, data[position : position + length]
        position += length


def _next(elements: Iterator[_Element]) -> _Element:
    try:
        return next(elements)
    except StopIteration:
        raise ValueError("certificate lacks a field") from None


def _expect(tag: int, wanted: int) -> None:
    if tag != wanted:
        raise ValueError(f"certificate holds tag {tag:#x} where {wanted:#x} belongs")


def _take(elements: Iterator[_Element], wanted: int) -> bytes:
    tag, content = _next(elements)
    _expect(tag, wanted)
    return content


def _first(data: bytes, wanted: int) -> bytes:
    return _take(_elements(data), wanted)


def _only(data: bytes, wanted: int) -> bytes:
    elements = _elements(data)
    content = _take(elements, wanted)
    if next(elements, None) is not None:
        raise ValueError("bytes follow the certificate")
    return content


def _time(tag: int, content: bytes) -> datetime:
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        # RFC 5280 §4.1.2.5.1: two-digit years from 50 on are of the last century.
        text = ("20" if text < "50" else "19") + text
    else:
        _expect(tag, _GENERALIZED_TIME)
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _text(tag: int, content: bytes) -> str:
    encoding = _ENCODINGS.get(tag)
    return content.hex() if encoding is None else content.decode(encoding, "replace")


def _name(data: bytes) -> str:
    parts = []
    for tag, relative in _elements(data):
        _expect(tag, _SET)
        for tag, attribute in _elements(relative):
            _expect(tag, _SEQUENCE)
            pair = _elements(attribute)
            oid = _take(pair, _OID)
            parts.append(f"{_ATTRIBUTES.get(oid) or _dotted(oid)}={_escaped(_text(*_next(pair)))}")
    return ", ".join(parts)


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in ',+"\\<>;' else c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _dotted(oid: bytes) -> str:
    numbers, value = [], 0
    for byte in oid[:64]:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(value)
            value = 0
    if not numbers:
        return "?"
    first = min(numbers[0] // 40, 2)
    return ".".join(str(number) for number in (first, numbers[0] - 40 * first, *numbers[1:]))


def _subject_alt_names(data: bytes) -> tuple[str, ...]:
    names: list[str] = []
    for tag, extension in _elements(_first(data, _SEQUENCE)):
        _expect(tag, _SEQUENCE)
        parts = list(_elements(extension))
        if len(parts) < 2 or parts[0] != (_OID, _SAN) or parts[-1][0] != _OCTETS:
            continue
        for kind, content in _elements(_only(parts[-1][1], _SEQUENCE)):
            if kind in (0x81, 0x82, 0x86):  # mail address, host name, URI
                names.append(content.decode("ascii", "replace"))
            elif kind == 0x87 and len(content) in (4, 16):
                names.append(str(ip_address(content)))
    return tuple(names)
