"""The monitor as its own process over real DDS: every way an episode can go, and how it ends."""

from __future__ import annotations

import json
import math
import os
import signal
import time
import uuid

import pytest

pytest.importorskip("rclpy")

import doubles
from ros_peer import make_image

from ifailsense_ros.core.images import decode_image
from ifailsense_ros.msg import DetectorVote, EpisodeEvent, FailureVerdict
from ifailsense_ros.ros import conversions

pytestmark = pytest.mark.timeout(180)

ONE = uuid.UUID(int=1)
R = FailureVerdict


def count_up(values, *names):
    return sum(int(values.get(name, 0)) for name in names)


@pytest.mark.parametrize("in_process", ["true", "false"])
def test_success_failure_and_trouble(peer_factory, start_monitor, in_process):
    """One monitor, several episodes: each has one verdict, failures are told apart."""
    monitor = start_monitor(f"in_process:={in_process}", "end_grace:=0.2")
    peer = peer_factory()
    peer.connect(monitor)
    assert len(monitor.worker_pids()) == (in_process == "false")

    # SUCCESS, with everything a consumer may want to know.
    start_ns = peer.stamp_ns
    peer.episode("  lift the\nred block ", start=ONE)
    verdict = peer.next_verdict(monitor)
    assert (verdict.verdict, verdict.reason_code, verdict.reason) == (R.SUCCESS, 0, "")
    assert conversions.to_uuid(verdict.episode_id) == ONE
    assert verdict.instruction == "lift the red block"
    assert verdict.p_success == pytest.approx(0.9)
    votes = [(v.source, v.vote, v.weight) for v in verdict.votes]
    assert votes == [("fs:1", DetectorVote.SUCCESS, 1.0), ("vlm", DetectorVote.SUCCESS, 2.0)]
    assert conversions.to_ns(verdict.header.stamp) == peer.stamp_ns
    assert verdict.header.frame_id == "exo_optical"
    assert verdict.model_id == "double@0"
    stamps = [conversions.to_ns(s) for s in verdict.keyframe_stamps]
    assert len(stamps) == 4
    assert stamps == sorted(stamps)
    assert start_ns <= stamps[0] < stamps[-1] <= peer.stamp_ns
    assert 0 < conversions.to_ns(verdict.latency) < 10**10

    # FAILURE, which is the only one on ~/failure.
    peer.episode("lift it", brighter=False)
    verdict = peer.next_verdict(monitor)
    assert verdict.verdict == R.FAILURE
    assert any(verdict.episode_id.uuid), "START without id: the node draws one"
    peer.until(lambda: peer.failures)
    assert peer.failures == [verdict]

    # What the detector itself cannot say.
    for instruction, reason in (
        ("raise", R.REASON_DETECTOR_ERROR),
        ("memory", R.REASON_DETECTOR_OUT_OF_MEMORY),
        ("abstain", R.REASON_VLM_ABSTAINED),
        ("hesitate", R.REASON_LOW_CONFIDENCE),
        ("wonder", R.REASON_OUT_OF_DISTRIBUTION),
    ):
        peer.episode(instruction)
        verdict = peer.next_verdict(monitor)
        assert (verdict.verdict, verdict.reason_code) == (R.UNKNOWN, reason)
        assert math.isnan(verdict.p_success)
        assert verdict.reason

    # Every boundary was told, with the ids of the verdicts.
    told = [(e.event, bytes(e.episode_id.uuid)) for e in peer.events]
    assert told == [
        (kind, bytes(v.episode_id.uuid))
        for v in peer.verdicts
        for kind in (EpisodeEvent.START, EpisodeEvent.END)
    ]
    # ... and every verdict has its picture, stamped alike.
    peer.until(lambda: len(peer.montages) == len(peer.verdicts))
    for montage, verdict in zip(peer.montages, peer.verdicts, strict=True):
        assert montage.header == verdict.header
        picture = decode_image(
            montage.height, montage.width, montage.encoding, 0, montage.step, montage.data
        )
        assert picture.std() > 0
    assert monitor.process.poll() is None
    monitor.process.send_signal(signal.SIGTERM)
    assert monitor.wait() == 0


def test_events_and_instructions(peer_factory, start_monitor):
    """The reasons that need no detector, one after the other."""
    monitor = start_monitor("end_grace:=0.2", "instruction_grace:=0.3", "publish_montage:=false")
    peer = peer_factory()
    peer.connect(monitor)

    def reason():
        verdict = peer.next_verdict(monitor)
        assert verdict.verdict == R.UNKNOWN
        return verdict.reason_code

    # Counted, never a verdict: END without START.
    peer.event(2)
    peer.event(2, ONE)
    peer.film(3)
    # Nothing on the instruction topic, or nothing but blanks.
    peer.episode("")
    assert reason() == R.REASON_NO_INSTRUCTION
    peer.say(" \n ")
    peer.episode("")
    assert reason() == R.REASON_NO_INSTRUCTION
    # The topic's instruction counts; a different one during an episode does not pass unnoticed.
    peer.say("push the block")
    peer.event(1)
    peer.film()
    peer.say("push  the block")
    peer.say("open the drawer")
    assert reason() == R.REASON_INSTRUCTION_CHANGED
    assert peer.verdicts[-1].instruction == "push the block"
    # Two STARTs; ABORT.
    peer.event(1, ONE, "lift")
    peer.film(4)
    peer.event(1, None, "lift")
    assert reason() == R.REASON_SUPERSEDED
    assert conversions.to_uuid(peer.verdicts[-1].episode_id) == ONE
    peer.film(4)
    peer.event(3)
    assert reason() == R.REASON_ABORTED
    # Too short.
    peer.stamp_ns += 10**9
    peer.episode("lift", count=2)
    assert reason() == R.REASON_TOO_FEW_KEYFRAMES
    # A camera that stops, and a clock that goes back.
    peer.event(1, None, "lift")
    peer.film(8)
    peer.film(12, cameras=("exo",))
    peer.event(2)
    assert reason() == R.REASON_CAMERA_STALE
    assert "gripper" in peer.verdicts[-1].reason
    peer.film(2)
    peer.event(1, None, "lift")
    peer.film(30, pause_s=0.01)
    peer.stamp_ns -= 10 * 10**9
    peer.film(2)
    assert reason() == R.REASON_CLOCK_JUMPED
    # And after all that it still works, in the new time.
    peer.episode("lift")
    assert peer.next_verdict(monitor).verdict == R.SUCCESS
    peer.until(lambda: peer.values("episodes").get("verdicts") == str(len(peer.verdicts)))
    assert peer.values("episodes")["end_without_start"] == "2"
    assert len(peer.verdicts) == 9


def test_odd_pictures(peer_factory, start_monitor):
    """Padded rows work; unknown encodings, depth and missing stamps are UNKNOWN with the reason."""
    monitor = start_monitor("end_grace:=0.2")
    peer = peer_factory()
    peer.connect(monitor)
    peer.episode("lift", make=lambda level: make_image(level, step=128))
    assert peer.next_verdict(monitor).verdict == R.SUCCESS
    for fields, text in (
        ({"encoding": "rgb9"}, "unknown encoding 'rgb9'"),
        ({"encoding": "16UC1"}, "depth"),
        ({"step": 40}, "step is 40 bytes"),
        ({"height": 0}, "sides must be"),
    ):
        peer.episode("lift", make=lambda level, f=fields: make_image(level, **f))
        verdict = peer.next_verdict(monitor)
        assert (verdict.verdict, verdict.reason_code) == (R.UNKNOWN, R.REASON_BAD_IMAGE)
        assert text in verdict.reason
        assert "camera exo" in verdict.reason
    # A driver that does not stamp.
    peer.event(1, None, "lift")
    stamp_ns, peer.stamp_ns = peer.stamp_ns, 0
    peer.film(5, step_ms=0)
    peer.stamp_ns = stamp_ns + 10**9
    peer.event(2)
    verdict = peer.next_verdict(monitor)
    assert verdict.reason_code == R.REASON_BAD_IMAGE
    assert "header.stamp is zero" in verdict.reason

    # Nothing is lost from the counts; the ring is empty after five seconds of silence.
    def settled():
        return [peer.values(f"camera {c}").get("buffered") for c in ("exo", "gripper")] == ["0"] * 2

    peer.until(settled, 15.0, monitor)
    for camera in ("exo", "gripper"):
        values = peer.values(f"camera {camera}")
        counted = count_up(values, "used", "decimated", "dropped")
        assert int(values["received"]) == counted
        reasons = [name for name in values if name.startswith("dropped/")]
        assert count_up(values, *reasons) == int(values["dropped"])
        assert int(values["dropped/no_stamp"]) == 5
        assert int(values["dropped/bad_image"]) > 0


def test_one_camera_missing(peer_factory, start_monitor):
    monitor = start_monitor("end_grace:=0.2")
    peer = peer_factory()
    peer.connect(monitor)
    peer.episode("lift", cameras=("exo",))
    verdict = peer.next_verdict(monitor)
    assert (verdict.verdict, verdict.reason_code) == (R.UNKNOWN, R.REASON_CAMERA_ABSENT)
    assert "camera gripper sent nothing" in verdict.reason
    peer.until(lambda: peer.values("camera gripper"))
    assert peer.values("camera gripper")["received"] == "0"


def test_a_checkpoint_with_one_point_of_view(peer_factory, start_monitor):
    monitor = start_monitor("detector:=doubles:load_exo_only", "end_grace:=0.2")
    peer = peer_factory()
    peer.connect(monitor, cameras=1)
    peer.episode("lift", cameras=("exo",), count=1, step_ms=0)
    verdict = peer.next_verdict(monitor)
    assert verdict.verdict == R.FAILURE, "one frame four times: nothing got brighter"
    assert len({conversions.to_ns(s) for s in verdict.keyframe_stamps}) == 1
    assert "monitor: camera gripper" not in peer.status
    # On a rig with two cameras it does not listen to the other one.
    peer.stamp_ns += 10**9
    peer.episode("lift", count=6)
    assert peer.next_verdict(monitor).verdict == R.SUCCESS
    assert not peer.node.count_subscribers("/gripper/image")


def test_compressed_pictures_in_a_namespace(peer_factory, start_monitor):
    import cv2
    import numpy as np
    from sensor_msgs.msg import CompressedImage

    def jpeg(level):
        picture = np.full((24, 32, 3), level, np.uint8)
        return CompressedImage(format="jpeg", data=cv2.imencode(".jpg", picture)[1].tobytes())

    monitor = start_monitor("image_transport:=compressed", "__ns:=/left")
    peer = peer_factory(compressed=True, prefix="/left")
    peer.connect(monitor)
    peer.episode("lift", make=jpeg)
    assert peer.next_verdict(monitor).verdict == R.SUCCESS
    peer.episode("lift", make=lambda level: CompressedImage(format="jpeg", data=b"\xff\xd8\xffxx"))
    verdict = peer.next_verdict(monitor)
    assert verdict.reason_code == R.REASON_BAD_IMAGE
    assert "truncated" in verdict.reason


def test_a_hung_worker_is_replaced(peer_factory, start_monitor):
    monitor = start_monitor("detector_timeout:=1.0", "end_grace:=0.2")
    peer = peer_factory()
    peer.connect(monitor)
    (hung,) = monitor.worker_pids()
    peer.episode("sleep 60")
    peer.episode("lift")
    verdict = peer.next_verdict(monitor)
    assert (verdict.verdict, verdict.reason_code) == (R.UNKNOWN, R.REASON_DETECTOR_TIMEOUT)
    # The one that waited is judged by the new worker.
    verdict = peer.next_verdict(monitor)
    assert (verdict.verdict, verdict.instruction) == (R.SUCCESS, "lift")
    assert monitor.worker_pids() != [hung]
    peer.until(lambda: peer.values("detector").get("detector state") == "ready")
    assert peer.values("detector")["restarts"] == "1"


def test_a_killed_worker_is_replaced(peer_factory, start_monitor):
    monitor = start_monitor("end_grace:=0.2")
    peer = peer_factory()
    peer.connect(monitor)
    peer.episode("sleep 30")
    peer.spin(0.6)
    os.kill(monitor.worker_pids()[0], signal.SIGKILL)
    verdict = peer.next_verdict(monitor)
    assert (verdict.verdict, verdict.reason_code) == (R.UNKNOWN, R.REASON_DETECTOR_ERROR)
    assert "signal 9" in verdict.reason
    peer.episode("lift")
    assert peer.next_verdict(monitor).verdict == R.SUCCESS


def test_a_full_queue_refuses_the_newest(peer_factory, start_monitor):
    monitor = start_monitor("queue_size:=1", "end_grace:=0.1")
    peer = peer_factory()
    peer.connect(monitor)
    for instruction in ("sleep 4", "lift", "push"):
        peer.episode(instruction, pause_s=0.01)
        peer.spin(0.3)
    verdict = peer.next_verdict(monitor)
    assert (verdict.reason_code, verdict.instruction) == (R.REASON_QUEUE_FULL, "push")
    peer.next_verdict(monitor)
    verdict = peer.next_verdict(monitor)
    assert (verdict.verdict, verdict.instruction) == (R.SUCCESS, "lift")


def test_simulated_time(peer_factory, start_monitor):
    """Episodes in the time of /clock; a simulation that starts anew ends the running one."""
    from rosgraph_msgs.msg import Clock

    monitor = start_monitor("use_sim_time:=true", "end_grace:=0.2")
    peer = peer_factory()
    peer.stamp_ns = 50 * 10**9
    clock = peer.node.create_publisher(Clock, "/clock", 10)

    def tick():
        clock.publish(Clock(clock=conversions.to_time(peer.stamp_ns)))
        peer.spin(0.2)

    peer.connect(monitor)
    peer.until(clock.get_subscription_count, 10.0, monitor)
    tick()
    peer.episode("lift")
    assert peer.next_verdict(monitor).verdict == R.SUCCESS
    tick()
    peer.event(1, None, "lift")
    peer.film(10)
    tick()
    peer.stamp_ns = 10**9
    tick()
    verdict = peer.next_verdict(monitor)
    assert verdict.reason_code == R.REASON_CLOCK_JUMPED
    assert "the ROS clock went back" in verdict.reason
    peer.episode("lift")
    assert peer.next_verdict(monitor).verdict == R.SUCCESS


def test_the_quality_of_service_of_the_cameras_can_be_overridden(peer_factory, start_monitor):
    monitor = start_monitor(
        "qos_overrides./exo/image.subscription.reliability:=reliable",
        "qos_overrides./exo/image.subscription.depth:=20",
    )
    peer = peer_factory()
    peer.connect(monitor)
    (exo,) = peer.node.get_subscriptions_info_by_topic("/exo/image")
    (gripper,) = peer.node.get_subscriptions_info_by_topic("/gripper/image")
    assert exo.qos_profile.reliability.name == "RELIABLE"
    assert gripper.qos_profile.reliability.name == "BEST_EFFORT"
    assert "is unknown" not in monitor.output


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_settles_everything(peer_factory, start_monitor, stop):
    """Judged, queued and running: each gets its verdict before the process ends, quickly."""
    monitor = start_monitor("end_grace:=0.1")
    peer = peer_factory()
    peer.connect(monitor)
    peer.episode("sleep 60")
    peer.episode("push")
    peer.event(1, ONE, "lift")
    peer.film(5)
    (worker,) = monitor.worker_pids()
    before = time.monotonic()
    monitor.process.send_signal(stop)
    peer.until(lambda: len(peer.verdicts) == 3, 10.0, monitor)
    assert {v.reason_code for v in peer.verdicts} == {R.REASON_SHUT_DOWN}
    assert [v.instruction for v in peer.verdicts] == ["sleep 60", "push", "lift"]
    assert conversions.to_uuid(peer.verdicts[-1].episode_id) == ONE
    assert monitor.wait() == 0
    assert time.monotonic() - before < 8.0
    assert not os.path.exists(f"/proc/{worker}")
    assert "Traceback" not in monitor.output


def test_a_listener_that_comes_late_still_gets_the_verdict(peer_factory, start_monitor):
    monitor = start_monitor("end_grace:=0.2")
    peer = peer_factory()
    peer.connect(monitor)
    peer.episode("lift", brighter=False)
    peer.next_verdict(monitor)
    late = peer_factory()
    late.until(lambda: late.verdicts, 10.0, monitor)
    late.spin(0.5)
    assert late.verdicts == peer.verdicts
    assert late.failures == [], "an old failure must not be acted on"


# --- starts that end at once: one line, status 2 -------------------------------------------------


def refused(monitor, timeout_s=30.0):
    assert monitor.wait(timeout_s) == 2, monitor.output
    lines = [x for x in monitor.output.splitlines() if x.startswith("ifailsense_monitor: error:")]
    assert len(lines) == 1, monitor.output
    assert "Traceback" not in monitor.output
    return lines[0]


def test_a_wrong_parameter(start_monitor):
    line = refused(start_monitor("slop:=5.0"))
    assert line.endswith("parameter slop: 5.0 is not allowed, must be in 0.0..1.0")


def test_wrong_ros_arguments(start_monitor):
    assert "error:" in refused(start_monitor("--what:is:this"))


@pytest.mark.parametrize("in_process", ["true", "false"])
def test_a_detector_that_cannot_be_loaded(start_monitor, in_process):
    line = refused(start_monitor("detector:=doubles:load_broken", f"in_process:={in_process}"))
    assert "model.safetensors has another sha256" in line


def test_no_such_checkpoint(start_monitor):
    assert "no-such-checkpoint" in refused(start_monitor("detector:=no-such-checkpoint"))


def write_checkpoint(folder, **changes):
    settings = {**json.loads(doubles.make_config().to_json()), **changes}
    (folder / "checkpoint.json").write_text(json.dumps(settings))
    (folder / "fs.safetensors").write_bytes(b"altered")
    return f"detector:={folder}"


def test_a_checkpoint_of_another_schema(start_monitor, tmp_path):
    line = refused(start_monitor(write_checkpoint(tmp_path, schema_version=99)))
    assert "checkpoint.json" in line
    assert "99" in line


def test_a_promise_that_the_checkpoint_cannot_keep(start_monitor, tmp_path):
    parameter = write_checkpoint(tmp_path, files={"fs.safetensors": "0" * 64})
    line = refused(start_monitor(parameter, "max_missed_failures:=0.05"))
    assert "max_missed_failures 0.05 cannot be promised" in line
    assert "is not calibrated" in line


@pytest.mark.slow
def test_a_checkpoint_with_a_wrong_hash(start_monitor, tmp_path):
    pytest.importorskip("torch")
    parameter = write_checkpoint(tmp_path, files={"fs.safetensors": "0" * 64})
    line = refused(start_monitor(parameter), 100.0)
    assert "fs.safetensors: sha256 is" in line


def test_a_detector_that_loads_for_ever(start_monitor):
    monitor = start_monitor("detector:=doubles:load_slowly", "detector_start_timeout:=1.5")
    assert "not loaded within 1.5 s" in refused(monitor)


def test_an_unknown_parameter_is_pointed_out(start_monitor):
    monitor = start_monitor("slopp:=0.1", "detector:=doubles:load_broken")
    refused(monitor)
    assert "parameter slopp is unknown" in monitor.output


def test_a_signal_while_loading(start_monitor):
    monitor = start_monitor("detector:=doubles:load_slowly")
    end = time.monotonic() + 20.0
    while "loading detector" not in monitor.output and time.monotonic() < end:
        time.sleep(0.1)
    monitor.process.send_signal(signal.SIGINT)
    assert monitor.wait(10.0) == 0
