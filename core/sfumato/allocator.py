"""Keeping freed memory, so that every training step finds the blocks of the one before.

glibc returns large blocks to the system as they are freed, and the next step's first touch of every
page costs a fault. That is for a program to decide, not for a library: only the command line does.
"""

from __future__ import annotations

import ctypes

# Of <malloc.h>.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MEBIBYTE = 1024 * 1024


def keep_blocks() -> bool:
    """Have glibc keep blocks up to 512 MiB, and up to 1 GiB of free memory; whether there is a glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or another system
        return False
    kept = mallopt(_MMAP_THRESHOLD, 512 * _MEBIBYTE)
    return bool(mallopt(_TRIM_THRESHOLD, 1024 * _MEBIBYTE) and kept)
