"""What one end of an outside library tells the other end's: an address in the library's own format.

The libraries trust it: what another version or a damaged message makes of it ends the process. So it says of which
version it is, and carries a checksum.
"""

from __future__ import annotations

from struct import Struct

from xxhash import xxh3_64_intdigest

from omni_relay.peers.carriers.carrier import CarrierFailed

_HEAD = Struct("<32sQ")


def pack(library: str, content: bytes) -> bytes:
    """`library` names it with its version, in at most 32 bytes."""
    name = library.encode()
    return _HEAD.pack(name, xxh3_64_intdigest(name + content)) + content


def unpack(library: str, details: bytes) -> bytes:
    """What the other relay's `pack` was given. Raises CarrierFailed unless it is of the same library and version."""
    if len(details) < _HEAD.size:
        raise CarrierFailed("is not told where the other end is")
    name, checksum = _HEAD.unpack_from(details)
    content = details[_HEAD.size :]
    theirs = name.rstrip(b"\0")
    if xxh3_64_intdigest(theirs + content) != checksum:
        raise CarrierFailed("is told something damaged of the other end")
    if theirs != library.encode():
        raise CarrierFailed(f"is {library} here and {theirs.decode(errors='replace')} there")
    return content
