#!/usr/bin/env bash
# Remake the lock files: every package, transitive ones too, at the version that a clean environment
# gets today.
#
#   scripts/make_lock.sh [PYTHON]             all of them
#   scripts/make_lock.sh PYTHON requirements  one: requirements.in -> requirements.lock
set -euo pipefail

root="$(cd "$(dirname "$0")/.." && pwd)"
python="${1:-python3}"
cd "$root"
unset PYTHONPATH _ROS_WHEELS_BOOTSTRAP_COMPLETE LD_LIBRARY_PATH

lock() { # name without ending
  local env
  env="$(mktemp -d)"
  echo "$1.lock"
  "$python" -m venv "$env"
  "$env/bin/python" -m pip install --disable-pip-version-check --progress-bar off -qq -r "$1.in"
  {
    echo "# Made by scripts/make_lock.sh from $(basename "$1").in with $("$python" --version); do not edit."
    # Not pip freeze: ROS wheels also carry the egg-info that rosidl makes for each message package,
    # and those names are not on the registry. What pip installed has an INSTALLER file.
    # Without local versions (+cpu): which build of torch is the index's business.
    "$env/bin/python" - << 'PYTHON'
import importlib.metadata

pins = set()
for distribution in importlib.metadata.distributions():
    name = distribution.metadata["Name"].lower().replace("_", "-").replace(".", "-")
    if distribution.read_text("INSTALLER") is not None and name != "pip":
        pins.add(f"{name}=={distribution.version.split('+')[0]}")
print("\n".join(sorted(pins)))
PYTHON
  } > "$1.lock.new"
  mv "$1.lock.new" "$1.lock"
  rm -rf "$env"
}

shift $(($# > 0))
for name in "${@:-requirements .ci/colcon-jazzy .ci/colcon-kilted}"; do
  for one in $name; do
    lock "$one"
  done
done
