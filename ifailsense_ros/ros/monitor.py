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

_M_MMAP_THRESHOLD = -3  # of malloc.h


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node until a signal comes; returns the exit status."""
    argv = sys.argv if argv is None else argv
    if "--help" in argv or "-h" in argv:
        print(__doc__)
        return 0
    _give_buffers_back()
    return process.run(
        "ifailsense_monitor",
        lambda stop: MonitorNode(stop_requested=lambda: stop.requested),
        argv,
    )


def _give_buffers_back() -> None:
    """Have glibc map large buffers and give them back when they are freed. By itself it learns to
    keep them on its heap after the first few pictures, and the process seems to grow for minutes.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 256 * 1024)


if __name__ == "__main__":
    sys.exit(main())
