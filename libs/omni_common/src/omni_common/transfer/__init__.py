"""How tensors travel with payloads, and who chooses.

The sender chooses per tensor: up to the inline limit inside the payload; else, for a peer in the same pod, where it
lies on a device that the peer can get at, or a slot in the arena; for a peer in another pod, a slot that the relays
push there; else, where there is no relay at both ends or none that works, as a blob beside the frames. The receiver
needs no say in it, but for what it can get at on devices. Bytes are copied once at most on the way out (into the
payload or the arena; not at all where they were made in the arena; a blob's are read when they are sent) and never on
the way in.
"""

from omni_common.transfer.arrivals import Arrivals
from omni_common.transfer.blobs import MAX_BLOBS
from omni_common.transfer.devices import DeviceTensors, Lender
from omni_common.transfer.receiver import TensorReceiver
from omni_common.transfer.sender import Encoded, Pushed, Sent, TensorSender, Way, Why

__all__ = [
    "MAX_BLOBS",
    "Arrivals",
    "DeviceTensors",
    "Encoded",
    "Lender",
    "Pushed",
    "Sent",
    "TensorReceiver",
    "TensorSender",
    "Way",
    "Why",
]
