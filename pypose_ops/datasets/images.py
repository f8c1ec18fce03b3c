"""Image loading for data sets and commands.

Images are rotated upright by their EXIF orientation and converted to RGB; 16-bit values are divided by 257, and
floating-point values from 0 to 1 multiplied by 255.
"""

import functools
import io
import os
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps

from .files import fits

T = TypeVar("T")
PIXELS = 1 << 27  # more are refused: 134 million, half a gigabyte
_ORIENTATION = 0x0112  # the EXIF tag of the orientation; 5 to 8 swap width and height


class ImageError(Exception):
    """An image that cannot be decoded: its name and why."""


@functools.lru_cache(maxsize=32)
def _archive(path: str, process: int) -> zipfile.ZipFile:
    # One handle per process: forked processes would share the file position.
    return zipfile.ZipFile(path)


@functools.lru_cache(maxsize=32)
def members(path: str) -> frozenset[str]:
    """The names in a zip archive."""
    return frozenset(_archive(path, os.getpid()).namelist())


@dataclass(frozen=True)
class ImageFile:
    """An image in a file, or in a member of a zip archive.

    Attributes:
        path: of the file.
        member: its name in the archive, or None.
    """

    path: str
    member: str | None = None

    def __str__(self) -> str:
        return self.path if self.member is None else f"{self.path}/{self.member}"

    def read(self) -> bytes:
        """Reads the encoded bytes."""
        if self.member is None:
            return Path(self.path).read_bytes()
        archive = _archive(self.path, os.getpid())
        info = archive.getinfo(self.member)
        if not fits(info.compress_size, info.file_size):
            raise ImageError(f"{self}: {info.compress_size:,} bytes that unpack to {info.file_size:,}; refused")
        return archive.read(info)

    def exists(self) -> bool:
        """Whether the file or the member exists."""
        return os.path.exists(self.path) if self.member is None else self.member in members(self.path)

    def _open(self, convert: Callable[[Image.Image], T]) -> T:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is another
                with Image.open(self.path if self.member is None else io.BytesIO(self.read())) as image:
                    if image.width * image.height > PIXELS:
                        raise ImageError(f"{self}: {image.width}x{image.height} pixels, which are too many; refused")
                    return convert(image)
        except ImageError:
            raise
        except FileNotFoundError:
            raise ImageError(f"{self}: no such file") from None
        except Image.DecompressionBombError as error:
            raise ImageError(f"{self}: too many pixels; refused ({str(error).split(',')[0]})") from None
        except Exception as error:  # Pillow, zipfile and zlib raise a dozen kinds
            raise ImageError(f"{self}: not a readable image ({' '.join(str(error).split()) or 'damaged'})") from None

    def size(self) -> tuple[int, int]:
        """``(height, width)`` of the upright image, from the header."""
        return self._open(_upright_size)

    def is_turned(self) -> bool:
        """Whether its EXIF orientation swaps width and height."""
        return self._open(_turned)

    def header(self) -> tuple[tuple[int, int], int]:
        """:meth:`size`, and the number of images in the file: more than 1 in animations and multi-page TIFFs."""
        return self._open(lambda image: (_upright_size(image), _frames(image)))

    def upright(self) -> Image.Image:
        """The upright RGB image; the first of several."""
        return self._open(to_rgb)

    def upright_of(self) -> tuple[Image.Image, int]:
        """:meth:`upright`, and of how many images it is the first."""
        return self._open(lambda image: (to_rgb(image), _frames(image)))

    def decode(self) -> torch.Tensor:
        """``(H, W, 3)`` uint8 RGB, upright.

        Raises:
            ImageError: the file is missing, damaged, too large or not an image.
        """
        return torch.from_numpy(np.array(self.upright()))


def _frames(image: Image.Image) -> int:
    # What follows the photograph in a camera's MPO is the same one smaller, or the other eye's.
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def _turned(image: Image.Image) -> bool:
    return image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)


def _upright_size(image: Image.Image) -> tuple[int, int]:
    return (image.width, image.height) if _turned(image) else (image.height, image.width)


def to_rgb(image: Image.Image) -> Image.Image:
    """Converts an image of any mode to upright RGB."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image), image.mode)).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    """Converts 16-bit, 32-bit or floating-point grey values to uint8."""
    if mode == "F":
        low, high = float(np.fmin.reduce(values, None)), float(np.fmax.reduce(values, None))  # NaN if all are
        if not (0 <= low and high <= 255):
            raise ValueError(f"floating-point values from {low:g} to {high:g}; expected 0 to 1, or 0 to 255")
        values = np.nan_to_num(values) * (255 if high <= 1 else 1)
    else:
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"values from {values.min()} to {values.max()}; expected 8 or 16 bits")
        # Pillow opens 8-bit images as L, so these have 16 bits.
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return np.rint(values).astype(np.uint8)
