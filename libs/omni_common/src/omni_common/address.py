"""Hosts and ports as text, of either family."""

from __future__ import annotations


def join_host_port(host: str, port: int) -> str:
    """An IPv6 address stands in brackets, whether it came with them or without, as a pod's own does."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
