"""What both ends of every stream agree on, beyond the messages themselves."""

from __future__ import annotations

CONTRACT_VERSION = 2
"""Sent in every hello; a peer with another one is refused with UNIMPLEMENTED."""

INLINE_LIMIT = 64 * 1024
"""Bytes of one tensor or media file that may ride inside an event. Between pods, 64 KiB inside take 0.95 to 1.00 of the
time that they take as a blob beside the frame, 256 KiB 1.4 to 1.65; and the way of the relays is later than a frame by
about 0.1 ms for the least tensor, as 64 KiB inside a frame are. Measured with `python -m tests.load.inline`."""

POD_INLINE_LIMIT = 32 * 1024
"""The same within a pod. What is inside a frame is copied several times on its way, while a slot in the arena takes the
same time at any size and one copy at most: a tensor inside takes 0.85 of the time of one in the arena at 64 bytes, 0.95
at 16 KiB, 1.0 at 32 KiB, 1.1 at 64 KiB, 1.3 at 128 KiB and 2.5 to 3.4 at 256 KiB."""

BLOB_PIECE = 1 << 20
"""Bytes of one BlobChunk, and of the small events in one frame: a frame takes about a millisecond of a stream, which
bounds how long a large tensor can delay another request's token."""

MAX_MESSAGE = 4 << 20
"""Bytes of one message on a stream: a piece, a frame's worth of small events, and room for one event that is larger."""

MAX_EVENT = MAX_MESSAGE - (64 << 10)
"""Bytes of one event; the rest of a message is for its framing."""

MAX_GENERATE_MEDIA = 32 << 20
"""Bytes of media in one GenerateRequest, which has no blobs beside it."""

MAX_GENERATE_MESSAGE = MAX_GENERATE_MEDIA + (8 << 20)
"""Bytes of one GenerateRequest: its media and its text."""
