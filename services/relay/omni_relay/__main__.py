"""Runs a relay: `python -m omni_relay`."""

from __future__ import annotations

from omni_common.lifecycle import run_service
from omni_relay.service import RelayProcess
from omni_relay.settings import RelaySettings


def main() -> None:
    run_service(RelaySettings, RelayProcess)


if __name__ == "__main__":
    main()
