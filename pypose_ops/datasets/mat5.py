"""The structure of .mat files of MATLAB 5 to 7.2, looked at before scipy reads them.

scipy's reader ends the process at some damaged files, and takes the memory that a few bytes ask for. Here every element
must lie in the one around it, have a known type, and as many numbers as its dimensions say.
"""

import math
import struct
import zlib
from collections.abc import Callable
from typing import TypeAlias

Buffer: TypeAlias = bytes | bytearray

_BYTES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8, 16: 1, 17: 2, 18: 4}  # of a number, by type
_INT32, _UINT32, _MATRIX, _COMPRESSED, _TEXT = 5, 6, 14, 15, (1, 16)
_CELL, _STRUCT, _OBJECT, _CHAR, _SPARSE, _NUMBERS = 1, 2, 3, 4, 5, range(6, 16)
_HEADER, _DEPTH, _CHUNK = 128, 64, 1 << 24


def is_mat4(data: bytes) -> bool:
    """Whether these are the bytes of a file of MATLAB 4, which has no header."""
    return 0 in data[:4]


def check_mat5(data: bytes, fits: Callable[[int, int], bool]) -> None:
    """Looks at every element of a file.

    Args:
        data: its bytes.
        fits: whether so many packed bytes may unpack to so many.

    Raises:
        ValueError: what is wrong, in a few words.
    """
    order = ">" if data[126:128] == b"MI" else "<"
    at, size = _HEADER, 0
    while at + 8 <= len(data):
        kind, start, length, at = _Elements(data, order).tag(at, len(data))
        if kind != _COMPRESSED:
            _Elements(data, order).array(kind, start, length)
            continue
        unpacked = _unpacked(data[start : start + length], lambda n: fits(len(data), size + n))  # noqa: B023
        size += len(unpacked)
        elements = _Elements(unpacked, order)
        elements.array(*elements.tag(0, len(unpacked))[:3])


def _unpacked(packed: Buffer, fits: Callable[[int], bool]) -> bytearray:
    """A compressed element, as long as it may grow."""
    unpack, out = zlib.decompressobj(), bytearray()
    while packed and not unpack.eof:
        out += unpack.decompress(packed, _CHUNK)
        packed = unpack.unconsumed_tail
        if not fits(len(out)):
            raise ValueError(f"it unpacks to more than {len(out):,} bytes, which are refused")
    return out


class _Elements:
    """Elements in a buffer; positions are those of bytes in it."""

    def __init__(self, data: Buffer, order: str) -> None:
        self.data = data
        self.pair, self.leaf, self.number = (struct.Struct(order + form).unpack_from for form in ("2I", "14I", "I"))
        self.order = order

    def tag(self, at: int, end: int) -> tuple[int, int, int, int]:
        """Type, first byte and number of bytes of an element's content, and where the next element begins."""
        if at + 8 > end:
            raise ValueError("an element ends early")
        kind, size = self.pair(self.data, at)
        if kind >> 16:  # up to four bytes, in the tag itself
            if kind >> 16 > 4:
                raise ValueError(f"an element of type {kind}")
            return kind & 0xFFFF, at + 4, kind >> 16, at + 8
        start = at + 8
        if start + size > end:
            raise ValueError("an element is longer than what it lies in")
        return kind, start, size, min(start + size + (0 if kind == _COMPRESSED else -size % 8), end)

    def array(self, kind: int, start: int, size: int, depth: int = 0) -> None:
        """A variable, or an array in a struct or a cell."""
        if kind != _MATRIX:
            raise ValueError(f"an element of type {kind} in the place of an array")
        self.matrix(start, start + size, depth)

    def known(self, at: int, end: int, kinds: tuple[int, ...]) -> tuple[int, int, int]:
        """First byte, number of bytes and end of an element of one of these types."""
        kind, start, size, at = self.tag(at, end)
        if kind not in kinds:
            raise ValueError(f"an element of type {kind}")
        return start, size, at

    def matrix(self, at: int, end: int, depth: int) -> None:
        """An array and its contents."""
        if at == end:
            return  # empty
        if end - at >= 56:  # most are single numbers: all tags at once
            leaf = self.leaf(self.data, at)
            if leaf[:2] == (_UINT32, 8) and leaf[4:6] == (_INT32, 8) and leaf[8:10] == (1, 0) and not leaf[2] & 0x800:
                if leaf[2] & 0xFF in _NUMBERS and leaf[10] in _BYTES:
                    if leaf[6] * leaf[7] * _BYTES[leaf[10]] == leaf[11] <= end - at - 48:
                        return
        start, size, at = self.known(at, end, (_UINT32,))
        if size != 8:
            raise ValueError("flags that are none")
        flags = self.number(self.data, start)[0]
        start, size, at = self.known(at, end, (_INT32,))
        dims = struct.unpack_from(f"{self.order}{size // 4}i", self.data, start)
        if size % 4 or not 2 <= len(dims) <= 32 or min(dims) < 0:
            raise ValueError(f"dimensions {dims[:8]}")
        _, _, at = self.known(at, end, _TEXT)
        self.content(flags, math.prod(dims), at, end, depth)

    def content(self, flags: int, count: int, at: int, end: int, depth: int) -> None:
        """What stands behind the name of an array."""
        kind, parts = flags & 0xFF, 2 if flags & 0x800 else 1
        if kind in _NUMBERS:
            for _ in range(parts):
                number, _, size, at = self.tag(at, end)
                if number not in _BYTES or _BYTES[number] * count != size:
                    raise ValueError(f"{size:,} bytes of type {number} for {count:,} numbers")
        elif kind in (_CHAR, _SPARSE):
            for _ in range(1 if kind == _CHAR else 2 + parts):
                _, _, at = self.known(at, end, tuple(_BYTES))
        elif kind in (_CELL, _STRUCT, _OBJECT):
            if depth > _DEPTH:
                raise ValueError("structs and cells are nested too deep")
            if kind == _OBJECT:
                _, _, at = self.known(at, end, _TEXT)
            if kind != _CELL:
                start, size, at = self.known(at, end, (_INT32,))
                length = self.number(self.data, start)[0] if size == 4 else 0
                _, size, at = self.known(at, end, _TEXT)
                if not 0 < length <= 4096 or size % length:
                    raise ValueError(f"names of fields of {length} characters")
                count *= size // length
            for _ in range(count):
                element, start, size, at = self.tag(at, end)
                self.array(element, start, size, depth + 1)
        else:
            raise ValueError(f"an array of class {kind}: functions and objects are not read")
