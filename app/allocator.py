"""Keep the memory that tensors free, instead of giving it back to the kernel and asking for it again.

glibc returns large blocks to the kernel when they are freed. Training frees and takes the same few megabytes many times
per update, and the kernel clears every page anew: ``make bench`` shows what that costs on a machine.
"""

from __future__ import annotations

import ctypes
import sys

# Parameters of glibc's mallopt, from malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell the C library to keep freed memory for the next tensor.

    The process then holds the most memory that it ever used until it ends.

    Returns:
        Whether it did; false on systems without glibc, where nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        adjust = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(adjust(_MMAP_THRESHOLD, 2**30)) and bool(adjust(_TRIM_THRESHOLD, _LARGEST))
