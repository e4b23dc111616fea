"""The gateway's process."""

from __future__ import annotations

from omni_common.lifecycle import run_service
from omni_gateway.gateway import Gateway
from omni_gateway.settings import GatewaySettings


def main() -> None:
    run_service(GatewaySettings, Gateway)


if __name__ == "__main__":
    main()
