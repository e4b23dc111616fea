"""The chart's own CA over the years: renewed by upgrades, and running pods trust each other at every step of it."""

from __future__ import annotations

import base64
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography import x509
from tests.chart.helm import CHART, NAMESPACE, RELEASE, Helm
from tests.lab.kube_server import FakeCluster, cluster
from tests.lab.kube_store import Object, Place

from omni_common.certificates import expiry_seen, make_context

RENEW, EXPIRES, CHANGED = "omni.dev/renew-after", "omni.dev/expires", "omni.dev/changed-at"
AUTHORITY = Place("v1", "secrets", NAMESPACE, f"{RELEASE}-ca")
STAGE = Place("v1", "secrets", NAMESPACE, f"{RELEASE}-stage-tls")
LONG_AGO = "1"


@dataclass(frozen=True)
class State:
    """What pods read after an upgrade: the files of each Secret, and what callers are told to trust."""

    secrets: Mapping[str, Mapping[str, bytes]]
    told: bytes

    @property
    def own(self) -> Mapping[str, bytes]:
        return {name: files["tls.crt"] for name, files in self.secrets.items()}

    @property
    def trusted(self) -> int:
        (trust,) = {files["ca.crt"] for files in self.secrets.values()} | {self.told}
        return len(x509.load_pem_x509_certificates(trust))


@pytest.fixture
def fake(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeCluster]:
    with cluster(tmp_path_factory.mktemp(f"authority{helm.major}"), NAMESPACE) as running:
        yield running


@pytest.fixture
def installed(fake: FakeCluster, helm: Helm) -> Helm:
    installing = Helm(helm.major, helm.home, {"KUBECONFIG": str(fake.kubeconfig)})
    installing("install", RELEASE, CHART)
    return installing


def test_a_ca_in_its_last_third_is_followed_by_another_without_a_moment_of_distrust(
    installed: Helm, fake: FakeCluster, tmp_path: Path
) -> None:
    states = [_state(fake)]

    def upgraded(told: str = "") -> State:
        assert told in " ".join(installed("upgrade", RELEASE, CHART).split())
        states.append(_state(fake))
        return states[-1]

    assert upgraded() == states[0], "it has time"
    _note(fake, AUTHORITY, RENEW, LONG_AGO)
    _note(fake, AUTHORITY, CHANGED, LONG_AGO)
    coming = upgraded("an upgrade in an hour or later has it sign")
    assert (coming.trusted, coming.own) == (2, states[0].own), "the next one signs nothing before all trust it"
    assert upgraded() == coming, "not everybody has read it yet"
    _note(fake, AUTHORITY, CHANGED, LONG_AGO)
    signs = upgraded("an upgrade in an hour or later forgets the old one")
    assert signs.trusted == 2
    assert not set(signs.own.values()) & set(coming.own.values())
    assert upgraded() == signs
    _note(fake, AUTHORITY, CHANGED, LONG_AGO)
    over = upgraded("`helm upgrade` makes new ones, and nothing else does. What is wrong")
    assert (over.trusted, over.own) == (1, signs.own)
    _note(fake, AUTHORITY, CHANGED, LONG_AGO)
    assert upgraded() == over, "the new one has all its time before it"
    for before, after in pairwise(states):
        _trust_each_other(before, after, tmp_path)


def test_no_certificate_is_for_longer_than_its_ca(installed: Helm, fake: FakeCluster) -> None:
    end = int(time.time()) + 10 * 86400
    _note(fake, AUTHORITY, EXPIRES, str(end))
    _note(fake, STAGE, RENEW, LONG_AGO)
    installed("upgrade", RELEASE, CHART)
    made = x509.load_pem_x509_certificate(_state(fake).own[STAGE.name])
    left = made.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=8) < left <= timedelta(days=10)
    assert int(fake.store.get(STAGE)["metadata"]["annotations"][RENEW]) < end


def test_a_ca_that_has_expired_is_replaced_at_once(installed: Helm, fake: FakeCluster) -> None:
    before = _state(fake)
    _note(fake, AUTHORITY, EXPIRES, LONG_AGO)
    installed("upgrade", RELEASE, CHART)
    after = _state(fake)
    assert after.trusted == 1
    assert not set(after.own.values()) & set(before.own.values())


def test_a_ca_of_a_chart_that_noted_nothing_keeps_its_time(installed: Helm, fake: FakeCluster) -> None:
    before, noted = _state(fake), _notes(fake)
    fake.store.change(AUTHORITY, _without_notes)
    installed("upgrade", RELEASE, CHART)
    assert _state(fake) == before
    found = _notes(fake)
    for name in (RENEW, EXPIRES):
        assert abs(int(found[name]) - int(noted[name])) < 120, "it was made with its Secret"


def _state(fake: FakeCluster) -> State:
    found: dict[str, Mapping[str, bytes]] = {}
    for one in fake.store.objects():
        if one["kind"] == "Secret" and {"tls.crt", "ca.crt"} <= set(one.get("data", {})):
            found[one["metadata"]["name"]] = {key: base64.b64decode(value) for key, value in one["data"].items()}
    told = fake.store.get(Place("v1", "configmaps", NAMESPACE, f"{RELEASE}-ca"))["data"]["ca.crt"].encode()
    return State(found, told)


def _trust_each_other(one: State, other: State, folder: Path) -> None:
    """As processes do that have read their files before and after an upgrade: by a handshake in memory."""
    for client, server in ((one, other), (other, one)):
        calls = _context(ssl.PROTOCOL_TLS_CLIENT, client.secrets[f"{RELEASE}-gateway-tls"], folder)
        called = _context(ssl.PROTOCOL_TLS_SERVER, server.secrets[STAGE.name], folder)
        assert expiry_seen(calls, called) > time.time()


def _context(purpose: int, files: Mapping[str, bytes], folder: Path) -> ssl.SSLContext:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return make_context(purpose, folder / "tls.crt", folder / "tls.key", folder / "ca.crt")


def _notes(fake: FakeCluster) -> Mapping[str, str]:
    found: Mapping[str, str] = fake.store.get(AUTHORITY)["metadata"]["annotations"]
    return found


def _note(fake: FakeCluster, place: Place, name: str, value: str) -> None:
    def noted(secret: Object) -> Object:
        secret["metadata"]["annotations"][name] = value
        return secret

    fake.store.change(place, noted)


def _without_notes(secret: Object) -> Object:
    kept = secret["metadata"]["annotations"]
    secret["metadata"]["annotations"] = {name: value for name, value in kept.items() if "omni.dev" not in name}
    return secret
