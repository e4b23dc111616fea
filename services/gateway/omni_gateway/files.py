"""The files that the gateway reads again when they change: its certificate for HTTPS, and the keys of its callers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from omni_common.lifecycle import CannotStart
from omni_common.telemetry.names import CERTIFICATE_EXPIRY
from omni_gateway.http.certificate import Certificate, load_certificate
from omni_gateway.keys.ring import KeyRing, load_keys
from omni_gateway.settings import GatewaySettings
from omni_gateway.watched import Unusable, Watched

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Files:
    """None is what the settings do not name."""

    certificate: Watched[Certificate] | None = None
    keys: Watched[KeyRing] | None = None

    @property
    def watched(self) -> Sequence[Watched[Any]]:
        return [one for one in (self.certificate, self.keys) if one is not None]


def open_files(settings: GatewaySettings) -> Files:
    """Raises CannotStart with a sentence about the file that cannot be used."""
    try:
        files = Files(_certificate(settings), _keys(settings))
    except Unusable as error:
        raise CannotStart(str(error)) from error
    if files.keys and not files.certificate and not _is_loopback(settings.host_and_port[0]):
        logger.warning("keys come in the clear: without HTTPS_CERT they are safe behind a proxy with TLS only")
    return files


def _certificate(settings: GatewaySettings) -> Watched[Certificate] | None:
    cert, key = settings.https_cert, settings.https_key
    if cert is None or key is None:
        return None

    def load() -> Certificate:
        certificate = load_certificate(cert, key)
        CERTIFICATE_EXPIRY.labels("https").set(certificate.expires)
        return certificate

    return Watched("the certificate for HTTPS", (cert, key), load)


def _keys(settings: GatewaySettings) -> Watched[KeyRing] | None:
    path = settings.api_keys
    return None if path is None else Watched("the keys of callers", (path,), lambda: load_keys(path))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
