"""Certificates for tests: a CA, and whatever it or another one may have signed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from omni_relay.wire.credentials import Credentials, Mode, load_credentials

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Files:
    """What a relay's settings name."""

    cert: Path
    key: Path
    ca: Path

    def credentials(self, mode: Mode, **more: object) -> Credentials:
        return load_credentials(mode, cert=self.cert, key=self.key, ca=self.ca, **more)  # type: ignore[arg-type]


class Authority:
    """A CA of its own, which `ends` from now."""

    def __init__(self, folder: Path, name: str, *, ends: timedelta = 30 * DAY) -> None:
        self._folder = folder
        self._name = _named(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.ca = folder / f"{name}.pem"
        builder = _builder(self._name, self._name, self._key, ends=ends)
        builder = builder.add_extension(x509.BasicConstraints(True, None), True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        certificate = builder.add_extension(identifier, False).sign(self._key, SHA256())
        self.ca.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(
        self,
        name: str,
        *,
        folder: Path | None = None,
        begins: timedelta = -DAY,
        ends: timedelta = DAY,
        uses: tuple[x509.ObjectIdentifier, ...] = (),
    ) -> Files:
        """A certificate for a DNS name; `begins` and `ends` from now."""
        folder = folder or self._folder
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_named(name), self._name, key, begins, ends)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
        for use in uses:
            builder = builder.add_extension(x509.ExtendedKeyUsage([use]), False)
        files = Files(folder / f"{name}.crt", folder / f"{name}.key", self.ca)
        files.cert.write_bytes(builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM))
        files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return files


SERVER_ONLY = (ExtendedKeyUsageOID.SERVER_AUTH,)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    begins: timedelta = -DAY,
    ends: timedelta = DAY,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
    )
