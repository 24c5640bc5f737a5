#!/usr/bin/env bash
# Build the package with colcon against the ROS 2 wheels of one distribution, then use what it
# installed: messages, action, Python, executables, launch and config files.
#
#   scripts/check_colcon.sh [jazzy|kilted] [PYTHON]
#
# Everything happens in a temporary folder, which is removed at the end. KEEP=folder uses (and keeps)
# that folder instead.
set -euo pipefail

distro="${1:-jazzy}"
python="${2:-python3}"
root="$(cd "$(dirname "$0")/.." && pwd)"
requirements="$root/.ci/colcon-$distro.lock"
[ -f "$requirements" ] || {
  echo "error: no wheels are named for ROS distribution '$distro'; there are: jazzy, kilted" >&2
  exit 2
}

# Variables of a sourced ROS, or of another environment of wheels, would break this one.
unset PYTHONPATH AMENT_PREFIX_PATH CMAKE_PREFIX_PATH COLCON_PREFIX_PATH LD_LIBRARY_PATH \
  _ROS_WHEELS_BOOTSTRAP_COMPLETE ROS_DISTRO RMW_IMPLEMENTATION
export ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST

if [ -n "${KEEP:-}" ]; then
  work="$(mkdir -p "$KEEP" && cd "$KEEP" && pwd)"
else
  work="$(mktemp -d)"
  trap 'rm -rf "$work"' EXIT
fi
env="$work/env"

echo "== $distro: wheels"
if [ ! -e "$env/done" ]; then
  rm -rf "$env"
  "$python" -m venv "$env"
  "$env/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off -qq \
    -r "$requirements"
  touch "$env/COLCON_IGNORE" "$env/done"
fi

echo "== $distro: colcon build"
export PATH="$env/bin:$PATH"
# The wheels are an ament prefix, but set no variables that say so.
export AMENT_PREFIX_PATH="$env"
colcon --log-base "$work/log" build \
  --base-paths "$root" --build-base "$work/build" --install-base "$work/install" \
  --packages-select ifailsense_ros --event-handlers console_cohesion+ \
  --cmake-args -DBUILD_TESTING=OFF -DCMAKE_BUILD_TYPE=Release "-DCMAKE_PREFIX_PATH=$env" \
  "-DPython3_EXECUTABLE=$env/bin/python" \
  "-DCMAKE_PROJECT_INCLUDE=$root/cmake/pip_wheels.cmake" > "$work/build.log" 2>&1 || {
  tail -n 60 "$work/build.log" >&2
  echo "error: colcon build failed for $distro" >&2
  exit 1
}
tail -n 1 "$work/build.log"

echo "== $distro: the install space"
cd "$work" # away from the source tree, which would win on sys.path
set +u     # colcon's set-up files read unset variables
# shellcheck disable=SC1091
. "$work/install/setup.bash"
set -u
python - << 'PYTHON'
import pathlib
import sys

import rclpy
from ament_index_python.packages import get_package_share_directory
from rclpy.action import ActionServer
from rclpy.serialization import deserialize_message, serialize_message

import ifailsense_ros
import ifailsense_ros.core.verdict as verdict
from ifailsense_ros.action import CheckEpisode
from ifailsense_ros.msg import DetectorVote, EpisodeEvent, FailureVerdict
from ifailsense_ros.srv import GetDetector

share = pathlib.Path(get_package_share_directory("ifailsense_ros"))
for module in (ifailsense_ros, verdict, sys.modules[FailureVerdict.__module__.rsplit(".", 1)[0]]):
    assert "/install/" in module.__file__, module.__file__
for file in ("package.xml", "msg/FailureVerdict.msg", "launch/monitor.launch.py", "config/monitor.yaml"):
    assert (share / file).is_file(), f"{file} is not installed"

message = FailureVerdict(verdict=FailureVerdict.FAILURE, votes=[DetectorVote(source="vlm")])
assert deserialize_message(serialize_message(message), FailureVerdict) == message
rclpy.init()
node = rclpy.create_node("check")
node.create_publisher(EpisodeEvent, "episode", 1)
node.create_publisher(FailureVerdict, "verdict", 1).publish(message)
ActionServer(node, CheckEpisode, "check", lambda goal: None)
node.create_service(GetDetector, "get_detector", lambda request, response: response)
rclpy.shutdown()
print(f"messages, action and Python from {share.parents[1]}")
PYTHON
# What `ros2 run` would start.
for executable in ifailsense ifailsense_monitor ifailsense_detector; do
  "$work/install/ifailsense_ros/lib/ifailsense_ros/$executable" --help > "$work/help.txt"
  head -n 1 "$work/help.txt"
done
echo "== $distro: passed"
