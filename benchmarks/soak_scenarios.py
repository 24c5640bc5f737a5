"""What happens to episodes in the soak: each scenario plays some and says how they must end.

Each leaves the monitor idle, so that the next one finds what it expects.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from random import Random

from action_msgs.msg import GoalStatus

from benchmarks.soak_driver import STEP_NS, Driver, SoakError
from ifailsense_ros.action import CheckEpisode
from ifailsense_ros.core.verdict import Reason
from ifailsense_ros.msg import EpisodeEvent, FailureVerdict

R = Reason
START, END, ABORT = EpisodeEvent.START, EpisodeEvent.END, EpisodeEvent.ABORT
SUCCESS, FAILURE = FailureVerdict.SUCCESS, FailureVerdict.FAILURE
TEXT = "lift the red block"
# A real detector may abstain, and knows no such pictures; with the double there is NONE alone.
JUDGED = (R.NONE, R.VLM_ABSTAINED, R.OUT_OF_DISTRIBUTION)
UNUSABLE = (R.TOO_FEW_KEYFRAMES, R.CAMERA_STALE, R.CAMERA_ABSENT)

Scenario = Callable[[Driver, Random], None]


def good(d: Driver, random: Random) -> None:
    """An episode as it should be."""
    brighter = random.random() < 0.7
    d.start(TEXT, *JUDGED, verdict=SUCCESS if brighter else FAILURE)
    d.film(random.randint(5, 12), brighter=brighter)
    d.event(END)


def by_goal(d: Driver, random: Random) -> None:
    """The goal of an action server; sometimes one that overlaps, or is canceled."""
    d.say(TEXT)
    canceled = random.random() < 0.3
    reasons = (R.ABORTED,) if canceled else JUDGED
    d.film(1)
    episode = d.start("", *reasons, verdict=SUCCESS, by_goal=True)
    d.goal(episode, GoalStatus.STATUS_EXECUTING)
    d.film()
    d.spin(0.2)  # the end of a goal has no stamp: the pictures must be there
    end = GoalStatus.STATUS_CANCELED if canceled else GoalStatus.STATUS_SUCCEEDED
    d.goal(episode, end)


def by_check(d: Driver, random: Random) -> None:
    """A planner waits for the verdict, with the action."""
    now = random.random() < 0.5
    episode = d.start(TEXT, *JUDGED, verdict=SUCCESS)
    d.film()
    d.spin(0.2)
    condition = CheckEpisode.Goal.END_NOW if now else CheckEpisode.Goal.END_AT_END
    result = d.ask(episode, condition)
    if not now:
        d.event(END, episode)
    answer = d.until(lambda: result.done() and result.result(), "the result of a goal")
    if bytes(answer.result.verdict.episode_id.uuid) != episode.bytes:
        raise SoakError("check_episode answered with another episode")


def camera_dies(d: Driver, random: Random) -> None:
    """One camera sends nothing more."""
    d.start(TEXT, R.CAMERA_STALE)
    d.film(6)
    d.film(12, cameras=(random.choice(("exo", "gripper")),))
    d.event(END)


def camera_freezes(d: Driver, random: Random) -> None:
    """One camera repeats its last stamp."""
    d.start(TEXT, R.CAMERA_STALE)
    d.film(6)
    frozen_ns, now_ns = d.stamp_ns - STEP_NS, d.stamp_ns
    for i in range(12):
        d.stamp_ns = now_ns + i * STEP_NS
        d.picture("exo", 100)
        d.stamp_ns = frozen_ns
        d.picture("gripper", 100)
    d.stamp_ns = now_ns + 12 * STEP_NS
    d.event(END)


def no_camera(d: Driver, random: Random) -> None:
    """Not a single picture, or of one camera only."""
    d.start(TEXT, *UNUSABLE)
    if random.random() < 0.5:
        d.film(8, cameras=("exo",))
    else:
        d.stamp_ns += 10**9
    d.event(END)


def encoding_changes(d: Driver, random: Random) -> None:
    """In mid-episode: to one that is understood, or not."""
    d.start(TEXT, *JUDGED, verdict=SUCCESS)
    d.film(4)
    d.film(4, encoding=random.choice(("bgr8", "mono8", "rgb9", "16UC1")))
    d.event(END)


def bad_images(d: Driver, random: Random) -> None:
    """No picture can be used."""
    d.start(TEXT, R.BAD_IMAGE)
    d.film(8, encoding=random.choice(("rgb9", "16UC1", "")))
    d.event(END)


def stray_events(d: Driver, random: Random) -> None:
    """END and ABORT without START, or of another episode; END twice."""
    d.event(END)
    d.event(ABORT)
    d.event(77)
    first = d.start(TEXT, *JUDGED, verdict=SUCCESS)
    d.film(4)
    d.event(END, uuid.uuid4())
    d.event(START, first, TEXT)
    d.film(4)
    for _ in range(3):
        d.event(END, first)


def superseded(d: Driver, random: Random) -> None:
    """START during an episode."""
    d.start(TEXT, R.SUPERSEDED)
    d.film(5)
    good(d, random)


def disorder(d: Driver, random: Random) -> None:
    """Stamps twice and out of order."""
    d.start(TEXT, *JUDGED, verdict=SUCCESS)
    begin_ns = d.stamp_ns
    order = [0, 2, 1, 1, 3, 5, 4, 6, 6, 7]
    for i in order:
        d.stamp_ns = begin_ns + i * STEP_NS
        for camera in ("exo", "gripper"):
            d.picture(camera, 10 + 20 * i)
    d.stamp_ns = begin_ns + 8 * STEP_NS
    d.event(END)


def clock_jumps_back(d: Driver, random: Random) -> None:
    """In mid-episode; what comes then is in the new time."""
    d.start(TEXT, R.CLOCK_JUMPED)
    d.film(6)
    d.stamp_ns -= 20 * 10**9
    d.film(3)


def clock_jumps_on(d: Driver, random: Random) -> None:
    """A gap in the middle harms nobody."""
    d.start(TEXT, *JUDGED, verdict=SUCCESS)
    d.film(6)
    d.stamp_ns += 100 * 10**9
    d.film(6)
    d.event(END)


def bag_loop(d: Driver, random: Random) -> None:
    """The same stamps once more: a jump in time only if the loop is longer than a second."""
    begin_ns = d.stamp_ns
    for verdict in (SUCCESS, FAILURE):
        d.stamp_ns = begin_ns
        d.start(TEXT, *JUDGED, verdict=verdict)
        d.film(15, brighter=verdict == SUCCESS)
        d.event(END)
        d.settle()


def no_instruction(d: Driver, random: Random) -> None:
    """Nothing, or nothing but blanks."""
    d.say(random.choice(("", "  \n ")))
    d.start("", R.NO_INSTRUCTION)
    d.film()
    d.event(END)


def instruction_changes(d: Driver, random: Random) -> None:
    """In mid-episode."""
    d.say("")
    d.start(TEXT, R.INSTRUCTION_CHANGED)
    d.film(4)
    d.spin(0.2)  # past the grace after START
    d.say("open the drawer")
    d.film(2)


def too_short(d: Driver, random: Random) -> None:
    """Fewer pairs than keyframes."""
    d.start(TEXT, R.TOO_FEW_KEYFRAMES)
    d.film(random.randint(0, 2))
    d.event(END)


def aborted(d: Driver, random: Random) -> None:
    """Given up."""
    d.start(TEXT, R.ABORTED)
    d.film(3)
    d.event(ABORT)


def settings_change(d: Driver, random: Random) -> None:
    """While an episode runs."""
    d.start(TEXT, *JUDGED, verdict=SUCCESS)
    d.film(4)
    d.set_parameters(
        pre_roll=random.choice((0.0, 0.2)),
        provisional_period=random.choice((0.0, 0.05, 0.2)),
        publish_montage=random.random() < 0.5,
    )
    d.film(4)
    d.event(END)


def times_out(d: Driver, random: Random) -> None:
    """END never comes."""
    d.set_parameters(episode_timeout=0.4)
    d.start(TEXT, *JUDGED, verdict=SUCCESS)
    d.film()
    d.settle()
    d.set_parameters(episode_timeout=0.0)


def deactivated(d: Driver, random: Random) -> None:
    """In mid-verdict, with one episode running (a fast detector may have answered before)."""
    d.start("sleep 0.3", R.DEACTIVATED, *JUDGED, verdict=SUCCESS)
    d.film()
    d.event(END)
    d.start(TEXT, R.DEACTIVATED)
    d.film(3)
    d.spin(0.05)
    for label in ("deactivate", "activate"):
        if not d.transition(label):
            raise SoakError(f"{label} was refused")
    if d.transition("configure"):
        raise SoakError("configure of an active node was not refused")


def detector_fails(d: Driver, random: Random) -> None:
    """It raises, runs out of memory, or its VLM abstains."""
    text, reason = random.choice(
        (
            ("raise", R.DETECTOR_ERROR),
            ("memory", R.DETECTOR_OUT_OF_MEMORY),
            ("abstain", R.VLM_ABSTAINED),
        )
    )
    d.start(text, reason)
    d.film()
    d.event(END)


def queue_full(d: Driver, random: Random) -> None:
    """More episodes than may wait: one is judged, three wait, the last is refused."""
    # An early warning would sleep as well, and the first episode wait behind it.
    d.set_parameters(provisional_period=0.0)
    d.start("sleep 3", *JUDGED, verdict=SUCCESS)
    d.film()
    d.event(END)
    d.spin(0.8)
    for _ in range(3):
        d.start(TEXT, *JUDGED, verdict=SUCCESS)
        d.film()
        d.event(END)
    d.spin(0.3)
    d.start(TEXT, R.QUEUE_FULL)
    d.film(3)
    d.event(END)


def detector_hangs(d: Driver, random: Random) -> None:
    """For ever; the one that waits is judged by the next process."""
    d.start("sleep 600", R.DETECTOR_TIMEOUT)
    d.film()
    d.event(END)
    good(d, random)


def detector_dies(d: Driver, random: Random) -> None:
    """By itself, in mid-verdict."""
    d.start("die", R.DETECTOR_ERROR)
    d.film()
    d.event(END)
    good(d, random)


def worker_killed(d: Driver, random: Random) -> None:
    """From outside, idle or (with a double) in mid-verdict."""
    d.start("sleep 1", R.DETECTOR_ERROR, *JUDGED, verdict=SUCCESS)
    d.film()
    d.event(END)
    d.spin(random.choice((0.0, 0.3)))
    d.monitor.kill_worker()
    good(d, random)


COMMON: dict[Scenario, float] = {
    good: 40,
    by_goal: 4,
    by_check: 4,
    camera_dies: 3,
    camera_freezes: 3,
    no_camera: 2,
    encoding_changes: 4,
    bad_images: 3,
    stray_events: 4,
    superseded: 4,
    disorder: 4,
    clock_jumps_back: 4,
    clock_jumps_on: 4,
    bag_loop: 3,
    no_instruction: 2,
    instruction_changes: 2,
    too_short: 3,
    aborted: 4,
    settings_change: 4,
    times_out: 1,
    deactivated: 2,
    worker_killed: 0.3,
}
"""Whatever the detector is, with how often each is drawn."""

WITH_DOUBLE: dict[Scenario, float] = {
    **COMMON,
    detector_fails: 4,
    queue_full: 0.5,
    detector_hangs: 0.2,
    detector_dies: 0.3,
}
"""The double misbehaves when the instruction says so."""
