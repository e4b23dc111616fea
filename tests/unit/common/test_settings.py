"""Settings: units in types, strict names, frozen."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError
from pydantic_settings import SettingsConfigDict

from omni_common.settings import ByteSize, CommaList, Duration, ServiceSettings, parse_duration, render_duration


class ThingSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="OMNI_THING_")

    wait: Duration = Field(default=timedelta(seconds=1))
    room: ByteSize = Field(default=ByteSize(1))
    peers: CommaList = ()


def read(monkeypatch: pytest.MonkeyPatch, **variables: str) -> ThingSettings:
    for name, value in variables.items():
        monkeypatch.setenv(f"OMNI_THING_{name}", value)
    return ThingSettings()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("500ms", 0.5), ("2m", 120), ("1.5h", 5400), (" 1s ", 1), ("0s", 0)],
)
def test_durations_have_units(monkeypatch: pytest.MonkeyPatch, text: str, seconds: float) -> None:
    assert read(monkeypatch, WAIT=text).wait == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["30", "PT30S", "-1s", "1 s", "s", "", "1d"])
def test_a_duration_without_a_known_unit_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    with pytest.raises(ValidationError, match="is not a duration such as 30s"):
        read(monkeypatch, WAIT=text)


@given(st.integers(0, 10**9).map(lambda ms: timedelta(milliseconds=ms)))
def test_a_rendered_duration_is_read_back(duration: timedelta) -> None:
    assert parse_duration(render_duration(duration)) == duration


@pytest.mark.parametrize(("text", "size"), [("64MiB", 64 << 20), ("1.5KiB", 1536), ("100", 100)])
def test_sizes_have_units(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    assert read(monkeypatch, ROOM=text).room == size


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, PEERS="a:1, b:2,").peers == ("a:1", "b:2")


def test_a_misspelt_variable_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="OMNI_THING_WIAT is not a setting of ThingSettings"):
        read(monkeypatch, WIAT="1s")


def test_another_services_variables_are_none_of_its_business(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNI_OTHER_WAIT", "nonsense")
    assert read(monkeypatch).wait == timedelta(seconds=1)


def test_a_misspelt_argument_is_refused() -> None:
    with pytest.raises(ValidationError):
        ThingSettings(wiat=timedelta(seconds=1))  # type: ignore[call-arg]


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        ThingSettings().log_level = "DEBUG"  # type: ignore[misc]


def test_common_settings_have_defaults_that_suit_a_laptop() -> None:
    settings = ThingSettings()
    assert (settings.metrics_port, settings.metrics_host, settings.reflection) == (None, "127.0.0.1", False)


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_port_that_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    with pytest.raises(ValidationError):
        read(monkeypatch, METRICS_PORT=port)
