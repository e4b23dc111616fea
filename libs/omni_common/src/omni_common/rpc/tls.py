"""TLS inside the mesh: every component has a certificate of its name from one CA, and both ends show theirs.

Peers are dialled by the addresses of pods, so a client checks that the certificate names the component that it wants,
not the address. Whose calls a server takes is said in `door.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import grpc

from omni_common.certificates import Certificates, Loaded, Pem
from omni_common.lifecycle import CannotStart
from omni_common.rpc.tls_refusal import SENTENCES, TlsRefusal, read_refusal
from omni_common.settings import ServiceSettings
from omni_common.telemetry import names

logger = logging.getLogger(__name__)

_REMEMBERED = 256
"""Peers of which it is known that their refusal was logged; addresses of pods come and go."""


class MeshTls:
    """This process's side of TLS, for its server and its channels."""

    def __init__(self, certificates: Certificates) -> None:
        """Raises OSError or ValueError when there is nothing good in the files."""
        self._certificates = certificates
        self._logged: dict[str, TlsRefusal] = {}
        certificates.current()

    @property
    def current(self) -> Loaded:
        """Another object once the files have changed: a channel that was made before has the old ones for ever."""
        return self._certificates.current()

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """With the files as they are now."""
        pem = self.current.pem
        return grpc.ssl_channel_credentials(pem.ca, pem.key, pem.cert)

    def server_credentials(self, arrived: Callable[[], None]) -> grpc.ServerCredentials:
        """With the files as they are at each connection. `arrived` is called for each one, in a thread of gRPC."""
        served = self.current

        def look() -> Any:  # a configuration, or None for no change, which the stub does not know
            nonlocal served
            arrived()
            now = self.current
            if now is served:
                return None
            served = now
            return _configuration(now.pem)

        return grpc.dynamic_ssl_server_credentials(_configuration(served.pem), look, require_client_authentication=True)

    def ended(self, address: str, details: str) -> None:
        """Hears how a call to this peer ended; counts a refusal, and logs it unless that was the last word before."""
        refusal = read_refusal(details)
        before = self._logged.pop(address, None)
        if refusal is None:
            return
        names.TLS_REFUSALS.labels(refusal).inc()
        self._logged[address] = refusal
        if len(self._logged) > _REMEMBERED:
            del self._logged[next(iter(self._logged))]
        if refusal is not before:
            logger.warning(SENTENCES[refusal], extra={"peer": address, "reason": str(refusal)})


def mesh_tls(settings: ServiceSettings) -> MeshTls | None:
    """As the settings say; None where the mesh speaks plain gRPC. Raises CannotStart."""
    if settings.tls_cert is None or settings.tls_key is None or settings.tls_ca is None:
        return None
    try:
        certificates = Certificates(settings.tls_cert, settings.tls_key, settings.tls_ca)
        tls = MeshTls(certificates)
    except (OSError, ValueError) as error:
        raise CannotStart(f"The certificate, key or CA of this process cannot be used: {error}.") from error
    certificates.tell_expiry()
    return tls


def _configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pem.key, pem.cert)], pem.ca)
