"""Arrays of npz files. What is wrong with one is an InputError."""

import numpy as np

from ..errors import InputError


def load_npz(path):
    """All arrays of an npz file, by name."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: np.asarray(archive[name]) for name in archive.files}
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or 'damaged'})") from None
    except Exception as error:  # zip, zlib and numpy raise a dozen kinds for damaged files
        raise InputError(f"{path}: not an npz file, or damaged ({type(error).__name__})") from None


def take(arrays, key, path):
    """The array ``key`` of a loaded npz file."""
    if key not in arrays:
        raise InputError(f"{path}: no array {key!r}, it has {', '.join(sorted(arrays)) or 'none'}")
    return arrays[key]
