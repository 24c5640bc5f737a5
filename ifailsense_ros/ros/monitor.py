"""The monitor's process: `python -m ifailsense_ros.ros.monitor --ros-args -p detector:=sim-tiny`.

SIGINT and SIGTERM settle the open episodes as UNKNOWN / SHUT_DOWN, wait until that is heard, and
end the process with 0; a second signal ends it at once. A wrong parameter or checkpoint ends it
with one line on stderr and 2; without `autostart` it is configure that fails, with the same line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ifailsense_ros.ros import heap, process
from ifailsense_ros.ros.monitor_node import MonitorNode


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node until a signal comes; returns the exit status."""
    argv = sys.argv if argv is None else argv
    if "--help" in argv or "-h" in argv:
        print(__doc__)
        return 0
    heap.use_one_heap()
    heap.trim_regularly()
    return process.run(
        "ifailsense_monitor",
        lambda stop: MonitorNode(stop_requested=lambda: stop.requested),
        argv,
    )


if __name__ == "__main__":
    sys.exit(main())
