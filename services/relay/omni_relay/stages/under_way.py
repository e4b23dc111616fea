"""The pushes that are under way, of all stages."""

from __future__ import annotations

import threading

from omni_relay.ports import Transfer


class UnderWay:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._transfers: set[Transfer] = set()

    def __len__(self) -> int:
        return len(self._transfers)

    def add(self, transfer: Transfer) -> bool:
        """False: that very transfer is under way already."""
        with self._lock:
            if transfer in self._transfers:
                return False
            self._transfers.add(transfer)
            return True

    def remove(self, transfer: Transfer) -> None:
        with self._lock:
            self._transfers.remove(transfer)
