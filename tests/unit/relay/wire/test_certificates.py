"""Certificates: which are good, what is said about the others, and that new ones are used without a restart."""

from __future__ import annotations

import logging
import shutil
import socket
import ssl
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from tests.descriptors import no_descriptors
from tests.unit.relay.wire.authority import DAY, SERVER_ONLY, Authority, Files
from tests.unit.relay.wire.meeting import LINK, PATIENCE, TOKEN, Door

from omni_common.certificates import Certificates, make_context
from omni_common.deadline import Deadline
from omni_common.lifecycle import CannotStart
from omni_relay.wire.connect import dial_push
from omni_relay.wire.credentials import LEAST_TOKEN, Credentials, Mode, load_credentials
from omni_relay.wire.handshake import MAGIC, VERSION
from omni_relay.wire.refusal import HandshakeFailed, Refusal

protected = pytest.mark.parametrize("mode", [Mode.TLS, Mode.AEAD])


def greeting(mode: Mode) -> bytes:
    return MAGIC + bytes([VERSION, mode.number]) + bytes(6)


def stranger(purpose: int, ca: Path, files: Files | None) -> ssl.SSLContext:
    """Of someone who trusts the mesh and has whatever certificate. (A relay would not start with a bad one.)"""
    if files:
        return make_context(purpose, files.cert, files.key, ca)
    context = ssl.SSLContext(purpose)
    context.check_hostname = False
    context.load_verify_locations(ca)
    return context


def knock(port: int, mode: Mode, context: ssl.SSLContext) -> None:
    """As the client."""
    with socket.create_connection(("127.0.0.1", port)) as sock, suppress(OSError):
        sock.settimeout(PATIENCE)
        sock.sendall(greeting(mode))
        sock.recv(16, socket.MSG_WAITALL)
        with context.wrap_socket(sock) as tls:
            tls.recv(1)


def pose(listener: socket.socket, mode: Mode, context: ssl.SSLContext) -> None:
    """As the server."""
    sock, _ = listener.accept()
    with sock, suppress(OSError):
        sock.settimeout(PATIENCE)
        sock.sendall(greeting(mode))
        sock.recv(16, socket.MSG_WAITALL)
        with context.wrap_socket(sock, server_side=True) as tls:
            tls.recv(1)


@pytest.fixture(params=["foreign", "expired", "early", "server only", "none"])
def bad(request: pytest.FixtureRequest, authority: Authority, tmp_path: Path) -> tuple[Files | None, str]:
    """A certificate that no relay accepts from a client, and what it says then."""
    match request.param:
        case "foreign":
            return Authority(tmp_path, "other-ca").issue("relay.mesh"), "unable to get local issuer certificate"
        case "expired":
            return authority.issue("relay.mesh", folder=tmp_path, begins=-2 * DAY, ends=-DAY), "has expired"
        case "early":
            return authority.issue("relay.mesh", folder=tmp_path, begins=DAY, ends=2 * DAY), "not yet valid"
        case "server only":
            return authority.issue("relay.mesh", folder=tmp_path, uses=SERVER_ONLY), "certificate purpose"
        case _:
            return None, "peer did not return a certificate"


@protected
def test_a_client_without_a_good_certificate_is_refused(
    mode: Mode, files: Files, bad: tuple[Files | None, str]
) -> None:
    theirs, why = bad
    with Door(files.credentials(mode)) as door:
        answer = door.answer()
        knock(door.port, mode, stranger(ssl.PROTOCOL_TLS_CLIENT, files.ca, theirs))
        error = answer.exception(PATIENCE)
        assert isinstance(error, HandshakeFailed)
        assert error.refusal is Refusal.CERTIFICATE
        assert why in str(error)
        assert len(door.pairs) == 0


@protected
@pytest.mark.parametrize("bad", ["foreign", "expired", "early"], indirect=True)
def test_a_server_without_a_good_certificate_is_refused(mode: Mode, files: Files, bad: tuple[Files, str]) -> None:
    theirs, why = bad
    credentials = files.credentials(mode)
    with Door(credentials) as door, socket.create_server(("127.0.0.1", 0)) as listener:
        posed = door.beside(pose, listener, mode, stranger(ssl.PROTOCOL_TLS_SERVER, files.ca, theirs))
        with pytest.raises(HandshakeFailed, match=why) as failed:
            dial_push(f"127.0.0.1:{listener.getsockname()[1]}", credentials, LINK, Deadline.after(PATIENCE))
        assert failed.value.refusal is Refusal.CERTIFICATE
        posed.result(PATIENCE)


@protected
def test_older_tls_is_refused(mode: Mode, files: Files) -> None:
    old = make_context(ssl.PROTOCOL_TLS_CLIENT, files.cert, files.key, files.ca)
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    with Door(files.credentials(mode)) as door:
        answer = door.answer()
        knock(door.port, mode, old)
        error = answer.exception(PATIENCE)
        assert isinstance(error, HandshakeFailed)
        assert error.refusal is Refusal.PROTOCOL


@protected
def test_who_is_refused_for_its_certificate_is_told_so(mode: Mode, files: Files, tmp_path: Path) -> None:
    """Half a mesh has moved to a new CA: its relays trust both, the others only the old one."""
    moved = Authority(tmp_path, "new-ca").issue("moved.mesh")
    moved.ca.write_bytes(moved.ca.read_bytes() + files.ca.read_bytes())
    with Door(files.credentials(mode)) as door:
        for _ in range(5):
            answer = door.answer()
            with pytest.raises(HandshakeFailed, match=r"peer refuses this relay's certificate: .*unknown ca") as failed:
                dial_push(door.address, moved.credentials(mode), LINK, Deadline.after(PATIENCE))
            assert failed.value.refusal is Refusal.CERTIFICATE
            assert isinstance(answer.exception(PATIENCE), HandshakeFailed)


@protected
def test_only_names_that_are_listed_may_connect(mode: Mode, authority: Authority, files: Files) -> None:
    thinker, talker = authority.issue("thinker.mesh"), authority.issue("talker.mesh")
    strict = files.credentials(mode, peer_names=("Thinker.mesh", "relay.mesh"))
    with Door(strict) as door:
        assert door.push(thinker.credentials(mode))[1].peer == "thinker.mesh"
        answer = door.answer()
        with pytest.raises(HandshakeFailed):
            dial_push(door.address, talker.credentials(mode), LINK, Deadline.after(PATIENCE))
        error = answer.exception(PATIENCE)
        assert isinstance(error, HandshakeFailed)
        assert (error.refusal, str(error)) == (
            Refusal.CERTIFICATE,
            "The peer's certificate has no allowed name; it has talker.mesh.",
        )


@protected
def test_a_server_whose_name_is_not_listed_is_left(mode: Mode, authority: Authority, files: Files) -> None:
    talker = authority.issue("talker.mesh")
    strict = files.credentials(mode, peer_names=("thinker.mesh",))
    with Door(talker.credentials(mode)) as door:
        answer = door.answer()
        with pytest.raises(HandshakeFailed, match="no allowed name"):
            dial_push(door.address, strict, LINK, Deadline.after(PATIENCE))
        assert isinstance(answer.exception(PATIENCE), HandshakeFailed)


@protected
def test_new_certificates_are_used_for_new_connections(mode: Mode, authority: Authority, tmp_path: Path) -> None:
    files = authority.issue("before.mesh", folder=tmp_path)
    with Door(files.credentials(mode)) as door:
        assert door.push()[0].peer == "before.mesh"
        after = authority.issue("after.mesh", folder=tmp_path)
        shutil.copy(after.cert, files.cert)
        shutil.copy(after.key, files.key)
        assert door.push()[0].peer == "after.mesh"


def test_new_certificates_that_are_no_good_leave_the_old_ones_in_use(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = authority.issue("steady.mesh", folder=tmp_path)
    good = files.key.read_bytes()
    certificates = Certificates(files.cert, files.key, files.ca)
    before = certificates.current()
    assert certificates.current() is before
    with caplog.at_level(logging.WARNING):
        files.key.write_bytes(b"half a ke")
        assert certificates.current() is before
        assert certificates.current() is before
        files.key.unlink()
        assert certificates.current() is before
    assert [record.message for record in caplog.records] == ["new certificates cannot be used; the old ones stay"] * 2
    files.key.write_bytes(good)
    assert certificates.current() is not before
    assert certificates.current().fingerprint == before.fingerprint


def test_new_certificates_that_could_not_be_opened_are_used_a_while_later(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = 100.0
    files = authority.issue("renewed.mesh", folder=tmp_path)
    certificates = Certificates(files.cert, files.key, files.ca, clock=lambda: now)
    before = certificates.current()
    authority.issue("renewed.mesh", folder=tmp_path)
    with no_descriptors():
        assert certificates.current() is before
        now = 200.0
        assert certificates.current() is before
        assert certificates.current() is before
    assert [vars(record)["why"] for record in caplog.records] == [f"{files.cert} cannot be read (Too many open files)"]
    assert certificates.current() is before
    now = 300.0
    after = certificates.current()
    assert after.fingerprint != before.fingerprint
    now = 400.0
    assert certificates.current() is after


@protected
@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("missing", "relay.mesh.key cannot be read (No such file or directory)"),
        ("not pem", "no PEM"),
        ("other key", "KEY_VALUES_MISMATCH"),
        ("encrypted", "cannot be used"),
        ("other ca", "peers would refuse"),
        ("no ca", "cannot be used"),
        ("expired", "certificate has expired"),
        ("early", "certificate is not yet valid"),
        ("server only", "unsuitable certificate purpose"),
    ],
)
def test_what_cannot_work_is_said_at_the_start(
    mode: Mode, what: str, why: str, authority: Authority, tmp_path: Path
) -> None:
    files = authority.issue("relay.mesh", folder=tmp_path)
    ca = tmp_path / "ca"
    ca.write_bytes(files.ca.read_bytes())
    match what:
        case "missing":
            files.key.unlink()
        case "not pem":
            files.cert.write_bytes(b"certificate")
        case "other key":
            files.key.write_bytes(authority.issue("other.mesh", folder=tmp_path).key.read_bytes())
        case "encrypted":
            key = load_pem_private_key(files.key.read_bytes(), None)
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))
            files.key.write_bytes(pem)
        case "other ca":
            ca.write_bytes(Authority(tmp_path, "other").ca.read_bytes())
        case "no ca":
            ca.write_bytes(b"")
        case "expired":
            authority.issue("relay.mesh", folder=tmp_path, begins=-2 * DAY, ends=-DAY)
        case "early":
            authority.issue("relay.mesh", folder=tmp_path, begins=DAY, ends=2 * DAY)
        case "server only":
            authority.issue("relay.mesh", folder=tmp_path, uses=SERVER_ONLY)
    with pytest.raises(CannotStart) as said:
        load_credentials(mode, cert=files.cert, key=files.key, ca=ca)
    assert why in str(said.value)
    assert str(said.value).endswith(".")


def test_settings_that_contradict_each_other_are_said_at_the_start(files: Files) -> None:
    with pytest.raises(CannotStart, match="ENCRYPTION 'aead' needs TLS_CERT, TLS_KEY and TLS_CA"):
        load_credentials(Mode.AEAD, cert=files.cert, key=files.key)
    with pytest.raises(CannotStart, match="but ENCRYPTION is 'none'"):
        load_credentials(Mode.NONE, ca=files.ca)


@protected
def test_no_connection_is_protected_in_name_only(mode: Mode) -> None:
    with pytest.raises(ValueError, match="certificates belong"):
        Credentials(mode, TOKEN)


def test_a_token_is_read_without_its_line_end_and_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(TOKEN + b"\n")
    credentials = load_credentials(Mode.NONE, token_file=path)
    assert credentials.token == TOKEN
    assert TOKEN.decode() not in repr(credentials)
    assert not credentials.open_to_all
    assert load_credentials(Mode.NONE).open_to_all


def test_a_token_that_could_be_guessed_or_is_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    with pytest.raises(CannotStart, match="cannot be read: No such file"):
        load_credentials(Mode.NONE, token_file=path)
    path.write_bytes(b"x" * (LEAST_TOKEN - 1) + b"\n")
    with pytest.raises(CannotStart, match="could be guessed"):
        load_credentials(Mode.NONE, token_file=path)
