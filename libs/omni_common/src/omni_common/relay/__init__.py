"""What a stage says to its pod's relay, and hears from it."""

from omni_common.relay.client import RelayClient
from omni_common.relay.greeting import CannotConnect, Who
from omni_common.relay.pushes import PushResult
from omni_common.relay.slots import NoRoom, Slots

__all__ = ["CannotConnect", "NoRoom", "PushResult", "RelayClient", "Slots", "Who"]
