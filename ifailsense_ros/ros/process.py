"""A node as a process: signals, what is wrong said in one line, and everything settled at the end.

Own signal handling: rclpy's would invalidate the context before open work could be settled. The
first SIGINT or SIGTERM settles it and ends the process with 0; a second one ends it at once.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from ifailsense_ros.core.errors import ConfigError, IFailSenseError, text_of

# Eleven turns a second: each costs rclpy half a millisecond, and pictures wait for the next one. No
# timer does this: it would also wake a node that is busy with pictures anyway.
_SPIN_S = 0.09
# Each sends one result of an action, and no more than that.
_LAST_TURNS = 200


class Stop:
    """Set by the first signal."""

    def __init__(self) -> None:
        self.requested = False
        signal.signal(signal.SIGINT, self)
        signal.signal(signal.SIGTERM, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def run(program: str, make: Callable[[Stop], Node], argv: Sequence[str]) -> int:
    """Run the node until a signal comes.

    Args:
        program: its name, for messages.
        make: the node; it has `work()`, called after each `spin_once`, and `settle()`, called at
            the end: nobody is left without an answer.
        argv: of the process.

    Returns:
        Exit status; 2 after one line on stderr when a setting is wrong.
    """
    stop = Stop()
    try:
        _run(make, argv, stop)
    except IFailSenseError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def start_ros(argv: Sequence[str], **options: Any) -> None:
    """`rclpy.init`.

    Raises:
        ConfigError: what stands behind --ros-args makes no sense.
    """
    try:
        rclpy.init(args=argv, **options)
    except Exception as error:  # what rclpy raises differs by distribution
        raise ConfigError(text_of(error)) from error


def _run(make: Callable[[Stop], Node], argv: Sequence[str], stop: Stop) -> None:
    start_ros(argv, signal_handler_options=SignalHandlerOptions.NO)
    try:
        try:
            node = make(stop)
        except ParameterException as error:  # a parameter of another type
            raise ConfigError(text_of(error)) from error
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        try:
            while not stop.requested:
                executor.spin_once(timeout_sec=_SPIN_S)
                node.work()
        finally:
            node.settle()
            for _ in range(_LAST_TURNS):
                executor.spin_once(timeout_sec=0.0)  # what settling has only handed over
            # Before the context goes: its destructor would complain otherwise.
            executor.shutdown(timeout_sec=0.5)
            node.destroy_node()
    finally:
        rclpy.try_shutdown()
