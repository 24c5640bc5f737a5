"""The monitor's process: `python -m ifailsense_ros.ros.monitor --ros-args -p detector:=sim-tiny`.

SIGINT and SIGTERM settle the open episodes as UNKNOWN / SHUT_DOWN, wait until that is heard, and
end the process with 0; a second signal ends it at once. A wrong parameter or checkpoint ends it
with one line on stderr and 2; without `autostart` it is configure that fails, with the same line.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Sequence

from ifailsense_ros.ros import process
from ifailsense_ros.ros.monitor_node import MonitorNode

# Of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_MB = 1 << 20


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node until a signal comes; returns the exit status."""
    argv = sys.argv if argv is None else argv
    if "--help" in argv or "-h" in argv:
        print(__doc__)
        return 0
    _use_one_heap()
    return process.run(
        "ifailsense_monitor",
        lambda stop: MonitorNode(stop_requested=lambda: stop.requested),
        argv,
    )


def _use_one_heap() -> None:
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


if __name__ == "__main__":
    sys.exit(main())
