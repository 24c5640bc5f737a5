"""The shared detector (ros/detector_server.py) as one monitor sees it.

A node of its own in a thread of its own: the monitor's node does not spin while it is configured,
and is not to wait for anybody while it takes pictures in. The thread owns all that is ROS here;
the monitor's thread hands it what to do, and polls what has come of it.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from typing import Any

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future

from ifailsense_ros.core.episode import Episode
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.verdict import Judgement, Reason
from ifailsense_ros.model.handle import Answer, Died, LoadFailed, Ready, WorkerEvent, one_line
from ifailsense_ros.ros import conversions, judge_messages
from ifailsense_ros.srv import GetDetector, JudgeEpisode

PATIENCE = "detector_timeout"
"""The monitor's parameter that says how long it waits for a judgement, seconds."""
GET_DETECTOR, JUDGE_EPISODE = "get_detector", "judge_episode"
_TURN_S = 0.2
_ASK_EVERY_S = 1.0
# A request may be lost while the two sides are still finding each other.
_ASK_AGAIN_S = 3.0
SILENT_S = 10.0
"""A shared detector that has not answered for so long is gone. Its main loop answers, whatever its
worker does; the middleware itself would notice only a process that ends in good order."""


class RemoteDetector:
    """A `DetectorHandle` for a detector that is reached by ROS services.

    It is ready when the service has been found and has said what it wants. It has died when it
    does not answer any more, or another process answers in its place; after `restart` it is ready
    again as soon as there is one. One that wants other episodes than the monitor was configured
    for cannot be used (`LoadFailed`), but is if it comes back as it was.

    Args:
        node: of the monitor; its namespace and name, and its parameter `detector_timeout`.
        name: of the shared detector's node, e.g. "/detector"; relative to the monitor's namespace.
        start_timeout_s: longest time until it is found for the first time.
        on_event: as for `DetectorWorker`.
        silent_s: see `SILENT_S`.

    Raises:
        ConfigError: the name is not one.
    """

    def __init__(
        self,
        node: Node,
        name: str,
        start_timeout_s: float,
        on_event: Callable[[], None] = lambda: None,
        silent_s: float = SILENT_S,
    ) -> None:
        self._monitor = node
        self._start_timeout_s = start_timeout_s
        self._on_event = on_event
        self._silent_s = silent_s
        try:
            self._name = node.resolve_service_name(name)
        except Exception as error:
            raise ConfigError(
                f"detector: 'service:{name}' names no service ({one_line(error)}); give the name "
                "of a node that runs ifailsense_detector, e.g. service:/detector"
            ) from None
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[tuple[int, WorkerEvent]] = queue.SimpleQueue()
        self._generation = 0
        self._closed = False
        self._thread: threading.Thread | None = None
        # --- of the thread
        self._serves = 0  # the generation for which it looks or is ready; 0: for none
        self._ready: Ready | None = None
        self._wanted: Any = None  # what the first one wanted: the monitor is configured for that
        self._instance: uuid.UUID | None = None
        self._failed = False
        self._deadline = 0.0
        self._asked: tuple[Future, float] | None = None
        self._next_ask = 0.0
        self._heard_at = 0.0
        self._judging: tuple[int, Future] | None = None

    # --- the monitor's thread -------------------------------------------------------------------

    def start(self) -> None:
        """See `DetectorHandle`."""
        self._client_node = Node(
            f"{self._monitor.get_name()}_detector_client",
            context=self._monitor.context,
            namespace=self._monitor.get_namespace(),
            # The monitor's own remappings have been applied; its name must not be given to this.
            use_global_arguments=False,
            start_parameter_services=False,
            enable_rosout=False,
        )
        self._get = self._client_node.create_client(GetDetector, f"{self._name}/{GET_DETECTOR}")
        self._judge = self._client_node.create_client(JudgeEpisode, f"{self._name}/{JUDGE_EPISODE}")
        self._wake = self._client_node.create_guard_condition(lambda: None)
        self._executor = SingleThreadedExecutor(context=self._monitor.context)
        self._executor.add_node(self._client_node)
        self._deadline = time.monotonic() + self._start_timeout_s
        self._generation += 1
        self._do(self._look, self._generation)
        self._thread = threading.Thread(target=self._run, name="remote detector", daemon=True)
        self._thread.start()

    def submit(self, request_id: int, episode: Episode) -> None:
        """See `DetectorHandle`."""
        patience_s = self._monitor.get_parameter(PATIENCE).value
        self._do(self._send, self._generation, request_id, episode, patience_s)

    def poll(self) -> list[WorkerEvent]:
        """See `DetectorHandle`."""
        events: list[WorkerEvent] = []
        with contextlib.suppress(queue.Empty):
            while True:
                generation, event = self._events.get_nowait()
                if generation == self._generation:
                    events.append(event)
        return events

    def restart(self) -> None:
        """See `DetectorHandle`. The shared detector itself is left alone: it looks after itself."""
        self._generation += 1
        self._do(self._look, self._generation)

    def close(self) -> None:
        """See `DetectorHandle`."""
        self._generation += 1
        self._closed = True
        if self._thread is not None:
            with contextlib.suppress(Exception):  # the context may be gone, and the thread with it
                self._wake.trigger()
            self._thread.join(timeout=2.0)

    def _do(self, command: Callable[..., None], *arguments: Any) -> None:
        self._commands.put(lambda: command(*arguments))
        with contextlib.suppress(Exception):
            self._wake.trigger()

    # --- its own thread -------------------------------------------------------------------------

    def _run(self) -> None:
        context = self._monitor.context
        while not self._closed and context.ok():
            try:
                self._executor.spin_once(timeout_sec=_TURN_S)
                self._turn(time.monotonic())
            except Exception as error:
                if self._closed or not context.ok():
                    break
                traceback.print_exc()
                self._die(f"the connection to {self._name} failed: {one_line(error)}")
        with contextlib.suppress(Exception):
            self._executor.shutdown(timeout_sec=0.5)
            self._client_node.destroy_node()

    def _turn(self, now: float) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._commands.get_nowait()()
        if not self._serves:
            return
        if self._asked and self._asked[0].done():
            future, _ = self._asked
            self._asked, self._heard_at = None, now
            self._on_description(future.result())
        self._take_answer()
        self._ask(now)
        self._watch(now)

    def _look(self, generation: int) -> None:
        """Forget what was being judged; be ready when there is a detector."""
        self._serves, self._ready, self._failed = generation, None, False
        if self._judging:
            self._judge.remove_pending_request(self._judging[1])
            self._judging = None
        if self._asked:  # its answer may be from one that has gone since
            self._get.remove_pending_request(self._asked[0])
            self._asked = None
        self._next_ask = 0.0

    def _send(self, generation: int, id: int, episode: Episode, patience_s: float) -> None:
        if generation != self._serves or self._ready is None:
            return  # it has died, and the monitor is about to hear of it
        geometry = judge_messages.geometry_of(self._ready.config.montage)
        client = self._monitor.get_fully_qualified_name()
        request = judge_messages.to_request(episode, geometry, client, patience_s)
        self._judging = (id, self._judge.call_async(request))

    def _take_answer(self) -> None:
        if self._judging is None or not self._judging[1].done():
            return
        (id, future), self._judging = self._judging, None
        try:
            judgement = judge_messages.to_judgement(future.result())
        except ValueError as error:
            text = f"{self._name} is of another release: {one_line(error)}"
            judgement = Judgement.unknown(Reason.DETECTOR_ERROR, text)
        self._tell(Answer(id, judgement))

    def _ask(self, now: float) -> None:
        """Once a second: what are you? Are you still there?"""
        if self._asked and now > self._asked[1] + _ASK_AGAIN_S:
            self._get.remove_pending_request(self._asked[0])
            self._asked = None
        if self._asked is None and now >= self._next_ask and self._is_there():
            self._asked = (self._get.call_async(GetDetector.Request()), now)
            self._next_ask = now + _ASK_EVERY_S

    def _watch(self, now: float) -> None:
        if self._ready is None:
            if self._wanted is None and now > self._deadline:
                self._fail(
                    f"no shared detector {self._name} within {self._start_timeout_s:g} s: is "
                    "ifailsense_detector running, on this ROS domain?"
                )
        elif not self._is_there():
            self._die(f"the shared detector {self._name} is gone")
        elif now > self._heard_at + self._silent_s:
            self._die(f"the shared detector {self._name} does not answer any more")

    def _is_there(self) -> bool:
        return self._get.service_is_ready() and self._judge.service_is_ready()

    def _on_description(self, response: GetDetector.Response) -> None:
        instance = conversions.to_uuid(response.instance)
        if self._ready is not None:
            if instance != self._instance:
                self._die(f"the shared detector {self._name} was started anew")
            return
        try:
            ready = judge_messages.to_ready(response)
        except ValueError as error:
            self._fail(f"the shared detector {self._name} cannot be used: {one_line(error)}")
            return
        if self._wanted not in (None, ready.config):
            self._fail(
                f"the shared detector {self._name} is {ready.model_id} now, which wants other "
                "episodes than this monitor makes: configure the monitor anew"
            )
            return
        self._ready, self._wanted, self._instance = ready, ready.config, instance
        self._tell(ready)

    def _die(self, why: str) -> None:
        generation, self._serves, self._ready = self._serves, 0, None
        self._events.put((generation, Died(why)))
        self._on_event()

    def _fail(self, why: str) -> None:
        """Said once; it is still looked for."""
        if not self._failed:
            self._failed = True
            self._tell(LoadFailed(why))

    def _tell(self, event: WorkerEvent) -> None:
        self._events.put((self._serves, event))
        self._on_event()
