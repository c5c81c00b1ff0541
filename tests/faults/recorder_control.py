"""The recorder from within the program that it is loaded into."""

from __future__ import annotations

import ctypes
import errno

_library = ctypes.CDLL(None)
_library.recorder_syncs.restype = ctypes.c_long
_library.recorder_fail_after.argtypes = (ctypes.c_long, ctypes.c_int)


def syncs() -> int:
    """How many times a file or folder was synced."""
    count: int = _library.recorder_syncs()
    return count


def fail_after(writes: int, error: int = errno.ENOSPC) -> None:
    """Have everything that needs room fail, from the write after so many on."""
    _library.recorder_fail_after(writes, error)


def stop_failing() -> bool:
    """There is room again. Returns whether there was a time when there was none."""
    has_failed = bool(_library.recorder_has_failed())
    _library.recorder_fail_after(-1, 0)
    return has_failed
