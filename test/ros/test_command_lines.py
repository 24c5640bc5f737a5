"""What a user gets wrong on a command line: one line, status 2, no traceback."""

import subprocess
import sys

import pytest
from ros_peer import ROOT, child_environment

pytest.importorskip("rclpy")

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["listen", "--ros-args", "-r", "bad"], "ifailsense_listen: "),
        (["replay", "bags/demo/test-00-success", "--ros-args", "-r", "bad"], "ifailsense_replay: "),
        (["monitor", "--ros-args", "-r", "bad"], "ifailsense_monitor: error: "),
        (
            [
                "monitor",
                "--ros-args",
                "-p",
                "detector:=doubles:load",
                "-p",
                "qos_overrides./exo/image.subscription.reliability:=relaible",
            ],
            "qos_overrides of the cameras: ",
        ),
        (["sim_robot", "--ros-args", "-p", "rate:=2"], "rate"),
    ],
)
def test_a_mistake_is_one_line(words, said):
    if words[0] == "sim_robot":
        pytest.importorskip("mujoco")
    done = subprocess.run(
        [sys.executable, "-m", f"ifailsense_ros.ros.{words[0]}", *words[1:]],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if said in line]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
