"""What the processes of one run know each other by: a random token, and certificates where they encrypt.

All of it is in the run's private folder and goes with it. The authority's own key is never written: when the last
certificate is signed, nobody can make another one.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from omni_cli.launcher.ground import Ground, Pod
from omni_common.component import Component

_TOKEN_BYTES = 32
# A relay that connects again shows its certificate again, however long the mesh has run.
_VALID = timedelta(days=3650)
_CLOCK_STEPS = timedelta(days=1)


def write_token(ground: Ground) -> None:
    _write_secret(ground.token, secrets.token_hex(_TOKEN_BYTES).encode())


def write_certificates(ground: Ground, pods: Sequence[Pod], components: Sequence[Component] = ()) -> None:
    """An authority, and keys and certificates: for each pod's relay with its name and address, for each component with
    its name."""
    authority = _new_authority()
    ground.authority.write_bytes(_pem(authority.certificate))
    for pod in pods:
        address = x509.IPAddress(ip_address(pod.host))
        _issue(authority, pod.name, ground.certificate_of(pod), ground.key_of(pod), address)
    for component in components:
        _issue(authority, component, ground.certificate_for(component), ground.key_for(component))


def _issue(authority: _Authority, name: str, to: Path, key_to: Path, *more: x509.GeneralName) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    to.write_bytes(_pem(_sign(authority, name, key.public_key(), more)))
    _write_secret(
        key_to,
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def _new_authority() -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = _named("omni up")
    unsigned = (
        _unsigned(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return _Authority(unsigned.sign(key, hashes.SHA256()), key)


def _sign(
    authority: _Authority, name: str, key: ec.EllipticCurvePublicKey, more: Sequence[x509.GeneralName]
) -> x509.Certificate:
    names = x509.SubjectAlternativeName([x509.DNSName(name), *more])
    both = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    unsigned = (
        _unsigned(_named(name), authority.certificate.subject, key)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(names, critical=False)
        .add_extension(both, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(issuer, critical=False)
    )
    return unsigned.sign(authority.key, hashes.SHA256())


def _unsigned(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_STEPS)
        .not_valid_after(now + _VALID)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])  # the standard's limit


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write_secret(path: Path, secret: bytes) -> None:
    """0600 from its first byte on; must not exist."""
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(secret)
