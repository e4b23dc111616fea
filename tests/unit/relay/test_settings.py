"""Settings that a relay can start with, and why it does not with others."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from pydantic import ValidationError

from omni_common.deadline import Deadline
from omni_common.lifecycle import CannotStart
from omni_relay.relay import Relay
from omni_relay.settings import RelaySettings


def settings(folder: Path, **others: object) -> RelaySettings:
    return RelaySettings(folder=folder, arena_size="128KiB", extent_size="16KiB", **others)  # type: ignore[arg-type]


def why_not(folder: Path, **others: object) -> str:
    with pytest.raises(CannotStart) as refused:
        Relay(settings(folder, **others))
    return str(refused.value)


def test_a_port_that_others_reach_needs_a_token_or_tls(tmp_path: Path) -> None:
    assert (
        why_not(tmp_path, bind="192.0.2.1:7080") == "Without TLS a relay that other machines reach needs a TOKEN_FILE."
    )


def test_a_port_on_all_addresses_needs_a_host_to_tell_others(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("x" * 32)
    assert "name the pod's address as ADVERTISE" in why_not(tmp_path, bind="0.0.0.0:0", token_file=token)
    relay = Relay(settings(tmp_path, bind="0.0.0.0:0", token_file=token, advertise="pod-7.example"))
    assert relay.address.startswith("pod-7.example:")
    relay.start()
    relay.stop(Deadline.after(5))


@pytest.mark.parametrize("bind", ["localhost", "7080", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:70800"])
def test_what_is_no_host_and_port_is_refused(tmp_path: Path, bind: str) -> None:
    assert why_not(tmp_path, bind=bind) == f"BIND is '{bind}', which is no host:port."


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        assert why_not(tmp_path, bind=bind).startswith(f"The relay cannot listen on {bind}: Address already in use")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert why_not(tmp_path / "no", bind="127.0.0.1:0") == (
        f"The pod's folder {tmp_path / 'no'} cannot be used: No such file or directory."
    )


@pytest.mark.parametrize(
    "wrong",
    [
        {"extent_size": "4095"},
        {"arena_size": "31KiB"},
        {"inbound": 1.5},
        {"heartbeat": "3s"},
        {"heartbeat": "0s"},
        {"encryption": "rot13"},
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RelaySettings(**{"folder": tmp_path, "extent_size": "16KiB"} | wrong)  # type: ignore[arg-type]
