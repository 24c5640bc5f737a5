#!/usr/bin/env bash
# Record what an evaluation needs, and nothing that it does not. An example to copy.
#
#   examples/record_episodes.sh FOLDER                     until Ctrl-C
#   EXO=/camera/exo/color/image_raw GRIPPER=/camera/gripper/color/image_raw \
#       examples/record_episodes.sh FOLDER                 other cameras
#   ACTION=/execute_instruction examples/record_episodes.sh FOLDER
#                                                          episodes from the goals of an action
#
# The pictures, the instruction and the boundaries are what `ifailsense detect` judges anew; verdicts
# and diagnostics are there to compare with. ~/episode_events has every boundary as the monitor
# understood it, whatever its source, so it stands for the events where an action drives them.
#
# - Start it before the first episode. The instruction is latched: the last one is recorded even if
#   it was said before; START is not.
# - QoS needs no file: rosbag2 subscribes with what the publishers offer, latched topics included.
# - Raw pictures of two cameras are 55 MB/s at 640x480 and 30 Hz: record /compressed where there is.
# - Humble has no --topics: leave the word out.
set -euo pipefail

folder="${1:?usage: record_episodes.sh FOLDER}"
exo="${EXO:-/exo/image/compressed}"
gripper="${GRIPPER:-/gripper/image/compressed}"
instruction="${INSTRUCTION:-/instruction}"
episode="${EPISODE:-/episode}"
monitor="${MONITOR:-/monitor}"

topics=(
  "$exo" "$gripper" "$instruction" "$episode"
  "$monitor/episode_events" "$monitor/verdict" "$monitor/verdict/provisional" /diagnostics
)
options=(--storage mcap --output "$folder")
if [ -n "${ACTION:-}" ]; then
  # An action's topics are hidden: named or not, they are left out without this option, which
  # records no other hidden topic as long as topics are named.
  options+=(--include-hidden-topics)
  topics+=("$ACTION/_action/status")
  episode="$monitor/episode_events"
fi

echo "afterwards: ifailsense detect $folder --exo-topic ${exo%/compressed}" \
  "--gripper-topic ${gripper%/compressed} --instruction-topic $instruction --episode-topic $episode"
exec ros2 bag record "${options[@]}" --topics "${topics[@]}"
