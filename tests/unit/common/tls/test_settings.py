"""What the settings say of TLS, and what is said of certificates."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from pydantic_settings import SettingsConfigDict
from tests.unit.relay.wire.authority import DAY, Authority

from omni_common.lifecycle import CannotStart
from omni_common.rpc.tls import mesh_tls
from omni_common.settings import ServiceSettings, why_refused
from omni_common.telemetry import names


class ThingSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="OMNI_THING_")


def test_a_part_of_tls_is_no_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNI_THING_TLS_CERT", "cert.pem")
    with pytest.raises(ValueError, match="belong together") as refused:
        ThingSettings()
    assert why_refused(ThingSettings, refused.value) == (
        "OMNI_THING_* is refused: TLS_CERT, TLS_KEY and TLS_CA belong together: give all three or none."
    )


def test_without_settings_the_mesh_speaks_plainly_and_with_bad_files_it_does_not_start(
    authority: Authority, tmp_path: Path
) -> None:
    assert mesh_tls(ThingSettings()) is None
    old = authority.issue("omni-stage", folder=tmp_path, begins=-2 * DAY, ends=-DAY)
    with pytest.raises(CannotStart, match=r"of this process cannot be used: .*certificate has expired\.$"):
        mesh_tls(ThingSettings(tls_cert=old.cert, tls_key=old.key, tls_ca=old.ca))
    old.key.unlink()
    with pytest.raises(CannotStart, match=r"omni-stage\.key cannot be read \(No such file or directory\)\.$"):
        mesh_tls(ThingSettings(tls_cert=old.cert, tls_key=old.key, tls_ca=old.ca))


def test_metrics_say_when_the_certificate_expires_also_after_it_has_changed(
    authority: Authority, tmp_path: Path
) -> None:
    files = authority.issue("omni-stage", folder=tmp_path)
    mesh_tls(ThingSettings(tls_cert=files.cert, tls_key=files.key, tls_ca=files.ca))
    told = names.CERTIFICATE_EXPIRY.labels("mesh").collect
    (metric,) = told()
    before = metric.samples[0].value
    authority.issue("omni-stage", folder=tmp_path, ends=10 * DAY)
    (metric,) = told()
    assert metric.samples[0].value - before == pytest.approx(9 * DAY.total_seconds(), abs=60)


def test_metrics_say_when_the_ca_expires_where_that_is_sooner(tmp_path: Path) -> None:
    files = Authority(tmp_path, "mesh-ca", ends=3 * DAY).issue("omni-stage", ends=10 * DAY)
    mesh_tls(ThingSettings(tls_cert=files.cert, tls_key=files.key, tls_ca=files.ca))
    (metric,) = names.CERTIFICATE_EXPIRY.labels("mesh").collect()
    assert metric.samples[0].value - time.time() == pytest.approx(3 * DAY.total_seconds(), abs=60)
    later = Authority(tmp_path, "later").ca.read_bytes()
    files.ca.write_bytes(later + files.ca.read_bytes())
    (metric,) = names.CERTIFICATE_EXPIRY.labels("mesh").collect()
    assert metric.samples[0].value - time.time() == pytest.approx(3 * DAY.total_seconds(), abs=60), "no issuer of it"
