"""Pure: who has which part of the arena, and whose turn it is. No sockets, no clock, no memory."""
