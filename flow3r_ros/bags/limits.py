"""How much a bag may unpack to, and the only functions that unpack: piece by piece, never more.

A few kilobytes of zstd, lz4 or bz2 can hold gigabytes of zeros. Whoever unpacks says how many bytes
are expected; unpacking stops there, and at `MAX_UNPACKED` whatever was announced.
"""

from __future__ import annotations

import bz2
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, Literal

import lz4.frame  # type: ignore[import-untyped]

if sys.version_info >= (3, 14):
    from compression import zstd as zstd
else:
    from backports import zstd as zstd

MAX_UNPACKED = 1 << 28
"""bytes that one message or chunk may unpack to (256 MiB): 3.7 times a 24-megapixel rgb8 image,
and 64 times the usual chunk of 4 MiB; what is larger is one counted drop. A whole file
(`x.mcap.zstd`) may hold as much, or `MAX_RATIO` times its own size where that is more."""

MAX_RATIO = 100
"""how many times larger an unpacked file may be: recorded images pack to a tenth at best, bags of
black ones to a seventieth; bombs of zeros reach 10000"""

Packing = Literal["zstd", "lz4", "bz2"]
_PIECE = 1 << 20
_BLOCK = 1 << 14
_OPEN: dict[str, Callable[[], Any]] = {
    "zstd": zstd.ZstdDecompressor,
    "lz4": lz4.frame.LZ4FrameDecompressor,
    "bz2": bz2.BZ2Decompressor,
}


class UnpackError(ValueError):
    """Packed bytes are damaged, cut off, or hold more than they may."""


def file_limit(packed_bytes: int) -> int:
    """Bytes that a packed file of this size may unpack to."""
    return max(MAX_UNPACKED, MAX_RATIO * packed_bytes)


def unpack(packed: bytes, packing: Packing, size: int = MAX_UNPACKED) -> bytes:
    """Everything in `packed`, at most `size` and `MAX_UNPACKED` bytes. Raises UnpackError."""
    return b"".join(pieces([packed], packing, min(size, MAX_UNPACKED)))


def unpack_as_far_as_possible(packed: bytes, packing: Packing, size: int) -> bytes:
    """As `unpack`, but what stands before the first damaged block, or nothing of what is too
    large."""
    if size > MAX_UNPACKED:
        return b""
    found = []
    with suppress(UnpackError):
        blocks = (packed[at : at + _BLOCK] for at in range(0, len(packed), _BLOCK))
        for piece in pieces(blocks, packing, size):
            found.append(piece)
    return b"".join(found)


def pieces(blocks: Iterable[bytes], packing: Packing, limit: int) -> Iterator[bytes]:
    """What packed blocks hold, in pieces of at most 1 MiB, frame after frame.

    Raises UnpackError at the first damaged block, when more than `limit` bytes come out, and at the
    end when the last frame is cut off.
    """
    decoder: Any = None
    total = 0
    for block in blocks:
        waiting = block
        while waiting or (decoder is not None and not decoder.eof and not decoder.needs_input):
            if decoder is None or decoder.eof:
                decoder = _OPEN[packing]()
            try:
                piece = decoder.decompress(waiting, _PIECE)
            except (zstd.ZstdError, RuntimeError, OSError, ValueError, EOFError) as error:
                raise UnpackError(f"{packing} data is damaged ({error})") from error
            waiting = (decoder.unused_data or b"") if decoder.eof else b""
            total += len(piece)
            if total > limit:
                raise UnpackError(f"{packing} data holds more than {limit} bytes")
            if piece:
                yield piece
    if decoder is not None and not decoder.eof:
        raise UnpackError(f"{packing} data is cut off")
