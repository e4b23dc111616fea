"""The stages of the pod: their socket, their lines, and what they ask of the relay."""
