"""One detector process for several monitors, over real DDS."""

from __future__ import annotations

import os
import signal
import time
import uuid

import doubles
import numpy as np
import pixel_detector
import pytest

pytest.importorskip("rclpy")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from ros_peer import ROOT, MonitorProcess

from ifailsense_ros.core.episode import Episode, Keyframe
from ifailsense_ros.core.errors import ConfigError
from ifailsense_ros.core.montage import MontageGeometry
from ifailsense_ros.core.verdict import Judgement, Outcome, Reason
from ifailsense_ros.model.handle import Answer, Died, LoadFailed, Ready
from ifailsense_ros.msg import FailureVerdict
from ifailsense_ros.ros import judge_messages
from ifailsense_ros.ros.detector_server import SERVER_PARAMETERS
from ifailsense_ros.ros.parameters import PARAMETERS
from ifailsense_ros.ros.remote_detector import RemoteDetector
from ifailsense_ros.srv import JudgeEpisode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

WAIT_S = 60.0
SERVER = "ifailsense_ros.ros.detector_server"


@pytest.fixture
def start_server(domain, tmp_path):
    """Starts shared detectors; the double unless told otherwise."""
    servers = []

    def start(*parameters: str) -> MonitorProcess:
        if not any(p.startswith("detector:=") for p in parameters):
            parameters = ("detector:=doubles:load", *parameters)
        log = tmp_path / f"server-{len(servers)}.log"
        servers.append(MonitorProcess(log, *parameters, module=SERVER))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def context(domain):
    """Of the test's own nodes."""
    made = rclpy.Context()
    rclpy.init(context=made, domain_id=domain)
    yield made
    made.try_shutdown()


@pytest.fixture
def make_remote(context):
    """Makes what a monitor uses; each has a node of its own."""
    made = []

    def make(namespace: str = "/robot", patience_s: float = WAIT_S, **settings) -> RemoteDetector:
        node = Node("monitor", namespace=namespace, context=context)
        node.declare_parameter("detector_timeout", patience_s)
        remote = RemoteDetector(node, "/detector", WAIT_S, **settings)
        made.append((remote, node))
        remote.start()
        return remote

    yield make
    for remote, node in made:
        remote.close()
        node.destroy_node()


def wait_for(remote: RemoteDetector, kind, timeout_s: float = WAIT_S):
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        for event in remote.poll():
            assert isinstance(event, kind), event
            return event
        time.sleep(0.01)
    raise AssertionError(f"no {kind.__name__} within {timeout_s} s")


def make_episode(instruction: str = "brighten it", cell=(16, 24), seed: int = 0) -> Episode:
    random = np.random.default_rng(seed)
    views = [tuple(random.integers(0, 256, (2, *cell, 3), np.uint8)) for _ in range(4)]
    if not seed:
        views = [(np.full((*cell, 3), 10 * i, np.uint8),) * 2 for i in range(4)]
    keyframes = tuple(Keyframe(10**18 + i, v) for i, v in enumerate(views))
    return Episode(uuid.uuid4(), instruction, keyframes, 10**18, 10**18 + 3)


def float32(judgement: Judgement) -> tuple:
    """A judgement as FailureVerdict holds it."""
    votes = [(v.source, v.value, np.float32(v.p_success), v.weight) for v in judgement.votes]
    return judgement.outcome, judgement.reason, np.float32(judgement.p_success), votes


def test_judgements_are_bit_for_bit_those_of_a_detector_of_ones_own(start_server, make_remote):
    start_server("detector:=pixel_detector:make")
    remote = make_remote()
    ready = wait_for(remote, Ready)
    assert ready.model_id == "pixels@0"
    assert ready.config.montage == pixel_detector.CONFIG.montage
    assert ready.config.min_keyframes == pixel_detector.CONFIG.min_keyframes
    own = pixel_detector.make()
    for seed in range(1, 6):
        episode = make_episode(f"lift the {seed} ☃", (84, 84), seed)
        remote.submit(seed, episode)
        answer = wait_for(remote, Answer)
        assert answer.request_id == seed
        assert float32(answer.judgement) == float32(own.judge(episode))


def test_two_monitors_share_a_detector_that_is_stopped_and_started(
    start_server, start_monitor, peer_factory
):
    server = start_server()
    robots = {}
    for name in ("/robot1", "/robot2"):
        monitor = start_monitor(
            "detector:=service:/detector", f"__ns:={name}", "detector_start_timeout:=60.0"
        )
        robots[name] = (monitor, peer_factory(prefix=name))
    for monitor, peer in robots.values():
        peer.connect(monitor)
    one, two = (peer for _, peer in robots.values())
    ids = [uuid.UUID(int=n) for n in (1, 2)]
    # Interleaved: both episodes run at the same time.
    for peer, id in zip((one, two), ids, strict=True):
        peer.event(1, id, "brighten it")
    one.film(brighter=True)
    two.film(brighter=False)
    for peer, id in zip((one, two), ids, strict=True):
        peer.event(2, id)
    verdicts = [peer.next_verdict(monitor, WAIT_S) for monitor, peer in robots.values()]
    assert [v.verdict for v in verdicts] == [FailureVerdict.SUCCESS, FailureVerdict.FAILURE]
    assert [uuid.UUID(bytes=bytes(v.episode_id.uuid)) for v in verdicts] == ids
    assert {v.model_id for v in verdicts} == {"double@0"}

    # Stopped in the middle of a judgement: that is UNKNOWN, and the next one waits for its return.
    one.episode("sleep 30")
    one.until(lambda: one.values("episodes").get("running episode") == "", WAIT_S)
    one.spin(2.0)
    server.close()
    lost = one.next_verdict(robots["/robot1"][0], WAIT_S)
    assert (lost.verdict, lost.reason_code) == (0, FailureVerdict.REASON_DETECTOR_ERROR)
    for peer in (one, two):
        peer.until(lambda p=peer: p.values("detector").get("detector state") == "lost", WAIT_S)
        peer.episode()
    start_server()
    for monitor, peer in robots.values():
        assert peer.next_verdict(monitor, WAIT_S).verdict == FailureVerdict.SUCCESS
        assert peer.values("detector")["restarts"] == "1"
        assert len(peer.verdicts) == len({bytes(v.episode_id.uuid) for v in peer.verdicts})


def test_a_detector_that_was_killed_is_noticed_and_so_is_its_successor(start_server, make_remote):
    server = start_server()
    remote = make_remote(silent_s=4.0)
    wait_for(remote, Ready)
    remote.submit(1, make_episode("sleep 60"))
    (worker,) = server.worker_pids()
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(10)
    os.kill(worker, signal.SIGKILL)
    wait_for(remote, Died)
    remote.restart()
    start_server()
    wait_for(remote, Ready)
    remote.submit(2, make_episode())
    assert wait_for(remote, Answer).request_id == 2


def test_an_evil_episode_and_a_client_that_never_reads_cost_others_nothing(
    start_server, make_remote, context, peer_factory
):
    start_server("batch_timeout:=3.0", "client_queue:=3")
    stuck, deadly, good = (make_remote(f"/{name}") for name in ("stuck", "deadly", "good"))
    for remote in (stuck, deadly, good):
        wait_for(remote, Ready)
    peer = peer_factory()

    def counts(client: str) -> dict[str, int]:
        status = peer.status.get(f"detector: client {client}")
        values = {v.key: v.value for v in status.values} if status else {}
        return {k: int(v) for k, v in values.items() if v.isdecimal()}

    stuck.submit(1, make_episode("sleep 60"))
    peer.until(lambda: counts("/stuck/monitor").get("asked"), WAIT_S)
    rude = Node("rude", context=context)
    client = rude.create_client(JudgeEpisode, "/detector/judge_episode")
    assert client.wait_for_service(WAIT_S)
    request = judge_messages.to_request(make_episode(), MontageGeometry(2, 4, 16, 24), "/rude", 0.0)
    for _ in range(20):
        client.call_async(request)  # nobody spins this node: it takes no response
    deadly.submit(1, make_episode("die"))
    for number in range(2):
        good.submit(number, make_episode())
        assert wait_for(good, Answer).judgement.outcome is Outcome.SUCCESS
    assert wait_for(stuck, Answer).judgement.reason is Reason.DETECTOR_TIMEOUT
    assert wait_for(deadly, Answer).judgement.reason is Reason.DETECTOR_ERROR

    def settled() -> bool:
        rude = counts("/rude")
        return (
            bool(rude)
            and rude["waiting"] == 0
            and rude["asked"] == rude["judged"] + rude["refused"]
        )

    peer.until(settled, WAIT_S)
    assert counts("/rude")["judged"] == 3, "its bound"
    assert counts("/rude")["refused"] > 0
    rude.destroy_node()


def test_what_fits_no_detector_is_answered(start_server, context):
    start_server()
    node = Node("client", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    client = node.create_client(JudgeEpisode, "/detector/judge_episode")
    assert client.wait_for_service(WAIT_S)
    whole = judge_messages.to_request(make_episode(), MontageGeometry(2, 4, 16, 24), "c", 0.0)
    for change, text in (
        ({"num_pov": 1}, "4 keyframes of 1 PoV at 24x16; this detector judges 4 keyframes of 2"),
        ({"views": whole.views[:-1]}, "views has 9215 bytes, not 9216"),
        ({"keyframe_stamps": []}, "the episode has 0 keyframes"),
    ):
        fields = {name: getattr(whole, name) for name in whole.get_fields_and_field_types()}
        future = client.call_async(JudgeEpisode.Request(**{**fields, **change}))
        executor.spin_until_future_complete(future, WAIT_S)
        judgement = judge_messages.to_judgement(future.result())
        assert judgement.reason is Reason.DETECTOR_ERROR
        assert text in judgement.detail
    executor.shutdown()
    node.destroy_node()


def test_another_checkpoint_in_its_place_is_not_used(start_server, make_remote):
    server = start_server()
    remote = make_remote()
    wait_for(remote, Ready)
    server.close()
    wait_for(remote, Died)
    remote.restart()
    other = start_server("detector:=doubles:load_exo_only")
    assert "configure the monitor anew" in wait_for(remote, LoadFailed).detail
    other.close()
    start_server()
    wait_for(remote, Ready)


def test_nobody_there_is_one_line(context):
    node = Node("monitor", context=context)
    remote = RemoteDetector(node, "/nowhere", 0.5)
    remote.start()
    failed = wait_for(remote, LoadFailed).detail
    assert "no shared detector /nowhere within 0.5 s" in failed
    assert "\n" not in failed
    remote.close()
    with pytest.raises(ConfigError, match="'service:/not a name' names no service"):
        RemoteDetector(node, "/not a name", 1.0)
    node.destroy_node()


def test_the_server_says_what_is_wrong_with_its_settings(start_server):
    for parameter, text in (
        ("detector:=no-such-thing", "neither a checkpoint of this package"),
        ("batch_size:=0", "parameter batch_size: 0 is not allowed, must be in 1..16"),
        ("detector:=doubles:load_broken", "another sha256; fetch it again"),
    ):
        server = start_server(parameter)
        assert server.wait(WAIT_S) == 2
        (line,) = [x for x in server.output.splitlines() if "error: " in x]
        assert line.startswith("ifailsense_detector: error: ")
        assert text in line


def test_the_documentation_has_every_parameter():
    text = (ROOT / "docs" / "fleet.md").read_text()
    for name, row in SERVER_PARAMETERS.items():
        assert f"`{name}`" in text
        if name not in PARAMETERS:
            low, high = row.bounds
            line = f"| `{name}` | `{row.default}` | at once | {low} … {high} | {row.description} |"
            assert line in text, line


def test_what_goes_over_the_wire_comes_back_as_it_was():
    episode, geometry = make_episode("öffne 🚪", seed=7), MontageGeometry(2, 4, 16, 24)
    back = judge_messages.to_episode(
        judge_messages.to_request(episode, geometry, "c", 1.0), geometry
    )
    assert (back.episode_id, back.instruction) == (episode.episode_id, episode.instruction)
    assert back.keyframe_stamps_ns == episode.keyframe_stamps_ns
    assert (back.start_ns, back.end_ns) == (episode.start_ns, episode.end_ns)
    for ours, theirs in zip(back.keyframes, episode.keyframes, strict=True):
        for a, b in zip(ours.views, theirs.views, strict=True):
            assert np.array_equal(a, b)
    judgement = doubles.Double().judge(episode)
    response = judge_messages.to_response(judgement, "m@0")
    assert float32(judge_messages.to_judgement(response)) == float32(judgement)
