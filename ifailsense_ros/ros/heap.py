"""The heap of a process that gets pictures all day: settings of glibc, none elsewhere."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time

# Of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_MB = 1 << 20

TRIM_PERIOD_S = 60.0


def use_one_heap() -> None:
    """Have glibc keep the memory of pictures, and all memory in one place.

    By itself it gives a picture's buffer back and asks for another one, whose pages the kernel has
    to clear: for raw pictures that takes ten times the CPU time of all else. And it has a heap for
    each thread that ever ran, up to eight a core; each keeps what the largest message ever took.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 32 * _MB)  # glibc takes no more than this
        mallopt(_M_TRIM_THRESHOLD, 64 * _MB)
        mallopt(_M_ARENA_MAX, 1)


def trim_regularly(period_s: float = TRIM_PERIOD_S) -> None:
    """Give the kernel back, once in a while, the pages that have become free for good.

    What is kept for the next picture is asked for again at once; what lies between blocks that
    stay (a table of the interpreter that was replaced by a larger one leaves a megabyte) is not.

    Args:
        period_s: a minute is long enough for it to cost nothing.
    """
    with contextlib.suppress(OSError, AttributeError):
        malloc_trim = ctypes.CDLL(None).malloc_trim  # lets go of the interpreter's lock

        def run() -> None:
            while True:
                time.sleep(period_s)
                malloc_trim(0)

        threading.Thread(target=run, name="trim", daemon=True).start()
