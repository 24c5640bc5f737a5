"""The monitor fed by an independent DDS implementation, which hears its verdicts."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

pytest.importorskip("rclpy")
# Not imported here: two DDS implementations in one process are asking for trouble.
if importlib.util.find_spec("cyclonedds") is None:
    pytest.skip("needs cyclonedds", allow_module_level=True)

from ros_peer import HERE, child_environment

from ifailsense_ros.msg import FailureVerdict

# Loopback only, and unicast: multicast on loopback is not to be had on every machine.
CYCLONE = """<CycloneDDS><Domain Id="any">
<General><Interfaces><NetworkInterface name="lo" multicast="false"/></Interfaces>
<AllowMulticast>false</AllowMulticast></General>
<Discovery><ParticipantIndex>auto</ParticipantIndex>
<MaxAutoParticipantIndex>32</MaxAutoParticipantIndex>
<Peers><Peer Address="127.0.0.1"/></Peers></Discovery>
</Domain></CycloneDDS>"""


@pytest.mark.timeout(120)
def test_a_robot_that_speaks_cyclone_dds(start_monitor, domain, tmp_path):
    start_monitor()
    settings = tmp_path / "cyclone.xml"
    settings.write_text(CYCLONE)
    done = subprocess.run(
        [sys.executable, str(HERE / "cyclone_peer.py"), str(domain)],
        env=child_environment(CYCLONEDDS_URI=f"file://{settings}"),
        stdout=subprocess.PIPE,
        text=True,
        timeout=90,
        check=True,
    )
    success, failure = (json.loads(line) for line in done.stdout.splitlines())
    assert 0.0 < success.pop("latency_s") < 30.0
    assert success == {
        "id": [1] * 16,
        "instruction": "lift block 1",
        "verdict": FailureVerdict.SUCCESS,
        "reason_code": FailureVerdict.REASON_NONE,
        "reason": "",
        "p_success": 0.9,
        "votes": [["fs:1", 1, 0.9, 1.0], ["vlm", 1, 0.9, 2.0]],
        "keyframes": 4,
        "stamp_s": pytest.approx(1_700_000_001.2),
        "frame_id": "cyclone",
        "model_id": "double@0",
        "nan": False,
    }
    assert failure["verdict"] == FailureVerdict.FAILURE
    assert failure["id"] == [2] * 16
    assert failure["votes"] == [["fs:1", 0, 0.2, 1.0], ["vlm", 0, 0.2, 2.0]]
