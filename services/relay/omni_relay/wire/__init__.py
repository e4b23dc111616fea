"""What goes over the connections between relays: records, the handshake, and how both are protected."""
