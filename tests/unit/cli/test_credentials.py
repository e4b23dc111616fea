"""What relays of one run know each other by."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
import time
from pathlib import Path

import pytest
from cryptography import x509

from omni_cli.launcher.credentials import write_certificates, write_token
from omni_cli.launcher.ground import Ground, Pod
from omni_cli.launcher.network import OwnSubnet
from omni_cli.launcher.plan import COMPONENTS
from omni_common.certificates import Certificates


def ground(run: Path) -> Ground:
    run.mkdir(exist_ok=True)
    return Ground(run, run, OwnSubnet("127.9.9"))


def pod(name: str, host: str = "127.9.9.32") -> Pod:
    return Pod(name, "toy", host, relay=f"{host}:7080", folder=Path(name), arena=0)


def context(side: int, here: Ground, of: Pod) -> ssl.SSLContext:
    """As strict as a relay's may be."""
    made = ssl.SSLContext(side)
    made.check_hostname = side == ssl.PROTOCOL_TLS_CLIENT
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.load_verify_locations(here.authority)
    made.load_cert_chain(here.certificate_of(of), here.key_of(of))
    return made


def greet(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> str:
    """What the server says to a client that knows it as `name`. Raises SSLError."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for end in (ours, theirs):
            end.settimeout(10)
        answering = threading.Thread(target=_answer, args=(server, theirs))
        answering.start()
        try:
            with client.wrap_socket(ours, server_hostname=name) as stream:
                return stream.recv(16).decode()
        finally:
            answering.join()


def _answer(server: ssl.SSLContext, theirs: socket.socket) -> None:
    try:
        with server.wrap_socket(theirs, server_side=True) as stream:
            stream.sendall(b"hello")
    except (ssl.SSLError, OSError):
        theirs.close()


def test_a_token_is_long_secret_and_another_one_in_every_run(tmp_path: Path) -> None:
    one, other = ground(tmp_path / "one"), ground(tmp_path / "other")
    for run in (one, other):
        write_token(run)
        assert stat.S_IMODE(run.token.stat().st_mode) == 0o600
        assert len(run.token.read_text()) == 64
    assert one.token.read_text() != other.token.read_text()


def test_relays_of_a_run_can_prove_to_each_other_who_they_are(tmp_path: Path) -> None:
    here, front, back = ground(tmp_path), pod("toy-front-0"), pod("toy-audio_encoder-0", "127.9.9.33")
    write_certificates(here, [front, back])
    server, client = context(ssl.PROTOCOL_TLS_SERVER, here, front), context(ssl.PROTOCOL_TLS_CLIENT, here, back)
    assert greet(server, client, "127.9.9.32") == greet(server, client, "toy-front-0") == "hello"
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        greet(server, client, "127.9.9.33")


def test_relays_of_another_run_are_strangers(tmp_path: Path) -> None:
    here, elsewhere, front = ground(tmp_path / "here"), ground(tmp_path / "elsewhere"), pod("toy-front-0")
    for run in (here, elsewhere):
        write_certificates(run, [front])
    server, client = context(ssl.PROTOCOL_TLS_SERVER, here, front), context(ssl.PROTOCOL_TLS_CLIENT, elsewhere, front)
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        greet(server, client, front.host)


def test_every_component_has_a_certificate_that_grpc_takes(tmp_path: Path) -> None:
    here = ground(tmp_path)
    write_certificates(here, [], COMPONENTS)
    for component in COMPONENTS:
        own = here.certificate_for(component), here.key_for(component)
        certificates = Certificates(*own, here.authority)  # which tries them as a peer would
        assert certificates.current().expires > time.time()
        der = ssl.PEM_cert_to_DER_cert(own[0].read_text())
        names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert names.value.get_values_for_type(x509.DNSName) == [component]


def test_keys_are_for_their_user_only_and_the_authority_has_none_on_disk(tmp_path: Path) -> None:
    here = ground(tmp_path)
    write_certificates(here, [pod("toy-front-0")])
    keys = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir() if b"KEY" in path.read_bytes()}
    assert keys == {"toy-front-0.key": 0o600}
