"""Reads JSON, .mat and npz files; problems raise one-line InputErrors.

Nothing is unpacked before its size is known: small archives that would grow to gigabytes are refused.
"""

import gzip
import io
import json
import math
import os
import zipfile
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from ..errors import InputError
from .mat5 import check_mat5, is_mat4

Id: TypeAlias = int | str

# Archives may unpack to this many bytes or this many times their size, whichever is more.
UNPACKED, RATIO = 256 << 20, 50
FAR = 1e9  # pixels: beyond any image coordinate


def fits(packed: int, unpacked: int) -> bool:
    """Whether data of this size may be unpacked."""
    return unpacked <= unpacked_limit(packed)


def unpacked_limit(packed: int) -> int:
    """The number of bytes that data of this size may unpack to."""
    return max(UNPACKED, RATIO * packed)


def read_bytes(path: str | Path) -> bytes:
    """Reads the bytes of a file."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'damaged'})") from None


def write_bytes(path: str | Path, data: bytes, parents: bool = True) -> None:
    """Writes a file atomically, with permissions by the umask; creates its folder with ``parents``.

    Raises:
        InputError: the file cannot be written, or the disk is full; the previous file is kept.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if parents:
            path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(21, "Is a directory")
        part.write_bytes(data)
        os.replace(part, path)
    except (OSError, ValueError) as error:
        if part.parent.is_dir():
            part.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})") from None


def write_json(path: str | Path, content: Any, parents: bool = True) -> None:
    """:func:`write_bytes` for JSON."""
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode(), parents)


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths refer to the same file, following links."""
    try:
        return one.samefile(other)
    except OSError:
        return one.absolute() == other.absolute()


def check_outputs(outputs: Iterable[Path], inputs: Iterable[str | Path | None], option: str = "") -> None:
    """Refuses to overwrite input files, also through links; ``option`` is named in the error."""
    there = [(identity, path) for path in outputs if (identity := _identity(path)) is not None]
    if not there:
        return
    kept = {_identity(path): path for path in inputs if path is not None}
    for identity, out in there:
        if identity in kept:
            named = f"{option} {out}".strip()
            raise InputError(f"{named}: {kept[identity]} would be overwritten, expected another file or folder")


def _identity(path: str | Path) -> tuple[int, int] | None:
    """Device and number of an existing file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _gunzipped(path: str | Path, data: bytes) -> bytes:
    limit = unpacked_limit(len(data))
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            content = file.read(limit + 1)
    except Exception as error:  # gzip, zlib and EOF
        raise InputError(f"{path}: not gzip, or damaged ({error or type(error).__name__})") from None
    if len(content) > limit:
        raise InputError(f"{path}: {len(data):,} bytes that unpack to more than {limit:,}, which are refused")
    return content


def _packed(fields: Collection[str], dropped: Collection[str]) -> Callable[[dict], dict]:
    """A hook that stores long lists of numbers as arrays, in a fifth of the memory, and drops unused fields."""

    def hook(record: dict) -> dict:
        for name in fields:
            values = record.get(name)
            if type(values) is list:
                try:
                    record[name] = array("d", values)
                except (TypeError, OverflowError):
                    pass  # nested, null or text: handled by the reader
        for name in dropped:
            record.pop(name, None)
        return record

    return hook


def load_json(path: str | Path, *, packed: Collection[str] = (), dropped: Collection[str] = ()) -> Any:
    """Parses a JSON file, optionally with gzip compression or a byte order mark.

    Args:
        path: of the file.
        packed: fields of objects to store as ``array("d")`` if they are lists of numbers.
        dropped: fields of objects to drop.
    """
    data = read_bytes(path)
    if data[:2] == b"\x1f\x8b":
        data = _gunzipped(path, data)
    try:
        text = data.decode(json.detect_encoding(data), "surrogatepass")
        del data  # as large as the text
        return json.loads(text, object_hook=_packed(packed, dropped) if packed or dropped else None)
    except ValueError as error:
        raise InputError(f"{path}: not json ({error})") from None
    except RecursionError:
        raise InputError(f"{path}: unsupported JSON, its lists are nested too deep") from None


def shown(value: object, most: int = 40) -> str:
    """An abbreviated JSON value."""
    if isinstance(value, array):
        value = value.tolist()
    if isinstance(value, Mapping):
        value = {k: v.tolist() if isinstance(v, array) else v for k, v in list(value.items())[:8]}
    try:
        return json.dumps(value)[:most]
    except (TypeError, ValueError, RecursionError):
        return str(type(value).__name__)


# .mat and npz ---------------------------------------------------------------------------------------------------------


def load_mat(path: str | Path, data: bytes | None = None, **options: Any) -> dict[str, Any]:
    """The variables of a .mat file, or of its bytes.

    Args:
        path: of the file, also for messages.
        data: its bytes, if read from an archive.
        options: of :func:`scipy.io.loadmat`.
    """
    import scipy.io  # imported here: it takes a third of a second

    data = read_bytes(path) if data is None else data
    if is_hdf5(data):
        return _load_hdf5(path, data)
    try:
        if not is_mat4(data):
            check_mat5(data, fits)
        for name, shape, kind in scipy.io.whosmat(io.BytesIO(data)):
            size = math.prod(shape) * (8 if kind in ("cell", "struct", "object") else 1)
            if not fits(len(data), size):
                raise InputError(f"{path}: {name} would have {size:,} numbers, in a file of {len(data):,} bytes")
        return scipy.io.loadmat(io.BytesIO(data), **options)
    except InputError:
        raise
    except Exception as error:  # scipy raises many kinds of errors for damaged files
        reason = str(error) if type(error) is ValueError else type(error).__name__
        raise InputError(f"{path}: not a .mat file, or damaged; expected a .mat file ({reason})") from None


def is_hdf5(data: bytes) -> bool:
    """Whether these are the bytes of a .mat file of MATLAB 7.3, which is HDF5."""
    magic = b"\x89HDF\r\n\x1a\n"
    return data[:10] == b"MATLAB 7.3" or magic in (data[:8], data[512:520])


def _load_hdf5(path: str | Path, data: bytes) -> dict[str, Any]:
    """The arrays of a .mat file of MATLAB 7.3; its axes are reversed in HDF5."""
    try:
        import h5py
    except ModuleNotFoundError:
        raise InputError(
            f"{path}: a .mat file of MATLAB 7.3 (HDF5): save it with -v7, or install h5py, which reads it"
        ) from None
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            found = {n: v for n, v in file.items() if isinstance(v, h5py.Dataset) and v.dtype.kind in "fiub"}
            for name, values in found.items():
                if not fits(len(data), values.size * values.dtype.itemsize):
                    raise InputError(f"{path}: {name} would have {values.size:,} numbers in a small file")
            if not found and any(not name.startswith("#") for name in file):
                raise InputError(
                    f"{path}: a .mat file of MATLAB 7.3 (HDF5) without arrays of numbers; structs are read of -v7"
                )
            return {name: np.asarray(values).T for name, values in found.items()}
    except InputError:
        raise
    except Exception as error:  # h5py raises many kinds of errors
        raise InputError(f"{path}: a damaged .mat file of MATLAB 7.3, HDF5 ({type(error).__name__})") from None


class NpzArrays(Mapping[str, np.ndarray]):
    """The arrays of an npz file, read on access and converted to native byte order."""

    path: str | Path

    def __init__(self, path: str | Path, data: bytes) -> None:
        self.path, self._archive, self._read = path, zipfile.ZipFile(io.BytesIO(data)), {}
        infos = self._archive.infolist()
        if not fits(len(data), sum(info.file_size for info in infos)):
            raise InputError(f"{path}: unpacks to {sum(i.file_size for i in infos):,} bytes, {len(data):,} are packed")
        self._names = {info.filename.removesuffix(".npy"): info for info in infos}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._read:
            self._read[name] = self._array(name, self._names[name])
        return self._read[name]

    def _array(self, name: str, info: zipfile.ZipInfo) -> np.ndarray:
        try:
            with self._archive.open(info) as file:
                data = file.read(info.file_size + 1)
            if not data.startswith(b"\x93NUMPY"):
                return np.array(data)  # of another zip archive: as numpy.load has it
            values = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        except Exception as error:  # zip, zlib and numpy raise a dozen kinds of errors for damaged files
            if "Object arrays" in str(error):
                raise InputError(
                    f"{self.path}: not an npz file of numbers and text: {name} is an array of Python objects"
                ) from None
            raise InputError(
                f"{self.path}: not an npz file, or damaged: array {name} ({type(error).__name__})"
            ) from None
        return values if values.dtype.isnative else values.astype(values.dtype.newbyteorder("="))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def load_npz(path: str | Path) -> NpzArrays:
    """The arrays of an npz file by name."""
    data = read_bytes(path)
    if data[:6] == b"\x93NUMPY":
        raise InputError(f"{path}: an unnamed array (.npy), expected an npz file as written by numpy.savez")
    try:
        return NpzArrays(path, data)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: not an npz file, or damaged ({type(error).__name__})") from None


def no_array(path: str | Path, name: str, arrays: Mapping[str, Any]) -> InputError:
    """The error for a missing array."""
    held = ", ".join(sorted(key for key in arrays if not key.startswith("__")))
    return InputError(f"{path}: no array {name!r}, it has {held or 'none'}")


def take(arrays: Mapping[str, np.ndarray], name: str, path: str | Path) -> np.ndarray:
    """Returns the array of this name."""
    if name not in arrays:
        raise no_array(path, name, arrays)
    return arrays[name]


def take_numbers(
    arrays: Mapping[str, Any], path: str | Path, name: str, axes: Sequence[int], shape: Sequence[int | None]
) -> torch.Tensor:
    """Converts an array to float64 and permutes its axes to this shape; None: any length."""
    values = np.asarray(take(arrays, name, path))
    if values.ndim != len(axes) or values.dtype.kind not in "fiub":
        raise InputError(f"{path}: {name} must be {len(axes)} axes of numbers, got shape {values.shape}")
    moved = values.transpose(axes)
    if any(want is not None and want != have for want, have in zip(shape, moved.shape, strict=True)):
        raise InputError(f"{path}: {name} has the wrong shape {values.shape}")
    return torch.from_numpy(np.ascontiguousarray(moved, np.float64))


# Fields of records ----------------------------------------------------------------------------------------------------


def fields_of(path: str | Path, what: str, number: object, entry: Any, fields: Sequence[str]) -> list[Any]:
    """The fields of a record of a JSON list."""
    if not isinstance(entry, Mapping):
        raise InputError(f"{path}: {what} {number} must be an object, got {shown(entry)}")
    for field in fields:
        if field not in entry:
            raise InputError(f"{path}: {what} {number} has no {field!r}")
    return [entry[field] for field in fields]


def floats(values: Any) -> np.ndarray | None:
    """JSON numbers as float64, NaN for null; None if they are not numbers."""
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError, OverflowError):
        return None


def finite_numbers(path: str | Path, what: str, number: object, field: str, values: Any, count: int) -> np.ndarray:
    """``count`` finite numbers in a field of a record."""
    found = None if isinstance(values, (str, Mapping)) else floats(values)
    if found is None or found.size != count or found.ndim > 2 or not np.isfinite(found).all():
        wanted = "1 finite number" if count == 1 else f"{count} finite numbers"
        raise InputError(f"{path}: {what} {number}: {field} must be {wanted}")
    return found.ravel()


def finite_box(path: str | Path, what: str, number: object, field: str, values: Any) -> np.ndarray:
    """Four numbers of a box in a field of a record."""
    found = finite_numbers(path, what, number, field, values, 4)
    if np.abs(found).max() > FAR:
        raise InputError(f"{path}: {what} {number}: {field} reaches to {np.abs(found).max():g} px")
    return found


def as_id(value: Any) -> Id | None:
    """An identifier: 139, 139.0 and "139" are equal; other text is kept; None for other types."""
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        plain = value.isascii() and value.isdigit() and len(value) < 19 and (value[0] != "0" or value == "0")
        return int(value) if plain else value
    return None


def identifier(path: str | Path, what: str, number: object, field: str, value: Any) -> Id:
    """:func:`as_id` of a field, or an error."""
    found = as_id(value)
    if found is None:
        raise InputError(f"{path}: {what} {number}: {field} must be a number or a string, got {shown(value)}")
    return found


def only_once(path: str | Path, what: str, number: object, field: str, value: Any, seen: set[Id]) -> Id:
    """:func:`identifier`, checked to be unique."""
    found = identifier(path, what, number, field, value)
    if found in seen:
        raise InputError(f"{path}: {what} {number}: {field} {value} comes twice")
    seen.add(found)
    return found


def stacked(rows: Sequence[Any], *shape: int) -> torch.Tensor:
    """Rows of numbers as ``(N, *shape)`` float64."""
    return torch.from_numpy(np.array(rows, np.float64).reshape(-1, *shape))
