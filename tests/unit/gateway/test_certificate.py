"""Which certificates HTTPS may be served with, and files that change."""

from __future__ import annotations

import logging
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.descriptors import no_descriptors
from tests.unit.relay.wire.authority import DAY, SERVER_ONLY, Authority

from omni_gateway.http.certificate import load_certificate
from omni_gateway.http.https import why_failed
from omni_gateway.watched import Unusable, Watched, read

CLIENT_ONLY = (ExtendedKeyUsageOID.CLIENT_AUTH,)


@pytest.mark.parametrize("uses", [(), SERVER_ONLY])
def test_a_certificate_tells_when_it_ends(tmp_path: Path, uses: tuple[x509.ObjectIdentifier, ...]) -> None:
    files = Authority(tmp_path, "ca").issue("gateway", ends=timedelta(days=30), uses=uses)
    certificate = load_certificate(files.cert, files.key)
    ends = datetime.now(UTC) + timedelta(days=30)
    assert certificate.expires == pytest.approx(ends.timestamp(), abs=60)
    assert certificate.context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_the_first_of_a_chain_is_the_servers_own(tmp_path: Path) -> None:
    files = Authority(tmp_path, "ca").issue("gateway", ends=5 * DAY)
    files.cert.write_bytes(files.cert.read_bytes() + files.ca.read_bytes())
    ends = datetime.now(UTC) + 5 * DAY
    assert load_certificate(files.cert, files.key).expires == pytest.approx(ends.timestamp(), abs=60)


def test_what_callers_would_refuse_is_refused_in_a_sentence(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    good, other = authority.issue("good"), authority.issue("other")
    expired = authority.issue("expired", begins=-2 * DAY, ends=-DAY)
    early = authority.issue("early", begins=DAY, ends=2 * DAY)
    client = authority.issue("client", uses=CLIENT_ONLY)
    locked, empty, none = tmp_path / "locked.key", tmp_path / "empty.pem", tmp_path / "none.pem"
    key = load_pem_private_key(good.key.read_bytes(), None)
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    empty.touch()
    for cert, keyfile, why in (
        (expired.cert, expired.key, "certificate has expired"),
        (early.cert, early.key, "certificate is not yet valid"),
        (client.cert, client.key, "Callers would refuse"),
        (good.cert, other.key, "are no certificate and its key"),
        (good.cert, locked, "are no certificate and its key"),
        (good.cert, empty, "are no certificate and its key"),
        (good.key, good.key, "holds no certificate in PEM"),
        (empty, good.key, "holds no certificate in PEM"),
        (none, good.key, "cannot be read"),
        (good.cert, none, "cannot be read"),
        (tmp_path, good.key, "cannot be read"),
    ):
        with pytest.raises(Unusable, match=why) as caught:
            load_certificate(cert, keyfile)
        assert str(caught.value).endswith(".")


def test_files_are_read_again_when_they_change_or_were_bad_and_only_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path, reads = tmp_path / "file", 0
    path.write_text("one")

    def load() -> str:
        nonlocal reads
        reads += 1
        text = read(path).decode()
        if text == "bad":
            raise Unusable("It is bad.")
        return text

    watched = Watched("the file", (path,), load)
    watched.refresh()
    assert (watched.now, reads) == ("one", 1)

    path.write_text("bad")
    for _ in range(3):
        watched.refresh()
    assert (watched.now, reads) == ("one", 4)

    path.unlink()
    for _ in range(3):
        watched.refresh()
    assert (watched.now, reads) == ("one", 7)

    # As a kubelet does it: the name leads to another folder at once.
    other = tmp_path / "other"
    other.write_text("two")
    path.symlink_to(other)
    for _ in range(3):
        watched.refresh()
    assert (watched.now, reads) == ("two", 8)

    said = [(record.levelname, vars(record).get("why")) for record in caplog.records]
    assert [level for level, _ in said] == ["WARNING", "WARNING", "INFO"]
    assert said[0][1] == "It is bad."


def test_files_that_could_not_be_opened_are_used_once_they_can_be(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    watched = Watched("the file", (path,), lambda: read(path))
    path.write_text("renewed")
    with no_descriptors():
        watched.refresh()
    assert watched.now == b"old"
    watched.refresh()
    assert watched.now == b"renewed"


def test_files_that_were_never_good_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="cannot be read"):
        Watched("the file", (tmp_path / "none",), lambda: read(tmp_path / "none"))


def test_why_a_handshake_failed_is_from_a_closed_list() -> None:
    refused = ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA]")
    refused.reason = "TLSV1_ALERT_UNKNOWN_CA"
    plain = ssl.SSLError(1, "[SSL: HTTP_REQUEST]")
    plain.reason = "HTTP_REQUEST"
    odd = ssl.SSLError(1, "[SSL: WHATEVER]")
    odd.reason = "WHATEVER"
    errors = [refused, plain, odd, ConnectionAbortedError(), ConnectionResetError(), TimeoutError()]
    assert [why_failed(error) for error in errors] == [
        "refused_by_caller",
        "plain_http",
        "no_tls",
        "timeout",
        "left",
        "left",
    ]
