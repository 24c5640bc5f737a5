"""/diagnostics once a second, whatever the node's main loop is doing.

A thread of its own: while the main loop waits for a detector to load, or settles episodes, it
still beats, and says since when the main loop has not turned. It reads nothing of the node's
state: the main loop hands it finished statuses when it asks for them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node

from ifailsense_ros.ros.publishers import create_publisher

PERIOD_S = 1.0
# The main loop is asked so long before a beat.
_AHEAD_S = 0.1
_BUSY_S = 2.0
# After a beat that came late.
_LEAST_S = 0.9


class Heartbeat:
    """Publishes what `offer` was given last, at 1 Hz by the steady clock.

    Args:
        node: whose publisher and clock are used.
        wake: makes the main loop turn; called from the thread.
    """

    def __init__(self, node: Node, wake: Callable[[], None]) -> None:
        self._node = node
        self._wake = wake
        self._publisher = create_publisher(node, DiagnosticArray, "/diagnostics", 10)
        self._statuses: list[DiagnosticStatus] = []
        self._offered_at = time.monotonic()
        self._wanted = threading.Event()
        self._given = threading.Event()
        self._hurry = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def offer(self, build: Callable[[], list[DiagnosticStatus]]) -> None:
        """The main loop turns; `build` is called if a beat is due."""
        if not self._wanted.is_set():
            return
        self._wanted.clear()
        self._statuses, self._offered_at = build(), time.monotonic()
        self._given.set()

    def beat_now(self) -> None:
        """Do not wait for the second to end: something has changed."""
        self._hurry.set()

    def stop(self) -> None:
        """The last beat was the last."""
        self._stopped = True
        self._hurry.set()
        self._given.set()
        self._thread.join()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stopped:
            hurried = self._hurry.wait(max(0.0, due - _AHEAD_S - time.monotonic()))
            self._hurry.clear()
            self._given.clear()
            self._wanted.set()
            self._wake()
            asked = time.monotonic()
            if self._given.wait(_AHEAD_S) and not hurried and not self._stopped:
                time.sleep(max(0.0, due - time.monotonic()))
            if not self._stopped:
                self._beat(asked)
            if not hurried:
                # A beat that was missed is not made up for, nor the next one hurried.
                due = max(due + PERIOD_S, time.monotonic() + _LEAST_S)

    def _beat(self, asked: float) -> None:
        silent = asked - self._offered_at
        busy = silent > _BUSY_S
        main_loop = DiagnosticStatus(
            level=DiagnosticStatus.WARN if busy else DiagnosticStatus.OK,
            name=f"{self._node.get_fully_qualified_name()[1:]}: main loop",
            message=f"busy for {silent:.1f} s; the other values are that old"
            if busy
            else "turning",
            hardware_id="ifailsense_ros",
        )
        message = DiagnosticArray(status=[*self._statuses, main_loop])
        try:
            message.header.stamp = self._node.get_clock().now().to_msg()
            self._publisher.publish(message)
        except Exception as error:
            # The context goes first when the process is ended by force. Whatever else it is, the
            # next beat may succeed.
            if self._node.context.ok():
                self._node.get_logger().error(f"diagnostics were not published: {error}")
