"""The pool's certificate authority: made once, signs what controllers show to clients and agents.

SPDX-License-Identifier: Apache-2.0
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from outboard.errors import ConfigurationError
from outboard.model.token import authority_mark

AUTHORITY_DAYS = 3650
SERVER_DAYS = 825
_CLOCK_SLACK = dt.timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate and its private key, both PEM."""

    certificate_pem: bytes
    key_pem: bytes


class Authority:
    """A self-signed P-256 certificate that may sign servers and nothing below them."""

    def __init__(self, credential: Credential) -> None:
        """Raises `ConfigurationError` if certificate and key are not a pair that can be read."""
        self.credential = credential
        try:
            self._certificate = x509.load_pem_x509_certificate(credential.certificate_pem)
            key = serialization.load_pem_private_key(credential.key_pem, None)
        except ValueError as error:
            raise ConfigurationError(f"the authority's files cannot be read: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or (
            key.public_key() != self._certificate.public_key()
        ):
            raise ConfigurationError("the authority's key does not belong to its certificate")
        self._key = key

    @classmethod
    def create(cls, name: str, now: dt.datetime) -> Authority:
        """A new authority; `name` is for people."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
        builder = (
            _builder(subject, subject, key.public_key(), now, AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
        )
        certificate = builder.sign(key, hashes.SHA256())
        return cls(Credential(_pem(certificate), _private_pem(key)))

    @property
    def mark(self) -> str:
        """What tokens of this pool end with."""
        return authority_mark(self._certificate.public_bytes(serialization.Encoding.DER))

    def issue_server(self, names: Iterable[str], now: dt.datetime) -> Credential:
        """A certificate for a controller that is reached under these host names and addresses."""
        alternatives = [_alternative(name) for name in dict.fromkeys(names)]
        if not alternatives:
            raise ConfigurationError(
                "a controller's certificate needs a name", "give it one: --name HOST"
            )
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "outboard controller")])
        issuer = self._certificate.subject
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            _builder(subject, issuer, key.public_key(), now, SERVER_DAYS)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(identifier, critical=False)
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        return Credential(_pem(certificate) + self.credential.certificate_pem, _private_pem(key))


def write_credential(folder: str, name: str, credential: Credential) -> None:
    """`NAME.pem` and `NAME.key` (0600), each put in place in one step."""
    _place(os.path.join(folder, f"{name}.key"), credential.key_pem, 0o600)
    _place(os.path.join(folder, f"{name}.pem"), credential.certificate_pem, 0o644)


def read_credential(folder: str, name: str) -> Credential:
    """What `write_credential` wrote; raises `ConfigurationError` naming the file."""
    contents = []
    for kind in ("pem", "key"):
        path = os.path.join(folder, f"{name}.{kind}")
        try:
            with open(path, "rb") as file:
                contents.append(file.read())
        except OSError as error:
            raise ConfigurationError(
                f"{path}: {error.strerror}",
                "make it, as the controller's user: outboard controller init",
            ) from error
    return Credential(*contents)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    now: dt.datetime,
    days: int,
) -> x509.CertificateBuilder:
    # Valid from an hour ago: the clocks of a pool's machines are never quite the same.
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SLACK)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise ConfigurationError(
            f"{name!r} is neither a host name nor an address", "give host names in ASCII"
        ) from error


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _place(path: str, content: bytes, mode: int) -> None:
    temporary = f"{path}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    os.rename(temporary, path)
