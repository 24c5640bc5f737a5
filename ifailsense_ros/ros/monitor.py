"""The monitor's process: `python -m ifailsense_ros.ros.monitor --ros-args -p detector:=sim-tiny`.

Own signal handling: rclpy's would invalidate the context before the open episodes could be
settled. SIGINT and SIGTERM settle them as UNKNOWN / SHUT_DOWN, wait until that is heard, and end
the process with 0; a second signal ends it at once. A wrong parameter or checkpoint ends it with
one line on stderr and 2; without `autostart` it is configure that fails, with the same line.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from ifailsense_ros.core.errors import ConfigError, IFailSenseError
from ifailsense_ros.ros.monitor_node import MonitorNode

# No timer does this: it would also wake a node that is busy with pictures anyway.
_SPIN_S = 0.05
# Each sends one result of an action, and no more than that.
_LAST_TURNS = 20
_M_MMAP_THRESHOLD = -3  # of malloc.h


class _Stop:
    """Set by the first signal."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the node until a signal comes; returns the exit status."""
    argv = sys.argv if argv is None else argv
    if "--help" in argv or "-h" in argv:
        print(__doc__)
        return 0
    _give_buffers_back()
    stop = _Stop()
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    try:
        _run(argv, stop)
    except IFailSenseError as error:
        print(f"ifailsense_monitor: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _give_buffers_back() -> None:
    """Have glibc map large buffers and give them back when they are freed. By itself it learns to
    keep them on its heap after the first few pictures, and the process seems to grow for minutes.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 256 * 1024)


def _run(argv: Sequence[str], stop: _Stop) -> None:
    try:
        rclpy.init(args=argv, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # what rclpy raises for bad --ros-args differs by distribution
        raise ConfigError(" ".join(str(error).split())) from error
    try:
        node = MonitorNode(stop_requested=lambda: stop.requested)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        try:
            while not stop.requested:
                executor.spin_once(timeout_sec=_SPIN_S)
                node.work()
        finally:
            node.settle()
            for _ in range(_LAST_TURNS):
                executor.spin_once(timeout_sec=0.0)  # results of actions
            # Before the context goes: its destructor would complain otherwise.
            executor.shutdown(timeout_sec=0.5)
            node.destroy_node()
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
