"""The other relays: pushing to them, and catching what they push."""

from omni_relay.peers.peers import Peers, PeerSettings

__all__ = ["PeerSettings", "Peers"]
