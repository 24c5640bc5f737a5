#!/usr/bin/env bash
# Make the environment that `make demo`, `make test` and the others run in.
#
#   scripts/setup_env.sh ENVIRONMENT [PYTHON]
#
# Everything goes into the folder ENVIRONMENT (.venv). It is remade when requirements.lock or the
# interpreter changes, and our package is installed again when its messages or its build files
# change; otherwise this returns at once. Several may run at the same time: one is let in.
set -euo pipefail

root="$(cd "$(dirname "$0")/.." && pwd)"
env="$(mkdir -p "$1" && cd "$1" && pwd)"
python="${2:-python3}"
cd "$root"

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

hash_of() { # files and folders, by name and content
  find "$@" -type f ! -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16
}

check_machine() {
  [ "$(uname -sm)" = "Linux x86_64" ] ||
    fail "the ROS 2 wheels are for Linux x86-64; this is $(uname -sm). On a ROS 2 machine use colcon (README)."
  command -v "$python" > /dev/null ||
    fail "no interpreter $python: install Python 3.11, or name one, e.g. make PYTHON=python3.12"
  "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' ||
    fail "$("$python" --version 2>&1) at $(command -v "$python"): the pinned set needs Python 3.11 to 3.13; name one, e.g. make PYTHON=python3.11"
  "$python" -c 'import venv, ensurepip' 2> /dev/null ||
    fail "$python has no venv module: sudo apt install python3-venv"
  "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
    fail "$python has no headers (Python.h): sudo apt install python3-dev"
  command -v g++ > /dev/null || fail "no C++ compiler (g++): sudo apt install g++"
  command -v make > /dev/null || fail "no make: sudo apt install make"
}

run_logged() { # what it is, then the command; its output is shown only when it fails
  local what="$1" log="$env/setup.log"
  shift
  printf '%s ...\n' "$what"
  "$@" > "$log" 2>&1 || {
    tail -n 40 "$log" >&2
    fail "$what failed; the whole log is $log"
  }
}

# The lock is on the file itself: nothing to leave behind.
exec 9< requirements.lock
flock 9

environment_id="$(printf '%s %s' "$(hash_of requirements.lock)" "$(command -v "$python")")"
package_id="$(hash_of msg action srv cmake CMakeLists.txt package.xml pyproject.toml setup.py scripts/ifailsense scripts/ifailsense_monitor scripts/ifailsense_detector scripts/ifailsense_sim_robot examples/recovery_planner.py)"
environment_stamp="$env/.ifailsense-environment"
package_stamp="$env/.ifailsense-package"

if [ "$(cat "$environment_stamp" 2> /dev/null || true)" != "$environment_id" ]; then
  check_machine
  if [ -n "$(ls -A "$env")" ] && [ ! -e "$env/.ifailsense-made" ]; then
    fail "$env is there and was not made by this Makefile: move it away, or choose another folder with make VENV=..."
  fi
  find "$env" -mindepth 1 -delete
  touch "$env/.ifailsense-made" "$env/COLCON_IGNORE"
  printf 'Setting up %s (first run only; a few minutes, most of it downloads)\n' "$env"
  run_logged "  environment for $("$python" --version 2>&1)" "$python" -m venv "$env"
  run_logged "  pinned packages (requirements.lock)" \
    "$env/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off \
    -r requirements.lock
  printf '%s' "$environment_id" > "$environment_stamp"
fi

if [ "$(cat "$package_stamp" 2> /dev/null || true)" != "$package_id" ]; then
  check_machine
  # The environment's own cmake comes first; no isolation, so that the build is pinned as well.
  run_logged "  ifailsense_ros and its ROS 2 messages" env PATH="$env/bin:$PATH" \
    "$env/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off \
    --no-deps --no-build-isolation --force-reinstall .
  printf '%s' "$package_id" > "$package_stamp"
fi
