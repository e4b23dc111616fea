"""What both ends of every stream agree on, beyond the messages themselves."""

from __future__ import annotations

CONTRACT_VERSION = 1
"""Sent in every hello; a peer with another one is refused with UNIMPLEMENTED."""

INLINE_LIMIT = 64 * 1024
"""Bytes of one tensor or media file that may ride inside an event. A hop costs the same up to here; above it a second
copy in HTTP/2 costs more than a slot in the arena."""

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
