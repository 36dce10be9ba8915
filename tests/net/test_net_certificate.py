"""Certificates are read from their bytes as a well-known library reads them."""

from __future__ import annotations

import ipaddress
import ssl
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from agentd.net.certificate import read_certificate

KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(
    subject: list[tuple[ObjectIdentifier, str]], *, ends: datetime, sans: list[x509.GeneralName] | None = None
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in subject])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(datetime(1999, 1, 1, tzinfo=UTC))
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if sans is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=True)
    return builder.sign(KEY, hashes.SHA256())


def der(built: x509.Certificate) -> bytes:
    return built.public_bytes(serialization.Encoding.DER)


SAMPLE = der(
    certificate(
        [
            (NameOID.COUNTRY_NAME, "DE"),
            (NameOID.ORGANIZATION_NAME, 'Käse, "Brot" + Co'),
            (NameOID.COMMON_NAME, "a.example"),
        ],
        ends=datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC),
        sans=[
            x509.DNSName("a.example"),
            x509.DNSName("*.a.example"),
            x509.RFC822Name("ops@a.example"),
            x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
        ],
    )
)


def test_every_field_is_read() -> None:
    read = read_certificate(SAMPLE)

    assert read.subject == 'C=DE, O=Käse\\, \\"Brot\\" \\+ Co, CN=a.example'
    assert read.issuer == read.subject
    assert read.sans == ("a.example", "*.a.example", "ops@a.example", "2001:db8::1")
    assert read.not_before == datetime(1999, 1, 1, tzinfo=UTC)
    assert read.not_after == datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)


def test_days_left_turn_negative_at_the_end() -> None:
    read = read_certificate(SAMPLE)

    assert read.days_left(read.not_after - timedelta(days=1.5)) == 1.5
    assert read.days_left(read.not_after + timedelta(days=3)) == -3


def test_dates_beyond_2050_are_written_in_another_form() -> None:
    """RFC 5280 changes the encoding in 2050; private authorities are past it today."""
    built = certificate([(NameOID.COMMON_NAME, "x")], ends=datetime(2051, 2, 3, 4, 5, 6, tzinfo=UTC))

    assert read_certificate(der(built)).not_after == datetime(2051, 2, 3, 4, 5, 6, tzinfo=UTC)


def test_a_certificate_without_names_is_read() -> None:
    read = read_certificate(der(certificate([], ends=datetime(2040, 1, 1, tzinfo=UTC))))

    assert (read.subject, read.sans) == ("", ())


def test_the_system_s_authorities_are_read_as_python_reads_them() -> None:
    """A hundred certificates of the real world, old encodings among them."""
    bundle = Path(certifi.where()).read_text()
    pems = [part + "-----END CERTIFICATE-----" for part in bundle.split("-----END CERTIFICATE-----")[:-1]]
    assert len(pems) > 50

    for pem in pems:
        raw = ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN") :])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some old ones break rules that do not matter here
            expected = x509.load_der_x509_certificate(raw)
        read = read_certificate(raw)
        assert (read.not_before, read.not_after) == (expected.not_valid_before_utc, expected.not_valid_after_utc)
        for attribute in expected.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
            assert f"CN={attribute.value!s}".replace(",", "\\,").replace("+", "\\+") in read.subject


@given(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255), st.integers(0, len(SAMPLE)))
def test_bytes_that_are_no_certificate_are_refused_cleanly(at: int, byte: int, length: int) -> None:
    """The other side chooses every byte of it."""
    raw = bytearray(SAMPLE)
    raw[at] = byte
    try:
        read_certificate(bytes(raw[:length]))
        read_certificate(bytes(raw))
    except ValueError:
        pass


@given(st.binary(max_size=200))
def test_noise_is_refused_cleanly(noise: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # any of them; the message is for a log at most
        read_certificate(noise)
