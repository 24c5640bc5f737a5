"""What the settings of the C library do, each in a process of its own."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc")

HOLES = """
import sys, time
from pathlib import Path
from ifailsense_ros.ros import heap

def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

heap.use_one_heap()
blocks = [bytearray(b"x") * 100_000 for _ in range(600)]
full = resident_mb()
del blocks[:-1]
kept = resident_mb()
if sys.argv[1] == "trim":
    heap.trim_regularly(0.05)
until = time.monotonic() + (20 if sys.argv[1] == "trim" else 0.5)
while resident_mb() > full - 40 and time.monotonic() < until:
    time.sleep(0.05)
print(full - kept, full - resident_mb())
"""


@pytest.mark.parametrize("trim", ["trim", "leave"])
def test_pages_between_blocks_that_stay_are_given_back_only_by_the_trim(trim):
    done = subprocess.run(
        [sys.executable, "-c", HOLES, trim], capture_output=True, text=True, timeout=120, check=True
    )
    at_once, later = map(float, done.stdout.split())
    assert at_once < 10, "freed blocks should stay, for the next picture"
    assert (later > 40) == (trim == "trim")
