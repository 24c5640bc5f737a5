"""What comes in, on its way to the tracker. Callbacks stamp and enqueue; the rest is for the owner.

Nothing here raises, whatever a message holds: what cannot be used is counted. No node and no
subscriptions (ros/inputs.py has those), so that tests can pour anything into it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ifailsense_ros.core.effects import BoundaryKind, Effect
from ifailsense_ros.core.errors import ImageError
from ifailsense_ros.core.goal_status import GoalState, GoalWatch
from ifailsense_ros.core.pictures import views_of
from ifailsense_ros.core.tracker import Tracker
from ifailsense_ros.ros import conversions, diagnostics
from ifailsense_ros.ros.image_source import ReadPicture, Synchronizer

Effects = Iterator[list[Effect]]


class Intake:
    """The inbox of one monitor.

    Args:
        tracker: to feed.
        synchronizer: of the cameras.
        read: of the cameras' messages.
        ros_now: the ROS clock, nanoseconds; for events without a stamp before any picture.
    """

    def __init__(
        self,
        tracker: Tracker,
        synchronizer: Synchronizer,
        read: ReadPicture,
        ros_now: Callable[[], int],
    ) -> None:
        self._tracker = tracker
        self._synchronizer = synchronizer
        self._read = read
        self._ros_now = ros_now
        self._goals = GoalWatch(tracker.counters)
        self._inbox: deque[tuple[Callable[..., Effects], tuple[Any, ...]]] = deque()
        self._last_image_now = time.monotonic_ns()
        self.cameras = {c: diagnostics.CameraCounts() for c in tracker.config.cameras}

    # --- callbacks ------------------------------------------------------------------------------

    def on_instruction(self, message: Any) -> None:
        """std_msgs/String."""
        self._inbox.append((self._instruction, (message.data, time.monotonic_ns())))

    def on_episode(self, message: Any) -> None:
        """ifailsense_ros/EpisodeEvent."""
        self._inbox.append((self._event, (message, time.monotonic_ns())))

    def on_goal_status(self, message: Any) -> None:
        """action_msgs/GoalStatusArray."""
        self._inbox.append((self._goal_status, (message, time.monotonic_ns())))

    def on_image(self, camera: str, data: bytes) -> None:
        """sensor_msgs/Image or CompressedImage, serialized."""
        now_ns = time.monotonic_ns()
        counts = self.cameras[camera]
        counts.received += 1
        counts.last_now = self._last_image_now = now_ns
        self._inbox.append((self._image, (camera, data, now_ns)))

    def on_clock_jump(self, jump: Any) -> None:
        """rclpy's TimeJump, backwards."""
        detail = f"the ROS clock went back by {-jump.delta.nanoseconds / 1e9:.3g} s"
        self._inbox.append((self._clock_jump, (time.monotonic_ns(), detail, self._ros_now())))

    # --- for the tracker's owner ----------------------------------------------------------------

    def work(self) -> Effects:
        """Handle what was enqueued. Perform the effects of each step before asking for the next:
        a jump in time must reach `reset_pairing` before the picture that revealed it is paired.
        """
        while self._inbox:
            handle, arguments = self._inbox.popleft()
            yield from handle(*arguments)
        now_ns = time.monotonic_ns()
        yield self._tracker.tick(now_ns)
        if now_ns > self._last_image_now + self._tracker.config.drain_after_ns:
            self._synchronizer.give_up_waiting()

    def reset_pairing(self) -> None:
        """The stamps of the cameras start anew."""
        self._synchronizer.reset()

    def stamp_now(self) -> int:
        """Now, in the time of the stamps, nanoseconds."""
        return self._tracker.stamp_now(self._ros_now())

    def measure_rates(self, now_ns: int) -> None:
        """Mean rates of the cameras since the last call."""
        for counts in self.cameras.values():
            counts.measure_rate(now_ns)

    def values(self, camera: str) -> Mapping[str, int]:
        """received = used + decimated + the dropped/... + buffered, of one camera."""
        counts = self.cameras[camera]
        values = diagnostics.camera_values(camera, counts, self._tracker, self._synchronizer)
        values["buffered"] += sum(
            handle == self._image and arguments[0] == camera for handle, arguments in self._inbox
        )
        return values

    # --- one message each -----------------------------------------------------------------------

    def _instruction(self, text: str, now_ns: int) -> Effects:
        yield self._tracker.instruction(text, now_ns)

    def _event(self, message: Any, now_ns: int) -> Effects:
        # A sender that leaves the stamp empty means now.
        stamp_ns = conversions.to_ns(message.header.stamp) or self.stamp_now()
        episode_id = conversions.to_uuid(message.episode_id)
        if message.event in list(BoundaryKind):
            kind = BoundaryKind(message.event)
            yield self.boundary(kind, stamp_ns, now_ns, episode_id, message.instruction)
        else:
            self._tracker.counters["event_unknown"] += 1

    def boundary(
        self,
        kind: BoundaryKind,
        stamp_ns: int,
        now_ns: int,
        episode_id: Any,
        instruction: str = "",
    ) -> list[Effect]:
        """START, END or ABORT, from wherever."""
        if kind is BoundaryKind.START:
            return self._tracker.start(stamp_ns, now_ns, episode_id, instruction)
        if kind is BoundaryKind.END:
            return self._tracker.end(stamp_ns, now_ns, episode_id)
        return self._tracker.abort(stamp_ns, now_ns, episode_id)

    def _goal_status(self, message: Any, now_ns: int) -> Effects:
        states = [
            GoalState(
                conversions.to_uuid(status.goal_info.goal_id),
                status.status,
                conversions.to_ns(status.goal_info.stamp),
            )
            for status in message.status_list
        ]
        for event in self._goals.update(states):
            stamp_ns = event.stamp_ns or self.stamp_now()
            yield self.boundary(event.kind, stamp_ns, now_ns, event.goal_id)

    def _clock_jump(self, now_ns: int, detail: str, to_ns: int) -> Effects:
        yield self._tracker.clock_jump(now_ns, detail, to_ns)

    def _image(self, camera: str, data: bytes, now_ns: int) -> Effects:
        tracker, counts = self._tracker, self.cameras[camera]
        try:
            picture = self._read(data)
        except ImageError as error:
            counts.refused[diagnostics.MALFORMED] += 1
            yield tracker.bad_image(camera, str(error), now_ns)
            return
        counts.frame_id = picture.frame_id
        if picture.stamp_ns <= 0:
            counts.refused[diagnostics.NO_STAMP] += 1
            detail = "header.stamp is zero or negative: the camera driver must stamp its pictures"
            yield tracker.bad_image(camera, detail, now_ns)
            return
        yield tracker.image(camera, picture.stamp_ns, now_ns)
        for pair in self._synchronizer.add(camera, picture.stamp_ns, picture):
            yield tracker.pair(
                pair.stamp_ns,
                lambda pair=pair: views_of(tracker.config.cameras, pair.messages),
                now_ns,
            )
