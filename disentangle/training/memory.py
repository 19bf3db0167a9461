"""What becomes of freed memory."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST = 1 << 30  # bytes; what is larger still comes from, and goes back to, the system


def keep_freed_memory() -> None:
    """Asks the GNU C library to keep freed blocks for the next allocation.

    Otherwise every large tensor on a CPU is new memory, which the system zeroes page by page at the
    first touch: a fifth of a training step of a small VAE. The process then keeps the memory of its
    largest step to the end. Elsewhere than on Linux, and under another C library, nothing happens.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(M_MMAP_THRESHOLD, LARGEST)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
