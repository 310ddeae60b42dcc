"""Certificates for tests: authorities made on the spot, and what they sign, as PEM files in a test's directory."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from router.core.spec import CertificateSpec

_DAY: Final = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Signed:
    """A certificate with its key, and the names in it."""

    certificate: Path
    key: Path
    names: tuple[str, ...]
    serial: int

    @property
    def spec(self) -> CertificateSpec:
        return CertificateSpec(str(self.certificate), str(self.key), self.names, str(self.serial))

    def replace(self, other: Signed) -> None:
        """Put another certificate and key into the place of these, as a renewal does: by rename."""
        os.replace(other.certificate, self.certificate)
        os.replace(other.key, self.key)


class Authority:
    """A certificate authority; its own certificate is in the file ``ca``."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"test {name}")])
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
            key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
            decipher_only=False,
        )  # fmt: skip
        made = (
            self._builder(self._subject, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.ca = directory / f"{name}.pem"
        self.ca.write_bytes(made.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + _DAY)
        )

    def sign(self, *names: str, file: str = "") -> Signed:
        """A certificate for these names (IP addresses may be among them)."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        made = (
            self._builder(subject, key.public_key())
            .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
            .add_extension(issuer, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        stem = file or f"{self._name}-{names[0].replace('*', 'any')}"
        certificate, pem_key = self._directory / f"{stem}.pem", self._directory / f"{stem}.key"
        certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        pem_key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return Signed(certificate, pem_key, names, made.serial_number)

    def client(self, shows: Signed | None = None) -> ssl.SSLContext:
        """A client's context that trusts this authority alone, and may show a certificate."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if shows is not None:
            context.load_cert_chain(shows.certificate, shows.key)
        return context

    def server(self, signed: Signed, *, asks: bool = False) -> ssl.SSLContext:
        """A backend's context; ``asks``: clients have to show a certificate of this authority."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.ca))
        context.load_cert_chain(signed.certificate, signed.key)
        if asks:
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def serial_of(connection: ssl.SSLObject) -> int:
    """The serial number of what the other side has shown."""
    shown = connection.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number
