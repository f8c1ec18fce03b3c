"""Bytes of global memory that the CUDA kernels move, in sectors of 32 bytes, on the traced build of the test device."""

import contextlib
import ctypes
import os

import simt_device


@contextlib.contextmanager
def counted():
    """Runs operators on the traced kernels; yields a function that returns (bytes read, bytes written) since then."""
    if os.environ.setdefault("PYPOSE_OPS_SIMT_TRACE", "1") != "1":
        raise RuntimeError("sectors are counted on the traced build: PYPOSE_OPS_SIMT_TRACE must not be set otherwise")
    library = ctypes.CDLL(str(simt_device.load()))

    def moved():
        read, written = ctypes.c_uint64(), ctypes.c_uint64()
        library.simt_traced_bytes(ctypes.byref(read), ctypes.byref(written))
        return read.value, written.value

    with simt_device.simt_kernels():
        library.simt_trace_sectors(ctypes.c_bool(True))
        try:
            yield moved
        finally:
            library.simt_trace_sectors(ctypes.c_bool(False))
